//! What does a storage look like that only remembers? The smallest complete
//! one: for the script runner, for rule tests and for the engine's own tests.
//!
//! Samples are kept per series in plain vectors; a commit makes them visible,
//! a querier is a frozen copy. It behaves like Prometheus' storage where a
//! query can tell: no out-of-order samples, a float staleness marker behind a
//! histogram becomes a histogram's, and the counter-reset hints of histograms
//! are worked out from the samples before, as chunks would give them back.
//!
//! Not for serving: selecting looks at every series.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use narthex_storage::append::{
    AppendError, Appendable, Appender, CommitError, Committed, SourceId, SyncClass,
};
use narthex_storage::histogram::{CounterResetHint, HintTracker, Histogram};
use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Axis, Column, Querier, Queryable, ReadError, SeriesRef};
use narthex_storage::sample::{Exemplar, Metadata, Value, is_stale, stale_nan};

#[cfg(test)]
mod tests;

/// Largest integer below which every integer is a float.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Chunks of histograms never cross a multiple of this, in milliseconds: a
/// day, as in the storage that Prometheus tests queries with.
const CHUNK_RANGE_MS: i64 = 24 * 3600 * 1000;

/// A storage in memory. Clones share the data.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    series: Vec<Series>,
    ids: HashMap<Labels, SeriesRef>,
    metadata: BTreeMap<String, Vec<Metadata>>,
    /// The frozen copy since the last commit.
    snapshot: Option<Arc<Snapshot>>,
}

/// One series, ascending in time.
#[derive(Debug)]
struct Series {
    labels: Labels,
    timestamps_ms: Vec<i64>,
    starts_ms: Vec<i64>,
    values: Vec<Value>,
    exemplars: Vec<Exemplar>,
    hints: HintTracker,
}

impl MemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// Number of series that have samples.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.lock().series.iter().filter(|s| !s.timestamps_ms.is_empty()).count()
    }

    /// Adds one float sample and commits it.
    ///
    /// # Errors
    ///
    /// See [`AppendError`].
    pub fn add(&self, labels: &Labels, timestamp_ms: i64, value: f64) -> Result<(), AppendError> {
        let mut appender = self.begin();
        let series = appender.series(labels)?;
        appender.append(series, timestamp_ms, 0, value)?;
        appender.apply();
        Ok(())
    }

    fn begin(&self) -> MemoryAppender {
        MemoryAppender { storage: self.clone(), pending: Vec::new(), newest: HashMap::new() }
    }

    /// A panic while the lock was held leaves whole samples behind, never
    /// halves: each push happens after all checks.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Appendable for MemoryStorage {
    fn appender(&self, _source: SourceId, _class: SyncClass) -> Box<dyn Appender> {
        Box::new(self.begin())
    }
}

struct MemoryAppender {
    storage: MemoryStorage,
    pending: Vec<Pending>,
    /// Newest pending sample of each series.
    newest: HashMap<SeriesRef, (i64, Value)>,
}

enum Pending {
    Sample { series: SeriesRef, timestamp_ms: i64, start_ms: i64, value: Value },
    Exemplar(SeriesRef, Exemplar),
    Metadata(String, Metadata),
}

impl MemoryAppender {
    /// Checks a sample against the newest one; `Ok(false)` if it repeats it.
    fn check(
        &self,
        series: SeriesRef,
        timestamp_ms: i64,
        value: &Value,
    ) -> Result<bool, AppendError> {
        let against = |newest_ms: i64, newest: &Value| {
            if timestamp_ms > newest_ms {
                Ok(true)
            } else if timestamp_ms < newest_ms {
                Err(AppendError::OutOfOrder)
            } else if same_value(newest, value) {
                Ok(false)
            } else {
                Err(AppendError::Duplicate)
            }
        };
        if let Some((newest_ms, newest)) = self.newest.get(&series) {
            return against(*newest_ms, newest);
        }
        let state = self.storage.lock();
        let known = state.series.get(series.0 as usize).ok_or(AppendError::UnknownSeries)?;
        match (known.timestamps_ms.last(), known.values.last()) {
            (Some(newest_ms), Some(newest)) => against(*newest_ms, newest),
            _ => Ok(true),
        }
    }

    fn push(
        &mut self,
        series: SeriesRef,
        timestamp_ms: i64,
        start_ms: i64,
        value: Value,
    ) -> Result<(), AppendError> {
        if self.check(series, timestamp_ms, &value)? {
            self.newest.insert(series, (timestamp_ms, value.clone()));
            self.pending.push(Pending::Sample { series, timestamp_ms, start_ms, value });
        }
        Ok(())
    }

    fn apply(self) -> Committed {
        let mut committed = Committed::default();
        let mut state = self.storage.lock();
        state.snapshot = None;
        for pending in self.pending {
            match pending {
                Pending::Sample { series, timestamp_ms, start_ms, value } => {
                    let Some(series) = state.series.get_mut(series.0 as usize) else { continue };
                    if series.timestamps_ms.last().is_some_and(|newest| timestamp_ms <= *newest) {
                        committed.refused += 1;
                    } else {
                        series.append(timestamp_ms, start_ms, value);
                        committed.samples += 1;
                    }
                }
                Pending::Exemplar(series, exemplar) => {
                    if let Some(series) = state.series.get_mut(series.0 as usize) {
                        series.exemplars.push(exemplar);
                    }
                }
                Pending::Metadata(family, metadata) => {
                    let known = state.metadata.entry(family).or_default();
                    if !known.contains(&metadata) {
                        known.push(metadata);
                    }
                }
            }
        }
        committed
    }
}

impl Appender for MemoryAppender {
    fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels);
        }
        let mut state = self.storage.lock();
        if let Some(series) = state.ids.get(labels) {
            return Ok(*series);
        }
        let id = u32::try_from(state.series.len()).map_err(|_| AppendError::SeriesLimit)?;
        state.series.push(Series::new(labels.clone()));
        state.ids.insert(labels.clone(), SeriesRef(id));
        Ok(SeriesRef(id))
    }

    fn append_row(
        &mut self,
        timestamp_ms: i64,
        series: &[SeriesRef],
        values: &[f64],
        refused: &mut Vec<(usize, AppendError)>,
    ) {
        assert_eq!(series.len(), values.len(), "BUG: a row has one value per series");
        for (i, (series, value)) in series.iter().zip(values).enumerate() {
            if let Err(error) = self.push(*series, timestamp_ms, 0, Value::Float(*value)) {
                refused.push((i, error));
            }
        }
    }

    fn append(
        &mut self,
        series: SeriesRef,
        timestamp_ms: i64,
        start_ms: i64,
        value: f64,
    ) -> Result<(), AppendError> {
        self.push(series, timestamp_ms, start_ms, Value::Float(value))
    }

    fn append_histogram(
        &mut self,
        series: SeriesRef,
        timestamp_ms: i64,
        start_ms: i64,
        histogram: &Histogram,
    ) -> Result<(), AppendError> {
        if !spans_fit(histogram) {
            return Err(AppendError::InvalidHistogram);
        }
        self.push(series, timestamp_ms, start_ms, Value::Histogram(Arc::new(histogram.clone())))
    }

    fn append_exemplar(
        &mut self,
        series: SeriesRef,
        exemplar: &Exemplar,
    ) -> Result<(), AppendError> {
        self.pending.push(Pending::Exemplar(series, exemplar.clone()));
        Ok(())
    }

    fn set_metadata(&mut self, family: &str, metadata: &Metadata) {
        self.pending.push(Pending::Metadata(family.to_owned(), metadata.clone()));
    }

    fn commit(self: Box<Self>) -> Result<Committed, CommitError> {
        Ok(self.apply())
    }
}

/// Equal to the bit; of histograms, up to the hint.
fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Histogram(a), Value::Histogram(b)) => a.same_data(b),
        _ => false,
    }
}

fn spans_fit(histogram: &Histogram) -> bool {
    let covered = |spans: &[narthex_storage::histogram::Span]| {
        spans.iter().map(|s| s.length as usize).sum::<usize>()
    };
    covered(&histogram.positive_spans) == histogram.positive_buckets.len()
        && covered(&histogram.negative_spans) == histogram.negative_buckets.len()
}

impl Series {
    fn new(labels: Labels) -> Self {
        Self {
            labels,
            timestamps_ms: Vec::new(),
            starts_ms: Vec::new(),
            values: Vec::new(),
            exemplars: Vec::new(),
            hints: HintTracker::new(),
        }
    }

    fn append(&mut self, timestamp_ms: i64, start_ms: i64, value: Value) {
        let value = match value {
            Value::Float(v)
                if is_stale(v) && matches!(self.values.last(), Some(Value::Histogram(_))) =>
            {
                Value::Histogram(Arc::new(Histogram { sum: stale_nan(), ..Histogram::default() }))
            }
            value => value,
        };
        let value = match value {
            Value::Histogram(histogram) => {
                let day = |t: i64| t.div_euclid(CHUNK_RANGE_MS);
                if self.timestamps_ms.last().is_some_and(|t| day(*t) != day(timestamp_ms)) {
                    self.hints.restart();
                }
                let hint = self.hints.next(&histogram);
                Value::Histogram(with_hint(histogram, hint))
            }
            Value::Float(v) => {
                self.hints.restart();
                Value::Float(v)
            }
        };
        self.timestamps_ms.push(timestamp_ms);
        self.starts_ms.push(start_ms);
        self.values.push(value);
    }

    fn freeze(&self, axes: &mut BTreeSet<Axis>) -> Frozen {
        let axis = match axes.get(self.timestamps_ms.as_slice()) {
            Some(axis) => axis.clone(),
            None => {
                let axis: Axis = self.timestamps_ms.as_slice().into();
                axes.insert(axis.clone());
                axis
            }
        };
        let mut floats = Vec::with_capacity(self.values.len());
        let mut histograms = Vec::new();
        for (i, value) in self.values.iter().enumerate() {
            match value {
                Value::Float(v) => floats.push(*v),
                Value::Histogram(h) => {
                    floats.push(0.0);
                    histograms.push((i, h.clone()));
                }
            }
        }
        let integral = floats.iter().all(|v| v.fract() == 0.0 && v.abs() <= MAX_EXACT_INTEGER);
        let starts_known = self.starts_ms.iter().any(|s| *s != 0);
        Frozen {
            labels: self.labels.clone(),
            axis,
            integral,
            floats,
            histograms,
            starts_ms: if starts_known { self.starts_ms.clone() } else { Vec::new() },
            exemplars: self.exemplars.clone(),
        }
    }
}

fn with_hint(histogram: Arc<Histogram>, hint: CounterResetHint) -> Arc<Histogram> {
    if histogram.counter_reset_hint == hint {
        return histogram;
    }
    let mut histogram = Arc::unwrap_or_clone(histogram);
    histogram.counter_reset_hint = hint;
    Arc::new(histogram)
}

impl Queryable for MemoryStorage {
    fn querier(&self, start_ms: i64, end_ms: i64) -> Result<Arc<dyn Querier>, ReadError> {
        let mut state = self.lock();
        let snapshot = match &state.snapshot {
            Some(snapshot) => snapshot.clone(),
            None => {
                let mut axes = BTreeSet::new();
                let series = state.series.iter().map(|s| s.freeze(&mut axes)).collect();
                let metadata = state.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                let snapshot = Arc::new(Snapshot { series, metadata });
                state.snapshot = Some(snapshot.clone());
                snapshot
            }
        };
        Ok(Arc::new(MemoryQuerier { snapshot, start_ms, end_ms }))
    }
}

/// Everything, as of one commit.
#[derive(Debug)]
struct Snapshot {
    series: Vec<Frozen>,
    metadata: Vec<(String, Vec<Metadata>)>,
}

#[derive(Debug)]
struct Frozen {
    labels: Labels,
    axis: Axis,
    floats: Vec<f64>,
    histograms: Vec<(usize, Arc<Histogram>)>,
    starts_ms: Vec<i64>,
    integral: bool,
    exemplars: Vec<Exemplar>,
}

impl Frozen {
    /// Positions of the samples in `start_ms..=end_ms`.
    fn range(&self, start_ms: i64, end_ms: i64) -> std::ops::Range<usize> {
        let from = self.axis.partition_point(|t| *t < start_ms);
        let to = self.axis.partition_point(|t| *t <= end_ms);
        from..to.max(from)
    }

    fn matches(&self, matchers: &[Matcher]) -> bool {
        matchers.iter().all(|m| m.matches(self.labels.get(&m.name).unwrap_or("")))
    }
}

struct MemoryQuerier {
    snapshot: Arc<Snapshot>,
    start_ms: i64,
    end_ms: i64,
}

impl MemoryQuerier {
    fn get(&self, series: SeriesRef) -> Result<&Frozen, ReadError> {
        self.snapshot.series.get(series.0 as usize).ok_or_else(|| ReadError::Corrupt {
            file: "memory".to_owned(),
            offset: 0,
            expected: format!("a series below {}", self.snapshot.series.len()),
            found: format!("series {}", series.0),
        })
    }

    fn matching<'a>(
        &'a self,
        matchers: &'a [Matcher],
    ) -> impl Iterator<Item = (usize, &'a Frozen)> + 'a {
        self.snapshot
            .series
            .iter()
            .enumerate()
            .filter(|(_, s)| !s.range(self.start_ms, self.end_ms).is_empty() && s.matches(matchers))
    }
}

impl Querier for MemoryQuerier {
    fn select(&self, matchers: &[Matcher], sorted: bool) -> Result<Vec<SeriesRef>, ReadError> {
        let mut found: Vec<(usize, &Frozen)> = self.matching(matchers).collect();
        if sorted {
            found.sort_by(|a, b| a.1.labels.cmp(&b.1.labels));
        }
        let id = |i: usize| SeriesRef(u32::try_from(i).expect("series were counted in 32 bits"));
        Ok(found.into_iter().map(|(i, _)| id(i)).collect())
    }

    fn labels(&self, series: SeriesRef) -> Result<Labels, ReadError> {
        Ok(self.get(series)?.labels.clone())
    }

    fn read(
        &self,
        series: SeriesRef,
        start_ms: i64,
        end_ms: i64,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        let series = self.get(series)?;
        out.clear();
        let range = series.range(start_ms.max(self.start_ms), end_ms.min(self.end_ms));
        out.axis = series.axis.clone();
        out.floats.extend_from_slice(&series.floats[range.clone()]);
        for (i, histogram) in &series.histograms {
            if range.contains(i) {
                let position = u32::try_from(i - range.start).map_err(|_| ReadError::Corrupt {
                    file: "memory".to_owned(),
                    offset: 0,
                    expected: "at most 2^32 samples".to_owned(),
                    found: i.to_string(),
                })?;
                out.histograms.push((position, histogram.clone()));
            }
        }
        if !series.starts_ms.is_empty() {
            out.starts_ms.extend_from_slice(&series.starts_ms[range.clone()]);
        }
        out.may_be_stale = out.floats.iter().any(|v| is_stale(*v))
            || out.histograms.iter().any(|(_, h)| h.is_stale());
        out.integral = series.integral;
        out.range = range;
        Ok(())
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<Vec<String>, ReadError> {
        let mut names = BTreeSet::new();
        for (_, series) in self.matching(matchers) {
            names.extend(series.labels.iter().map(|(name, _)| name));
        }
        Ok(first(names, limit))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<Vec<String>, ReadError> {
        let mut values = BTreeSet::new();
        for (_, series) in self.matching(matchers) {
            values.extend(series.labels.get(name));
        }
        Ok(first(values, limit))
    }

    fn exemplars(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ReadError> {
        let mut found = Vec::new();
        for series in &self.snapshot.series {
            if !matchers.iter().any(|set| series.matches(set)) {
                continue;
            }
            let mut exemplars: Vec<Exemplar> = series
                .exemplars
                .iter()
                .filter(|e| (start_ms..=end_ms).contains(&e.timestamp_ms))
                .cloned()
                .collect();
            if !exemplars.is_empty() {
                exemplars.sort_by_key(|e| e.timestamp_ms);
                found.push((series.labels.clone(), exemplars));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    fn metadata(&self) -> Vec<(String, Vec<Metadata>)> {
        self.snapshot.metadata.clone()
    }
}

/// The first `limit` of a sorted set; all if `limit` is 0.
fn first(sorted: BTreeSet<&str>, limit: usize) -> Vec<String> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    sorted.into_iter().take(limit).map(str::to_owned).collect()
}
