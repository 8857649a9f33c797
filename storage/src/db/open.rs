//! What happens when a data directory is opened?
//!
//! The lock is taken; a directory that is not ours is refused before anything
//! is written. Then series, the headers of all stripes and the log are read.
//! What the log holds of stripes that are in the days is skipped, once their
//! bytes are checked; the rest are open rows again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Instant;

use super::exemplars::Ring;
use super::maintain::DayFiles;
use super::metadata::Families;
use super::stats::{Counters, ReplayStats};
use super::tombstones::Tombstones;
use super::{DbOptions, Inner, OpenError, Snapshot, View, Wake, WriteSide};
use crate::budget::Cache;
use crate::day::catalog::{Catalog, Stripe};
use crate::day::file::{DayFile, EXTENSION, MERGED_EXTENSION, day_of_directory};
use crate::engine::fs::FileSystem;
use crate::head::open::{OpenStripe, Rows};
use crate::head::write::Writer;
use crate::index::Index;
use crate::series::SeriesTable;
use crate::series::file::{self as series_file, SeriesFile};
use crate::wal::Wal;
use crate::wal::replay::{self, Replayed, Report};

/// The days as they were found.
struct FoundDays {
    catalog: Catalog,
    next_file: u64,
    damaged: u64,
}

pub(super) fn open(options: DbOptions) -> Result<Inner, OpenError> {
    let started = Instant::now();
    let root = options.path.clone();
    let fs = Arc::clone(&options.file_system);
    let io_error = |what: &str| {
        let (path, what) = (root.clone(), what.to_owned());
        move |source: io::Error| match source.kind() {
            io::ErrorKind::Unsupported => OpenError::Newer { path, file: what },
            _ => OpenError::Io { path, what, source },
        }
    };
    refuse_prometheus(&*fs, &root)?;
    fs.create_dir_all(&root).map_err(io_error("creating the directory"))?;
    let lock = take_lock(&root)?;

    let mut table = SeriesTable::default();
    let (series_file, loaded) =
        SeriesFile::open(&*fs, &root, &mut table).map_err(io_error(series_file::NAME))?;
    let days = find_days(&*fs, &root).map_err(io_error("days"))?;
    let mut catalog = days.catalog;
    let counters = Counters::default();
    Counters::add(&counters.quarantined, days.damaged + u64::from(loaded.damaged_at.is_some()));

    let mut head = Replay::new(&mut catalog, table.len());
    let mut exemplars = Ring::new(options.max_exemplars);
    let mut report = Report::default();
    let mut closed = Vec::new();
    for number in replay::segments(&*fs, &root).map_err(io_error("wal"))? {
        let len =
            replay::read_segment(&*fs, &root, number, &mut report, &mut |entry| match entry {
                Replayed::Exemplar { series, exemplar } => {
                    if series < head.series {
                        exemplars.push(series, exemplar);
                    }
                }
                entry => head.apply(entry),
            })
            .map_err(io_error("wal"))?;
        closed.push((number, len));
    }
    let damaged_stripes = head.damaged;
    let dropped_items = head.dropped;
    let samples = head.samples;
    let next_stripe_id = head.next_stripe_id;
    let restored = head.finish();
    Counters::add(&counters.quarantined, damaged_stripes);

    let wal = Wal::create(Arc::clone(&fs), &root, closed).map_err(io_error("wal"))?;
    let mut writer = Writer::new(next_stripe_id, table.len(), wal.segment());
    let now_ms = (options.clock)();
    for (id, mut rows) in restored {
        rows.touched_ms = now_ms;
        writer.restore(Arc::new(OpenStripe::new(id, rows)));
    }
    writer.retire_unused();
    let newest = catalog.days.iter().filter_map(|d| d.bounds()).map(|b| b.1).max();
    writer.newest_ms = writer.newest_ms.max(newest);
    let sealing = writer.take_frozen();
    let catalog = Arc::new(catalog);
    writer.is_view_stale = false;
    let view = View {
        open: writer.open_stripes().chain(&sealing).cloned().collect(),
        catalog: Arc::clone(&catalog),
    };
    for directory in ["series", ""] {
        fs.sync_dir(&root.join(directory)).map_err(io_error("syncing the directory"))?;
    }
    let metadata = Families::load(&*fs, &root).map_err(io_error("state/metadata"))?;
    let tombstones = Tombstones::load(&*fs, &root).map_err(io_error("state/tombstones"))?;
    let _ = counters.replay.set(ReplayStats {
        micros: started.elapsed().as_micros() as u64,
        segments: report.segments,
        records: report.records,
        bytes: report.bytes,
        samples,
        dropped_items,
        damaged_bytes: report.damaged_bytes,
        torn_bytes: report.torn_bytes + loaded.torn_bytes,
    });
    let cache_bytes = options.cache_limit_bytes;
    Ok(Inner {
        series_count: AtomicU32::new(table.len()),
        newest_ms: AtomicI64::new(writer.newest_ms.unwrap_or(i64::MIN)),
        series: RwLock::new(table),
        index: RwLock::new(Index::default()),
        write: Mutex::new(WriteSide {
            writer,
            wal,
            series_file,
            commit: 0,
            record: Vec::new(),
            sealing,
            catalog,
            sync_due_ms: None,
        }),
        view: RwLock::new(Snapshot { commit: 0, view: Arc::new(view) }),
        day_files: Mutex::new(DayFiles::new(days.next_file)),
        headers: Cache::new(cache_bytes / 4),
        runs: Cache::new(cache_bytes - cache_bytes / 4),
        exemplars: Mutex::new(exemplars),
        metadata: Mutex::new(metadata),
        tombstones: RwLock::new(Arc::new(tombstones)),
        counters,
        is_closed: AtomicBool::new(false),
        is_full: AtomicBool::new(false),
        wake: (Mutex::new(Wake::default()), Condvar::new()),
        disk_bytes: AtomicU64::new(0),
        _lock: lock,
        options,
    })
}

/// Refuses what Prometheus left: eight-digit log segments without an ending,
/// head chunks, or blocks.
fn refuse_prometheus(fs: &dyn FileSystem, root: &Path) -> Result<(), OpenError> {
    let found =
        |what: &str| OpenError::Prometheus { path: root.to_owned(), found: what.to_owned() };
    let list = |path: &Path| fs.list(path).unwrap_or_default();
    let is_segment = |n: &str| n.len() == 8 && n.bytes().all(|b| b.is_ascii_digit());
    for name in list(root) {
        let is_ulid =
            name.len() == 26 && name.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        if is_ulid && list(&root.join(&name)).iter().any(|n| n == "meta.json") {
            return Err(found(&format!("the block {name}")));
        }
        if name == "chunks_head" {
            return Err(found("chunks_head"));
        }
    }
    let wal = list(&root.join("wal"));
    if let Some(name) = wal.iter().find(|n| is_segment(n) || n.starts_with("checkpoint.")) {
        return Err(found(&format!("wal/{name}")));
    }
    Ok(())
}

/// Locks `DATA/lock`. The lock goes with the process, however it ends.
fn take_lock(root: &Path) -> Result<Option<std::fs::File>, OpenError> {
    let open_error =
        |source| OpenError::Io { path: root.to_owned(), what: "lock".to_owned(), source };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))
        .map_err(open_error)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path: root.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(open_error(source)),
    }
}

/// Reads the headers of all stripes.
fn find_days(fs: &dyn FileSystem, root: &Path) -> io::Result<FoundDays> {
    let mut days = FoundDays { catalog: Catalog::default(), next_file: 1, damaged: 0 };
    for directory in fs.list(&root.join("days"))? {
        if day_of_directory(&directory).is_none() {
            continue;
        }
        let directory = format!("days/{directory}");
        let files = fs.list(&root.join(&directory))?;
        let numbered = |file: &String| {
            let (number, extension) = file.split_once('.')?;
            Some((number.parse::<u64>().ok()?, extension.to_owned()))
        };
        let merged = files.iter().filter_map(numbered).filter(|(_, e)| e == MERGED_EXTENSION);
        let merged = merged.map(|(number, _)| number).max().unwrap_or(0);
        for file in &files {
            let Some((number, extension)) = numbered(file) else { continue };
            days.next_file = days.next_file.max(number + 1);
            let name = format!("{directory}/{file}");
            if number < merged || extension == "tmp" {
                // Superseded, or never finished.
                fs.remove_file(&root.join(&name))?;
                continue;
            }
            if extension != EXTENSION && extension != MERGED_EXTENSION {
                continue;
            }
            let file = Arc::new(DayFile::open(fs, root.to_owned(), name, number)?);
            let scan = file.scan()?;
            days.damaged += u64::from(scan.damaged_bytes > 0);
            for found in scan.stripes {
                let header = &found.header;
                let (Some(&min_ms), Some(&max_ms)) = (header.times.first(), header.times.last())
                else {
                    continue;
                };
                let stripe = Stripe {
                    id: header.stripe_id,
                    file: Arc::clone(&file),
                    offset: found.offset,
                    header_bytes: found.header_bytes,
                    payload_bytes: header.payload_bytes,
                    min_ms,
                    max_ms,
                    samples: header.samples(),
                };
                days.catalog.add(stripe, (*header.layout).clone());
            }
        }
    }
    Ok(days)
}

/// Builds the open stripes from the log.
struct Replay<'a> {
    catalog: &'a mut Catalog,
    /// Number of series there are.
    series: u32,
    sealed: HashSet<u64>,
    /// Sealed stripes whose bytes were checked.
    checked: HashSet<u64>,
    open: HashMap<u64, Rows>,
    next_stripe_id: u64,
    samples: u64,
    dropped: u64,
    damaged: u64,
    scratch: Vec<u16>,
}

impl<'a> Replay<'a> {
    fn new(catalog: &'a mut Catalog, series: u32) -> Self {
        let sealed: HashSet<u64> = catalog.stripes().map(|s| s.id).collect();
        let next_stripe_id = sealed.iter().max().map_or(1, |max| max + 1);
        Self {
            catalog,
            series,
            sealed,
            checked: HashSet::new(),
            open: HashMap::new(),
            next_stripe_id,
            samples: 0,
            dropped: 0,
            damaged: 0,
            scratch: Vec::new(),
        }
    }

    fn apply(&mut self, entry: Replayed<'_>) {
        match entry {
            Replayed::Item { segment, stripe_id, item } => self.item(segment, stripe_id, item),
            Replayed::Gap => self.open.values_mut().for_each(|r| r.force_key = true),
            Replayed::Exemplar { .. } => {}
        }
    }

    fn item(&mut self, segment: u64, stripe_id: u64, item: &[u8]) {
        self.next_stripe_id = self.next_stripe_id.max(stripe_id.saturating_add(1));
        if self.sealed.contains(&stripe_id) && self.is_intact(stripe_id) {
            return;
        }
        let rows = self.open.entry(stripe_id).or_insert_with(|| {
            let mut rows = Rows::continuing(Vec::new(), Vec::new(), i64::MIN, segment);
            rows.force_key = true;
            rows
        });
        rows.newest_segment = segment;
        match rows.replay(item, self.series, &mut self.scratch) {
            Some(cells) => self.samples += cells as u64,
            None => self.dropped += 1,
        }
    }

    /// Whether a stripe that is in the days can be read; it was perhaps not
    /// durable when the power went. If not, it is forgotten.
    fn is_intact(&mut self, stripe_id: u64) -> bool {
        if !self.checked.insert(stripe_id) {
            return true;
        }
        let stripe = self.catalog.stripes().find(|s| s.id == stripe_id).cloned();
        if stripe.is_some_and(|s| can_be_read(&s)) {
            return true;
        }
        self.catalog.remove(stripe_id);
        self.sealed.remove(&stripe_id);
        self.damaged += 1;
        false
    }

    fn finish(self) -> Vec<(u64, Rows)> {
        let mut open: Vec<(u64, Rows)> =
            self.open.into_iter().filter(|(_, r)| !r.times.is_empty()).collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        open
    }
}

fn can_be_read(stripe: &Stripe) -> bool {
    let Ok(header) = stripe.file.read_header(stripe.offset, stripe.header_bytes) else {
        return false;
    };
    header.runs().all(|run| stripe.file.read_run(stripe.payload_offset(), &run).is_ok())
}
