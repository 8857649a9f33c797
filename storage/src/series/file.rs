//! How are series kept on disk?
//!
//! ```text
//! series/<number>.series = "NXSR", u32 version (1), batches
//! batch    = u32 length of payload, u32 CRC-32 of payload, payload
//! payload  = varint first symbol, varint symbols, per symbol varint length, text
//!            varint first series, varint series, per series
//!                u32 hash tag, varint labels, per label varint name, varint value
//! ```
//!
//! One file, appended to before the log names the series in it. Labels are
//! symbols; the tag is the upper half of the XXH3 hash of the labels, so that
//! a start need not hash them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::SeriesTable;
use super::symbols::tag_of;
use crate::engine::fs::{File, FileSystem, OpenMode};
use crate::engine::varint;

/// Path relative to the data directory.
pub(crate) const NAME: &str = "series/00000001.series";
const FILE_HEADER: [u8; 8] = *b"NXSR\x01\0\0\0";
/// Largest payload of a batch.
const MAX_BATCH_BYTES: usize = 64 << 20;
const MAX_LABELS: usize = 1 << 16;

/// The file of series, open for appending.
#[derive(Debug)]
pub(crate) struct SeriesFile {
    file: Arc<dyn File>,
    len: u64,
    symbols: u32,
    series: u32,
    /// Something was appended since the last sync.
    pub(crate) dirty: bool,
    /// An append failed, so the file may be longer than `len`.
    torn: bool,
}

/// What reading the file found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Bytes at the end that are no batch.
    pub(crate) torn_bytes: u64,
    /// The first damaged batch before others that are good, if any.
    pub(crate) damaged_at: Option<u64>,
}

impl SeriesFile {
    /// Opens or creates the file and fills `table` from it.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        root: &Path,
        table: &mut SeriesTable,
    ) -> io::Result<(Self, Loaded)> {
        let path = root.join(NAME);
        fs.create_dir_all(&root.join("series"))?;
        let file = fs.open(&path, OpenMode::Append)?;
        let len = file.len()?;
        let mut loaded = Loaded::default();
        let mut good = FILE_HEADER.len() as u64;
        if len < good {
            file.truncate(0)?;
            file.append(&FILE_HEADER)?;
        } else {
            let mut bytes = vec![0; len as usize];
            file.read_exact_at(&mut bytes, 0)?;
            if bytes[..4] != FILE_HEADER[..4] {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of series"));
            }
            if bytes[..8] != FILE_HEADER {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "series of a newer version of narthex",
                ));
            }
            // Some twenty bytes a series: growing step by step hashes thrice.
            table.slots.reserve(bytes.len() / 24);
            good = load(&bytes, table, &mut loaded);
            if good < len {
                loaded.torn_bytes = len - good;
                file.truncate(good)?;
            }
        }
        let (symbols, series) = (table.symbols().len(), table.len());
        Ok((Self { file, len: good, symbols, series, dirty: len < 8, torn: false }, loaded))
    }

    /// Appends what the table has and the file has not.
    pub(crate) fn append_new(&mut self, table: &SeriesTable) -> io::Result<()> {
        while self.series < table.len() {
            let mut out = vec![0; 8];
            let end = self.encode_batch(table, &mut out);
            let payload = &out[8..];
            let (len, crc) = (payload.len() as u32, crc32fast::hash(payload));
            out[..4].copy_from_slice(&len.to_le_bytes());
            out[4..8].copy_from_slice(&crc.to_le_bytes());
            if self.torn {
                self.file.truncate(self.len)?;
                self.torn = false;
            }
            if let Err(e) = self.file.append(&out) {
                self.torn = true;
                return Err(e);
            }
            self.len += out.len() as u64;
            self.dirty = true;
            (self.symbols, self.series) = end;
        }
        Ok(())
    }

    /// One batch of some thousand series; the symbols and series written then.
    fn encode_batch(&self, table: &SeriesTable, out: &mut Vec<u8>) -> (u32, u32) {
        const BATCH: u32 = 16 << 10;
        let end = table.len().min(self.series.saturating_add(BATCH));
        let mut symbols = self.symbols;
        for id in self.series..end {
            for (name, value) in table.pairs(id) {
                symbols = symbols.max(name + 1).max(value + 1);
            }
        }
        varint::put(out, u64::from(self.symbols));
        varint::put(out, u64::from(symbols - self.symbols));
        for symbol in self.symbols..symbols {
            let text = table.symbols().get(symbol);
            varint::put(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        varint::put(out, u64::from(self.series));
        varint::put(out, u64::from(end - self.series));
        for id in self.series..end {
            let tag = tag_of(table.labels(id).stable_hash());
            out.extend_from_slice(&tag.to_le_bytes());
            varint::put(out, table.pairs(id).count() as u64);
            out.extend_from_slice(table.record(id));
        }
        (symbols, end)
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }
}

/// Reads all batches; says where the last good one ends.
fn load(bytes: &[u8], table: &mut SeriesTable, loaded: &mut Loaded) -> u64 {
    let mut at = FILE_HEADER.len();
    let mut good = at;
    while let Some((payload, end)) = batch_at(bytes, at) {
        let right = payload.filter(|p| load_batch(p, table).is_some());
        if right.is_some() {
            good = end;
        } else {
            loaded.damaged_at.get_or_insert(at as u64);
        }
        at = end;
    }
    // Damage at the very end is a torn tail, which was never acknowledged.
    if loaded.damaged_at.is_some_and(|d| d >= good as u64) {
        loaded.damaged_at = None;
    }
    good as u64
}

/// The payload of the batch at `at` if its checksum is right, and its end if
/// that is in the file.
fn batch_at(bytes: &[u8], at: usize) -> Option<(Option<&[u8]>, usize)> {
    let mut input = bytes.get(at..)?;
    let len = varint::take_u32(&mut input)? as usize;
    let crc = varint::take_u32(&mut input)?;
    if len > MAX_BATCH_BYTES {
        return None;
    }
    let payload = input.get(..len)?;
    Some(((crc32fast::hash(payload) == crc).then_some(payload), at + 8 + len))
}

fn load_batch(mut input: &[u8], table: &mut SeriesTable) -> Option<()> {
    let input = &mut input;
    let first = varint::take(input)?;
    // Symbols and series of a damaged batch are missing: their ids stay empty.
    if first > u64::from(u32::MAX - 1) || first < u64::from(table.symbols.len()) {
        return None;
    }
    while u64::from(table.symbols.len()) < first {
        table.symbols.push("");
    }
    let count = varint::take_count(input)?;
    table.symbols.reserve(count);
    for _ in 0..count {
        let text = std::str::from_utf8(varint::take_sized(input)?).ok()?;
        table.symbols.push(text);
    }
    let first = varint::take(input)?;
    if first > u64::from(u32::MAX - 1) || first < u64::from(table.len()) {
        return None;
    }
    while u64::from(table.len()) < first {
        table.end_record(0);
    }
    let count = varint::take_count(input)?;
    table.slots.reserve_more(count);
    for _ in 0..count {
        let tag = varint::take_u32(input)?;
        let labels = varint::take_at_most(input, MAX_LABELS)?;
        let record = *input;
        for _ in 0..2 * labels {
            let symbol = varint::take(input)?;
            if symbol >= u64::from(table.symbols.len()) {
                return None;
            }
        }
        table.records.extend_from_slice(&record[..record.len() - input.len()]);
        table.end_record(tag);
    }
    input.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fs::Disk;
    use crate::labels::Labels;

    fn set(i: usize) -> Labels {
        Labels::from_pairs([("__name__", format!("m{}", i % 7)), ("i", i.to_string())])
    }

    #[test]
    fn series_come_back_after_any_cut() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut ends = Vec::new();
        {
            let mut table = SeriesTable::default();
            let (mut file, _) = SeriesFile::open(&Disk, dir.path(), &mut table).expect("open");
            for i in 0..40 {
                table.insert(&set(i)).expect("room");
                if i % 5 == 4 {
                    file.append_new(&table).expect("append");
                    ends.push((file.len(), table.len()));
                }
            }
        }
        let path = dir.path().join(NAME);
        let bytes = std::fs::read(&path).expect("read");
        for cut in (8..bytes.len()).rev() {
            std::fs::write(&path, &bytes[..cut]).expect("write");
            let mut table = SeriesTable::default();
            let (file, _) = SeriesFile::open(&Disk, dir.path(), &mut table).expect("open");
            let expected = ends.iter().rev().find(|(end, _)| *end <= cut as u64);
            assert_eq!(table.len(), expected.map_or(0, |e| e.1));
            assert_eq!(file.len(), expected.map_or(8, |e| e.0));
            for id in 0..table.len() {
                assert_eq!(table.find(&set(id as usize)), Some(id));
            }
        }
    }

    #[test]
    fn a_flipped_byte_loses_its_batch_only() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut table = SeriesTable::default();
        let (mut file, _) = SeriesFile::open(&Disk, dir.path(), &mut table).expect("open");
        for i in 0..30 {
            table.insert(&set(i)).expect("room");
            if i % 10 == 9 {
                file.append_new(&table).expect("append");
            }
        }
        let path = dir.path().join(NAME);
        let bytes = std::fs::read(&path).expect("read");
        for at in 16..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).expect("write");
            let mut back = SeriesTable::default();
            let (_, loaded) = SeriesFile::open(&Disk, dir.path(), &mut back).expect("open");
            let lost = (0..30).filter(|&i| back.labels(i) != table.labels(i)).count();
            assert!(loaded.damaged_at.is_some() || loaded.torn_bytes > 0, "byte {at}");
            assert!(lost > 0, "byte {at}");
        }
    }
}
