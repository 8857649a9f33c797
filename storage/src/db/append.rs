//! How does a batch of rows get in?
//!
//! A [`DbAppender`] buffers rows without a lock. Its commit takes the write
//! side once: new series to their file, routing and encoding, one record to
//! the log, then all of it becomes visible at once.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::read::DbQuerier;
use super::stats::Counters;
use super::{Inner, WriteSide, lock};
use crate::append::{AppendError, Appender, CommitError, Committed, SourceId, SyncClass};
use crate::head::histogram as plain_histogram;
use crate::head::repeat::{Found, Sent, Verdict};
use crate::head::write::{Bounds, Outcome, Past, RowSlices};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::read::{Column, Querier as _, SeriesRef};
use crate::sample::{Exemplar, Metadata, Value};
use crate::series::MAX_LABELS_BYTES;
use crate::wal;

/// A remote write is durable within a second.
const REMOTE_WRITE_SYNC_MS: i64 = 900;
/// Most bytes of rows in one log record.
const RECORD_SOFT_BYTES: usize = wal::MAX_RECORD_BYTES / 2;

/// Buffers of more samples than this are not kept.
const KEPT_SAMPLES: usize = 1 << 16;

thread_local! {
    /// Ids and values of the last appender on this thread, for the next one.
    static SPARE: Cell<(Vec<u32>, Vec<f64>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Rows of one source that are not committed yet.
pub(super) struct DbAppender {
    inner: Arc<Inner>,
    source: SourceId,
    class: SyncClass,
    bounds: Bounds,
    ids: Vec<u32>,
    values: Vec<f64>,
    /// By position in `ids`.
    histograms: Vec<(u32, Vec<u8>)>,
    starts: Vec<(u32, i64)>,
    rows: Vec<PendingRow>,
    exemplars: Vec<(u32, Exemplar)>,
    metadata: Vec<(String, Metadata)>,
    /// The series that is probably asked for next.
    hint: u32,
    /// Series that ended.
    forgotten: Arc<roaring::RoaringBitmap>,
}

#[derive(Debug, Clone, Copy)]
struct PendingRow {
    timestamp_ms: i64,
    /// Positions in `ids`.
    start: usize,
    end: usize,
}

impl DbAppender {
    pub(super) fn new(inner: Arc<Inner>, source: SourceId, class: SyncClass) -> Self {
        let bounds = inner.bounds();
        let forgotten = inner.series.forgotten();
        let (ids, values) = SPARE.take();
        Self {
            forgotten,
            inner,
            source,
            class,
            bounds,
            ids,
            values,
            histograms: Vec::new(),
            starts: Vec::new(),
            rows: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            hint: u32::MAX,
        }
    }

    /// Checks one sample against what is committed.
    fn check(&self, id: u32, timestamp_ms: i64, sent: Sent<'_>) -> Result<(), AppendError> {
        if !self.is_known(id) {
            return Err(AppendError::UnknownSeries);
        }
        if self.is_surely_newest(timestamp_ms) {
            return Ok(());
        }
        let (verdict, late) = {
            let write = lock(&self.inner.write);
            let (writer, bounds) = (&write.writer, &self.bounds);
            let verdict = writer.judge(id, timestamp_ms, sent, bounds, &write.catalog);
            (verdict, writer.check_late(timestamp_ms, bounds))
        };
        match verdict {
            Verdict::Taken => Ok(()),
            Verdict::Refused(e) => Err(e),
            Verdict::Unsure => {
                let found = self.read(&[id], timestamp_ms);
                settle(sent, timestamp_ms, &found[0], late)
            }
        }
    }

    /// Checks the samples of one row; adds to `refused` which cannot be taken.
    fn check_row(
        &self,
        timestamp_ms: i64,
        series: &[SeriesRef],
        values: &[f64],
        refused: &mut Vec<(usize, AppendError)>,
    ) {
        let mut unsure = Vec::new();
        let late = {
            let write = lock(&self.inner.write);
            let samples = series.iter().zip(values).map(|(s, v)| (s.0, *v));
            let (bounds, catalog) = (&self.bounds, &write.catalog);
            write.writer.judge_row(timestamp_ms, samples, bounds, catalog, |i, verdict| {
                match verdict {
                    Verdict::Taken => {}
                    Verdict::Refused(e) => refused.push((i, e)),
                    Verdict::Unsure => unsure.push(i),
                }
            });
            write.writer.check_late(timestamp_ms, bounds)
        };
        if unsure.is_empty() {
            return;
        }
        let ids: Vec<u32> = unsure.iter().map(|&i| series[i].0).collect();
        let found = self.read(&ids, timestamp_ms);
        let settled = unsure.iter().zip(&found).filter_map(|(&i, found)| {
            let settled = settle(Sent::Float(values[i]), timestamp_ms, found, late);
            settled.err().map(|e| (i, e))
        });
        refused.extend(settled);
    }

    /// Reads what the writer does not know, and lets it know.
    #[cold]
    fn read(&self, ids: &[u32], start_ms: i64) -> Vec<Found> {
        let found = read_from(&self.inner, ids, start_ms);
        let mut write = lock(&self.inner.write);
        for (id, found) in ids.iter().zip(&found) {
            if let Found::Newest(at_ms, _) = found {
                write.writer.learn(*id, *at_ms);
            }
        }
        found
    }

    /// Whether an id was given and its series did not end.
    #[inline]
    fn is_known(&self, id: u32) -> bool {
        id < self.inner.series.next_id()
            && (self.forgotten.is_empty() || !self.forgotten.contains(id))
    }

    /// Whether a sample is newer than all others, and not too new.
    fn is_surely_newest(&self, timestamp_ms: i64) -> bool {
        timestamp_ms > self.inner.newest_ms.load(Ordering::Acquire)
            && timestamp_ms >= self.bounds.min_ms
            && timestamp_ms <= self.bounds.max_ms
    }

    fn push(&mut self, timestamp_ms: i64, id: u32, value: f64) -> u32 {
        let position = self.ids.len();
        match self.rows.last_mut() {
            Some(row) if row.timestamp_ms == timestamp_ms => row.end += 1,
            _ => self.rows.push(PendingRow { timestamp_ms, start: position, end: position + 1 }),
        }
        self.ids.push(id);
        self.values.push(value);
        position as u32
    }

    /// Brings the samples in order of time, as one row per timestamp.
    fn order(&mut self) {
        if self.rows.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms) {
            return;
        }
        self.rows.sort_by_key(|r| r.timestamp_ms);
        let (mut ids, mut values) =
            (Vec::with_capacity(self.ids.len()), Vec::with_capacity(self.ids.len()));
        let mut rows: Vec<PendingRow> = Vec::with_capacity(self.rows.len());
        let mut moved = vec![0u32; self.ids.len()];
        for row in &self.rows {
            let start = ids.len();
            for (position, new) in (row.start..row.end).zip(start..) {
                moved[position] = new as u32;
            }
            ids.extend_from_slice(&self.ids[row.start..row.end]);
            values.extend_from_slice(&self.values[row.start..row.end]);
            match rows.last_mut() {
                Some(last) if last.timestamp_ms == row.timestamp_ms => last.end = ids.len(),
                _ => {
                    rows.push(PendingRow { timestamp_ms: row.timestamp_ms, start, end: ids.len() })
                }
            }
        }
        (self.ids, self.values, self.rows) = (ids, values, rows);
        for (position, _) in &mut self.histograms {
            *position = moved[*position as usize];
        }
        self.histograms.sort_unstable_by_key(|(p, _)| *p);
        for (position, _) in &mut self.starts {
            *position = moved[*position as usize];
        }
        self.starts.sort_unstable_by_key(|(p, _)| *p);
    }

    /// Takes out the samples of series that ended since this appender began;
    /// says how many they are.
    #[cold]
    fn drop_ended(&mut self, ended: &roaring::RoaringBitmap) -> usize {
        self.exemplars.retain(|(id, _)| !ended.contains(*id));
        let before = self.ids.len();
        if !self.ids.iter().any(|id| ended.contains(*id)) {
            return 0;
        }
        let (ids, values) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.values));
        let mut moved = vec![None; ids.len()];
        for row in &mut self.rows {
            let start = self.ids.len();
            for position in row.start..row.end {
                if !ended.contains(ids[position]) {
                    moved[position] = Some(self.ids.len() as u32);
                    self.ids.push(ids[position]);
                    self.values.push(values[position]);
                }
            }
            (row.start, row.end) = (start, self.ids.len());
        }
        self.rows.retain(|row| row.start < row.end);
        let place = |position: u32| moved[position as usize];
        let histograms = std::mem::take(&mut self.histograms).into_iter();
        self.histograms = histograms.filter_map(|(p, h)| Some((place(p)?, h))).collect();
        self.starts = self.starts.iter().filter_map(|(p, s)| Some((place(*p)?, *s))).collect();
        before - self.ids.len()
    }

    fn write_rows(&self, write: &mut WriteSide, outcome: &mut Outcome) -> std::io::Result<()> {
        let catalog = Arc::clone(&write.catalog);
        let (mut histograms, mut starts) = (Vec::new(), Vec::new());
        let read_from = |ids: &[u32], start_ms: i64| read_from(&self.inner, ids, start_ms);
        let past = Past { catalog: &catalog, read_from: &read_from };
        for row in &self.rows {
            slice_of(&self.histograms, row, &mut histograms);
            slice_of(&self.starts, row, &mut starts);
            let slices = RowSlices {
                timestamp_ms: row.timestamp_ms,
                ids: &self.ids[row.start..row.end],
                values: &self.values[row.start..row.end],
                histograms: &histograms,
                starts: &starts,
            };
            let WriteSide { writer, record, .. } = write;
            writer.add_row(self.source, &slices, &self.bounds, &past, record, outcome);
            if record.len() > RECORD_SOFT_BYTES {
                self.log_record(write)?;
            }
        }
        Ok(())
    }

    /// Writes the record to the log and begins another. A log that cannot be
    /// written lags, if the rows may be kept in memory only.
    fn log_record(&self, write: &mut WriteSide) -> std::io::Result<()> {
        let written = if write.lag.lags || wal::is_empty(&write.record) {
            Ok(())
        } else {
            write.wal.append(&mut write.record)
        };
        wal::begin(&mut write.record);
        self.or_lag(write, written)
    }

    fn or_lag(&self, write: &mut WriteSide, result: std::io::Result<()>) -> std::io::Result<()> {
        match result {
            Err(_) if self.class == SyncClass::Scrape && self.inner.has_room() => {
                Counters::add(&self.inner.counters.write_failures, 1);
                write.lag.begin();
                Ok(())
            }
            other => other,
        }
    }
}

impl Drop for DbAppender {
    fn drop(&mut self) {
        let (mut ids, mut values) =
            (std::mem::take(&mut self.ids), std::mem::take(&mut self.values));
        if ids.capacity() <= KEPT_SAMPLES {
            ids.clear();
            values.clear();
            SPARE.set((ids, values));
        }
    }
}

/// What becomes of a sample whose series has `found` from its time on; `late` is
/// what becomes of it if that is newer.
fn settle(
    sent: Sent<'_>,
    timestamp_ms: i64,
    found: &Found,
    late: Result<(), AppendError>,
) -> Result<(), AppendError> {
    match found {
        Found::Newest(at_ms, stored) if *at_ms == timestamp_ms => {
            if sent.is_repetition(stored) {
                Ok(())
            } else {
                Err(AppendError::Duplicate)
            }
        }
        Found::Newest(..) => late,
        // The commit may know more.
        Found::Nothing | Found::Unreadable => Ok(()),
    }
}

/// The newest samples of series from a time on, as of the newest commit. May read
/// the disk; takes the locks of a query, which are behind that of the write side.
#[cold]
fn read_from(inner: &Arc<Inner>, ids: &[u32], start_ms: i64) -> Vec<Found> {
    let querier = DbQuerier::new(Arc::clone(inner), start_ms, i64::MAX);
    let mut column = Column::new();
    let read = |id: &u32| {
        if querier.read(SeriesRef(*id), start_ms, i64::MAX, &mut column).is_err() {
            return Found::Unreadable;
        }
        let Some(&at_ms) = column.timestamps().last() else { return Found::Nothing };
        let last = column.len() as u32 - 1;
        let value = match column.histograms.last() {
            Some((at, histogram)) if *at == last => Value::Histogram(Arc::clone(histogram)),
            _ => Value::Float(column.floats[last as usize]),
        };
        Found::Newest(at_ms, value)
    };
    ids.iter().map(read).collect()
}

/// The entries of a row, with positions within the row.
fn slice_of<T: Clone>(entries: &[(u32, T)], row: &PendingRow, out: &mut Vec<(u32, T)>) {
    out.clear();
    if entries.is_empty() {
        return;
    }
    let from = entries.partition_point(|(p, _)| (*p as usize) < row.start);
    let to = entries.partition_point(|(p, _)| (*p as usize) < row.end);
    out.extend(entries[from..to].iter().map(|(p, v)| (*p - row.start as u32, v.clone())));
}

impl Appender for DbAppender {
    fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        if let Some(id) = self.inner.series.find_in_memory(labels, self.hint) {
            self.hint = id.wrapping_add(1);
            return Ok(SeriesRef(id));
        }
        if labels.is_empty() || labels.as_bytes().len() > MAX_LABELS_BYTES {
            return Err(AppendError::InvalidLabels);
        }
        let may_create = self.inner.admission.admits(self.source);
        let found = self.inner.series.find_or_create(labels, may_create);
        let (id, is_new) = found.map_err(|e| self.inner.note_refused_series(e))?;
        if is_new {
            self.inner.admission.note_made(self.source);
            Counters::add(&self.inner.counters.series_created, 1);
        }
        Ok(SeriesRef(id))
    }

    fn append_row(
        &mut self,
        timestamp_ms: i64,
        series: &[SeriesRef],
        values: &[f64],
        refused: &mut Vec<(usize, AppendError)>,
    ) {
        assert_eq!(series.len(), values.len(), "BUG: a row with series and values of two lengths");
        if series.is_empty() {
            return;
        }
        let refused_before = refused.len();
        let (next_id, none_ended) = (self.inner.series.next_id(), self.forgotten.is_empty());
        let is_unknown =
            |s: &SeriesRef| s.0 >= next_id || !none_ended && self.forgotten.contains(s.0);
        if self.is_surely_newest(timestamp_ms) {
            let unknown = series.iter().enumerate().filter(|(_, s)| is_unknown(s));
            refused.extend(unknown.map(|(i, _)| (i, AppendError::UnknownSeries)));
        } else {
            self.check_row(timestamp_ms, series, values, refused);
            if series.iter().any(is_unknown) {
                let mut others = refused.split_off(refused_before);
                others.retain(|(i, _)| !is_unknown(&series[*i]));
                refused.append(&mut others);
                let unknown = series.iter().enumerate().filter(|(_, s)| is_unknown(s));
                refused.extend(unknown.map(|(i, _)| (i, AppendError::UnknownSeries)));
            }
            refused[refused_before..].sort_unstable_by_key(|(i, _)| *i);
        }
        let bad = &refused[refused_before..];
        if bad.is_empty() {
            let start = self.ids.len();
            self.ids.extend(series.iter().map(|s| s.0));
            self.values.extend_from_slice(values);
            match self.rows.last_mut() {
                Some(row) if row.timestamp_ms == timestamp_ms => row.end = self.ids.len(),
                _ => self.rows.push(PendingRow { timestamp_ms, start, end: self.ids.len() }),
            }
            return;
        }
        let mut bad = bad.iter().map(|(i, _)| *i).peekable();
        for (i, (s, value)) in series.iter().zip(values).enumerate() {
            if bad.next_if_eq(&i).is_none() {
                self.push(timestamp_ms, s.0, *value);
            }
        }
        self.inner.count_refused(&refused[refused_before..]);
    }

    fn append(
        &mut self,
        series: SeriesRef,
        timestamp_ms: i64,
        start_ms: i64,
        value: f64,
    ) -> Result<(), AppendError> {
        self.check(series.0, timestamp_ms, Sent::Float(value))
            .inspect_err(|e| self.inner.count_refused(&[(0, *e)]))?;
        let position = self.push(timestamp_ms, series.0, value);
        if start_ms != 0 {
            self.starts.push((position, start_ms));
        }
        Ok(())
    }

    fn append_histogram(
        &mut self,
        series: SeriesRef,
        timestamp_ms: i64,
        start_ms: i64,
        histogram: &Histogram,
    ) -> Result<(), AppendError> {
        let marker;
        let histogram = if histogram.is_stale() {
            // Nothing else of a marker matters.
            marker = Histogram { sum: histogram.sum, ..Histogram::default() };
            &marker
        } else {
            histogram.validate().map_err(|_| AppendError::InvalidHistogram)?;
            histogram
        };
        self.check(series.0, timestamp_ms, Sent::Histogram(histogram))
            .inspect_err(|e| self.inner.count_refused(&[(0, *e)]))?;
        let position = self.push(timestamp_ms, series.0, 0.0);
        let mut bytes = Vec::new();
        plain_histogram::encode(histogram, &mut bytes);
        self.histograms.push((position, bytes));
        if start_ms != 0 {
            self.starts.push((position, start_ms));
        }
        Ok(())
    }

    fn append_exemplar(
        &mut self,
        series: SeriesRef,
        exemplar: &Exemplar,
    ) -> Result<(), AppendError> {
        if !self.is_known(series.0) {
            return Err(AppendError::UnknownSeries);
        }
        lock(&self.inner.exemplars).check(series.0, exemplar)?;
        self.exemplars.push((series.0, exemplar.clone()));
        Ok(())
    }

    fn set_metadata(&mut self, family: &str, metadata: &Metadata) {
        self.metadata.push((family.to_owned(), metadata.clone()));
    }

    fn commit(mut self: Box<Self>) -> Result<Committed, CommitError> {
        self.order();
        let inner = Arc::clone(&self.inner);
        let mut outcome = Outcome::default();
        let mut guard = lock(&inner.write);
        let write = &mut *guard;
        if inner.is_closed.load(Ordering::SeqCst) {
            return Err(CommitError::Closed);
        }
        // Series end while nobody commits.
        let forgotten = inner.series.forgotten();
        if !Arc::ptr_eq(&self.forgotten, &forgotten) {
            for _ in 0..self.drop_ended(&forgotten) {
                outcome.refuse(AppendError::UnknownSeries);
            }
        }
        let may_lag = self.class == SyncClass::Scrape && inner.has_room();
        if write.lag.lags && !may_lag {
            inner.wake(|w| w.now = true);
            return Err(inner.failed(std::io::Error::other("the log lags behind memory")));
        }
        if !write.lag.lags {
            let ready = inner.write_new_series(write, self.bounds.now_ms);
            self.or_lag(write, ready).map_err(|e| inner.failed(e))?;
        }
        write.commit += 1;
        if let Some(first) = self.rows.first() {
            inner.changes.note(write.commit, first.timestamp_ms);
        }
        let mark = write.wal.mark();
        write.writer.begin(write.commit, write.wal.segment());
        wal::begin(&mut write.record);
        let mut written = self.write_rows(write, &mut outcome);
        for (series, exemplar) in &self.exemplars {
            wal::put_exemplar(&mut write.record, *series, exemplar);
        }
        if written.is_ok() {
            written = self.log_record(write);
        }
        if let Err(e) = written {
            write.wal.rewind(mark);
            write.writer.roll_back();
            // Stripes that the commit froze are full, nevertheless.
            let frozen = write.writer.take_frozen();
            write.sealing.extend(frozen);
            inner.publish(write);
            return Err(inner.failed(e));
        }
        let interval = match self.class {
            SyncClass::RemoteWrite => REMOTE_WRITE_SYNC_MS,
            SyncClass::Scrape => inner.options.wal_sync_interval_ms,
        };
        let due = self.bounds.now_ms.saturating_add(interval);
        let earlier = write.sync_due_ms.is_none_or(|d| due < d);
        if earlier {
            write.sync_due_ms = Some(due);
        }
        let frozen = write.writer.take_frozen();
        let is_work_waiting = !frozen.is_empty();
        write.sealing.extend(frozen);
        if let Some(newest) = write.writer.newest_ms {
            inner.newest_ms.store(newest, Ordering::Release);
        }
        inner.publish(write);
        drop(guard);
        inner.counters.count(&outcome);
        if is_work_waiting {
            inner.wake(|w| w.now = true);
        }
        inner.keep_extras(std::mem::take(&mut self.exemplars), std::mem::take(&mut self.metadata));
        Ok(Committed { samples: outcome.taken, refused: outcome.refused() })
    }
}

impl Inner {
    /// What bounds samples that are appended now.
    pub(super) fn bounds(&self) -> Bounds {
        let now_ms = self.now_ms();
        let retention = self.options.retention_time_ms;
        Bounds {
            out_of_order_ms: self.options.out_of_order_window_ms,
            min_ms: if retention == 0 { i64::MIN } else { now_ms.saturating_sub(retention) },
            max_ms: now_ms.saturating_add(self.options.future_limit_ms),
            now_ms,
        }
    }

    fn write_new_series(&self, write: &mut WriteSide, now_ms: i64) -> std::io::Result<()> {
        self.series.append_new()?;
        if write.wal.is_full(now_ms)
            && let Err(e) = write.wal.rotate()
        {
            // The segment may have lost what was not durable.
            write.lag.begin();
            return Err(e);
        }
        Ok(())
    }

    /// Counts a series that was not given an id; says why not.
    #[cold]
    fn note_refused_series(&self, error: AppendError) -> AppendError {
        let is_stuck =
            self.rows_stuck.load(Ordering::Relaxed) || self.series_stuck.load(Ordering::Relaxed);
        let error = match error {
            AppendError::SeriesLimit if is_stuck => AppendError::Storage,
            other => other,
        };
        let counter = match error {
            AppendError::Storage => &self.counters.series_failed,
            _ => &self.counters.series_refused,
        };
        Counters::add(counter, 1);
        error
    }

    fn failed(&self, error: std::io::Error) -> CommitError {
        Counters::add(&self.counters.write_failures, 1);
        CommitError::Log(error)
    }

    fn count_refused(&self, refused: &[(usize, AppendError)]) {
        for (_, error) in refused {
            let counter = match error {
                AppendError::OutOfOrder => &self.counters.out_of_order,
                AppendError::TooOld => &self.counters.too_old,
                AppendError::Duplicate => &self.counters.duplicates,
                AppendError::OutOfBounds | AppendError::TooFarInFuture => {
                    &self.counters.out_of_bounds
                }
                _ => continue,
            };
            Counters::add(counter, 1);
        }
    }

    fn keep_extras(&self, exemplars: Vec<(u32, Exemplar)>, metadata: Vec<(String, Metadata)>) {
        if !exemplars.is_empty() {
            let mut ring = lock(&self.exemplars);
            let taken = exemplars.into_iter().filter(|(s, e)| ring.push(*s, e.clone())).count();
            Counters::add(&self.counters.exemplars, taken as u64);
        }
        if !metadata.is_empty() {
            let mut families = lock(&self.metadata);
            for (family, metadata) in &metadata {
                families.set(family, metadata);
            }
        }
    }
}
