//! How are sealed stripes kept in RocksDB?
//!
//! ```text
//! rocksdb/                 the database; its own files
//! column family            <year>-<month>-<day>.<number>[.merged]: one volume
//!   u64 stripe id, u32 0   the stripe's first bytes: magic, length, checksum, header
//!   u64 stripe id, u32 n   a run of its chunks, the first that of column n - 1
//!   'w'                    in a merged family: it is whole, and counts
//! family "default"
//!   'v'                    u8 version of all this (1)
//! ```
//!
//! Numbers in keys are big-endian. Stripes have ascending numbers, so tables do
//! not overlap, and RocksDB moves them where it would rewrite them. A value is a
//! run because less is found slower and takes more, and more is copied in vain;
//! ARCHITECTURE.md has the figures. A day has one family; another for what
//! comes behind a merge. A family is never deleted from: merges write a new
//! one, and the old, or the expired, is dropped as a whole, once the last who
//! reads it is gone.
//!
//! RocksDB's own log is off: ours holds the rows until [`Sealed::sync`] has
//! flushed their stripes. A stripe is one batch, so it is there whole or not at
//! all. What RocksDB does with files does not pass [`super::fs`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, DBCompressionType, DBWithThreadMode, Error,
    ErrorKind, LogLevel, MultiThreaded, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::sealed::{Damaged, Found, Sealed, Successor, Volume, Volumes, checked, damaged};
use crate::day::catalog::{Catalog, Stripe};
use crate::day::day_of;
use crate::day::file::{day_of_directory, directory_of};
use crate::day::stripe::{Encoded, Header, PREFIX_BYTES, RunRange};

/// Where the database is, in the data directory.
pub(crate) const FOLDER: &str = "rocksdb";
/// Blocks, indexes and filters that are kept of files.
const CACHE_BYTES: usize = 8 << 20;
/// What was appended and is not flushed, all families together.
const BUFFER_BYTES: usize = 4 << 20;
/// Files that are open at the same time.
const MAX_OPEN_FILES: i32 = 256;
/// Files that flushes wrote, of one family, before they are compacted.
const COMPACTION_TRIGGER: i32 = 8;
/// Ending of the name of a family that a merge wrote.
const MERGED: &str = ".merged";

const WHOLE: &[u8] = b"w";
const VERSION_KEY: &[u8] = b"v";
const VERSION: u8 = 1;

type Database = DBWithThreadMode<MultiThreaded>;

/// The families that stripes are appended to, and all others.
#[derive(Debug)]
struct Families {
    shared: Arc<Shared>,
    /// All that count or are being written, by number.
    all: BTreeMap<u64, Arc<Family>>,
    /// Those that are appended to, by day.
    open: HashMap<i64, u64>,
    /// With stripes that are not flushed.
    dirty: BTreeSet<u64>,
    /// Superseded or expired; dropped when nobody reads them.
    doomed: Vec<Arc<Family>>,
    next_number: u64,
}

/// The database, and how it is used.
struct Shared {
    database: Database,
    options: Options,
    cache: Cache,
    write: WriteOptions,
}

/// A column family.
#[derive(Debug)]
struct Family {
    shared: Arc<Shared>,
    /// Relative to the data directory: folder and family.
    name: String,
    day: i64,
    number: u64,
    /// Whether it counts.
    is_whole: AtomicBool,
}

/// Opens the database, and lists the stripes. What is damaged is left out.
pub(crate) fn open(root: &Path) -> io::Result<Found> {
    let path = root.join(FOLDER);
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let mut options = options(&cache);
    let mut damages = Vec::new();
    let names = match Database::list_cf(&options, &path) {
        Ok(names) => names,
        // It is new.
        Err(_) if !path.join("CURRENT").exists() => vec!["default".to_owned()],
        Err(e) => return Err(error(e)),
    };
    let open = |options: &Options| {
        let families = names.iter().map(|name| (name, options.clone()));
        Database::open_cf_with_opts(options, &path, families)
    };
    let database = match open(&options) {
        Err(e) if is_damage(&e) => {
            // All but what is damaged.
            damages.push(left_out(FOLDER, e.to_string()));
            options.set_paranoid_checks(false);
            open(&options)
        }
        opened => opened,
    };
    let mut write = WriteOptions::default();
    write.disable_wal(true);
    let database = database.map_err(error)?;
    check_version(&database, &write)?;
    let shared = Arc::new(Shared { database, options, cache, write });
    let mut families = Families {
        shared: Arc::clone(&shared),
        all: BTreeMap::new(),
        open: HashMap::new(),
        dirty: BTreeSet::new(),
        doomed: Vec::new(),
        next_number: 1,
    };
    let found = names.iter().filter_map(|name| Family::named(&shared, name));
    families.all = found.map(|family| (family.number, Arc::new(family))).collect();
    if let Some((last, _)) = families.all.last_key_value() {
        families.next_number = last.saturating_add(1);
    }
    families.drop_superseded()?;
    families.tidy()?;
    let mut catalog = Catalog::default();
    let mut unread = BTreeSet::new();
    if !damages.is_empty() {
        unread.extend(families.all.values().map(|family| family.day));
    }
    for family in families.all.values() {
        let before = damages.len();
        family.list(&mut catalog, &mut damages);
        if damages.len() > before {
            unread.insert(family.day);
        }
    }
    Ok(Found { sealed: Box::new(families), catalog, unread, damages })
}

/// Refuses what a newer version wrote; a new database is marked.
fn check_version(database: &Database, write: &WriteOptions) -> io::Result<()> {
    match database.get_pinned(VERSION_KEY).map_err(error)? {
        Some(version) if version.first().is_none_or(|v| *v > VERSION) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "stripes of a newer version of narthex"))
        }
        Some(_) => Ok(()),
        None => {
            database.put_opt(VERSION_KEY, [VERSION], write).map_err(error)?;
            database.flush().map_err(error)
        }
    }
}

fn options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    // Chunks are compressed.
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(BUFFER_BYTES);
    options.set_db_write_buffer_size(BUFFER_BYTES);
    options.set_max_background_jobs(2);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_level_zero_file_num_compaction_trigger(COMPACTION_TRIGGER);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(256 << 10);
    options.set_keep_log_file_num(2);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

impl Families {
    /// Sets aside what a merge superseded, and merges that did not finish.
    fn drop_superseded(&mut self) -> io::Result<()> {
        let mut whole: HashMap<i64, u64> = HashMap::new();
        let mut unfinished = Vec::new();
        for family in self.all.values().filter(|f| f.is_merged()) {
            if family.get(WHOLE)?.is_some() {
                family.is_whole.store(true, Ordering::Release);
                // Ascending by number.
                whole.insert(family.day, family.number);
            } else {
                unfinished.push(family.number);
            }
        }
        let is_old = |f: &&Arc<Family>| whole.get(&f.day).is_some_and(|last| f.number < *last);
        let old = self.all.values().filter(is_old).map(|f| f.number);
        let gone: Vec<u64> = old.chain(unfinished.iter().copied()).collect();
        gone.iter().for_each(|number| self.doom(*number));
        Ok(())
    }

    fn doom(&mut self, number: u64) {
        self.dirty.remove(&number);
        self.open.retain(|_, open| *open != number);
        self.doomed.extend(self.all.remove(&number));
    }

    fn create(&mut self, day: i64, ending: &str) -> io::Result<Arc<Family>> {
        let number = self.next_number;
        let date = directory_of(day);
        let date = date.rsplit_once('/').map_or(&date[..], |(_, date)| date);
        let family = format!("{date}.{number}{ending}");
        self.shared.database.create_cf(&family, &self.shared.options).map_err(error)?;
        self.next_number += 1;
        let name = format!("{FOLDER}/{family}");
        let is_whole = AtomicBool::new(ending.is_empty());
        let shared = Arc::clone(&self.shared);
        let family = Arc::new(Family { shared, name, day, number, is_whole });
        self.all.insert(number, Arc::clone(&family));
        Ok(family)
    }

    fn flush(&mut self, number: u64) -> io::Result<()> {
        if self.dirty.contains(&number) {
            if let Some(family) = self.all.get(&number) {
                family.sync()?;
            }
            self.dirty.remove(&number);
        }
        Ok(())
    }
}

impl Sealed for Families {
    fn append(&mut self, id: u64, encoded: &Encoded) -> io::Result<Stripe> {
        let day = day_of(encoded.times.first().copied().unwrap_or(0));
        let number = match self.open.get(&day) {
            Some(number) => *number,
            None => {
                // One that a process before this one began, if there is one.
                let mut of_day = self.all.values().filter(|f| f.day == day);
                let number = match of_day.next_back().filter(|f| !f.is_merged()) {
                    Some(family) => family.number,
                    None => self.create(day, "")?.number,
                };
                self.open.insert(day, number);
                number
            }
        };
        let family = Arc::clone(&self.all[&number]);
        self.dirty.insert(number);
        family.append(id, encoded)
    }

    fn sync(&mut self) -> io::Result<Vec<i64>> {
        while let Some(number) = self.dirty.first().copied() {
            self.flush(number)?;
        }
        // What could not be flushed is still there, and flushed the next time.
        Ok(Vec::new())
    }

    fn close(&mut self, day: i64) -> io::Result<()> {
        match self.open.remove(&day) {
            Some(number) => self.flush(number),
            None => Ok(()),
        }
    }

    fn successor(&mut self, day: i64) -> io::Result<Box<dyn Successor>> {
        self.open.remove(&day);
        let family = self.create(day, MERGED)?;
        Ok(Box::new(Merged { family }))
    }

    fn retire(&mut self, volumes: Volumes) -> io::Result<()> {
        volumes.iter().for_each(|volume| self.doom(volume.number()));
        drop(volumes);
        self.tidy()
    }

    fn remove_day(&mut self, day: i64) -> io::Result<()> {
        let of_day = self.all.values().filter(|f| f.day == day);
        let numbers: Vec<u64> = of_day.map(|f| f.number).collect();
        numbers.iter().for_each(|number| self.doom(*number));
        self.tidy()
    }

    fn link_to(&mut self, target: &Path, _volumes: &[Arc<dyn Volume>]) -> io::Result<()> {
        std::fs::create_dir_all(target)?;
        let checkpoint = Checkpoint::new(&self.shared.database).map_err(error)?;
        checkpoint.create_checkpoint(target.join(FOLDER)).map_err(error)
    }

    fn tidy(&mut self) -> io::Result<()> {
        // Merges that were given up.
        let is_left =
            |f: &&Arc<Family>| Arc::strong_count(f) == 1 && !f.is_whole.load(Ordering::Acquire);
        let left: Vec<u64> = self.all.values().filter(is_left).map(|f| f.number).collect();
        left.iter().for_each(|number| self.doom(*number));
        let mut first = Ok(());
        self.doomed.retain(|family| {
            // Nobody can come to hold it who does not.
            if Arc::strong_count(family) > 1 {
                return true;
            }
            match self.shared.database.drop_cf(family.family()) {
                Ok(()) => false,
                Err(e) => {
                    first = Err(error(e));
                    true
                }
            }
        });
        first
    }

    fn memory_bytes(&self) -> u64 {
        let buffers = self.all.values().filter_map(|f| f.figure("rocksdb.cur-size-all-mem-tables"));
        buffers.sum::<u64>() + self.shared.cache.get_usage() as u64
    }

    fn overhead_bytes(&self, stripe_bytes: u64) -> u64 {
        let names = ["rocksdb.live-sst-files-size", "rocksdb.cur-size-all-mem-tables"];
        let of = |f: &Arc<Family>| names.iter().filter_map(|name| f.figure(name)).sum::<u64>();
        self.all.values().map(of).sum::<u64>().saturating_sub(stripe_bytes)
    }
}

/// A family before it counts.
#[derive(Debug)]
struct Merged {
    family: Arc<Family>,
}

impl Successor for Merged {
    fn append(&mut self, id: u64, encoded: &Encoded) -> io::Result<Stripe> {
        self.family.append(id, encoded)
    }

    fn finish(self: Box<Self>) -> io::Result<Arc<dyn Volume>> {
        let family = &self.family;
        // Flushed behind all that was written before.
        let mut batch = WriteBatch::default();
        batch.put_cf(&family.handle()?, WHOLE, []);
        family.shared.database.write_opt(batch, &family.shared.write).map_err(error)?;
        family.sync()?;
        family.is_whole.store(true, Ordering::Release);
        Ok(Arc::clone(family) as _)
    }
}

impl Family {
    /// The volume that a column family of this name is.
    fn named(shared: &Arc<Shared>, family: &str) -> Option<Self> {
        let (date, number) = family.strip_suffix(MERGED).unwrap_or(family).split_once('.')?;
        Some(Self {
            is_whole: AtomicBool::new(!family.ends_with(MERGED)),
            shared: Arc::clone(shared),
            name: format!("{FOLDER}/{family}"),
            day: day_of_directory(date)?,
            number: number.parse().ok()?,
        })
    }

    fn family(&self) -> &str {
        &self.name[FOLDER.len() + 1..]
    }

    fn handle(&self) -> io::Result<Arc<BoundColumnFamily<'_>>> {
        let gone = || io::Error::other(format!("{} is gone", self.name));
        self.shared.database.cf_handle(self.family()).ok_or_else(gone)
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let found = self.shared.database.get_pinned_cf(&self.handle()?, key).map_err(error)?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn figure(&self, name: &str) -> Option<u64> {
        let handle = self.handle().ok()?;
        self.shared.database.property_int_value_cf(&handle, name).ok()?
    }

    fn append(self: &Arc<Self>, id: u64, encoded: &Encoded) -> io::Result<Stripe> {
        let (start, payload) = encoded.bytes.split_at(PREFIX_BYTES + encoded.header_bytes as usize);
        let header = Header::of_start(start)?;
        let handle = self.handle()?;
        let mut batch = WriteBatch::default();
        batch.put_cf(&handle, key(id, None), start);
        for run in header.runs() {
            let bytes = &payload[run.bytes.start as usize..run.bytes.end as usize];
            batch.put_cf(&handle, key(id, Some(&run)), bytes);
        }
        self.shared.database.write_opt(batch, &self.shared.write).map_err(error)?;
        Ok(Stripe::of(encoded, id, Arc::clone(self) as _, id))
    }

    /// Adds all stripes to the catalog.
    fn list(self: &Arc<Self>, catalog: &mut Catalog, damages: &mut Vec<Damaged>) {
        let handle = match self.handle() {
            Ok(handle) => handle,
            Err(e) => return damages.push(left_out(&self.name, e.to_string())),
        };
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut entries = self.shared.database.raw_iterator_cf_opt(&handle, options);
        entries.seek(key(0, None));
        // From header to header.
        while let Some((found, start)) = entries.item() {
            let Some(id) = found.first_chunk().filter(|_| found.len() == KEY_BYTES) else { break };
            let id = u64::from_be_bytes(*id);
            match Header::of_start(start) {
                Ok(header) if header.stripe_id == id => {
                    let (volume, header_bytes) =
                        (Arc::clone(self) as _, start.len() - PREFIX_BYTES);
                    let stripe = Stripe::found(&header, volume, id, header_bytes as u32);
                    catalog.add(stripe, (*header.layout).clone());
                }
                _ => damages.push(left_out(&self.name, format!("stripe {id} has no header"))),
            }
            entries.seek(key(id.saturating_add(1), None));
        }
        if let Err(e) = entries.status() {
            damages.push(left_out(&self.name, error(e).to_string()));
        }
    }
}

impl Volume for Family {
    fn number(&self) -> u64 {
        self.number
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn day(&self) -> i64 {
        self.day
    }

    fn is_merged(&self) -> bool {
        self.name.ends_with(MERGED)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.database.flush_cf(&self.handle()?).map_err(error)
    }

    fn read_header(&self, stripe: &Stripe) -> io::Result<Header> {
        let bytes = self.get(&key(stripe.id, None))?;
        Header::of_start(&bytes.ok_or_else(|| damaged("stripe header"))?)
    }

    fn read_run(&self, stripe: &Stripe, run: &RunRange) -> io::Result<Vec<u8>> {
        let bytes = self.get(&key(stripe.id, Some(run)))?;
        checked(bytes.ok_or_else(|| damaged("chunks"))?, run)
    }

    fn place(&self, stripe: &Stripe, at: u64) -> (String, u64) {
        (format!("{}/stripe {}", self.name, stripe.id), at)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("database", &self.database).finish_non_exhaustive()
    }
}

/// Bytes of the keys of stripes.
const KEY_BYTES: usize = 12;

/// The key of a run of a stripe, or of its header.
fn key(stripe_id: u64, run: Option<&RunRange>) -> [u8; KEY_BYTES] {
    // A stripe has at most 2^16 columns.
    let place = run.map_or(0, |run| run.columns.start as u32 + 1);
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&stripe_id.to_be_bytes());
    key[8..].copy_from_slice(&place.to_be_bytes());
    key
}

fn left_out(name: &str, what: String) -> Damaged {
    let what = format!("what cannot be read is left out: {what}");
    Damaged { file: name.to_owned(), offset: 0, bytes: 0, what }
}

fn is_damage(error: &Error) -> bool {
    // Files that are missing or short are errors of calls.
    error.kind() == ErrorKind::Corruption
        || (error.kind() == ErrorKind::IOError && error.as_ref().contains("No such file"))
}

/// An error of RocksDB as one of a call.
fn error(error: Error) -> io::Error {
    let text = error.as_ref();
    let kind = match error.kind() {
        ErrorKind::Corruption => io::ErrorKind::InvalidData,
        ErrorKind::IOError if text.contains("No space left") => io::ErrorKind::StorageFull,
        ErrorKind::IOError if text.contains("Disk quota") => io::ErrorKind::QuotaExceeded,
        // A file is shorter than it was, or gone.
        ErrorKind::IOError if text.contains("No such file") => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("RocksDB: {text}"))
}
