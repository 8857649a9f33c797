//! How does nothing acknowledged get lost? What is not in a stripe yet is in
//! the log.
//!
//! ```text
//! wal/<number>.log = "NXWL", u32 version (1), records
//! record = u16 0x584e, u32 length of payload, u32 CRC-32 of payload, payload
//! payload= entries: u8 kind, then
//!   1 item      varint stripe id, varint length, item (head::row)
//!   2 exemplar  varint series, signed milliseconds, u64 bits of the value,
//!               varint length, labels
//! ```
//!
//! One record per commit, one write(2) per record. Integers are little-endian.
//! The first row of a stripe in a segment is a key row, so that damage in one
//! segment does not reach the next. Segments are deleted when every stripe
//! with an item in them is sealed and durable.

pub(crate) mod replay;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::fs::{File, FileSystem, OpenMode};
use crate::engine::varint;

/// First bytes of a segment.
const FILE_HEADER: [u8; 8] = *b"NXWL\x01\0\0\0";
/// First bytes of a record.
const RECORD_MAGIC: [u8; 2] = *b"NX";
/// Bytes before the payload.
const RECORD_HEADER_BYTES: usize = 10;
/// Largest payload; larger commits are split.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 20;
/// A segment longer than this is closed.
pub(crate) const SEGMENT_BYTES: u64 = 4 << 20;
/// So is one that was begun so long ago, so that a slow log is cut too.
const SEGMENT_MS: i64 = 20 * 60 * 1000;
const DIRECTORY: &str = "wal";

const ITEM: u8 = 1;
const EXEMPLAR: u8 = 2;

/// The segments and the one that is appended to.
#[derive(Debug)]
pub(crate) struct Wal {
    root: PathBuf,
    fs: Arc<dyn FileSystem>,
    file: Arc<dyn File>,
    number: u64,
    /// Good bytes of the open segment.
    len: u64,
    synced: u64,
    /// Closed segments that are still needed: number and bytes.
    closed: Vec<(u64, u64)>,
    /// The last append failed, so the file may be longer than `len`.
    torn: bool,
    /// When the first record of the open segment was there.
    begun_ms: Option<i64>,
    /// Bytes appended since the start.
    pub(crate) written_bytes: u64,
}

/// The file of a segment, relative to the data directory.
fn name_of(number: u64) -> String {
    format!("{DIRECTORY}/{number:08}.log")
}

/// Starts a record.
pub(crate) fn begin(record: &mut Vec<u8>) {
    record.clear();
    record.resize(RECORD_HEADER_BYTES, 0);
}

/// Whether nothing was added to a record.
pub(crate) const fn is_empty(record: &[u8]) -> bool {
    record.len() <= RECORD_HEADER_BYTES
}

/// Adds an item of a stripe to a record.
pub(crate) fn put_item(record: &mut Vec<u8>, stripe_id: u64, item: &[u8]) {
    record.push(ITEM);
    varint::put(record, stripe_id);
    varint::put(record, item.len() as u64);
    record.extend_from_slice(item);
}

/// Adds an exemplar to a record.
pub(crate) fn put_exemplar(record: &mut Vec<u8>, series: u32, exemplar: &crate::sample::Exemplar) {
    record.push(EXEMPLAR);
    varint::put(record, u64::from(series));
    varint::put_signed(record, exemplar.timestamp_ms);
    record.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
    let labels: Vec<(&str, &str)> = exemplar.labels.iter().collect();
    varint::put(record, labels.len() as u64);
    for text in labels.into_iter().flat_map(|(n, v)| [n, v]) {
        varint::put(record, text.len() as u64);
        record.extend_from_slice(text.as_bytes());
    }
}

impl Wal {
    /// Starts a new segment after `closed` ones.
    pub(crate) fn create(
        fs: Arc<dyn FileSystem>,
        root: &Path,
        closed: Vec<(u64, u64)>,
    ) -> io::Result<Self> {
        fs.create_dir_all(&root.join(DIRECTORY))?;
        let number = closed.iter().map(|c| c.0).max().unwrap_or(0) + 1;
        let file = fs.open(&root.join(name_of(number)), OpenMode::Create)?;
        file.append(&FILE_HEADER)?;
        fs.sync_dir(&root.join(DIRECTORY))?;
        Ok(Self {
            root: root.to_owned(),
            fs,
            file,
            number,
            len: FILE_HEADER.len() as u64,
            synced: 0,
            closed,
            torn: false,
            begun_ms: None,
            written_bytes: 0,
        })
    }

    /// The segment that is appended to.
    pub(crate) const fn segment(&self) -> u64 {
        self.number
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.len + self.closed.iter().map(|c| c.1).sum::<u64>()
    }

    /// Whether there is something that is not durable.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.synced < self.len
    }

    /// Whether the open segment is long or old enough to be closed.
    pub(crate) fn is_full(&mut self, now_ms: i64) -> bool {
        if self.len <= FILE_HEADER.len() as u64 {
            self.begun_ms = None;
            return false;
        }
        let begun_ms = *self.begun_ms.get_or_insert(now_ms);
        self.len >= SEGMENT_BYTES || now_ms.saturating_sub(begun_ms) >= SEGMENT_MS
    }

    /// Writes a record that [`begin`] started.
    pub(crate) fn append(&mut self, record: &mut [u8]) -> io::Result<()> {
        let (head, payload) = record.split_at_mut(RECORD_HEADER_BYTES);
        head[..2].copy_from_slice(&RECORD_MAGIC);
        head[2..6].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[6..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        if self.torn {
            self.file.truncate(self.len)?;
            self.torn = false;
        }
        if let Err(e) = self.file.append(record) {
            self.torn = true;
            return Err(e);
        }
        self.len += record.len() as u64;
        self.written_bytes += record.len() as u64;
        Ok(())
    }

    /// Closes the segment and starts the next.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let closed = (self.number, self.len);
        let mut next = Self::create(Arc::clone(&self.fs), &self.root, vec![closed])?;
        next.written_bytes = self.written_bytes;
        next.closed = std::mem::take(&mut self.closed);
        next.closed.push(closed);
        *self = next;
        Ok(())
    }

    /// Gives up the segment, whose unsynced bytes may be lost, and starts the
    /// next.
    pub(crate) fn abandon(&mut self) -> io::Result<()> {
        self.synced = self.len;
        self.rotate()
    }

    /// The open file and its length, to be synced without holding a lock.
    pub(crate) fn open_file(&self) -> (Arc<dyn File>, u64, u64) {
        (Arc::clone(&self.file), self.number, self.len)
    }

    /// Notes that a segment was synced up to `len`.
    pub(crate) fn note_synced(&mut self, number: u64, len: u64) {
        if number == self.number {
            self.synced = self.synced.max(len);
        }
    }

    /// Makes everything durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty() {
            self.file.sync()?;
            self.synced = self.len;
        }
        Ok(())
    }

    /// Deletes closed segments before `number`.
    pub(crate) fn delete_before(&mut self, number: u64) -> io::Result<usize> {
        let mut deleted = 0;
        while let Some(&(first, _)) = self.closed.first()
            && first < number
        {
            match self.fs.remove_file(&self.root.join(name_of(first))) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            self.closed.remove(0);
            deleted += 1;
        }
        Ok(deleted)
    }

    /// The oldest segment there is.
    pub(crate) fn first_segment(&self) -> u64 {
        self.closed.first().map_or(self.number, |c| c.0)
    }
}
