//! One data directory on a simulated disk, its clock, and what it promised.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use narthex_storage::append::{Appendable, SourceId, SyncClass};
use narthex_storage::db::{Db, DbOptions};
use narthex_storage::engine::Engine;

use crate::disk::Disk;
use crate::model::{Answer, Model, State, interval_ms, labels_of, read_all};
use crate::rng::Rng;

pub const DAY_MS: i64 = 86_400_000;
pub const ROOT: &str = "/data/narthex";

pub struct World {
    pub disk: Disk,
    /// Where an engine keeps what does not pass the disk.
    engine_root: Option<tempfile::TempDir>,
    clock: Arc<AtomicI64>,
    pub now_ms: i64,
    pub model: Model,
    /// How late samples may be. Milliseconds.
    pub window_ms: i64,
    /// See [`DbOptions::log_slack_bytes`].
    pub log_slack_bytes: u64,
    /// Whether few series are enough for a segment.
    pub has_segments: bool,
}

impl World {
    pub fn new(now_ms: i64) -> Self {
        Self {
            disk: Disk::new(),
            engine_root: (crate::ENGINE != Engine::Files)
                .then(|| tempfile::tempdir().expect("temporary directory")),
            clock: Arc::new(AtomicI64::new(now_ms)),
            now_ms,
            model: Model::default(),
            window_ms: 0,
            log_slack_bytes: 64 << 10,
            has_segments: false,
        }
    }

    pub fn options(&self, root: &str) -> DbOptions {
        let mut options = DbOptions::new(self.place(root));
        options.engine = Some(crate::ENGINE);
        let clock = Arc::clone(&self.clock);
        options.clock = Arc::new(move || clock.load(Ordering::SeqCst));
        options.background = false;
        options.file_system = Arc::new(self.disk.clone());
        options.retention_time_ms = 0;
        options.max_exemplars = 10;
        options.out_of_order_window_ms = self.window_ms;
        options.log_slack_bytes = self.log_slack_bytes;
        if self.has_segments {
            (options.new_series_limit, options.unused_series_limit) = (6, 2);
        }
        options
    }

    /// The path that stands for one below [`ROOT`].
    pub fn place(&self, path: &str) -> PathBuf {
        match (&self.engine_root, path.strip_prefix(ROOT)) {
            (Some(real), Some("")) => real.path().to_owned(),
            (Some(real), Some(below)) => real.path().join(below.trim_start_matches('/')),
            _ => PathBuf::from(path),
        }
    }

    /// Ends a process whose disk is off: what it has in memory is lost.
    pub fn stop(&self, db: Db) {
        crate::stop(db, &self.place(ROOT));
    }

    pub fn open(&self) -> Db {
        Db::open(self.options(ROOT)).expect("open")
    }

    /// Ends a process as kill -9 does: nothing is synced, closed or sealed.
    pub fn kill(&mut self, db: Db) {
        self.disk.cut_power_at(Some(0));
        self.stop(db);
        self.disk = self.disk.after_kill();
    }

    pub fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.clock.store(self.now_ms, Ordering::SeqCst);
    }

    /// Does the maintenance of now, and notes what is durable then.
    pub fn maintain(&mut self, db: &Db) -> std::io::Result<()> {
        db.run_maintenance(self.now_ms)?;
        self.model.maintained(self.now_ms);
        Ok(())
    }

    /// One row of a target: series `target * 1000 + i`.
    pub fn scrape(&mut self, db: &Db, target: u32, series: u32) -> bool {
        let ids = (0..series).map(|i| target * 1000 + i).collect();
        self.append(db, SourceId(target.into()), SyncClass::Scrape, &[(self.now_ms, ids)]).is_ok()
    }

    /// Compares with what was promised.
    pub fn compare(&self, db: &Db) -> Answer {
        let found = read_all(db).expect("read");
        self.model.compare(&found);
        found
    }

    /// Appends what a series may take, and notes it.
    pub fn append(
        &mut self,
        db: &Db,
        source: SourceId,
        class: SyncClass,
        rows: &[(i64, Vec<u32>)],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut appender = db.appender(source, class);
        let mut new = Vec::new();
        for (at, ids) in rows {
            for &id in ids {
                let known = self.model.series.get(&id).map_or(&[][..], Vec::as_slice);
                let is_there = known.iter().any(|s| s.timestamp_ms == *at);
                let newest = known.iter().map(|s| s.timestamp_ms).max();
                let is_late = newest.is_some_and(|n| n >= *at);
                let repeats = new.iter().any(|(i, t, _)| *i == id && *t >= *at);
                if is_there || repeats || (is_late && self.window_ms == 0) {
                    continue;
                }
                let value = match id % 3 {
                    0 => f64::from(id),
                    1 => (self.now_ms / 1000 % 1000) as f64,
                    _ => f64::from_bits(Rng::new(*at as u64 ^ u64::from(id)).next()),
                };
                let series = appender.series(&labels_of(id))?;
                appender.append(series, *at, 0, value)?;
                new.push((id, *at, value));
            }
        }
        let committed = appender.commit();
        let state = match &committed {
            // Nobody is left to be told once the power is off.
            Ok(_) if !self.disk.is_off() && db.stats().log_lags => {
                State::Memory(self.now_ms + interval_ms(class))
            }
            Ok(_) if !self.disk.is_off() => State::DueMs(self.now_ms + interval_ms(class)),
            Err(_) if !self.disk.is_off() => State::Failed,
            _ => State::Maybe,
        };
        for &(id, at, value) in &new {
            self.model.add(id, at, value, state);
        }
        let committed = committed?;
        assert_eq!((committed.samples, committed.refused), (new.len() as u64, 0));
        Ok(())
    }
}
