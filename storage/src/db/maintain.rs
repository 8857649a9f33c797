//! What must be done beside commits and queries?
//!
//! Full stripes are encoded and appended to their days; the log is synced when
//! rows are due and cut when its first segments are in durable days; days
//! beyond the retention are deleted; new series are refused while the head is
//! over its share.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::stats::Counters;
use super::{Inner, WriteSide, lock};
use crate::day::catalog::{Catalog, Day, Stripe};
use crate::day::file::{DayFile, directory_of};
use crate::day::stripe::{Encoded, encode_rows};
use crate::day::{DAY_MS, day_of};
use crate::head::open::OpenStripe;

/// How often the thread looks what is due.
const TICK: Duration = Duration::from_secs(1);
/// Ticks from one look at idle axes, retention and memory to the next.
const SLOW_TICKS: u32 = 10;
/// What was not read for this time leaves the caches.
const AGE_MS: i64 = 120_000;
/// A day file longer than this is closed.
const DAY_FILE_BYTES: u64 = 1 << 30;

/// The files that stripes are appended to, by day.
#[derive(Debug)]
pub(super) struct DayFiles {
    pub(super) open: HashMap<i64, DayWriter>,
    pub(super) next_file: u64,
    last_slow_ms: Option<i64>,
    last_age_ms: Option<i64>,
}

#[derive(Debug)]
pub(super) struct DayWriter {
    pub(super) file: Arc<DayFile>,
    len: u64,
    is_dirty: bool,
    is_torn: bool,
}

impl DayFiles {
    pub(super) fn new(next_file: u64) -> Self {
        Self { open: HashMap::new(), next_file, last_slow_ms: None, last_age_ms: None }
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
        note(self.seal());
        note(self.sync_if_due(now_ms));
        if is_slow {
            note(self.cut_log());
            note(self.enforce_retention(now_ms));
            note(self.save_metadata());
            if self.options.merge_days {
                note(self.merge_closed_day(now_ms));
            }
            self.account(now_ms);
        }
        first
    }

    /// Brings the index up to date, some series at a time, so that neither new
    /// series nor the first query wait for it.
    fn index_new_series(&self) {
        const BATCH: u32 = 8192;
        loop {
            let table = self.series.read().unwrap_or_else(PoisonError::into_inner);
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            if !index.is_behind(&table) || self.is_closed.load(Ordering::Relaxed) {
                return;
            }
            index.catch_up(&table, BATCH);
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
        let encoded = {
            let table = self.series.read().unwrap_or_else(PoisonError::into_inner);
            encode_rows(open.id, &rows, |a, b| table.are_buckets(a, b))
        };
        drop(rows);
        let stripe = match &encoded {
            Some(encoded) => Some(self.write_stripe(files, open.id, encoded)?),
            None => None,
        };
        let mut write = lock(&self.write);
        write.sealing.retain(|s| !Arc::ptr_eq(s, open));
        write.writer.is_view_stale = true;
        if let (Some(stripe), Some(encoded)) = (stripe, encoded) {
            Counters::add(&self.counters.chunks_sealed, encoded.chunks);
            Counters::add(&self.counters.stripes_sealed, 1);
            Arc::make_mut(&mut write.catalog).add(stripe, encoded.layout);
        }
        self.publish(&mut write);
        Ok(())
    }

    fn write_stripe(&self, files: &mut DayFiles, id: u64, encoded: &Encoded) -> io::Result<Stripe> {
        let min_ms = encoded.times.first().copied().unwrap_or(0);
        let writer = self.day_writer(files, day_of(min_ms))?;
        if writer.is_torn {
            writer.file.file().truncate(writer.len)?;
            writer.is_torn = false;
        }
        if let Err(e) = writer.file.file().append(&encoded.bytes) {
            writer.is_torn = true;
            return Err(e);
        }
        let offset = writer.len;
        writer.len += encoded.bytes.len() as u64;
        writer.is_dirty = true;
        Ok(Stripe::of(encoded, id, Arc::clone(&writer.file), offset))
    }

    fn day_writer<'a>(&self, files: &'a mut DayFiles, day: i64) -> io::Result<&'a mut DayWriter> {
        let full = files.open.get(&day).is_some_and(|w| w.len >= DAY_FILE_BYTES && !w.is_dirty);
        if full {
            files.open.remove(&day);
        }
        if !files.open.contains_key(&day) {
            let (fs, root) = (&*self.options.file_system, &self.options.path);
            let directory = directory_of(day);
            let number = files.next_file;
            let file = DayFile::create(fs, root, &directory, number)?;
            fs.sync_dir(&root.join(&directory))?;
            fs.sync_dir(&root.join("days"))?;
            files.next_file += 1;
            let len = DayFile::start_bytes();
            let file = Arc::new(file);
            files.open.insert(day, DayWriter { file, len, is_dirty: true, is_torn: false });
        }
        Ok(files.open.get_mut(&day).expect("just inserted"))
    }

    /// Makes rows durable if some are due.
    pub(super) fn sync_if_due(&self, now_ms: i64) -> io::Result<()> {
        let due = lock(&self.write).sync_due_ms.is_some_and(|due| due <= now_ms);
        if due { self.sync() } else { Ok(()) }
    }

    /// Makes everything committed durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (file, number, len, is_dirty) = {
            let mut write = lock(&self.write);
            write.sync_due_ms = None;
            // Series first: rows name them.
            write.series_file.sync()?;
            let (file, number, len) = write.wal.open_file();
            (file, number, len, write.wal.is_dirty())
        };
        if !is_dirty {
            return Ok(());
        }
        Counters::add(&self.counters.wal_syncs, 1);
        // Without the lock: commits go on meanwhile.
        match file.sync() {
            Ok(()) => {
                lock(&self.write).wal.note_synced(number, len);
                Ok(())
            }
            Err(e) => {
                self.write_again(number)?;
                Err(e)
            }
        }
    }

    /// After a failed sync: the kernel may have dropped the pages, and syncing
    /// again would say nothing of them. What is not in a stripe goes to a new
    /// segment.
    fn write_again(&self, failed_segment: u64) -> io::Result<()> {
        let mut guard = lock(&self.write);
        let write = &mut *guard;
        write.sync_due_ms = Some(i64::MIN);
        if write.wal.segment() == failed_segment {
            write.wal.abandon()?;
        }
        let segment = write.wal.segment();
        let stripes: Vec<Arc<OpenStripe>> =
            write.writer.open_stripes().chain(&write.sealing).cloned().collect();
        for open in stripes {
            let mut rows = open.lock();
            crate::wal::begin(&mut write.record);
            for item in rows.items() {
                crate::wal::put_item(&mut write.record, open.id, item);
            }
            if !crate::wal::is_empty(&write.record) {
                write.wal.append(&mut write.record)?;
            }
            (rows.first_segment, rows.newest_segment) = (segment, segment);
        }
        Ok(())
    }

    /// Deletes log segments that only hold stripes that are durable in days.
    fn cut_log(&self) -> io::Result<()> {
        let needed = {
            let write = lock(&self.write);
            let sealing = write.sealing.iter().map(|o| o.lock().first_segment).min();
            let needed = write.writer.first_segment().min(sealing.unwrap_or(u64::MAX));
            if needed.min(write.wal.segment()) <= write.wal.first_segment() {
                return Ok(());
            }
            needed
        };
        let mut files = lock(&self.day_files);
        lock(&self.write).series_file.sync()?;
        for writer in files.open.values_mut().filter(|w| w.is_dirty) {
            writer.file.file().sync()?;
            writer.is_dirty = false;
        }
        lock(&self.write).wal.delete_before(needed)?;
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
        lock(&self.write).wal.rotate()?;
        self.cut_log()
    }

    /// Deletes the days that are beyond the retention, by time and by size.
    fn enforce_retention(&self, now_ms: i64) -> io::Result<()> {
        let mut expired: Vec<Arc<Day>> = Vec::new();
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
            let disk_bytes = |catalog: &Catalog, write: &WriteSide| {
                let days: u64 = catalog.days.iter().map(|d| d.bytes).sum();
                days + write.wal.bytes() + write.series_file.len()
            };
            let limit = self.options.retention_size_bytes;
            while limit > 0 && catalog.days.len() > 1 && disk_bytes(&catalog, &write) > limit {
                expired.push(catalog.days.remove(0));
                Counters::add(&self.counters.size_retentions, 1);
            }
            self.disk_bytes.store(disk_bytes(&catalog, &write), Ordering::Relaxed);
            if expired.is_empty() {
                return Ok(());
            }
            write.catalog = Arc::new(catalog);
            write.writer.is_view_stale = true;
            self.publish(&mut write);
        }
        {
            let oldest = lock(&self.write).catalog.days.first().map(|d| d.day * DAY_MS);
            let mut current = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
            let mut next = (**current).clone();
            if oldest.is_some_and(|oldest| next.forget_before(oldest)) {
                next.save(&*self.options.file_system, &self.options.path)?;
                *current = Arc::new(next);
            }
        }
        let mut files = lock(&self.day_files);
        let fs = &*self.options.file_system;
        for day in expired {
            files.open.remove(&day.day);
            fs.remove_dir_all(&self.options.path.join(directory_of(day.day)))?;
        }
        fs.sync_dir(&self.options.path.join("days"))
    }

    /// Compares the head with its share, and lets caches age.
    fn account(&self, now_ms: i64) {
        let limit = self.options.head_limit_bytes;
        {
            let mut files = lock(&self.day_files);
            if files.last_age_ms.is_none_or(|l| (now_ms - l).abs() >= AGE_MS) {
                files.last_age_ms = Some(now_ms);
                self.headers.age();
                self.runs.age();
            }
        }
        let view = self.snapshot().view;
        let mut bytes = lock(&self.write).writer.heap_bytes();
        for open in &view.open {
            let mut rows = open.lock();
            rows.age_decoded();
            bytes += rows.heap_bytes();
        }
        bytes += self.series.read().unwrap_or_else(PoisonError::into_inner).heap_bytes();
        self.is_full.store(limit > 0 && bytes >= limit, Ordering::Relaxed);
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
