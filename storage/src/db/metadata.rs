//! What is known of metric families, and how does it survive a restart?
//!
//! ```text
//! state/metadata = "NXMD", u32 version (1), u32 CRC-32 of the rest,
//!                  varint families, per family text, varint entries, per entry
//!                  u8 kind, text help, text unit; text = varint length, bytes
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::engine::fs::{FileSystem, read_all, write_atomically};
use crate::engine::{header, varint};
use crate::sample::{Metadata, MetricKind};

pub(super) const NAME: &str = "state/metadata";
const LETTERS: [u8; 4] = *b"NXMD";
const VERSION: u8 = 1;
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most families, and most different entries of one.
const MAX_FAMILIES: usize = 200_000;
const MAX_ENTRIES: usize = 8;

const KINDS: [MetricKind; 8] = [
    MetricKind::Unknown,
    MetricKind::Counter,
    MetricKind::Gauge,
    MetricKind::Histogram,
    MetricKind::GaugeHistogram,
    MetricKind::Summary,
    MetricKind::Info,
    MetricKind::StateSet,
];

/// Metadata by metric family.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_name: BTreeMap<String, Vec<Metadata>>,
    pub(super) is_dirty: bool,
}

impl Families {
    /// Notes metadata of a family; different ones are all kept, newest last.
    pub(super) fn set(&mut self, family: &str, metadata: &Metadata) {
        if let Some(known) = self.by_name.get_mut(family) {
            if !known.contains(metadata) {
                if known.len() >= MAX_ENTRIES {
                    known.remove(0);
                }
                known.push(metadata.clone());
                self.is_dirty = true;
            }
        } else if self.by_name.len() < MAX_FAMILIES {
            self.by_name.insert(family.to_owned(), vec![metadata.clone()]);
            self.is_dirty = true;
        }
    }

    /// All, sorted by family.
    pub(super) fn all(&self) -> Vec<(String, Vec<Metadata>)> {
        self.by_name.iter().map(|(n, m)| (n.clone(), m.clone())).collect()
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

    /// Writes the file.
    pub(super) fn save(&mut self, fs: &dyn FileSystem, root: &Path) -> io::Result<()> {
        let mut out = vec![];
        varint::put(&mut out, self.by_name.len() as u64);
        for (family, entries) in &self.by_name {
            put_text(&mut out, family);
            varint::put(&mut out, entries.len() as u64);
            for entry in entries {
                let kind = KINDS.iter().position(|k| *k == entry.kind).unwrap_or(0);
                out.push(kind as u8);
                put_text(&mut out, &entry.help);
                put_text(&mut out, &entry.unit);
            }
        }
        let mut bytes = header::of(LETTERS, VERSION).to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        bytes.extend_from_slice(&out);
        fs.create_dir_all(&root.join("state"))?;
        write_atomically(fs, &root.join(NAME), &bytes)?;
        self.is_dirty = false;
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<Families> {
    let mut input = bytes.strip_prefix(&header::of(LETTERS, VERSION))?;
    let crc = varint::take_u32(&mut input)?;
    if crc32fast::hash(input) != crc {
        return None;
    }
    let mut families = Families::default();
    for _ in 0..varint::take_at_most(&mut input, MAX_FAMILIES)? {
        let family = take_text(&mut input)?;
        for _ in 0..varint::take_at_most(&mut input, MAX_ENTRIES)? {
            let kind = *KINDS.get(usize::from(varint::take_byte(&mut input)?))?;
            let (help, unit) = (take_text(&mut input)?, take_text(&mut input)?);
            families.set(&family, &Metadata { kind, help, unit });
        }
    }
    families.is_dirty = false;
    Some(families)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text(input: &mut &[u8]) -> Option<String> {
    String::from_utf8(varint::take_sized(input)?.to_vec()).ok()
}
