//! Which steps of a range query are known already?
//!
//! A dashboard asks the same query again and again on the same grid, and all
//! steps but the newest have the answer they had. [`StepCache`] keeps the
//! steps of queries that were asked more than once, with the [`Version`] of the
//! snapshot that they are from. The storage says since when anything has
//! changed, so a step is used again exactly if every sample that it looks at is
//! as it was: no window of late samples is assumed, and a deletion or a late
//! sample takes effect at once. Which queries qualify is told in
//! [`plan::local`](crate::plan::local).
//!
//! A query that is asked once leaves nothing but its hash. Entries are bounded
//! together; those that were not used for the longest time go first.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use narthex_storage::labels::Labels;
use narthex_storage::read::Version;

use crate::eval::lanes::{ABSENT, Frame, Series};

/// Queries whose hashes are remembered after they were asked once.
const PLACES: usize = 1024;

/// No entry takes a larger part of the limit than one of this many.
const MIN_ENTRIES: usize = 4;

/// Bytes of an entry and of a series beyond texts and values.
const ENTRY_BYTES: usize = 256;
const SERIES_BYTES: usize = 64;

/// Answers' steps that may be asked for again.
#[derive(Debug)]
pub(crate) struct StepCache {
    limit_bytes: usize,
    /// Hashes by their remainder: of two with one place the later is remembered.
    seen: Box<[AtomicU64]>,
    kept: Mutex<Kept>,
    used_steps: AtomicU64,
    evaluated_steps: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Key, Entry>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
    evictions: u64,
}

#[derive(Debug)]
struct Entry {
    steps: Arc<Steps>,
    bytes: usize,
    used_at: u64,
}

/// What tells queries on different grids apart. Settings of the engine do not
/// change during its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) step_ms: i64,
    /// Where the grid lies: its times modulo the step.
    pub(crate) phase_ms: i64,
    pub(crate) lookback_ms: i64,
    pub(crate) subquery_step_ms: i64,
}

/// How far the samples that a step looks at reach, in milliseconds from the
/// step: `(before, after)`; samples that old or new are included.
pub(crate) type Reach = (i64, i64);

/// The values of a query's series at its steps.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) version: Version,
    pub(crate) frame: Frame,
    /// Sorted by labels; one float or [`ABSENT`] per step.
    pub(crate) series: Vec<(Labels, Vec<f64>)>,
}

/// What the cache did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepCacheStats {
    /// Steps that were taken from the cache.
    pub used_steps: u64,
    /// Steps that were evaluated although their query qualifies.
    pub evaluated_steps: u64,
    /// Queries that are kept.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Queries that were dropped to make room.
    pub evictions: u64,
}

impl StepCache {
    /// A cache of at most `limit_bytes`.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            seen: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            kept: Mutex::default(),
            used_steps: AtomicU64::new(0),
            evaluated_steps: AtomicU64::new(0),
        }
    }

    /// What is kept for a query, and whether its steps are worth keeping: it
    /// was asked before.
    pub(crate) fn get(&self, key: &Key) -> (Option<Arc<Steps>>, bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        if let Some(entry) = kept.entries.get_mut(key) {
            entry.used_at = now;
            return (Some(Arc::clone(&entry.steps)), true);
        }
        drop(kept);
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 1024")]
        let place = &self.seen[(hash % PLACES as u64) as usize];
        (None, place.swap(hash, Ordering::Relaxed) == hash)
    }

    /// Keeps the steps of a query in place of those kept before.
    pub(crate) fn put(&self, key: Key, steps: Steps) {
        let bytes = ENTRY_BYTES + key.text.len() + steps.size_bytes();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&key);
        if bytes > self.limit_bytes / MIN_ENTRIES {
            return;
        }
        while kept.bytes + bytes > self.limit_bytes {
            let oldest = kept.entries.iter().min_by_key(|(_, e)| e.used_at);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            kept.remove(&oldest);
            kept.evictions += 1;
        }
        kept.bytes += bytes;
        let used_at = kept.clock;
        kept.entries.insert(key, Entry { steps: Arc::new(steps), bytes, used_at });
    }

    /// Counts steps of a query that qualifies.
    pub(crate) fn count(&self, used: usize, evaluated: usize) {
        self.used_steps.fetch_add(used as u64, Ordering::Relaxed);
        self.evaluated_steps.fetch_add(evaluated as u64, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> StepCacheStats {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        StepCacheStats {
            used_steps: self.used_steps.load(Ordering::Relaxed),
            evaluated_steps: self.evaluated_steps.load(Ordering::Relaxed),
            entries: kept.entries.len(),
            bytes: kept.bytes,
            evictions: kept.evictions,
        }
    }
}

impl Kept {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}

impl Steps {
    /// The steps of an answer without histograms, sorted by labels.
    pub(crate) fn of(version: Version, frame: Frame, batch: &[Series]) -> Self {
        let series = batch.iter().filter(|s| !s.is_vacant());
        let series = series.map(|s| {
            debug_assert_eq!(s.floats.len(), frame.count, "BUG: a lane of another length");
            (s.labels.clone(), s.floats.clone())
        });
        Self { version, frame, series: series.collect() }
    }

    /// The part of the kept steps with which `frame` begins, if all samples in
    /// `unchanged_ms` are as they were.
    pub(crate) fn usable(
        &self,
        frame: Frame,
        reach: Reach,
        unchanged_ms: &RangeInclusive<i64>,
    ) -> Range<usize> {
        let kept = self.frame;
        debug_assert_eq!(kept.step_ms, frame.step_ms, "BUG: kept steps of another grid");
        let begins = frame.start_ms.saturating_sub(kept.start_ms);
        let is_settled = |step: usize| {
            let time_ms = kept.time(step);
            time_ms.saturating_sub(reach.0) >= *unchanged_ms.start()
                && time_ms.saturating_add(reach.1) <= *unchanged_ms.end()
        };
        let Ok(first) = usize::try_from(begins / kept.step_ms) else { return 0..0 };
        if begins < 0 || first >= kept.count || !is_settled(first) {
            return 0..0;
        }
        let most = (kept.count - first).min(frame.count);
        // What is settled is settled up to some step.
        let (mut settled, mut end) = (1, most + 1);
        while settled + 1 < end {
            let middle = settled + (end - settled) / 2;
            if is_settled(first + middle - 1) {
                settled = middle;
            } else {
                end = middle;
            }
        }
        first..first + settled
    }

    /// The answer over `frame`: `part` of the kept steps, then those of `rest`,
    /// sorted by labels, which has its steps from `part`'s end on.
    pub(crate) fn continued(
        &self,
        part: Range<usize>,
        rest: Vec<Series>,
        frame: Frame,
    ) -> Vec<Series> {
        let mut out = Vec::with_capacity(self.series.len().max(rest.len()));
        let mut rest = rest.into_iter().peekable();
        for (labels, values) in &self.series {
            while let Some(series) = rest.next_if(|r| r.labels < *labels) {
                out.push(behind(part.len(), series, frame));
            }
            let mut floats = Vec::with_capacity(frame.count);
            floats.extend_from_slice(&values[part.clone()]);
            if let Some(series) = rest.next_if(|r| r.labels == *labels) {
                floats.extend_from_slice(&series.floats);
            }
            floats.resize(frame.count, ABSENT);
            let series = Series { floats, ..Series::new(labels.clone()) };
            if !series.is_vacant() {
                out.push(series);
            }
        }
        out.extend(rest.map(|series| behind(part.len(), series, frame)));
        out
    }

    fn size_bytes(&self) -> usize {
        let series = self.series.iter();
        series.map(|(l, v)| SERIES_BYTES + l.as_bytes().len() + v.len() * size_of::<f64>()).sum()
    }
}

/// A series that has no value at the first `count` steps.
fn behind(count: usize, series: Series, frame: Frame) -> Series {
    let mut floats = vec![ABSENT; count];
    floats.extend_from_slice(&series.floats);
    floats.resize(frame.count, ABSENT);
    Series { floats, ..series }
}
