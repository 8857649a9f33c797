//! How are series kept on disk?
//!
//! ```text
//! series/<number>.series = header "NXSR" version 1, batches
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
use crate::engine::{header, varint};

/// Path relative to the data directory.
pub(crate) const NAME: &str = "series/00000001.series";
const LETTERS: [u8; 4] = *b"NXSR";
const VERSION: u8 = 1;
/// Largest payload of a batch.
const MAX_BATCH_BYTES: usize = 64 << 20;
const MAX_LABELS: usize = 1 << 16;
/// Most bytes that are hashed to find the good batch behind a damaged one.
const MAX_SEARCH_BYTES: usize = 256 << 20;

/// The file of series, open for appending.
#[derive(Debug)]
pub(crate) struct SeriesFile {
    file: Arc<dyn File>,
    end: End,
    /// Something may not be durable.
    pub(crate) dirty: bool,
    /// A sync failed: what is not durable is not known.
    is_suspect: bool,
    /// An append failed, so the file may be longer than `len`.
    torn: bool,
}

/// Good bytes, and the symbols and series in them.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    len: u64,
    symbols: u32,
    series: u32,
}

/// What reading the file found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Bytes at the end that are no batch.
    pub(crate) torn_bytes: u64,
    /// Offset and bytes of what is damaged before good batches.
    pub(crate) damaged: Vec<(u64, u64)>,
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
        let mut good = header::BYTES as u64;
        let mut torn = false;
        if len < good {
            file.truncate(0)?;
            file.append(&header::of(LETTERS, VERSION))?;
        } else {
            let mut bytes = vec![0; len as usize];
            file.read_exact_at(&mut bytes, 0)?;
            match header::check(&bytes, LETTERS, VERSION) {
                header::Found::Newer => {
                    return Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "series of a newer version of narthex",
                    ));
                }
                header::Found::Damaged => loaded.damaged.push((0, good)),
                header::Found::Known => {}
            }
            // Some twenty bytes a series: growing step by step hashes thrice.
            table.slots.reserve(bytes.len() / 24);
            good = load(&bytes, table, &mut loaded);
            loaded.torn_bytes = len - good;
            torn = good < len;
        }
        let end = End { len: good, symbols: table.symbols().len(), series: table.len() };
        // Whoever was killed may not have synced.
        Ok((Self { file, end, dirty: true, is_suspect: false, torn }, loaded))
    }

    /// Ids that the table skipped are never written.
    pub(crate) fn skip_to(&mut self, table: &SeriesTable) {
        self.end.series = self.end.series.max(table.len());
    }

    /// Appends what the table has and the file has not.
    pub(crate) fn append_new(&mut self, table: &SeriesTable) -> io::Result<()> {
        while self.end.series < table.len() {
            let mut out = vec![0; 8];
            let (symbols, series) = self.encode_batch(table, &mut out);
            let payload = &out[8..];
            let (len, crc) = (payload.len() as u32, crc32fast::hash(payload));
            out[..4].copy_from_slice(&len.to_le_bytes());
            out[4..8].copy_from_slice(&crc.to_le_bytes());
            if self.torn {
                self.file.truncate(self.end.len)?;
                self.torn = false;
            }
            if let Err(e) = self.file.append(&out) {
                self.torn = true;
                return Err(e);
            }
            self.dirty = true;
            self.end = End { len: self.end.len + out.len() as u64, symbols, series };
        }
        Ok(())
    }

    /// One batch of some thousand series; the symbols and series written then.
    fn encode_batch(&self, table: &SeriesTable, out: &mut Vec<u8>) -> (u32, u32) {
        const BATCH: u32 = 16 << 10;
        let end = table.len().min(self.end.series.saturating_add(BATCH));
        let (first, first_symbol) = (self.end.series, self.end.symbols);
        let mut symbols = first_symbol;
        for id in first..end {
            for (name, value) in table.pairs(id) {
                symbols = symbols.max(name + 1).max(value + 1);
            }
        }
        varint::put(out, u64::from(first_symbol));
        varint::put(out, u64::from(symbols - first_symbol));
        for symbol in first_symbol..symbols {
            let text = table.symbols().get(symbol);
            varint::put(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        varint::put(out, u64::from(first));
        varint::put(out, u64::from(end - first));
        for id in first..end {
            let tag = tag_of(table.labels(id).stable_hash());
            out.extend_from_slice(&tag.to_le_bytes());
            varint::put(out, table.pairs(id).count() as u64);
            out.extend_from_slice(table.record(id));
        }
        (symbols, end)
    }

    /// Makes all series of the table durable. After a sync that failed the
    /// whole file is written anew: syncing again would say nothing of what the
    /// kernel gave up.
    pub(crate) fn sync(
        &mut self,
        fs: &dyn FileSystem,
        root: &Path,
        table: &SeriesTable,
    ) -> io::Result<()> {
        if self.is_suspect {
            return self.rewrite(fs, root, table);
        }
        self.append_new(table)?;
        if self.dirty {
            self.file.sync().inspect_err(|_| self.is_suspect = true)?;
            self.dirty = false;
        }
        Ok(())
    }

    #[cold]
    fn rewrite(&mut self, fs: &dyn FileSystem, root: &Path, table: &SeriesTable) -> io::Result<()> {
        let path = root.join(NAME);
        let temporary = path.with_extension("tmp");
        let file = fs.open(&temporary, OpenMode::Create)?;
        file.append(&header::of(LETTERS, VERSION))?;
        let end = End { len: header::BYTES as u64, ..End::default() };
        let mut new = Self { file, end, dirty: true, is_suspect: false, torn: false };
        new.append_new(table)?;
        new.file.sync()?;
        fs.rename(&temporary, &path)?;
        // From here on the old file has no name.
        *self = new;
        self.is_suspect = true;
        path.parent().map_or(Ok(()), |parent| fs.sync_dir(parent))?;
        (self.is_suspect, self.dirty) = (false, false);
        Ok(())
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.end.len
    }
}

/// Reads all batches; says where the last good one ends. What is damaged is
/// skipped up to the next that is good.
fn load(bytes: &[u8], table: &mut SeriesTable, loaded: &mut Loaded) -> u64 {
    let mut at = header::BYTES;
    let mut good = at;
    while at < bytes.len() {
        let end = match batch_at(bytes, at) {
            Some((Some(payload), end)) => load_batch(payload, table).map(|()| end),
            _ => None,
        };
        if let Some(end) = end {
            if at > good {
                loaded.damaged.push((good as u64, (at - good) as u64));
            }
            (at, good) = (end, end);
        } else {
            at = next_batch(bytes, at);
        }
    }
    good as u64
}

/// Where a good batch begins, if the one at `at` is damaged: behind it, if its
/// length is right, else anywhere.
#[cold]
fn next_batch(bytes: &[u8], at: usize) -> usize {
    let is_good = |at: usize| matches!(batch_at(bytes, at), Some((Some(_), _)));
    if let Some((None, end)) = batch_at(bytes, at)
        && (end == bytes.len() || is_good(end))
    {
        return end;
    }
    // A start must end: checksums of so many bytes only.
    let mut left = MAX_SEARCH_BYTES;
    for at in at + 1..bytes.len() {
        let Some(len) = batch_len(bytes, at) else { continue };
        if is_good(at) {
            return at;
        }
        left = left.saturating_sub(len);
        if left == 0 {
            break;
        }
    }
    bytes.len()
}

/// The length of the payload at `at`, if it is in the file.
fn batch_len(bytes: &[u8], at: usize) -> Option<usize> {
    let len = varint::take_u32(&mut bytes.get(at..)?)? as usize;
    // An empty batch would be found in any zeros.
    let fits = len > 0 && len <= MAX_BATCH_BYTES && at + 8 + len <= bytes.len();
    fits.then_some(len)
}

/// The payload of the batch at `at` if its checksum is right, and its end if
/// that is in the file.
fn batch_at(bytes: &[u8], at: usize) -> Option<(Option<&[u8]>, usize)> {
    let len = batch_len(bytes, at)?;
    let mut input = &bytes[at + 4..];
    let crc = varint::take_u32(&mut input)?;
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
    let mut are_some_lost = table.has_nameless;
    while u64::from(table.symbols.len()) < first {
        table.symbols.push("");
        are_some_lost = true;
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
        table.has_nameless = true;
    }
    let count = varint::take_count(input)?;
    table.slots.reserve_more(count);
    for _ in 0..count {
        let tag = varint::take_u32(input)?;
        let labels = varint::take_at_most(input, MAX_LABELS)?;
        let record = *input;
        let mut is_lost = false;
        for _ in 0..2 * labels {
            let symbol = varint::take(input)?;
            if symbol >= u64::from(table.symbols.len()) {
                return None;
            }
            is_lost |= are_some_lost && table.symbols.get(symbol as u32).is_empty();
        }
        if is_lost || labels == 0 {
            // Part of its labels would make it another series.
            table.skip_to(table.len() + 1);
            continue;
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
            assert!(!loaded.damaged.is_empty() || loaded.torn_bytes > 0, "byte {at}");
            assert!(lost > 0, "byte {at}");
        }
    }
}
