//! What must be done beside commits and queries?
//!
//! Full stripes are encoded and appended to their days; the log is synced when
//! rows are due and cut when its first segments are in durable days; days
//! beyond the retention are deleted; new series are refused while the head is
//! over its share.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use roaring::RoaringBitmap;

use super::stats::Counters;
use super::{Inner, MemoryState, WriteSide, lock};
use crate::budget::{Level, Reading};
use crate::day::DAY_MS;
use crate::day::catalog::{Catalog, Day};
use crate::day::stripe::encode_rows;
use crate::engine::sealed::{Sealed, Volumes};
use crate::head::open::OpenStripe;

/// How often the thread looks what is due.
const TICK: Duration = Duration::from_secs(1);
/// Ticks from one look at idle axes, retention and memory to the next.
const SLOW_TICKS: u32 = 10;
/// A log that nothing was added to for so long may be written anew, shorter.
const LOG_IDLE_MS: i64 = 3000;
/// That costs at most this part of what is written to the log.
const REWRITE_SHARE: u64 = 16;
/// What was not read for this time leaves the caches.
const AGE_MS: i64 = 120_000;
/// From one look at series that are out of use to the next.
const COLLECT_MS: i64 = 60_000;

/// The days as they are written, and what is due with them.
#[derive(Debug)]
pub(super) struct DayFiles {
    /// Where the stripes are.
    pub(super) sealed: Box<dyn Sealed>,
    /// Volumes of a process before this that it perhaps did not sync.
    pub(super) inherited: Volumes,
    /// Days with a volume that could not be synced.
    pub(super) suspect: BTreeSet<i64>,
    /// Days with something that cannot be read: never merged, as a merge would
    /// supersede it.
    pub(super) unread: BTreeSet<i64>,
    /// When a merge may be tried again, after one that failed.
    pub(super) merge_after_ms: Option<i64>,
    /// Days that are gone from the catalog and not from the disk.
    doomed: Vec<i64>,
    last_slow_ms: Option<i64>,
    last_age_ms: Option<i64>,
    last_collect_ms: Option<i64>,
    log: LogWatch,
}

/// What was seen of the log by the last look.
#[derive(Debug, Default)]
struct LogWatch {
    /// The newest commit, and when it was new.
    commit: u64,
    changed_ms: i64,
    /// `Wal::written_bytes` behind the last rewrite.
    rewritten_at: u64,
}

impl DayFiles {
    pub(super) fn new(sealed: Box<dyn Sealed>) -> Self {
        Self {
            sealed,
            inherited: Vec::new(),
            suspect: BTreeSet::new(),
            unread: BTreeSet::new(),
            merge_after_ms: None,
            doomed: Vec::new(),
            last_slow_ms: None,
            last_age_ms: None,
            last_collect_ms: None,
            log: LogWatch::default(),
        }
    }
}

/// Starts the thread; it ends with the storage.
pub(super) fn spawn(inner: &Arc<Inner>) -> JoinHandle<()> {
    let weak = Arc::downgrade(inner);
    std::thread::Builder::new()
        .name("narthex-storage".to_owned())
        .spawn(move || run(&weak))
        .expect("a thread can be started when the process starts")
}

fn run(weak: &Weak<Inner>) {
    while let Some(inner) = weak.upgrade() {
        {
            let (mutex, condition) = &inner.wake;
            let mut wake = lock(mutex);
            if !wake.now && !wake.stop {
                let waited = condition.wait_timeout(wake, TICK);
                wake = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            wake.now = false;
            if wake.stop {
                return;
            }
        }
        // What fails is counted and tried again at the next tick.
        let _ = inner.maintain(inner.now_ms());
    }
}

impl Inner {
    /// See [`super::Db::run_maintenance`].
    pub(super) fn maintain(&self, now_ms: i64) -> io::Result<()> {
        let mut first = Ok(());
        let mut note = |result: io::Result<()>| {
            if result.is_err() {
                Counters::add(&self.counters.write_failures, 1);
                if first.is_ok() {
                    first = result;
                }
            }
        };
        self.index_new_series();
        self.report_series();
        let is_slow = {
            let mut files = lock(&self.day_files);
            let interval = i64::from(SLOW_TICKS) * TICK.as_millis() as i64;
            let due = files.last_slow_ms.is_none_or(|l| (now_ms - l).abs() >= interval);
            if due {
                files.last_slow_ms = Some(now_ms);
            }
            due
        };
        if is_slow {
            let mut write = lock(&self.write);
            write.writer.retire_idle(now_ms, false);
            let frozen = write.writer.take_frozen();
            write.sealing.extend(frozen);
            self.publish(&mut write);
        }
        let caught_up = self.catch_up();
        // A stripe may outlive a power cut that older rows in the log do not: they
        // are made durable before it is written, so that no hole is left.
        let must_seal = !lock(&self.write).sealing.is_empty();
        let synced = if must_seal { self.sync_log() } else { self.sync_if_due(now_ms) };
        let sealed = if synced.is_ok() { self.seal() } else { Ok(()) };
        let is_stuck = caught_up.is_err() || sealed.is_err() || must_seal && synced.is_err();
        self.rows_stuck.store(is_stuck, Ordering::Relaxed);
        let is_out_of_room = [&caught_up, &sealed, &synced]
            .iter()
            .any(|r| r.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::StorageFull));
        note(caught_up);
        note(sealed);
        note(synced);
        if is_slow || is_out_of_room {
            note(self.enforce_retention(now_ms, is_out_of_room));
        }
        note(self.bound_log(now_ms, is_slow));
        if is_slow {
            note(lock(&self.day_files).sealed.tidy());
            let collected = self.collect_series(now_ms);
            self.series_stuck.store(collected.is_err(), Ordering::Relaxed);
            note(collected);
            note(self.save_metadata());
            if self.options.merge_days {
                note(self.merge_closed_day(now_ms));
            }
            self.age(now_ms);
        }
        self.account(now_ms);
        first
    }

    /// Brings the index up to date, some series at a time, so that neither new
    /// series nor the first query wait for it.
    fn index_new_series(&self) {
        const BATCH: u32 = 8192;
        loop {
            if !self.series.index_some(BATCH) || self.is_closed.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Writes all full stripes into the days.
    fn seal(&self) -> io::Result<()> {
        let mut files = lock(&self.day_files);
        loop {
            let Some(open) = lock(&self.write).sealing.first().cloned() else { return Ok(()) };
            self.seal_one(&mut files, &open)?;
        }
    }

    fn seal_one(&self, files: &mut DayFiles, open: &Arc<OpenStripe>) -> io::Result<()> {
        let rows = open.snapshot(u64::MAX);
        open.lock().drop_decoded();
        let encoded = encode_rows(open.id, &rows);
        drop(rows);
        let stripe = match &encoded {
            Some(encoded) => Some(files.sealed.append(open.id, encoded)?),
            None => None,
        };
        let mut write = lock(&self.write);
        write.sealing.retain(|s| !Arc::ptr_eq(s, open));
        write.writer.is_view_stale = true;
        if let (Some(stripe), Some(encoded)) = (stripe, encoded) {
            Counters::add(&self.counters.days_written, encoded.bytes.len() as u64);
            Counters::add(&self.counters.chunks_sealed, encoded.chunks);
            Counters::add(&self.counters.stripes_sealed, 1);
            Arc::make_mut(&mut write.catalog).add(stripe, encoded.layout);
        }
        self.publish(&mut write);
        Ok(())
    }

    /// Makes rows durable if some are due.
    pub(super) fn sync_if_due(&self, now_ms: i64) -> io::Result<()> {
        let due = lock(&self.write).sync_due_ms.is_some_and(|due| due <= now_ms);
        if due { self.sync_log() } else { Ok(()) }
    }

    /// Makes rows durable beside long work, which may be what the log waits for.
    pub(super) fn sync_beside(&self, now_ms: i64) -> io::Result<()> {
        if lock(&self.write).lag.lags { Ok(()) } else { self.sync_if_due(now_ms) }
    }

    /// Makes everything committed durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.catch_up()?;
        self.sync_log()
    }

    /// Makes the log durable; fails while it lags.
    fn sync_log(&self) -> io::Result<()> {
        let result = self.try_sync_log();
        if result.is_err() {
            let mut write = lock(&self.write);
            write.sync_due_ms = Some(i64::MIN);
        }
        result
    }

    fn try_sync_log(&self) -> io::Result<()> {
        let (file, number, len, is_dirty) = {
            let mut write = lock(&self.write);
            write.sync_due_ms = None;
            if write.lag.lags {
                return Err(io::Error::other("the log lags behind memory"));
            }
            // Series first: rows name them.
            self.series.sync()?;
            let (file, number, len) = write.wal.open_file();
            (file, number, len, write.wal.is_dirty())
        };
        if !is_dirty {
            return Ok(());
        }
        Counters::add(&self.counters.wal_syncs, 1);
        // Without the lock: commits go on meanwhile.
        let synced = file.sync();
        let mut write = lock(&self.write);
        match synced {
            Ok(()) => write.wal.note_synced(number, len),
            Err(_) => write.lag.begin(),
        }
        synced
    }

    /// Keeps the log near to what a start would need of it: cuts it when it is
    /// twice as long, and when nothing is added any more, writes what is needed
    /// to a segment of its own.
    fn bound_log(&self, now_ms: i64, is_slow: bool) -> io::Result<()> {
        let slack_bytes = self.options.log_slack_bytes;
        let view = self.snapshot().view;
        let needed: u64 = view.open.iter().map(|o| o.lock().item_bytes() as u64).sum();
        let (bytes, written, commit) = {
            let mut write = lock(&self.write);
            write.wal.set_needed(needed);
            (write.wal.bytes(), write.wal.written_bytes, write.commit)
        };
        let is_idle = {
            let log = &mut lock(&self.day_files).log;
            if log.commit != commit || log.changed_ms > now_ms {
                (log.commit, log.changed_ms) = (commit, now_ms);
            }
            let is_paid = written.saturating_sub(log.rewritten_at) >= needed * REWRITE_SHARE;
            now_ms.saturating_sub(log.changed_ms) >= LOG_IDLE_MS && is_paid
        };
        if is_idle && bytes > needed + needed / 2 + slack_bytes {
            self.rewrite_log()?;
            let written = lock(&self.write).wal.written_bytes;
            lock(&self.day_files).log.rewritten_at = written;
        } else if !is_slow && bytes <= 2 * needed + slack_bytes {
            return Ok(());
        }
        self.cut_log()
    }

    /// Deletes log segments that only hold stripes that are durable in days.
    fn cut_log(&self) -> io::Result<()> {
        let needed = {
            let write = lock(&self.write);
            if write.lag.lags {
                return Ok(());
            }
            let sealing = write.sealing.iter().map(|o| o.lock().first_segment).min();
            let needed = write.writer.first_segment().min(sealing.unwrap_or(u64::MAX));
            if needed.min(write.wal.segment()) <= write.wal.first_segment() {
                return Ok(());
            }
            needed
        };
        self.sync_days(&mut lock(&self.day_files))?;
        // Rows may be here only, written again after a failed sync.
        self.sync()?;
        let mut write = lock(&self.write);
        if write.lag.lags { Ok(()) } else { write.wal.delete_before(needed).map(|_| ()) }
    }

    /// Makes all stripes durable, and the series that they name.
    pub(super) fn sync_days(&self, files: &mut DayFiles) -> io::Result<()> {
        self.series.sync()?;
        for volume in std::mem::take(&mut files.inherited) {
            if volume.sync().is_err() {
                files.suspect.insert(volume.day());
            }
        }
        let suspect = files.sealed.sync()?;
        files.suspect.extend(suspect);
        // What is there is perhaps in memory only: written anew.
        while let Some(day) = files.suspect.first().copied() {
            self.rewrite_day(files, day)?;
            files.suspect.remove(&day);
        }
        Ok(())
    }

    /// Freezes everything and writes it into the days; the log becomes empty.
    pub(super) fn seal_all(&self) -> io::Result<()> {
        {
            let mut write = lock(&self.write);
            let now_ms = self.now_ms();
            write.writer.retire_idle(now_ms, true);
            let frozen = write.writer.take_frozen();
            write.sealing.extend(frozen);
            self.publish(&mut write);
        }
        self.seal()?;
        self.catch_up()?;
        {
            let mut write = lock(&self.write);
            let write = &mut *write;
            write.wal.rotate().inspect_err(|_| write.lag.begin())?;
        }
        self.cut_log()
    }

    /// Deletes the days that are beyond the retention, by time and by size.
    /// With `is_out_of_room` the oldest day goes, too, if there is a retention by size: what is
    /// new is worth more.
    fn enforce_retention(&self, now_ms: i64, is_out_of_room: bool) -> io::Result<()> {
        let mut expired: Vec<Arc<Day>> = Vec::new();
        let catalog = Arc::clone(&lock(&self.write).catalog);
        let stripe_bytes = catalog.days.iter().map(|d| d.bytes).sum();
        let overhead_bytes = lock(&self.day_files).sealed.overhead_bytes(stripe_bytes);
        {
            let mut write = lock(&self.write);
            let mut catalog = Catalog::clone(&write.catalog);
            if self.options.retention_time_ms > 0 {
                // A clock that jumped ahead of all samples deletes nothing.
                let newest_ms = self.newest_ms.load(Ordering::Relaxed);
                let floor = now_ms.min(newest_ms).saturating_sub(self.options.retention_time_ms);
                while let Some(day) = catalog.days.first()
                    && day.day.saturating_add(1).saturating_mul(DAY_MS) <= floor
                {
                    expired.push(catalog.days.remove(0));
                    Counters::add(&self.counters.time_retentions, 1);
                }
            }
            let series_bytes = self.series.figures().file_bytes;
            let disk_bytes = |catalog: &Catalog, write: &WriteSide| {
                let days: u64 = catalog.days.iter().map(|d| d.bytes).sum();
                days + overhead_bytes + write.wal.bytes() + series_bytes
            };
            let limit = self.disk_limit_bytes();
            let mut needs_room = is_out_of_room;
            while limit > 0
                && catalog.days.len() > 1
                && (needs_room || disk_bytes(&catalog, &write) > limit)
            {
                needs_room = false;
                expired.push(catalog.days.remove(0));
                Counters::add(&self.counters.size_retentions, 1);
            }
            self.disk_bytes.store(disk_bytes(&catalog, &write), Ordering::Relaxed);
            if !expired.is_empty() {
                write.catalog = Arc::new(catalog);
                write.writer.is_view_stale = true;
                self.publish(&mut write);
                self.changes.begin_epoch();
            }
        }
        {
            let mut files = lock(&self.day_files);
            files.doomed.extend(expired.iter().map(|d| d.day));
            if files.doomed.is_empty() {
                return Ok(());
            }
            self.remove_doomed(&mut files)?;
        }
        self.forget_tombstones()?;
        self.forget_series()
    }

    /// Removes the days that are not in the catalog any more.
    fn remove_doomed(&self, files: &mut DayFiles) -> io::Result<()> {
        while let Some(&day) = files.doomed.last() {
            // Late samples may have brought it back.
            let is_back = lock(&self.write).catalog.days.iter().any(|d| d.day == day);
            if !is_back {
                files.suspect.remove(&day);
                files.inherited.retain(|volume| volume.day() != day);
                files.sealed.remove_day(day)?;
            }
            files.doomed.pop();
        }
        Ok(())
    }

    /// Forgets deletions of samples that are gone.
    fn forget_tombstones(&self) -> io::Result<()> {
        if !lock(&self.day_files).unread.is_empty() {
            return Ok(());
        }
        let oldest = lock(&self.write).catalog.days.first().map(|d| d.day * DAY_MS);
        let mut current = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**current).clone();
        if oldest.is_some_and(|oldest| next.forget_before(oldest)) {
            next.save(&*self.options.file_system, &self.options.path)?;
            *current = Arc::new(next);
        }
        Ok(())
    }

    /// Most bytes on disk; 0: no limit.
    fn disk_limit_bytes(&self) -> u64 {
        let size = self.options.retention_size_bytes;
        let percentage = self.options.retention_percentage;
        if percentage <= 0.0 {
            return size;
        }
        let Some(capacity) = (self.options.disk_capacity)() else { return size };
        // At least one byte: 0 is no limit.
        let share = ((capacity as f64 * percentage.min(100.0) / 100.0) as u64).max(1);
        if size == 0 { share } else { share.min(size) }
    }

    /// Writes new series to segments, forgets those out of use, and merges
    /// segments.
    fn collect_series(&self, now_ms: i64) -> io::Result<()> {
        // Held for the sake of a snapshot, which lists files.
        let mut files = lock(&self.day_files);
        let counts = files
            .last_collect_ms
            .is_none_or(|last| now_ms.saturating_sub(last).saturating_abs() >= COLLECT_MS);
        if counts {
            files.last_collect_ms = Some(now_ms);
        }
        let in_use = || super::read::series_of_head(&self.snapshot().view);
        let between = || self.between_steps();
        if self.series.collect(in_use, counts, &between)? {
            while self.series.merge_segments(&between)? {}
        }
        Ok(())
    }

    /// Ends the series that have no samples in any day that is left.
    fn forget_series(&self) -> io::Result<()> {
        let files = lock(&self.day_files);
        if !files.unread.is_empty() {
            // What is in such a day may be read by a later start.
            return Ok(());
        }
        let ended = {
            // Nobody commits rows of a series meanwhile.
            let write = lock(&self.write);
            let mut used = RoaringBitmap::new();
            write.catalog.days.iter().for_each(|day| day.add_ids(&mut used));
            for open in write.writer.open_stripes().chain(&write.sealing) {
                open.lock().layout().add_ids(&mut used);
            }
            self.series.end_unused(&used)
        };
        self.series.rewrite_ended(ended, &|| self.between_steps())
    }

    /// Work may take minutes: what others wait for goes on meanwhile, and closing
    /// does not wait for it.
    pub(super) fn between_steps(&self) -> io::Result<()> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "closing"));
        }
        self.sync_beside(self.now_ms())
    }

    /// Lets caches and decoded rows age.
    fn age(&self, now_ms: i64) {
        {
            let mut files = lock(&self.day_files);
            if files.last_age_ms.is_none_or(|l| (now_ms - l).abs() >= AGE_MS) {
                files.last_age_ms = Some(now_ms);
                self.headers.age();
                self.runs.age();
                self.columns.age();
                self.selections.age();
                self.series.age_cache();
            }
        }
        self.snapshot().view.open.iter().for_each(|open| open.lock().age_decoded());
    }

    /// Compares what is held with the head's share.
    fn account(&self, now_ms: i64) {
        let view = self.snapshot().view;
        let series = self.series.figures();
        let rows = lock(&self.write).writer.heap_bytes() as u64;
        let mut head = rows + series.table_bytes + series.index_bytes;
        let caches = self.headers.figures().0
            + self.runs.figures().0
            + self.columns.figures().0
            + self.selections.figures().0;
        let mut others = series.cache_bytes + (caches + view.catalog.heap_bytes()) as u64;
        others += lock(&self.day_files).sealed.memory_bytes();
        for open in &view.open {
            let rows = open.lock();
            head += rows.heap_bytes() as u64;
            others += rows.decoded_bytes() as u64;
        }
        let process = (self.options.process_memory)();
        let level = self.admission.reconcile(Reading { head, others, process }, now_ms);
        let (charged_bytes, limit_bytes, _) = self.admission.figures();
        let state = match level {
            None => return,
            Some(Level::Open) => MemoryState::Enough,
            Some(Level::Worst) => MemoryState::Short { charged_bytes, limit_bytes },
            Some(Level::Closed) => MemoryState::Full { charged_bytes, limit_bytes },
        };
        (self.options.on_memory)(state);
    }

    /// Writes metadata that changed.
    pub(super) fn save_metadata(&self) -> io::Result<()> {
        let mut families = lock(&self.metadata);
        if !families.is_dirty {
            return Ok(());
        }
        families.save(&*self.options.file_system, &self.options.path)
    }
}
