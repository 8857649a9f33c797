//! How are series kept that are in no segment yet?
//!
//! ```text
//! series/<number>.series = header "NXSR" version 2, batches
//! batch    = u32 length of payload, u32 CRC-32 of payload, payload
//! payload  = varint first series, varint strings, per string varint length, text,
//!            varint series, per series
//!                u32 tag, varint labels, per label varint string of name, of value
//! ```
//!
//! Appended to before the log names the series in it; begun anew when a segment
//! has all that is in it, or when a sync failed. Series are numbered one after
//! the other; the tag is the upper half of the XXH3 hash of the labels, so that a
//! start need not hash them. A batch needs no other one; in [version 1](v1) it
//! did.

mod v1;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::table::SeriesTable;
use crate::engine::fs::{File, FileSystem, OpenMode, is_lack_of_room, read_all};
use crate::engine::{header, varint};

/// Directory relative to the data directory.
pub(crate) const DIRECTORY: &str = "series";
const EXTENSION: &str = "series";
const LETTERS: [u8; 4] = *b"NXSR";
const VERSION: u8 = 2;
/// Largest payload of a batch.
const MAX_BATCH_BYTES: usize = 64 << 20;
/// Most series of a batch.
const BATCH: u32 = 16 << 10;
const MAX_LABELS: usize = 1 << 16;
/// Most bytes that are hashed to find the good batch behind a damaged one.
const MAX_SEARCH_BYTES: usize = 256 << 20;

/// The file of the tail, open for appending.
#[derive(Debug)]
pub(crate) struct SeriesFile {
    root: PathBuf,
    file: Arc<dyn File>,
    number: u64,
    /// Good bytes.
    len: u64,
    /// The first series that is not in it.
    next: u32,
    /// Something may not be durable.
    dirty: bool,
    /// A sync failed: what is not durable is not known.
    is_suspect: bool,
    /// It is not of this version, or not all there is: it must be begun anew.
    is_old: bool,
    /// An append failed, so the file may be longer than `len`.
    torn: bool,
    /// The string of a batch plus one, by symbol.
    strings: Vec<u32>,
}

/// What reading the files found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Bytes at the end that are no batch.
    pub(crate) torn_bytes: u64,
    /// File, offset and bytes of what is damaged before good batches.
    pub(crate) damaged: Vec<(String, u64, u64)>,
}

/// Why series cannot be read.
#[derive(Debug)]
pub(crate) struct OpenFailure {
    /// Relative to the data directory.
    pub(crate) file: String,
    pub(crate) source: io::Error,
}

impl From<io::Error> for OpenFailure {
    fn from(source: io::Error) -> Self {
        Self { file: DIRECTORY.to_owned(), source }
    }
}

fn name_of(number: u64) -> String {
    format!("{DIRECTORY}/{number:08}.{EXTENSION}")
}

/// The number of a file of this directory with this ending.
pub(super) fn number_of(name: &str, extension: &str) -> Option<u64> {
    name.strip_suffix(extension)?.strip_suffix('.')?.parse().ok()
}

impl SeriesFile {
    /// Opens or creates the file and fills `table` from it; series below its
    /// tail are in segments.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        root: &Path,
        table: &mut SeriesTable,
    ) -> Result<(Self, Loaded), OpenFailure> {
        let names = fs.list(&root.join(DIRECTORY))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|n| number_of(n, EXTENSION)).collect();
        numbers.sort_unstable();
        let mut loaded = Loaded::default();
        let mut last = Content::default();
        for &number in &numbers {
            let name = name_of(number);
            let bytes = read_all(fs, &root.join(&name), u64::MAX);
            let read = bytes.and_then(|bytes| load_file(&bytes, &name, table, &mut loaded));
            last = read.map_err(|source| OpenFailure { file: name, source })?;
        }
        table.note_nameless();
        if let &[number] = numbers.as_slice()
            && last.can_go_on
        {
            let name = name_of(number);
            let file = fs.open(&root.join(&name), OpenMode::Append);
            let file = file.map_err(|source| OpenFailure { file: name, source })?;
            // Whoever was killed may not have synced: it is dirty.
            let mut opened = Self::new(file, root, number, table);
            (opened.len, opened.next) = (last.good, table.next_id());
            opened.torn = last.good < last.len;
            return Ok((opened, loaded));
        }
        // None, one of an old version, or one that was begun anew and perhaps
        // without the last series.
        let before = numbers.last().copied();
        match Self::create_durably(fs, root, before.map_or(1, |b| b.saturating_add(1)), table) {
            Ok(file) => {
                for before in numbers {
                    fs.remove_file(&root.join(name_of(before)))?;
                }
                Ok((file, loaded))
            }
            // Later, then: what is there is right.
            Err(e) if before.is_some() && is_lack_of_room(&e) => {
                let number = before.unwrap_or(1);
                let file = fs.open(&root.join(name_of(number)), OpenMode::Append)?;
                let mut old = Self::new(file, root, number, table);
                (old.next, old.is_old) = (table.next_id(), true);
                Ok((old, loaded))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn new(file: Arc<dyn File>, root: &Path, number: u64, table: &SeriesTable) -> Self {
        Self {
            root: root.to_owned(),
            file,
            number,
            len: header::BYTES as u64,
            next: table.tail().start,
            dirty: true,
            is_suspect: false,
            is_old: false,
            torn: false,
            strings: Vec::new(),
        }
    }

    /// Makes a file with the tail of `table`, which is not durable yet.
    fn create(
        fs: &dyn FileSystem,
        root: &Path,
        number: u64,
        table: &SeriesTable,
    ) -> io::Result<Self> {
        let file = fs.open(&root.join(name_of(number)), OpenMode::Create)?;
        file.append(&header::of(LETTERS, VERSION))?;
        let mut created = Self::new(file, root, number, table);
        // Also without a series: it says where numbering goes on.
        created.append_batch(table)?;
        created.append_rest(table)?;
        Ok(created)
    }

    fn create_durably(
        fs: &dyn FileSystem,
        root: &Path,
        number: u64,
        table: &SeriesTable,
    ) -> io::Result<Self> {
        let mut file = Self::create(fs, root, number, table)?;
        file.sync_alone()?;
        fs.sync_dir(&root.join(DIRECTORY))?;
        Ok(file)
    }

    /// Begins a new file with the tail of `table`: all before is in segments.
    /// After an error the file before is still right.
    pub(crate) fn begin_anew(
        &mut self,
        fs: &dyn FileSystem,
        table: &SeriesTable,
    ) -> io::Result<()> {
        let next = Self::create_durably(fs, &self.root, self.number.saturating_add(1), table)?;
        let before = name_of(self.number);
        *self = next;
        fs.remove_file(&self.root.join(before))
    }

    /// Ids that the table skipped are never written.
    pub(crate) fn skip_to(&mut self, table: &SeriesTable) {
        self.next = self.next.max(table.next_id());
    }

    /// Appends what the table has and the file has not.
    pub(crate) fn append_new(
        &mut self,
        fs: &dyn FileSystem,
        table: &SeriesTable,
    ) -> io::Result<()> {
        if self.is_old && self.next < table.next_id() {
            return self.begin_anew(fs, table);
        }
        self.append_rest(table)
    }

    fn append_rest(&mut self, table: &SeriesTable) -> io::Result<()> {
        while self.next < table.next_id() {
            self.append_batch(table)?;
        }
        Ok(())
    }

    fn append_batch(&mut self, table: &SeriesTable) -> io::Result<()> {
        let mut out = vec![0; 8];
        let end = table.next_id().min(self.next.saturating_add(BATCH));
        self.encode_batch(table, end, &mut out);
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
        self.next = end;
        Ok(())
    }

    fn encode_batch(&mut self, table: &SeriesTable, end: u32, out: &mut Vec<u8>) {
        varint::put(out, u64::from(self.next));
        self.strings.resize(table.symbols().len() as usize, 0);
        let (mut used, mut texts, mut series) = (Vec::new(), Vec::new(), Vec::new());
        for id in self.next..end {
            series.extend_from_slice(&table.tag(id).to_le_bytes());
            varint::put(&mut series, table.pairs(id).count() as u64);
            for symbol in table.pairs(id).flat_map(|(name, value)| [name, value]) {
                let string = &mut self.strings[symbol as usize];
                if *string == 0 {
                    used.push(symbol);
                    *string = used.len() as u32;
                    let text = table.symbols().get(symbol);
                    varint::put(&mut texts, text.len() as u64);
                    texts.extend_from_slice(text.as_bytes());
                }
                varint::put(&mut series, u64::from(*string - 1));
            }
        }
        varint::put(out, used.len() as u64);
        out.extend_from_slice(&texts);
        varint::put(out, u64::from(end - self.next));
        out.extend_from_slice(&series);
        // Symbols may be others the next time: the table may be another.
        for symbol in used {
            self.strings[symbol as usize] = 0;
        }
        self.strings.shrink_to(1 << 16);
    }

    /// Makes all series of the table durable. After a sync that failed the file
    /// is begun anew: syncing again would say nothing of what the kernel gave
    /// up.
    pub(crate) fn sync(&mut self, fs: &dyn FileSystem, table: &SeriesTable) -> io::Result<()> {
        if self.is_suspect {
            return self.begin_anew(fs, table);
        }
        self.append_new(fs, table)?;
        self.sync_alone()
    }

    /// Makes durable what was appended.
    fn sync_alone(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync().inspect_err(|_| self.is_suspect = true)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Its name, relative to the data directory.
    pub(crate) fn name(&self) -> String {
        name_of(self.number)
    }
}

/// What is in a file.
#[derive(Debug, Default)]
struct Content {
    len: u64,
    /// Where its last good batch ends.
    good: u64,
    /// Whether it may be appended to.
    can_go_on: bool,
}

/// Reads a file. What is damaged is skipped up to the next that is good.
fn load_file(
    bytes: &[u8],
    name: &str,
    table: &mut SeriesTable,
    loaded: &mut Loaded,
) -> io::Result<Content> {
    let len = bytes.len() as u64;
    if bytes.len() < header::BYTES {
        loaded.torn_bytes += len;
        return Ok(Content { len, ..Content::default() });
    }
    let found = header::check(bytes, LETTERS, VERSION);
    match found {
        header::Found::Newer => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "series of a newer version of narthex",
            ));
        }
        header::Found::Damaged => loaded.damaged.push((name.to_owned(), 0, 8)),
        header::Found::Known => {}
    }
    // Some twenty bytes a series: growing step by step hashes thrice.
    table.reserve(bytes.len() / 24);
    let mut first_version = is_first_version(bytes).then(v1::Symbols::default);
    let mut load = |payload: &[u8]| match &mut first_version {
        Some(symbols) => v1::load_batch(payload, symbols, table),
        None => load_batch(payload, table),
    };
    let mut at = header::BYTES;
    let mut good = at;
    while at < bytes.len() {
        let end = match batch_at(bytes, at) {
            Some((Some(payload), end)) => load(payload).map(|()| end),
            _ => None,
        };
        if let Some(end) = end {
            if at > good {
                loaded.damaged.push((name.to_owned(), good as u64, (at - good) as u64));
            }
            (at, good) = (end, end);
        } else {
            at = next_batch(bytes, at);
        }
    }
    let can_go_on = found == header::Found::Known && first_version.is_none();
    loaded.torn_bytes += len - good as u64;
    Ok(Content { len, good: good as u64, can_go_on })
}

/// Whether the header, which may be damaged, is nearest to that of version 1.
fn is_first_version(bytes: &[u8]) -> bool {
    let likeness = |version: u8| {
        let header = header::of(LETTERS, version);
        header.iter().zip(bytes).filter(|(a, b)| a == b).count()
    };
    likeness(1) > likeness(2)
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
    let first = u32::try_from(varint::take(input)?).ok()?;
    let count = varint::take_count(input)?;
    let mut symbols = Vec::with_capacity(count);
    for _ in 0..count {
        let text = std::str::from_utf8(varint::take_sized(input)?).ok()?;
        symbols.push(table.intern(text));
    }
    let count = u32::try_from(varint::take_count(input)?).ok()?;
    let end = first.checked_add(count).filter(|end| *end < u32::MAX - 1)?;
    // Those of a damaged batch before are not known.
    table.skip_to(first);
    let mut pairs = Vec::new();
    for id in first..end {
        let tag = varint::take_u32(input)?;
        pairs.clear();
        for _ in 0..varint::take_at_most(input, MAX_LABELS)? {
            let name = *symbols.get(usize::try_from(varint::take(input)?).ok()?)?;
            pairs.push((name, *symbols.get(usize::try_from(varint::take(input)?).ok()?)?));
        }
        load_series(id, tag, &pairs, table);
    }
    input.is_empty().then_some(())
}

/// Adds a series, unless it is in a segment or in the file before as well.
fn load_series(id: u32, tag: u32, pairs: &[(u32, u32)], table: &mut SeriesTable) {
    if id < table.tail().start || table.contains(id) {
        return;
    }
    if pairs.is_empty() {
        table.skip_to(id + 1);
    } else {
        table.push_record(pairs);
        table.end_record(id, tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fs::Disk;
    use crate::labels::Labels;

    fn set(i: usize) -> Labels {
        Labels::from_pairs([("__name__", format!("m{}", i % 7)), ("i", i.to_string())])
    }

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join(DIRECTORY)).expect("directory");
        dir
    }

    #[test]
    fn series_come_back_after_any_cut() {
        let dir = directory();
        let mut ends = Vec::new();
        {
            let mut table = SeriesTable::default();
            let (mut file, _) = SeriesFile::open(&Disk, dir.path(), &mut table).expect("open");
            ends.push((file.len(), 0));
            for i in 0..40 {
                table.insert(&set(i)).expect("room");
                if i % 5 == 4 {
                    file.append_new(&Disk, &table).expect("append");
                    ends.push((file.len(), table.next_id()));
                }
            }
        }
        let path = dir.path().join(name_of(1));
        let bytes = std::fs::read(&path).expect("read");
        for cut in (8..bytes.len()).rev() {
            std::fs::write(&path, &bytes[..cut]).expect("write");
            let mut table = SeriesTable::default();
            let (file, _) = SeriesFile::open(&Disk, dir.path(), &mut table).expect("open");
            let expected = ends.iter().rev().find(|(end, _)| *end <= cut as u64);
            assert_eq!(table.next_id(), expected.map_or(0, |e| e.1));
            assert_eq!(file.len(), expected.map_or(8, |e| e.0));
            for id in 0..table.next_id() {
                assert_eq!(table.find(&set(id as usize)), Some(id));
            }
        }
    }

    #[test]
    fn a_flipped_byte_loses_its_batch_only() {
        let dir = directory();
        let mut table = SeriesTable::default();
        let (mut file, _) = SeriesFile::open(&Disk, dir.path(), &mut table).expect("open");
        let start = file.len() as usize;
        for i in 0..30 {
            table.insert(&set(i)).expect("room");
            if i % 10 == 9 {
                file.append_new(&Disk, &table).expect("append");
            }
        }
        let path = dir.path().join(name_of(1));
        let bytes = std::fs::read(&path).expect("read");
        for at in start + 8..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).expect("write");
            let mut back = SeriesTable::default();
            let (_, loaded) = SeriesFile::open(&Disk, dir.path(), &mut back).expect("open");
            let lost = (0..30).filter(|&i| back.labels(i) != table.labels(i)).count();
            assert!(!loaded.damaged.is_empty() || loaded.torn_bytes > 0, "byte {at}");
            assert!(lost > 0, "byte {at}");
            assert!(lost <= 20 || loaded.torn_bytes > 0, "byte {at}: {lost}");
        }
    }

    #[test]
    fn numbering_goes_on_behind_a_new_beginning() {
        let dir = directory();
        let mut table = SeriesTable::default();
        let (mut file, _) = SeriesFile::open(&Disk, dir.path(), &mut table).expect("open");
        for i in 0..30 {
            table.insert(&set(i)).expect("room");
        }
        file.append_new(&Disk, &table).expect("append");
        let old = std::fs::read(dir.path().join(name_of(1))).expect("read");
        file.begin_anew(&Disk, &SeriesTable::starting_at(30)).expect("new file");
        for number in [2, 3] {
            let mut back = SeriesTable::starting_at(30);
            let (mut again, _) = SeriesFile::open(&Disk, dir.path(), &mut back).expect("open");
            assert_eq!(again.name(), name_of(number));
            assert_eq!((back.next_id(), back.len()), (30, 0));
            assert_eq!(back.insert(&set(30)), Some(30));
            again.append_new(&Disk, &back).expect("append");
            std::fs::write(dir.path().join(name_of(number)), &old).expect("write");
            // As if the process had ended before the old file was removed.
            std::fs::write(dir.path().join(name_of(1)), &old).expect("write");
        }
    }
}
