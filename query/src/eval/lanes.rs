//! What moves between operators: series as two lanes over the steps.
//!
//! The float lane is dense, one `f64` per step; [`ABSENT`] stands where a step
//! has no float. Its bits are those of the staleness marker: selectors never
//! let a marker through and arithmetic only makes quiet NaNs, so no operator
//! can produce them as a value. The histogram lane is sparse. A step has a
//! float, a histogram or nothing, never both.

use std::collections::HashMap;
use std::sync::Arc;

use narthex_storage::histogram::Histogram;
use narthex_storage::labels::Labels;
use narthex_storage::sample::{STALE_NAN_BITS, is_stale, stale_nan};

use super::QueryError;

/// "No float at this step".
pub(crate) const ABSENT: f64 = stale_nan();

/// Whether a step of a float lane holds a float.
#[inline]
pub(crate) fn is_present(value: f64) -> bool {
    value.to_bits() != STALE_NAN_BITS
}

/// The steps of an evaluation: `start_ms + i * step_ms` for `i < count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    pub(crate) start_ms: i64,
    /// More than 0.
    pub(crate) step_ms: i64,
    pub(crate) count: usize,
}

impl Frame {
    /// The frame from `start_ms` to the last step not after `end_ms`; empty if
    /// that is before `start_ms`.
    pub(crate) fn new(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        let step_ms = step_ms.max(1);
        let count = if end_ms < start_ms {
            0
        } else {
            usize::try_from(end_ms.saturating_sub(start_ms) / step_ms).map_or(usize::MAX, |n| n + 1)
        };
        Self { start_ms, step_ms, count }
    }

    /// One step.
    pub(crate) fn instant(time_ms: i64) -> Self {
        Self { start_ms: time_ms, step_ms: 1, count: 1 }
    }

    #[allow(clippy::cast_possible_wrap, reason = "counts are below 2^63")]
    pub(crate) fn time(&self, step: usize) -> i64 {
        self.start_ms.saturating_add(self.step_ms.saturating_mul(step as i64))
    }

    /// The steps behind the first `count`.
    pub(crate) fn after(&self, count: usize) -> Self {
        Self { start_ms: self.time(count), count: self.count.saturating_sub(count), ..*self }
    }

    /// The time of the last step.
    pub(crate) fn end_ms(&self) -> i64 {
        self.time(self.count.saturating_sub(1))
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = i64> + use<> {
        let frame = *self;
        (0..frame.count).map(move |i| frame.time(i))
    }
}

/// One series of a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// Metric name, type and unit go at the end of the query (delayed name
    /// removal only).
    pub(crate) drop_name: bool,
    /// `labels` still hold metric name, type and unit, which are gone: an
    /// aggregation above need not make label sets that nobody sees. Only
    /// within streams.
    pub(crate) nameless: bool,
    /// Empty, or one value or [`ABSENT`] per step.
    pub(crate) floats: Vec<f64>,
    /// Ascending by step.
    pub(crate) histograms: Vec<(u32, Arc<Histogram>)>,
}

/// The value of a series at one step.
#[derive(Debug, Clone)]
pub(crate) enum Point {
    Float(f64),
    Histogram(Arc<Histogram>),
}

impl Series {
    pub(crate) fn new(labels: Labels) -> Self {
        Self { labels, ..Self::default() }
    }

    /// Drops the name, if that was put off.
    pub(crate) fn settle_name(&mut self) {
        if std::mem::take(&mut self.nameless) {
            self.labels = drop_reserved(&self.labels);
        }
    }

    /// Whether no step has a value.
    pub(crate) fn is_vacant(&self) -> bool {
        self.histograms.is_empty() && !self.floats.iter().any(|v| is_present(*v))
    }

    /// The float at `step`, or [`ABSENT`].
    #[inline]
    pub(crate) fn float(&self, step: usize) -> f64 {
        self.floats.get(step).copied().unwrap_or(ABSENT)
    }

    /// The histogram at `step`.
    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let i = self.histograms.binary_search_by_key(&step, |(s, _)| *s as usize).ok()?;
        Some(&self.histograms[i].1)
    }

    /// The value at `step`.
    pub(crate) fn point(&self, step: usize) -> Option<Point> {
        let float = self.float(step);
        if is_present(float) {
            return Some(Point::Float(float));
        }
        self.histogram(step).map(|h| Point::Histogram(Arc::clone(h)))
    }

    pub(crate) fn has(&self, step: usize) -> bool {
        is_present(self.float(step)) || self.histogram(step).is_some()
    }

    /// Sets the float at `step`; the lane springs into being.
    pub(crate) fn set_float(&mut self, step: usize, count: usize, value: f64) {
        if self.floats.is_empty() {
            self.floats.resize(count, ABSENT);
        }
        self.floats[step] = value;
    }

    pub(crate) fn set(&mut self, step: usize, count: usize, point: Point) {
        match point {
            Point::Float(v) => self.set_float(step, count, v),
            Point::Histogram(h) => self.histograms.push((index(step), h)),
        }
    }

    /// Rough size in memory, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        let histograms: usize = self.histograms.iter().map(|(_, h)| histogram_bytes(h)).sum();
        size_of::<Self>() + self.labels.as_bytes().len() + self.floats.len() * 8 + histograms
    }

    /// Takes `other`'s values; false if both have one at some step.
    fn absorb(&mut self, other: Self, count: usize) -> bool {
        for (step, value) in other.floats.iter().enumerate() {
            if is_present(*value) {
                if self.has(step) {
                    return false;
                }
                self.set_float(step, count, *value);
            }
        }
        for (step, histogram) in other.histograms {
            if self.has(step as usize) {
                return false;
            }
            let at = self.histograms.partition_point(|(s, _)| *s < step);
            self.histograms.insert(at, (step, histogram));
        }
        true
    }
}

/// Rough size of a histogram in memory, in bytes.
pub(crate) fn histogram_bytes(h: &Histogram) -> usize {
    size_of::<Histogram>()
        + (h.positive_buckets.len() + h.negative_buckets.len()) * 8
        + (h.positive_spans.len() + h.negative_spans.len()) * 8
}

/// How many samples Prometheus counts for a histogram.
pub(crate) fn histogram_samples(h: &Histogram) -> u64 {
    // Its size there: 168 bytes, 8 per bucket, bound and span; in units of 16.
    let parts = h.positive_buckets.len()
        + h.negative_buckets.len()
        + h.positive_spans.len()
        + h.negative_spans.len()
        + h.custom_values.len();
    (parts as u64 * 8 + 168 + 8) / 16
}

/// A step as the histogram lane counts.
pub(crate) fn index(step: usize) -> u32 {
    u32::try_from(step).expect("frames are limited to 2^32 steps by the engine")
}

/// Whether two values of a lane are the marker for "nothing".
pub(crate) fn quiet(value: f64) -> f64 {
    debug_assert!(!is_stale(value), "BUG: an operator made the absent value");
    value
}

pub(crate) type Batch = Vec<Series>;

/// The metric name, type and unit: what "dropping the name" drops.
pub(crate) const RESERVED: [&str; 3] = ["__name__", "__type__", "__unit__"];

/// `labels` without metric name, type and unit.
pub(crate) fn drop_reserved(labels: &Labels) -> Labels {
    labels.drop(&RESERVED)
}

/// Whether two series of the batch have equal labels.
pub(crate) fn has_duplicates(batch: &[Series]) -> bool {
    if batch.len() < 2 {
        return false;
    }
    let mut seen = std::collections::HashSet::with_capacity(batch.len());
    batch.iter().any(|s| !seen.insert(&s.labels))
}

/// Joins series with equal labels; keeps the order of first occurrence.
///
/// # Errors
///
/// If two of them have a value at the same step.
pub(crate) fn merge_equal(batch: Batch, count: usize) -> Result<Batch, QueryError> {
    if !has_duplicates(&batch) {
        return Ok(batch);
    }
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(batch.len());
    let mut merged: Batch = Vec::with_capacity(batch.len());
    for series in batch {
        match places.get(&series.labels) {
            Some(&place) => {
                if !merged[place].absorb(series, count) {
                    return Err(QueryError::same_labelset());
                }
            }
            None => {
                places.insert(series.labels.clone(), merged.len());
                merged.push(series);
            }
        }
    }
    Ok(merged)
}
