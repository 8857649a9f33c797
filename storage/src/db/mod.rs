//! Who owns all of it? A [`Db`]: one data directory, its log, head and days.
//!
//! Writers get appenders, readers queriers; both share one [`Db`] behind an
//! `Arc`. A thread of its own seals full stripes, syncs, and enforces the
//! retention; with [`DbOptions::background`] off, [`Db::run_maintenance`] does
//! that when it is called.
//!
//! Locks, in the order they are taken: day files, write side, series, view.
//! Commits take the write side for the time of one write(2); a querier takes the
//! view for the time of two copies.

mod admin;
mod append;
mod changes;
mod damage;
mod exemplars;
mod joined;
mod lag;
mod maintain;
mod metadata;
mod open;
mod read;
mod scan;
mod select;
mod stats;
mod tombstones;
mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use crate::append::{Appendable, Appender, SourceId, SyncClass};
use crate::budget::{Admission, Cache};
use crate::day::catalog::Catalog;
use crate::day::stripe::Header;
use crate::engine::Engine;
use crate::engine::fs::{Disk, FileSystem, Lock};
use crate::head::open::OpenStripe;
use crate::head::write::Writer;
use crate::read::{Querier, Queryable, ReadError};
use crate::series::Series;
use crate::wal::Wal;
/// The tests, once for each engine.
#[cfg(test)]
#[path = "."]
mod on_files {
    use super::*;
    const ENGINE: Engine = Engine::Files;
    mod tests;
}
#[cfg(all(test, feature = "rocksdb"))]
#[path = "."]
#[allow(clippy::duplicate_mod, reason = "the tests are the same, the engine is not")]
mod on_rocksdb {
    use super::*;
    const ENGINE: Engine = Engine::RocksDb;
    mod engines;
    mod tests;
}

pub use admin::day_of_ms;
pub use damage::Damage;
pub use stats::{CardinalityStats, DayStats, DbStats, ReplayStats};
pub use verify::{Problem, VerifyReport};

/// The wall clock: milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How a data directory is used.
#[derive(Clone)]
pub struct DbOptions {
    /// The data directory; created if missing.
    pub path: PathBuf,
    /// What keeps the sealed data; a data directory stays with its engine. `None`: the one
    /// that wrote the directory, files if it is new.
    pub engine: Option<Engine>,
    /// Samples older than this are not returned, and deleted when their day
    /// is; 0: kept forever. Milliseconds.
    pub retention_time_ms: i64,
    /// Most bytes on disk, log included; 0: no limit.
    pub retention_size_bytes: u64,
    /// Most of the disk that is used, in percent; 0: no limit.
    pub retention_percentage: f64,
    /// How much older than the newest sample a late sample may be; 0: none
    /// are taken. Milliseconds.
    pub out_of_order_window_ms: i64,
    /// Longest time that a scraped row is not durable. Milliseconds.
    pub wal_sync_interval_ms: i64,
    /// A log that nothing is added to is written anew when it is half as long
    /// again as the rows that it must hold, and so much more. Bytes.
    pub log_slack_bytes: u64,
    /// How far in the future a sample may be. Milliseconds.
    pub future_limit_ms: i64,
    /// When more series are new, their labels are written to a segment, so that a
    /// start is quick.
    pub new_series_limit: u32,
    /// When more series are in memory and out of use, they leave it.
    pub unused_series_limit: u32,
    /// Most bytes of the head: open rows, series, index, and what no other
    /// account has; new series are refused near and beyond. 0: no limit.
    pub head_limit_bytes: usize,
    /// Most bytes of what is kept of the days.
    pub cache_limit_bytes: usize,
    /// Exemplars that are kept; 0: none.
    pub max_exemplars: usize,
    /// Whether days of short stripes are merged when they are over: smaller, and
    /// quicker to read, for one rewrite.
    pub merge_days: bool,
    /// Whether a thread of its own does the maintenance.
    pub background: bool,
    /// The wall clock.
    pub clock: Clock,
    /// Where the files are.
    pub file_system: Arc<dyn FileSystem>,
    /// Is told of each damage that is found, once. Must not call the storage.
    pub on_damage: Arc<dyn Fn(&Damage) + Send + Sync>,
    /// Anonymous memory of the process, in bytes, if it is known: what no
    /// account has is charged to the head.
    pub process_memory: Gauge,
    /// Size of the disk, in bytes, if it is known.
    pub disk_capacity: Gauge,
    /// Is told when memory becomes short, and when there is enough again. Called
    /// with locks held: must be quick, and must not use the storage.
    pub on_memory: Arc<dyn Fn(MemoryState) + Send + Sync>,
}

/// Reads a figure of the machine.
pub type Gauge = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// Whether there is memory for new series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryState {
    /// New series are taken.
    #[error("there is enough memory again: new series are taken")]
    Enough,
    /// The sources that made the most series are refused new ones.
    #[error(
        "memory is short ({charged_bytes} of {limit_bytes} bytes): new series of the targets that \
         made the most are refused"
    )]
    Short {
        /// Bytes charged to the head.
        charged_bytes: u64,
        /// Its share of the memory.
        limit_bytes: u64,
    },
    /// All new series are refused.
    #[error(
        "the memory limit is reached ({charged_bytes} of {limit_bytes} bytes): new series are refused"
    )]
    Full {
        /// Bytes charged to the head.
        charged_bytes: u64,
        /// Its share of the memory.
        limit_bytes: u64,
    },
}

impl DbOptions {
    /// The defaults: 15 days, no late samples, a sync every 15 s.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            engine: None,
            retention_time_ms: 15 * crate::day::DAY_MS,
            retention_size_bytes: 0,
            retention_percentage: 0.0,
            out_of_order_window_ms: 0,
            wal_sync_interval_ms: 15_000,
            log_slack_bytes: 64 << 10,
            future_limit_ms: crate::day::DAY_MS,
            new_series_limit: 192 << 10,
            unused_series_limit: 8 << 10,
            head_limit_bytes: 0,
            cache_limit_bytes: 32 << 20,
            max_exemplars: 100_000,
            merge_days: true,
            background: true,
            clock: Arc::new(system_time_ms),
            file_system: Arc::new(Disk),
            on_damage: Arc::new(|_| {}),
            process_memory: Arc::new(|| None),
            disk_capacity: Arc::new(|| None),
            on_memory: Arc::new(|_| {}),
        }
    }
}

fn system_time_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses it.
    #[error("data directory {path} is in use by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Prometheus wrote it.
    #[error("{path} is a data directory of Prometheus (it has {found}); narthex needs its own")]
    Prometheus {
        /// The directory.
        path: PathBuf,
        /// What Prometheus left there.
        found: String,
    },
    /// Another engine wrote it.
    #[error(
        "{path} was written by the storage engine {found}, and cannot be used with the engine {wanted}"
    )]
    Engine {
        /// The directory.
        path: PathBuf,
        /// The engine that wrote it.
        found: String,
        /// The engine that was asked for.
        wanted: String,
    },
    /// A newer version wrote it.
    #[error("{file} in {path} was written by a newer version of narthex")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The file, relative to it.
        file: String,
    },
    /// A call failed.
    #[error("{what} in {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was attempted.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A data directory, open.
pub struct Db {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What appenders, queriers and the thread share.
struct Inner {
    options: DbOptions,
    series: Series,
    write: Mutex<WriteSide>,
    view: RwLock<Snapshot>,
    /// Held while stripes are written; the files of the open days.
    day_files: Mutex<maintain::DayFiles>,
    headers: Cache<(u64, u64), Arc<Header>>,
    runs: Cache<(u64, u64, u32), Arc<Vec<u8>>>,
    columns: Cache<joined::Key, Arc<joined::Joined>>,
    asked_columns: joined::Asked,
    selections: Cache<u64, Arc<select::Selection>>,
    exemplars: Mutex<exemplars::Ring>,
    metadata: Mutex<metadata::Families>,
    tombstones: RwLock<Arc<tombstones::Tombstones>>,
    changes: changes::Changes,
    counters: stats::Counters,
    /// No committed sample is newer.
    newest_ms: AtomicI64,
    is_closed: AtomicBool,
    /// Whether new series are taken.
    admission: Admission,
    /// Rows do not leave memory, as the last try to write them failed.
    rows_stuck: AtomicBool,
    /// The same of series out of use.
    series_stuck: AtomicBool,
    wake: (Mutex<Wake>, Condvar),
    /// Bytes on disk when last looked at.
    disk_bytes: AtomicU64,
    damages: Mutex<damage::Damages>,
    /// Keeps other processes out.
    _lock: Mutex<Option<Box<dyn Lock>>>,
}

#[derive(Debug, Default)]
struct Wake {
    /// Work is waiting.
    now: bool,
    stop: bool,
}

/// What a commit changes.
struct WriteSide {
    writer: Writer,
    wal: Wal,
    commit: u64,
    record: Vec<u8>,
    /// Full stripes that are not in the days yet.
    sealing: Vec<Arc<OpenStripe>>,
    catalog: Arc<Catalog>,
    /// When unsynced rows must be durable, by the wall clock.
    sync_due_ms: Option<i64>,
    lag: lag::Lag,
}

/// What a querier starts from.
#[derive(Clone)]
struct Snapshot {
    /// Commits up to this are visible.
    commit: u64,
    view: Arc<View>,
}

/// All stripes, open and sealed.
struct View {
    open: Vec<Arc<OpenStripe>>,
    catalog: Arc<Catalog>,
}

impl Db {
    /// Opens a data directory: takes its lock, reads series, days and log.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. Nothing in a directory that is refused is touched.
    pub fn open(options: DbOptions) -> Result<Self, OpenError> {
        let background = options.background;
        let inner = Arc::new(open::open(options)?);
        let thread = if background { Some(maintain::spawn(&inner)) } else { None };
        Ok(Self { inner, thread: Mutex::new(thread) })
    }

    /// Seals, syncs, deletes and shrinks whatever is due at `now_ms`
    /// (milliseconds since the Unix epoch). May be called from any thread;
    /// touches the disk.
    ///
    /// # Errors
    ///
    /// The first that occurred; everything else was done nevertheless, and
    /// what failed is tried again by the next call.
    pub fn run_maintenance(&self, now_ms: i64) -> io::Result<()> {
        self.inner.maintain(now_ms)
    }

    /// Makes everything committed durable, now.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    /// Freezes all open stripes and writes them into the days.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn seal_all(&self) -> io::Result<()> {
        self.inner.seal_all()
    }

    /// Stops the thread, makes everything durable, and refuses commits from
    /// now on. Queriers that are open stay valid.
    ///
    /// # Errors
    ///
    /// What the system says; the storage is closed nevertheless.
    pub fn close(&self) -> io::Result<()> {
        self.inner.is_closed.store(true, Ordering::SeqCst);
        self.inner.wake(|w| w.stop = true);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        let metadata = self.inner.save_metadata();
        self.inner.sync()?;
        lock(&self.inner.write).wal.seal()?;
        metadata
    }

    /// The damages that were found since the start, oldest first; the first
    /// thousand of them.
    #[must_use]
    pub fn damages(&self) -> Vec<Damage> {
        self.inner.report_series();
        lock(&self.inner.damages).all().to_vec()
    }

    /// What the storage holds and did. Takes short locks; no disk.
    #[must_use]
    pub fn stats(&self) -> DbStats {
        self.inner.stats()
    }

    /// The labels and values with the most series, each list at most `limit`
    /// long. Walks the whole index.
    #[must_use]
    pub fn cardinality(&self, limit: usize) -> CardinalityStats {
        self.inner.cardinality(limit, None)
    }

    /// As [`Db::cardinality`], of the series that may have samples in
    /// `start_ms..=end_ms`, not only of those with open rows.
    #[must_use]
    pub fn cardinality_between(
        &self,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> CardinalityStats {
        let querier = read::DbQuerier::new(Arc::clone(&self.inner), start_ms, end_ms);
        self.inner.cardinality(limit, Some(querier.ids().clone()))
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // Errors were logged by the log's own state: rows stay in the log.
        let _ = self.close();
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("path", &self.inner.options.path).finish_non_exhaustive()
    }
}

impl Appendable for Db {
    fn appender(&self, source: SourceId, class: SyncClass) -> Box<dyn Appender> {
        Box::new(append::DbAppender::new(Arc::clone(&self.inner), source, class))
    }
}

impl Queryable for Db {
    fn querier(&self, start_ms: i64, end_ms: i64) -> Result<Arc<dyn Querier>, ReadError> {
        Ok(Arc::new(read::DbQuerier::new(Arc::clone(&self.inner), start_ms, end_ms)))
    }
}

impl Inner {
    fn now_ms(&self) -> i64 {
        (self.options.clock)()
    }

    fn snapshot(&self) -> Snapshot {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the state of the write side visible up to its commit.
    fn publish(&self, write: &mut WriteSide) {
        let mut snapshot = self.view.write().unwrap_or_else(PoisonError::into_inner);
        snapshot.commit = write.commit;
        if std::mem::take(&mut write.writer.is_view_stale) {
            let open = write.writer.open_stripes().chain(&write.sealing).cloned().collect();
            snapshot.view = Arc::new(View { open, catalog: Arc::clone(&write.catalog) });
        }
    }

    /// The oldest time that is returned.
    fn retention_floor_ms(&self) -> i64 {
        match self.options.retention_time_ms {
            0 => i64::MIN,
            time => self.now_ms().saturating_sub(time),
        }
    }

    fn wake(&self, change: impl FnOnce(&mut Wake)) {
        change(&mut lock(&self.wake.0));
        self.wake.1.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
