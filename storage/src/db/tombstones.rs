//! What was deleted, and not yet taken out of the stripes?
//!
//! ```text
//! state/tombstones = "NXTB", u32 version (1), u32 CRC-32 of the rest,
//!                    varint entries, per entry signed first and last
//!                    millisecond, id runs
//! ```
//!
//! Readers leave out deleted samples; the merge of a day leaves them out for
//! good.

use std::io;
use std::path::Path;

use roaring::RoaringBitmap;

use crate::engine::fs::{FileSystem, read_all, write_atomically};
use crate::engine::{header, varint};
use crate::read::Column;

pub(super) const NAME: &str = "state/tombstones";
const LETTERS: [u8; 4] = *b"NXTB";
const VERSION: u8 = 1;
const MAX_FILE_BYTES: u64 = 256 << 20;
const MAX_ENTRIES: usize = 1 << 20;
const MAX_IDS: usize = 1 << 30;

/// Deleted samples: series and times.
#[derive(Debug, Clone, Default)]
pub(super) struct Tombstones {
    entries: Vec<Tombstone>,
}

#[derive(Debug, Clone)]
struct Tombstone {
    ids: RoaringBitmap,
    start_ms: i64,
    end_ms: i64,
}

impl Tombstones {
    /// Whether nothing is deleted.
    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Deletes the samples of `ids` in `start_ms..=end_ms`.
    pub(super) fn add(&mut self, ids: RoaringBitmap, start_ms: i64, end_ms: i64) {
        self.entries.push(Tombstone { ids, start_ms, end_ms });
    }

    /// Whether a sample is deleted.
    pub(super) fn covers(&self, id: u32, timestamp_ms: i64) -> bool {
        self.of(id).any(|(start_ms, end_ms)| (start_ms..=end_ms).contains(&timestamp_ms))
    }

    /// The deleted times of a series.
    fn of(&self, id: u32) -> impl Iterator<Item = (i64, i64)> {
        let hits = self.entries.iter().filter(move |e| e.ids.contains(id));
        hits.map(|e| (e.start_ms, e.end_ms))
    }

    /// Whether something in `start_ms..=end_ms` is deleted.
    pub(super) fn touches(&self, start_ms: i64, end_ms: i64) -> bool {
        self.entries.iter().any(|e| e.start_ms <= end_ms && e.end_ms >= start_ms)
    }

    /// Forgets what ends before `before_ms`: no sample is so old any more.
    pub(super) fn forget_before(&mut self, before_ms: i64) -> bool {
        let count = self.entries.len();
        self.entries.retain(|e| e.end_ms >= before_ms);
        self.entries.len() < count
    }

    /// Takes deleted samples out of a column.
    pub(super) fn apply(&self, id: u32, column: &mut Column) {
        let times = column.timestamps();
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return };
        if !self.of(id).any(|(start_ms, end_ms)| start_ms <= last && end_ms >= first) {
            return;
        }
        let keep: Vec<usize> = (0..times.len()).filter(|&i| !self.covers(id, times[i])).collect();
        let kept: Vec<i64> = keep.iter().map(|&i| times[i]).collect();
        let floats = keep.iter().map(|&i| column.floats[i]).collect();
        if !column.starts_ms.is_empty() {
            column.starts_ms = keep.iter().map(|&i| column.starts_ms[i]).collect();
        }
        column.histograms.retain_mut(|(at, _)| match keep.binary_search(&(*at as usize)) {
            Ok(new) => {
                *at = new as u32;
                true
            }
            Err(_) => false,
        });
        column.floats = floats;
        column.range = 0..kept.len();
        column.axis = kept.into();
    }

    /// Reads the file; none is as an empty one.
    ///
    /// # Errors
    ///
    /// `InvalidData` if it is damaged, `Unsupported` if it is newer.
    pub(super) fn load(fs: &dyn FileSystem, root: &Path) -> io::Result<Self> {
        let bytes = match read_all(fs, &root.join(NAME), MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        if header::check(&bytes, LETTERS, VERSION) == header::Found::Newer {
            return Err(io::ErrorKind::Unsupported.into());
        }
        decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The greatest series id that is named.
    pub(super) fn max_id(&self) -> Option<u32> {
        self.entries.iter().filter_map(|e| e.ids.max()).max()
    }

    /// Writes the file.
    pub(super) fn save(&self, fs: &dyn FileSystem, root: &Path) -> io::Result<()> {
        let mut out = Vec::new();
        varint::put(&mut out, self.entries.len() as u64);
        for entry in &self.entries {
            varint::put_signed(&mut out, entry.start_ms);
            varint::put_signed(&mut out, entry.end_ms);
            let ids: Vec<u32> = entry.ids.iter().collect();
            varint::put_id_runs(&mut out, &ids);
        }
        let mut bytes = header::of(LETTERS, VERSION).to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        bytes.extend_from_slice(&out);
        fs.create_dir_all(&root.join("state"))?;
        write_atomically(fs, &root.join(NAME), &bytes)
    }
}

fn decode(bytes: &[u8]) -> Option<Tombstones> {
    let mut input = bytes.strip_prefix(&header::of(LETTERS, VERSION))?;
    let crc = varint::take_u32(&mut input)?;
    if crc32fast::hash(input) != crc {
        return None;
    }
    let mut found = Tombstones::default();
    for _ in 0..varint::take_at_most(&mut input, MAX_ENTRIES)? {
        let start_ms = varint::take_signed(&mut input)?;
        let end_ms = varint::take_signed(&mut input)?;
        let mut ids = Vec::new();
        varint::take_id_runs(&mut input, MAX_IDS, &mut ids)?;
        found.add(RoaringBitmap::from_iter(ids), start_ms, end_ms);
    }
    Some(found)
}
