//! What happens when a data directory is opened?
//!
//! The lock is taken; a directory that is not ours is refused before anything
//! is written. Then series, the headers of all stripes and the log are read.
//! What the log holds of stripes that are in the days is skipped, once their
//! bytes are checked; the rest are open rows again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Instant;

use super::admin::create_durably;
use super::exemplars::Ring;
use super::lag::Lag;
use super::maintain::DayFiles;
use super::metadata::{self, Families};
use super::stats::{Counters, ReplayStats};
use super::tombstones::{self, Tombstones};
use super::{Damage, DbOptions, Inner, OpenError, Snapshot, View, Wake, WriteSide};
use crate::budget::{Admission, Cache};
use crate::day::catalog::{Catalog, Stripe};
use crate::engine::Engine;
use crate::engine::fs::{FileSystem, Lock, is_lack_of_room};
use crate::engine::sealed::{Volume, Volumes};
use crate::head::open::{OpenStripe, Rows};
use crate::head::write::Writer;
use crate::series::{Series, SeriesLimits};
use crate::wal::Wal;
use crate::wal::replay::{self, Replayed, Report, Segments};

/// The log as it was found.
struct FoundLog {
    /// Segments that were read, and how much of them counts.
    closed: Vec<(u64, u64)>,
    next_segment: u64,
    report: Report,
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
    let engine = engine_of(&options)?;
    create_durably(&*fs, &root).map_err(io_error("creating the directory"))?;
    let lock = take_lock(&*fs, &root)?;
    create_directories(&*fs, &root, engine).map_err(io_error("creating directories"))?;

    let mut damages = Vec::new();
    let cache_bytes = options.cache_limit_bytes;
    let limits = SeriesLimits {
        tail: options.new_series_limit,
        unused: u64::from(options.unused_series_limit),
        cache_bytes: cache_bytes / 16,
    };
    let opened = Series::open(Arc::clone(&fs), &root, limits);
    let (mut series, torn_bytes) = opened.map_err(|e| io_error(&e.file)(e.source))?;
    let mut days = engine.open(&fs, &root).map_err(io_error(engine.folder()))?;
    damages.extend(days.damages.drain(..).map(|d| damage(&d.file, d.offset, d.bytes, &d.what)));
    let metadata = or_damage(Families::load(&*fs, &root), metadata::NAME, &mut damages)
        .map_err(io_error(metadata::NAME))?;
    let tombstones = or_damage(Tombstones::load(&*fs, &root), tombstones::NAME, &mut damages)
        .map_err(io_error(tombstones::NAME))?;

    forget_bad_copies(&mut days.catalog);
    let mut head = Replay::new(&mut days.catalog, series.next_id());
    let mut exemplars = Ring::new(options.max_exemplars);
    let log = read_log(&*fs, &root, &mut damages, &mut |entry| match entry {
        Replayed::Exemplar { series, exemplar } => {
            if series < head.series {
                exemplars.push(series, exemplar);
            }
        }
        entry => head.apply(entry),
    })
    .map_err(io_error("wal"))?;
    let report = log.report;
    let (dropped_items, samples) = (head.dropped, head.samples);
    let next_stripe_id = head.next_stripe_id;
    let (restored, inherited) = head.finish();

    // What names a series keeps its id from being given again, whether its
    // labels are there or not.
    let named = restored.iter().flat_map(|(_, rows)| rows.ids.iter().copied()).max();
    let named = named.max(days.catalog.max_series()).max(tombstones.max_id());
    series.skip_to(named.map_or(0, |id| id.saturating_add(1)));

    let created = Wal::create(Arc::clone(&fs), &root, log.closed.clone(), log.next_segment);
    let (wal, lag) = match created {
        // What could not be synced is written again.
        Ok(wal) => match wal.sync_closed() {
            Ok(()) => (wal, Lag::default()),
            Err(_) => (wal, Lag::from_start()),
        },
        // Scrapes and alerts go on from memory until there is room.
        Err(e) if is_lack_of_room(&e) => (
            Wal::without_file(Arc::clone(&fs), &root, log.closed, log.next_segment),
            Lag::from_start(),
        ),
        Err(e) => return Err(io_error("wal")(e)),
    };
    let mut writer = Writer::new(next_stripe_id, series.next_id(), wal.segment());
    let now_ms = (options.clock)();
    for (id, mut rows) in restored {
        rows.touched_ms = now_ms;
        writer.restore(Arc::new(OpenStripe::new(id, rows)));
    }
    writer.retire_unused();
    let newest = days.catalog.days.iter().filter_map(|d| d.bounds()).map(|b| b.1).max();
    writer.newest_ms = writer.newest_ms.max(newest);
    let sealing = writer.take_frozen();
    let catalog = Arc::new(days.catalog);
    writer.is_view_stale = false;
    let view = View {
        open: writer.open_stripes().chain(&sealing).cloned().collect(),
        catalog: Arc::clone(&catalog),
    };
    let counters = Counters::default();
    let _ = counters.replay.set(ReplayStats {
        micros: started.elapsed().as_micros() as u64,
        segments: report.segments,
        records: report.records,
        bytes: report.bytes,
        samples,
        dropped_items,
        damaged_bytes: report.damaged_bytes,
        torn_bytes: report.torn_bytes + torn_bytes,
    });
    let mut day_files = DayFiles::new(days.sealed);
    (day_files.inherited, day_files.unread) = (inherited, days.unread);
    let inner = Inner {
        newest_ms: AtomicI64::new(writer.newest_ms.unwrap_or(i64::MIN)),
        series,
        write: Mutex::new(WriteSide {
            writer,
            wal,
            commit: 0,
            record: Vec::new(),
            sealing,
            catalog,
            // What a process before this one left unsynced is due.
            sync_due_ms: Some(now_ms),
            lag,
        }),
        view: RwLock::new(Snapshot { commit: 0, view: Arc::new(view) }),
        day_files: Mutex::new(day_files),
        headers: Cache::new(cache_bytes / 8),
        runs: Cache::new(cache_bytes / 16 * 3),
        columns: Cache::new(cache_bytes / 2),
        asked_columns: super::joined::Asked::default(),
        selections: Cache::new(cache_bytes / 8),
        exemplars: Mutex::new(exemplars),
        metadata: Mutex::new(metadata),
        tombstones: RwLock::new(Arc::new(tombstones)),
        changes: super::changes::Changes::default(),
        counters,
        is_closed: AtomicBool::new(false),
        rows_stuck: AtomicBool::new(false),
        series_stuck: AtomicBool::new(false),
        admission: Admission::new(options.head_limit_bytes as u64),
        wake: (Mutex::new(Wake::default()), Condvar::new()),
        disk_bytes: AtomicU64::new(0),
        damages: Mutex::default(),
        _lock: Mutex::new(Some(lock)),
        options,
    };
    inner.report_series();
    damages.into_iter().for_each(|damage| inner.report(damage));
    Ok(inner)
}

fn damage(file: &str, offset: u64, bytes: u64, what: &str) -> Damage {
    Damage { file: file.to_owned(), offset, bytes, what: what.to_owned() }
}

/// What was loaded; nothing if its file is damaged.
fn or_damage<T: Default>(
    loaded: io::Result<T>,
    file: &str,
    damages: &mut Vec<Damage>,
) -> io::Result<T> {
    match loaded {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            damages.push(damage(file, 0, 0, "the whole file is lost"));
            Ok(T::default())
        }
        other => other,
    }
}

/// Creates all directories there may be, and makes their names durable: what
/// is in them can then be by itself.
fn create_directories(fs: &dyn FileSystem, root: &Path, engine: Engine) -> io::Result<()> {
    if !fs.exists(&root.join(engine.folder())) {
        // First: it says whose the directory is.
        fs.create_dir_all(&root.join(engine.folder()))?;
        fs.sync_dir(root)?;
    }
    let all = ["series", "wal", engine.folder(), "state"].map(|name| root.join(name));
    let missing: Vec<_> = all.iter().filter(|path| !fs.exists(path)).collect();
    for path in &missing {
        fs.create_dir_all(path)?;
    }
    fs.sync_dir(root)?;
    // Names that one gave who was killed just then.
    [engine.folder(), "state"].iter().try_for_each(|name| fs.sync_dir(&root.join(name)))
}

/// The engine that is asked for, which must be the one that wrote the
/// directory; where none is, that one.
fn engine_of(options: &DbOptions) -> Result<Engine, OpenError> {
    let found = Engine::name_in(&*options.file_system, &options.path);
    let wanted = options.engine.or_else(|| found.and_then(Engine::named)).unwrap_or_default();
    match found {
        Some(found) if found != wanted.name() => Err(OpenError::Engine {
            path: options.path.clone(),
            found: found.to_owned(),
            wanted: wanted.name().to_owned(),
        }),
        _ => Ok(wanted),
    }
}

/// Reads the log. A segment that cannot be read is left out and left alone.
fn read_log(
    fs: &dyn FileSystem,
    root: &Path,
    damages: &mut Vec<Damage>,
    apply: &mut impl FnMut(Replayed<'_>),
) -> io::Result<FoundLog> {
    let segments = Segments::find(fs, root)?;
    let next_segment = segments.numbers.last().map_or(1, |last| last.saturating_add(1));
    let mut log = FoundLog { closed: Vec::new(), next_segment, report: Report::default() };
    for &number in &segments.numbers {
        match replay::read_segment(fs, root, &segments, number, &mut log.report, apply) {
            Ok(len) => log.closed.push((number, len)),
            Err(e) if e.kind() == io::ErrorKind::Unsupported => return Err(e),
            Err(e) => {
                apply(Replayed::Gap);
                let what = format!("the rows in it are left out: {e}");
                damages.push(damage(&crate::wal::name_of(number), 0, 0, &what));
            }
        }
    }
    for (file, offset, bytes) in log.report.damages.drain(..) {
        damages.push(damage(&file, offset, bytes, "rows up to the next key row are lost"));
    }
    Ok(log)
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
fn take_lock(fs: &dyn FileSystem, root: &Path) -> Result<Box<dyn Lock>, OpenError> {
    fs.lock(&root.join("lock")).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: root.to_owned() },
        _ => OpenError::Io { path: root.to_owned(), what: "lock".to_owned(), source },
    })
}

/// Builds the open stripes from the log.
struct Replay<'a> {
    catalog: &'a mut Catalog,
    /// Number of series there are.
    series: u32,
    sealed: HashSet<u64>,
    /// Sealed stripes whose bytes were checked.
    checked: HashSet<u64>,
    /// Their volumes, which may not be durable, by number.
    volumes: BTreeMap<u64, Arc<dyn Volume>>,
    open: HashMap<u64, Rows>,
    next_stripe_id: u64,
    samples: u64,
    dropped: u64,
    scratch: Vec<u16>,
}

/// Rows may name so many more series than there are: their labels are lost.
const MAX_LOST_SERIES: u32 = 1 << 24;

impl<'a> Replay<'a> {
    fn new(catalog: &'a mut Catalog, series: u32) -> Self {
        let sealed: HashSet<u64> = catalog.stripes().map(|s| s.id).collect();
        let next_stripe_id = sealed.iter().max().map_or(1, |max| max + 1);
        Self {
            catalog,
            series,
            sealed,
            checked: HashSet::new(),
            volumes: BTreeMap::new(),
            open: HashMap::new(),
            next_stripe_id,
            samples: 0,
            dropped: 0,
            scratch: Vec::new(),
        }
    }

    fn apply(&mut self, entry: Replayed<'_>) {
        match entry {
            Replayed::Item { segment, stripe_id, item } => self.item(segment, stripe_id, item),
            Replayed::Restart { stripe_id } => drop(self.open.remove(&stripe_id)),
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
        let ids_end = self.series.saturating_add(MAX_LOST_SERIES);
        match rows.replay(item, ids_end, &mut self.scratch) {
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
        if let Some(stripe) = stripe.as_ref().filter(|s| can_be_read(s)) {
            self.volumes.insert(stripe.volume.number(), Arc::clone(&stripe.volume));
            return true;
        }
        if let Some(stripe) = stripe {
            self.catalog.remove(&stripe);
        }
        self.sealed.remove(&stripe_id);
        false
    }

    /// The open stripes, and the volumes that must be synced before the log may
    /// be cut.
    fn finish(self) -> (Vec<(u64, Rows)>, Volumes) {
        let mut open: Vec<(u64, Rows)> =
            self.open.into_iter().filter(|(_, r)| !r.times.is_empty()).collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        (open, self.volumes.into_values().collect())
    }
}

/// A start that finds a stripe damaged and its rows in the log writes it once more
/// under its id. The damaged one is of no use then, and no damage.
fn forget_bad_copies(catalog: &mut Catalog) {
    let mut seen = HashSet::new();
    let twice: HashSet<u64> =
        catalog.stripes().map(|s| s.id).filter(|id| !seen.insert(*id)).collect();
    let copies = catalog.stripes().filter(|s| twice.contains(&s.id)).cloned();
    let (good, bad): (Vec<Stripe>, Vec<Stripe>) = copies.partition(can_be_read);
    for stripe in bad.iter().filter(|bad| good.iter().any(|good| good.id == bad.id)) {
        catalog.remove(stripe);
    }
}

fn can_be_read(stripe: &Stripe) -> bool {
    let Ok(header) = stripe.read_header() else { return false };
    header.runs().all(|run| stripe.read_run(&run).is_ok())
}
