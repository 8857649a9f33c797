//! How does nothing acknowledged get lost? What is not in a stripe yet is in
//! the log.
//!
//! ```text
//! wal/<number>.log = header "NXWL" version 3, records
//! record = u16 0x584e, u32 length of payload, u32 CRC-32 of payload, payload
//! payload= entries: u8 kind, then
//!   1 item      varint stripe id, varint length, item (head::row)
//!   2 exemplar  varint series, signed milliseconds, u64 bits of the value,
//!               varint length, labels
//!   3 durable   varint bytes of this segment that were synced before
//!   4 closed    varint segment, varint bytes of it that count
//!   5 restart   varint stripe id: what was said of it before is void
//! ```
//!
//! One record per commit, one write(2) per record. Integers are little-endian.
//! The first row of a stripe in a segment is a key row, so that damage in one
//! segment does not reach the next. Segments are deleted when every stripe
//! with an item in them is sealed and durable.
//!
//! Every segment begins with a record that says how much of the one before
//! counts. Of the newest segment as much counts as was synced; behind that a
//! power cut may have left anything, and the first damage ends it. So what a
//! power cut leaves of the log is a beginning of what was written, without a
//! hole. Version 2 had no sparse rows, version 1 the kinds 1 and 2 only.

pub(crate) mod replay;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::fs::{File, FileSystem, OpenMode};
use crate::engine::{header, varint};

/// First letters of a segment, and its version.
const LETTERS: [u8; 4] = *b"NXWL";
const VERSION: u8 = 3;
/// First bytes of a record.
const RECORD_MAGIC: [u8; 2] = *b"NX";
/// Bytes before the payload.
const RECORD_HEADER_BYTES: usize = 10;
/// Largest payload; larger commits are split.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 20;
/// A segment that is longer than the rows that are not in stripes yet is closed,
/// within these bounds: shorter ones would be key rows mostly, longer ones hold
/// many times what is needed.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=16 << 20;
/// The same while it is not known what is needed.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;
/// So is one that was begun so long ago, so that a slow log is cut too.
const SEGMENT_MS: i64 = 20 * 60 * 1000;
const DIRECTORY: &str = "wal";

const ITEM: u8 = 1;
const EXEMPLAR: u8 = 2;
const DURABLE: u8 = 3;
const CLOSED: u8 = 4;
const RESTART: u8 = 5;

/// The segments and the one that is appended to.
#[derive(Debug)]
pub(crate) struct Wal {
    root: PathBuf,
    fs: Arc<dyn FileSystem>,
    file: Arc<dyn File>,
    number: u64,
    /// Good bytes of the open segment.
    len: u64,
    /// Where its first record ends.
    start: u64,
    synced: u64,
    /// The bytes that a record called durable.
    noted: u64,
    /// Closed segments that are still needed: number and bytes.
    closed: Vec<(u64, u64)>,
    /// The last append failed, so the file may be longer than `len`.
    torn: bool,
    /// When the first record of the open segment was there.
    begun_ms: Option<i64>,
    /// A longer segment is closed.
    segment_bytes: u64,
    /// Bytes appended since the start.
    pub(crate) written_bytes: u64,
}

/// The file of a segment, relative to the data directory.
pub(crate) fn name_of(number: u64) -> String {
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

/// Voids what a record or an earlier one says of a stripe.
pub(crate) fn put_restart(record: &mut Vec<u8>, stripe_id: u64) {
    record.push(RESTART);
    varint::put(record, stripe_id);
}

/// Fills in what stands before the payload.
fn finish(record: &mut [u8]) {
    let (head, payload) = record.split_at_mut(RECORD_HEADER_BYTES);
    head[..2].copy_from_slice(&RECORD_MAGIC);
    head[2..6].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[6..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
}

/// A record that says how much of segments counts.
fn closing_record(closed: &[(u64, u64)]) -> Vec<u8> {
    let mut record = Vec::new();
    begin(&mut record);
    for &(number, len) in closed {
        record.push(CLOSED);
        varint::put(&mut record, number);
        varint::put(&mut record, len);
    }
    finish(&mut record);
    record
}

impl Wal {
    /// Starts a new segment after `closed` ones, whose lengths are what counts
    /// of them. `next` is greater than all numbers that were given.
    pub(crate) fn create(
        fs: Arc<dyn FileSystem>,
        root: &Path,
        closed: Vec<(u64, u64)>,
        next: u64,
    ) -> io::Result<Self> {
        fs.create_dir_all(&root.join(DIRECTORY))?;
        let (file, len) = Self::start(&*fs, root, next, &closed)?;
        Ok(Self {
            root: root.to_owned(),
            fs,
            file,
            number: next,
            len,
            start: len,
            synced: 0,
            noted: 0,
            closed,
            torn: false,
            begun_ms: None,
            segment_bytes: FIRST_SEGMENT_BYTES,
            written_bytes: 0,
        })
    }

    fn start(
        fs: &dyn FileSystem,
        root: &Path,
        number: u64,
        closed: &[(u64, u64)],
    ) -> io::Result<(Arc<dyn File>, u64)> {
        let file = fs.open(&root.join(name_of(number)), OpenMode::Create)?;
        let mut bytes = header::of(LETTERS, VERSION).to_vec();
        if !closed.is_empty() {
            bytes.extend_from_slice(&closing_record(closed));
        }
        file.append(&bytes)?;
        fs.sync_dir(&root.join(DIRECTORY))?;
        Ok((file, bytes.len() as u64))
    }

    /// As [`Wal::create`] where no file can be created now: a log that takes
    /// nothing until [`Wal::abandon`] succeeds.
    pub(crate) fn without_file(
        fs: Arc<dyn FileSystem>,
        root: &Path,
        closed: Vec<(u64, u64)>,
        next: u64,
    ) -> Self {
        Self {
            root: root.to_owned(),
            fs,
            file: Arc::new(NoFile),
            number: next,
            len: 0,
            start: 0,
            synced: 0,
            noted: 0,
            closed,
            torn: false,
            begun_ms: None,
            segment_bytes: FIRST_SEGMENT_BYTES,
            written_bytes: 0,
        }
    }

    /// Makes closed segments durable: a process that was killed may not have
    /// done so, and what follows them must not outlive them.
    pub(crate) fn sync_closed(&self) -> io::Result<()> {
        self.closed.iter().try_for_each(|(number, _)| {
            self.fs.open(&self.root.join(name_of(*number)), OpenMode::Read)?.sync()
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
        if self.len <= self.start {
            self.begun_ms = None;
            return false;
        }
        let begun_ms = *self.begun_ms.get_or_insert(now_ms);
        self.len >= self.segment_bytes || now_ms.saturating_sub(begun_ms) >= SEGMENT_MS
    }

    /// Notes how many bytes of the log are needed: so long segments become.
    pub(crate) fn set_needed(&mut self, bytes: u64) {
        self.segment_bytes = bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
    }

    /// Writes a record that [`begin`] started.
    pub(crate) fn append(&mut self, record: &mut Vec<u8>) -> io::Result<()> {
        let noted = self.synced;
        if noted > self.noted {
            record.push(DURABLE);
            varint::put(record, noted);
        }
        finish(record);
        if self.torn {
            self.file.truncate(self.len)?;
            self.torn = false;
        }
        if let Err(e) = self.file.append(record) {
            self.torn = true;
            return Err(e);
        }
        self.noted = noted;
        self.len += record.len() as u64;
        self.written_bytes += record.len() as u64;
        Ok(())
    }

    /// Where the next record begins, for [`Wal::rewind`].
    pub(crate) const fn mark(&self) -> u64 {
        self.len
    }

    /// Takes back the records since `mark`.
    pub(crate) fn rewind(&mut self, mark: u64) {
        if mark < self.len {
            (self.len, self.noted, self.torn) = (mark, 0, true);
        }
    }

    /// Closes the segment and starts the next.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let closed = (self.number, self.len);
        self.next(closed, &[closed])
    }

    /// Starts a segment for all that is not in stripes, which the caller
    /// writes into it and ends with [`Wal::conclude`]. Only then what of the
    /// segment before is not durable does not count any more.
    pub(crate) fn abandon(&mut self) -> io::Result<()> {
        let durable = self.synced.max(header::BYTES as u64);
        self.next((self.number, durable), &[])
    }

    /// See [`Wal::abandon`].
    pub(crate) fn conclude(&mut self) -> io::Result<()> {
        let last = self.closed.len().saturating_sub(1);
        let mut record = closing_record(&self.closed[last..]);
        self.append(&mut record)
    }

    fn next(&mut self, closed: (u64, u64), said: &[(u64, u64)]) -> io::Result<()> {
        let next = self.number + 1;
        let (file, len) = Self::start(&*self.fs, &self.root, next, said)?;
        self.closed.push(closed);
        (self.file, self.number, self.len, self.start) = (file, next, len, len);
        (self.synced, self.noted, self.torn, self.begun_ms) = (0, 0, false, None);
        Ok(())
    }

    /// Takes back all records of the segment, none of which counts.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.truncate(self.start)?;
        (self.len, self.synced, self.noted, self.torn) = (self.start, 0, 0, false);
        Ok(())
    }

    /// Writes down that all is durable, after a sync: a start then takes no
    /// damage for what a power cut left.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        if self.synced > self.noted && self.len > self.start {
            let mut record = Vec::new();
            begin(&mut record);
            self.append(&mut record)?;
            self.sync()?;
        }
        Ok(())
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

    /// Deletes closed segments before `number`, durably.
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
        if deleted > 0 {
            // What comes back after a power cut would undo a deletion.
            self.fs.sync_dir(&self.root.join(DIRECTORY))?;
        }
        Ok(deleted)
    }

    /// The oldest segment there is.
    pub(crate) fn first_segment(&self) -> u64 {
        self.closed.first().map_or(self.number, |c| c.0)
    }
}

/// Stands where a file could not be created.
#[derive(Debug)]
struct NoFile;

impl File for NoFile {
    fn append(&self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn len(&self) -> io::Result<u64> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}
