//! Histograms in other forms: integer deltas from the wire, classic buckets.

use std::sync::Arc;

use super::bounds::{SCHEMA_MAX, SCHEMA_MAX_ACCEPTED};
use super::validate::{HistogramError, Side, check_spans};
use super::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram, Span};

/// An integer histogram as remote write and protobuf scrapes send it: each
/// bucket as the difference to the one before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IntegerHistogram {
    /// What is known of a counter reset before this sample.
    pub counter_reset_hint: CounterResetHint,
    /// As in [`Histogram`]; finer exponential schemas up to
    /// [`SCHEMA_MAX_ACCEPTED`] are taken and reduced.
    pub schema: i32,
    /// Half-width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Sum of all observations.
    pub sum: f64,
    /// Runs of buckets above the zero bucket.
    pub positive_spans: Vec<Span>,
    /// Runs of buckets below the zero bucket.
    pub negative_spans: Vec<Span>,
    /// Differences of the positive buckets.
    pub positive_deltas: Vec<i64>,
    /// Differences of the negative buckets.
    pub negative_deltas: Vec<i64>,
    /// Custom bounds.
    pub custom_values: Arc<[f64]>,
}

impl IntegerHistogram {
    /// The same with absolute counts, checked.
    ///
    /// # Errors
    ///
    /// As [`Histogram::validate`]; also [`HistogramError::CountMismatch`] if
    /// the buckets do not add up to the count. They may be fewer if the sum is
    /// NaN, as NaN is in no bucket. A staleness marker needs no more than its
    /// sum.
    pub fn into_histogram(self) -> Result<Histogram, HistogramError> {
        if crate::sample::is_stale(self.sum) {
            let hint = self.counter_reset_hint;
            return Ok(Histogram {
                counter_reset_hint: hint,
                sum: self.sum,
                ..Histogram::default()
            });
        }
        let mut buckets = self.zero_count;
        let mut absolute = |deltas: &[i64], side| -> Result<Vec<f64>, HistogramError> {
            let (mut current, mut counts) = (0i64, Vec::with_capacity(deltas.len()));
            for (i, delta) in deltas.iter().enumerate() {
                current = current.saturating_add(*delta);
                let Ok(count) = u64::try_from(current) else {
                    let (number, count) = (i + 1, current as f64);
                    return Err(HistogramError::NegativeBucket { side, number, count });
                };
                buckets = buckets.saturating_add(count);
                counts.push(count as f64);
            }
            Ok(counts)
        };
        let positive_buckets = absolute(&self.positive_deltas, Side::Positive)?;
        let negative_buckets = absolute(&self.negative_deltas, Side::Negative)?;
        if buckets > self.count || (buckets < self.count && !self.sum.is_nan()) {
            return Err(HistogramError::CountMismatch { buckets, count: self.count });
        }
        Histogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans,
            negative_spans: self.negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.custom_values,
        }
        .into_valid()
    }
}

impl Histogram {
    /// Checks a float histogram from outside and reduces a finer exponential
    /// schema than is kept. Of a staleness marker only the sum and hint stay.
    ///
    /// # Errors
    ///
    /// As [`Histogram::validate`].
    pub fn into_valid(mut self) -> Result<Self, HistogramError> {
        if self.is_stale() {
            let hint = self.counter_reset_hint;
            return Ok(Self { counter_reset_hint: hint, sum: self.sum, ..Self::default() });
        }
        if self.schema > SCHEMA_MAX && self.schema <= SCHEMA_MAX_ACCEPTED {
            check_spans(Side::Positive, &self.positive_spans, self.positive_buckets.len())?;
            check_spans(Side::Negative, &self.negative_spans, self.negative_buckets.len())?;
            self.reduce_resolution(SCHEMA_MAX);
        }
        self.validate()?;
        Ok(self)
    }
}

/// Why classic buckets make no histogram.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassicError {
    /// A bucket without a bound.
    #[error("bucket boundary is NaN")]
    NanBound,
    /// A count below 0.
    #[error("bucket count must be non-negative: le={0}, count={1}")]
    NegativeBucket(f64, f64),
    /// The overall count is below 0.
    #[error("count must be non-negative: count={0}")]
    NegativeCount(f64),
    /// A bucket holds less than the one below it.
    #[error("count is not cumulative: {0} < {1}")]
    NotCumulative(f64, f64),
    /// Count and highest bucket differ.
    #[error("count mismatch: count={0} != le={1} count={2}")]
    CountMismatch(f64, f64, f64),
}

/// Collects the series of one classic histogram at one time, and makes a
/// histogram with custom buckets of them.
#[derive(Debug, Clone, Default)]
pub struct ClassicHistogram {
    /// Bound and cumulative count, ascending by bound.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

impl ClassicHistogram {
    /// Nothing collected yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { buckets: Vec::new(), count: None, sum: 0.0 }
    }

    /// Starts the next one; keeps the allocation.
    pub fn clear(&mut self) {
        self.buckets.clear();
        self.count = None;
        self.sum = 0.0;
    }

    /// Adds the `_bucket` sample with the label `le` = `bound`. Of a bound
    /// that comes twice the first counts.
    ///
    /// # Errors
    ///
    /// [`ClassicError`] if the bound is NaN, or the count is negative or does
    /// not fit its neighbours.
    pub fn bucket(&mut self, bound: f64, cumulative: f64) -> Result<(), ClassicError> {
        if bound.is_nan() {
            return Err(ClassicError::NanBound);
        }
        if cumulative < 0.0 {
            return Err(ClassicError::NegativeBucket(bound, cumulative));
        }
        let at = self.buckets.partition_point(|(b, _)| *b < bound);
        if self.buckets.get(at).is_some_and(|(b, _)| *b == bound) {
            return Ok(());
        }
        if let Some(&(_, below)) = at.checked_sub(1).and_then(|i| self.buckets.get(i))
            && cumulative < below
        {
            return Err(ClassicError::NotCumulative(cumulative, below));
        }
        if let Some(&(_, above)) = self.buckets.get(at)
            && cumulative > above
        {
            return Err(ClassicError::NotCumulative(above, cumulative));
        }
        self.buckets.insert(at, (bound, cumulative));
        Ok(())
    }

    /// Sets the `_count` sample.
    ///
    /// # Errors
    ///
    /// [`ClassicError::NegativeCount`].
    pub fn set_count(&mut self, count: f64) -> Result<(), ClassicError> {
        if count < 0.0 {
            return Err(ClassicError::NegativeCount(count));
        }
        self.count = Some(count);
        Ok(())
    }

    /// Sets the `_sum` sample.
    pub const fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The histogram: custom bounds without +Inf, counts no longer cumulative.
    ///
    /// Without a count it is that of the highest bucket; without a +Inf bucket
    /// one is added that holds the count.
    ///
    /// # Errors
    ///
    /// [`ClassicError::CountMismatch`].
    pub fn to_histogram(&self) -> Result<Histogram, ClassicError> {
        let count = self.count.or(self.buckets.last().map(|b| b.1)).unwrap_or(0.0);
        let mut buckets = self.buckets.clone();
        if buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
            buckets.push((f64::INFINITY, count));
        }
        if let Some(&(bound, highest)) = buckets.last()
            && highest != count
        {
            return Err(ClassicError::CountMismatch(count, bound, highest));
        }
        let integer = buckets.iter().map(|b| b.1).chain([count]).all(|c| c == c.round());
        let mut below = 0.0;
        let counts = buckets.iter().map(|&(_, cumulative)| {
            let own = cumulative - below;
            below = cumulative;
            own
        });
        let mut histogram = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_buckets: counts.collect(),
            positive_spans: vec![Span { offset: 0, length: buckets.len() as u32 }],
            custom_values: buckets.iter().map(|b| b.0).filter(|b| *b != f64::INFINITY).collect(),
            ..Histogram::default()
        };
        histogram.compact(if integer { 2 } else { 0 });
        Ok(histogram)
    }
}

impl Histogram {
    /// The classic buckets of a histogram with custom bounds: upper bound and
    /// cumulative count, the last with +Inf. Nothing for exponential schemas.
    #[must_use]
    pub fn to_classic_buckets(&self) -> Vec<(f64, f64)> {
        if !self.uses_custom_buckets() {
            return Vec::new();
        }
        let mut side = self.positive_side().peekable();
        let mut cumulative = 0.0;
        let bounds = self.custom_values.iter().copied().chain([f64::INFINITY]);
        (0i64..)
            .zip(bounds)
            .map(|(i, bound)| {
                if let Some((_, count)) = side.next_if(|(index, _)| *index == i) {
                    cumulative += count;
                }
                (bound, cumulative)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_deltas_become_counts() {
        let h = IntegerHistogram {
            count: 10,
            zero_count: 1,
            sum: 5.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_deltas: vec![2, 1, -2],
            negative_spans: vec![Span { offset: 2, length: 1 }],
            negative_deltas: vec![3],
            ..IntegerHistogram::default()
        };
        let got = h.clone().into_histogram().unwrap();
        assert_eq!(got.positive_buckets, [2.0, 3.0, 1.0]);
        assert_eq!(got.negative_buckets, [3.0]);
        let short = IntegerHistogram { count: 9, ..h.clone() }.into_histogram();
        assert_eq!(short, Err(HistogramError::CountMismatch { buckets: 10, count: 9 }));
        let with_nan = IntegerHistogram { count: 12, sum: f64::NAN, ..h.clone() };
        assert!(with_nan.into_histogram().is_ok());
        let negative = IntegerHistogram { positive_deltas: vec![2, -3, 0], ..h };
        assert!(matches!(
            negative.into_histogram(),
            Err(HistogramError::NegativeBucket { side: Side::Positive, number: 2, .. })
        ));
    }

    #[test]
    fn finer_schemas_are_reduced_to_the_finest_kept() {
        let h = IntegerHistogram {
            schema: 9,
            count: 3,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_deltas: vec![1, 1],
            ..IntegerHistogram::default()
        };
        let got = h.into_histogram().unwrap();
        assert_eq!((got.schema, &got.positive_buckets[..]), (8, &[3.0][..]));
    }

    #[test]
    fn classic_buckets_become_custom_ones_and_back() {
        let mut classic = ClassicHistogram::new();
        for (bound, count) in [(1.0, 3.0), (0.1, 1.0), (0.5, 1.0), (1.0, 99.0)] {
            classic.bucket(bound, count).unwrap();
        }
        classic.set_count(4.0).unwrap();
        classic.set_sum(2.5);
        let h = classic.to_histogram().unwrap();
        assert_eq!(&*h.custom_values, [0.1, 0.5, 1.0]);
        assert_eq!(h.positive_buckets, [1.0, 0.0, 2.0, 1.0]);
        assert_eq!(
            h.to_classic_buckets(),
            [(0.1, 1.0), (0.5, 1.0), (1.0, 3.0), (f64::INFINITY, 4.0)]
        );
        assert!(h.validate().is_ok());
        assert_eq!(classic.bucket(0.7, 0.0), Err(ClassicError::NotCumulative(0.0, 1.0)));
        assert_eq!(classic.bucket(0.7, 4.0), Err(ClassicError::NotCumulative(3.0, 4.0)));
        classic.bucket(f64::INFINITY, 5.0).unwrap();
        assert!(matches!(classic.to_histogram(), Err(ClassicError::CountMismatch(..))));
    }
}
