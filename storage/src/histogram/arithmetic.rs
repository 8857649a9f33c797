//! Sums, differences and multiples of histograms.
//!
//! Two histograms are first brought to one form: the coarser schema, a zero
//! bucket that covers both, the custom bounds they share.

use super::bounds::is_exponential;
use super::layout::{
    CustomSide, add, add_between, add_compensated, compact, intersect_bounds, kahan_add, reduce,
    reduce_compensated,
};
use super::{CounterResetHint, Histogram};

/// Exponential and custom buckets cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot apply this operation on histograms with a mix of exponential and custom bucket schemas"
)]
pub struct IncompatibleSchemas;

/// What happened while two histograms were combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// One was marked as reset, the other as not reset; the hint of the result
    /// is unknown.
    pub counter_reset_collision: bool,
    /// The custom bounds differed; the result has those that both had.
    pub bounds: bool,
}

/// What rounding lost in a running sum of histograms, bucket by bucket.
///
/// Belongs to one histogram, which it must be used with from the first
/// [`Histogram::add_compensated`] on. Empty at first; the same as all zeros.
#[derive(Debug, Clone, Default)]
pub struct Compensation {
    /// Of the zero count.
    pub zero_count: f64,
    /// Of the count.
    pub count: f64,
    /// Of the sum.
    pub sum: f64,
    /// Of the positive buckets.
    pub positive_buckets: Vec<f64>,
    /// Of the negative buckets.
    pub negative_buckets: Vec<f64>,
}

impl Compensation {
    fn fit(&mut self, histogram: &Histogram) {
        self.positive_buckets.resize(histogram.positive_buckets.len(), 0.0);
        self.negative_buckets.resize(histogram.negative_buckets.len(), 0.0);
    }

    /// Divides by a number.
    pub fn div(&mut self, divisor: f64) {
        self.zero_count /= divisor;
        self.count /= divisor;
        self.sum /= divisor;
        if divisor == 0.0 {
            self.positive_buckets.clear();
            self.negative_buckets.clear();
        }
        let buckets = self.positive_buckets.iter_mut().chain(&mut self.negative_buckets);
        buckets.for_each(|c| *c /= divisor);
    }

    /// Multiplies by a number.
    pub fn mul(&mut self, factor: f64) {
        self.zero_count *= factor;
        self.count *= factor;
        self.sum *= factor;
        let buckets = self.positive_buckets.iter_mut().chain(&mut self.negative_buckets);
        buckets.for_each(|c| *c *= factor);
    }
}

impl Histogram {
    /// Multiplies counts and sum. A negative factor makes a gauge of it.
    pub fn mul(&mut self, factor: f64) {
        self.zero_count *= factor;
        self.count *= factor;
        self.sum *= factor;
        let buckets = self.positive_buckets.iter_mut().chain(&mut self.negative_buckets);
        buckets.for_each(|c| *c *= factor);
        if factor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Divides counts and sum. A negative divisor makes a gauge of it; 0
    /// removes all buckets and leaves infinite or NaN counts.
    pub fn div(&mut self, divisor: f64) {
        self.zero_count /= divisor;
        self.count /= divisor;
        self.sum /= divisor;
        if divisor == 0.0 {
            self.positive_spans.clear();
            self.negative_spans.clear();
            self.positive_buckets.clear();
            self.negative_buckets.clear();
            return;
        }
        let buckets = self.positive_buckets.iter_mut().chain(&mut self.negative_buckets);
        buckets.for_each(|c| *c /= divisor);
        if divisor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Adds another histogram. The result may have empty buckets.
    ///
    /// As in Prometheus, where the zero bucket of `self` is wider than buckets
    /// of `other` and its schema coarser, a bucket of the result may begin
    /// within the zero bucket and hold observations that this one has too.
    ///
    /// In place if the layouts agree, else allocates.
    ///
    /// # Errors
    ///
    /// [`IncompatibleSchemas`] if only one of the two has custom buckets;
    /// nothing is changed then.
    pub fn add(&mut self, other: &Self) -> Result<Reconciled, IncompatibleSchemas> {
        self.add_signed(other, 1.0)
    }

    /// Subtracts another histogram; otherwise as [`Self::add`]. The operator
    /// `-` of PromQL also marks the result as a gauge, this does not.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn sub(&mut self, other: &Self) -> Result<Reconciled, IncompatibleSchemas> {
        self.add_signed(other, -1.0)
    }

    fn add_signed(&mut self, other: &Self, sign: f64) -> Result<Reconciled, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let counter_reset_collision = self.adjust_hint(other.counter_reset_hint);
        if self.uses_custom_buckets() {
            self.count += sign * other.count;
            self.sum += sign * other.sum;
            let bounds = self.add_custom(other, sign);
            return Ok(Reconciled { counter_reset_collision, bounds });
        }
        let (zero_count, _) = self.reconcile_zero(other, None);
        self.zero_count += sign * zero_count;
        self.count += sign * other.count;
        self.sum += sign * other.sum;

        if other.schema < self.schema {
            self.reduce_resolution(other.schema);
        }
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let join = |spans: &mut Vec<_>, counts: &mut Vec<_>, other_side: (&[_], &[_])| {
            if other.schema > schema {
                let coarse = reduce(other_side.0, other_side.1, other.schema, schema);
                add(schema, threshold, sign, spans, counts, (&coarse.spans, &coarse.counts));
            } else {
                add(schema, threshold, sign, spans, counts, other_side);
            }
        };
        let positive = (&other.positive_spans[..], &other.positive_buckets[..]);
        join(&mut self.positive_spans, &mut self.positive_buckets, positive);
        let negative = (&other.negative_spans[..], &other.negative_buckets[..]);
        join(&mut self.negative_spans, &mut self.negative_buckets, negative);
        Ok(Reconciled { counter_reset_collision, bounds: false })
    }

    /// Whether bounds had to be reconciled.
    fn add_custom(&mut self, other: &Self, sign: f64) -> bool {
        if self.custom_values == other.custom_values {
            let side = (&other.positive_spans[..], &other.positive_buckets[..]);
            let (spans, counts) = (&mut self.positive_spans, &mut self.positive_buckets);
            add(self.schema, 0.0, sign, spans, counts, side);
            return false;
        }
        self.add_mismatched(other, sign, &[]);
        true
    }

    /// Brings both to their common bounds; returns the compensations.
    fn add_mismatched(&mut self, other: &Self, sign: f64, compensation: &[f64]) -> Vec<f64> {
        let common = intersect_bounds(&self.custom_values, &other.custom_values);
        fn side(h: &Histogram, sign: f64) -> CustomSide<'_> {
            CustomSide {
                spans: &h.positive_spans,
                counts: &h.positive_buckets,
                bounds: &h.custom_values,
                compensation: &[],
                sign,
            }
        }
        let ours = CustomSide { compensation, ..side(self, 1.0) };
        let sum = add_between(&common, [ours, side(other, sign)]);
        self.positive_spans = sum.spans;
        self.positive_buckets = sum.counts;
        self.custom_values = common.into();
        sum.compensation
    }

    /// As [`Self::add`], keeping what rounding loses in `compensation`, which
    /// must have come with this histogram since its first use.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn add_compensated(
        &mut self,
        other: &Self,
        compensation: &mut Compensation,
    ) -> Result<Reconciled, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let counter_reset_collision = self.adjust_hint(other.counter_reset_hint);
        let c = compensation;
        c.fit(self);
        if !self.uses_custom_buckets() {
            let (zero, zero_lost) = self.reconcile_zero(other, Some(c));
            (self.zero_count, c.zero_count) = kahan_add(zero, self.zero_count, c.zero_count);
            (self.zero_count, c.zero_count) = kahan_add(zero_lost, self.zero_count, c.zero_count);
        }
        (self.count, c.count) = kahan_add(other.count, self.count, c.count);
        (self.sum, c.sum) = kahan_add(other.sum, self.sum, c.sum);

        if self.uses_custom_buckets() && self.custom_values != other.custom_values {
            c.positive_buckets = self.add_mismatched(other, 1.0, &c.positive_buckets);
            return Ok(Reconciled { counter_reset_collision, bounds: true });
        }
        if other.schema < self.schema {
            let (from, to) = (self.schema, other.schema);
            let coarse = |spans: &mut Vec<_>, counts: &mut Vec<_>, lost: &mut Vec<_>| {
                let layout = reduce_compensated(spans, counts, lost, from, to);
                (*spans, *counts, *lost) = (layout.spans, layout.counts, layout.compensation);
            };
            coarse(&mut self.positive_spans, &mut self.positive_buckets, &mut c.positive_buckets);
            coarse(&mut self.negative_spans, &mut self.negative_buckets, &mut c.negative_buckets);
            self.schema = to;
        }
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let join =
            |spans: &mut Vec<_>, counts: &mut Vec<_>, lost: &mut Vec<_>, side: (&[_], &[_])| {
                if other.schema > schema {
                    let coarse = reduce_compensated(side.0, side.1, &[], other.schema, schema);
                    let side = (&coarse.spans[..], &coarse.counts[..], &coarse.compensation[..]);
                    add_compensated(schema, threshold, spans, counts, lost, side);
                } else {
                    add_compensated(schema, threshold, spans, counts, lost, (side.0, side.1, &[]));
                }
            };
        join(
            &mut self.positive_spans,
            &mut self.positive_buckets,
            &mut c.positive_buckets,
            (&other.positive_spans, &other.positive_buckets),
        );
        join(
            &mut self.negative_spans,
            &mut self.negative_buckets,
            &mut c.negative_buckets,
            (&other.negative_spans, &other.negative_buckets),
        );
        Ok(Reconciled { counter_reset_collision, bounds: false })
    }

    /// Adds a compensation bucket by bucket, the last step of a compensated sum.
    pub fn settle(&mut self, compensation: &Compensation) {
        self.zero_count += compensation.zero_count;
        self.count += compensation.count;
        self.sum += compensation.sum;
        for (count, c) in self.positive_buckets.iter_mut().zip(&compensation.positive_buckets) {
            *count += c;
        }
        for (count, c) in self.negative_buckets.iter_mut().zip(&compensation.negative_buckets) {
            *count += c;
        }
    }

    /// Joins buckets into those of a coarser exponential schema. Nothing
    /// happens if `schema` is not coarser, or one of the two is custom.
    pub fn reduce_resolution(&mut self, schema: i32) {
        if schema >= self.schema || !is_exponential(schema) || self.uses_custom_buckets() {
            return;
        }
        let layout = reduce(&self.positive_spans, &self.positive_buckets, self.schema, schema);
        (self.positive_spans, self.positive_buckets) = (layout.spans, layout.counts);
        let layout = reduce(&self.negative_spans, &self.negative_buckets, self.schema, schema);
        (self.negative_spans, self.negative_buckets) = (layout.spans, layout.counts);
        self.schema = schema;
    }

    /// Removes empty buckets at the ends of spans and joins spans that are at
    /// most `max_empty` buckets apart. 0 leaves no empty bucket.
    pub fn compact(&mut self, max_empty: usize) {
        compact(&mut self.positive_spans, &mut self.positive_buckets, None, max_empty);
        compact(&mut self.negative_spans, &mut self.negative_buckets, None, max_empty);
    }

    /// Whether a count, sum or bound is infinite, as too large sums become.
    #[must_use]
    pub fn has_overflow(&self) -> bool {
        let counts = self.positive_buckets.iter().chain(&self.negative_buckets);
        [self.zero_count, self.count, self.sum].iter().any(|v| v.is_infinite())
            || counts.chain(self.custom_values.iter()).any(|v| v.is_infinite())
    }

    /// Combines the hint with that of a histogram that is added; whether they
    /// contradict each other.
    fn adjust_hint(&mut self, other: CounterResetHint) -> bool {
        use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        let (hint, collision) = match (self.counter_reset_hint, other) {
            (a, b) if a == b => (a, false),
            (Gauge, _) | (_, Gauge) => (Gauge, false),
            (Reset, NotReset) | (NotReset, Reset) => (Unknown, true),
            _ => (Unknown, false),
        };
        self.counter_reset_hint = hint;
        collision
    }

    /// The zero count (and its compensation) for a threshold at least as large
    /// as ours, and the threshold that it takes for that: one within a bucket
    /// that has observations moves to the bucket's end.
    pub(super) fn widened_zero(
        &self,
        at_least: f64,
        compensation: Option<&Compensation>,
    ) -> (f64, f64, f64) {
        let before = compensation.map_or(0.0, |c| c.zero_count);
        // A NaN threshold, of a histogram that nobody checked, ends here too.
        if at_least <= self.zero_threshold || at_least.is_nan() || self.zero_threshold.is_nan() {
            return (self.zero_count, at_least, before);
        }
        let lost = |list: fn(&Compensation) -> &Vec<f64>, i: usize| {
            compensation.and_then(|c| list(c).get(i).copied())
        };
        let mut threshold = at_least;
        loop {
            let (mut zero, mut c) = (self.zero_count, before);
            for (i, bucket) in self.positive().enumerate() {
                if bucket.lower >= threshold {
                    break;
                }
                (zero, c) = kahan_add(bucket.count, zero, c);
                if let Some(lost) = lost(|c| &c.positive_buckets, i) {
                    (zero, c) = kahan_add(lost, zero, c);
                }
                if bucket.upper > threshold {
                    if bucket.count != 0.0 {
                        threshold = bucket.upper;
                    }
                    break;
                }
            }
            let mut moved = false;
            for (i, bucket) in self.negative().enumerate() {
                if bucket.upper <= -threshold {
                    break;
                }
                (zero, c) = kahan_add(bucket.count, zero, c);
                if let Some(lost) = lost(|c| &c.negative_buckets, i) {
                    (zero, c) = kahan_add(lost, zero, c);
                }
                if bucket.lower < -threshold {
                    if bucket.count != 0.0 {
                        // The positive side has to be looked at again.
                        threshold = -bucket.lower;
                        moved = true;
                    }
                    break;
                }
            }
            if !moved {
                return (zero, threshold, c);
            }
        }
    }

    /// Widens our zero bucket until it covers that of `other` and ends at a
    /// bucket's end in both; returns what the zero count of `other` (and its
    /// compensation) would be for it.
    fn reconcile_zero(
        &mut self,
        other: &Self,
        mut compensation: Option<&mut Compensation>,
    ) -> (f64, f64) {
        let (mut zero, mut threshold, mut lost) = (other.zero_count, other.zero_threshold, 0.0);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (zero, threshold, lost) = other.widened_zero(self.zero_threshold, None);
            }
            if threshold > self.zero_threshold {
                let (ours, wider, c) = self.widened_zero(threshold, compensation.as_deref());
                self.zero_count = ours;
                self.zero_threshold = wider;
                if let Some(compensation) = compensation.as_deref_mut() {
                    compensation.zero_count = c;
                }
                self.clear_within_zero(compensation.as_deref_mut());
            }
            if self.zero_threshold.is_nan() || threshold.is_nan() {
                break;
            }
        }
        (zero, lost)
    }

    /// Removes the buckets that the zero bucket covers, and all other empty
    /// ones.
    pub(super) fn clear_within_zero(&mut self, compensation: Option<&mut Compensation>) {
        let threshold = self.zero_threshold;
        let positive = self.positive().take_while(|b| b.lower < threshold).count();
        let negative = self.negative().take_while(|b| b.upper > -threshold).count();
        self.positive_buckets.iter_mut().take(positive).for_each(|c| *c = 0.0);
        self.negative_buckets.iter_mut().take(negative).for_each(|c| *c = 0.0);
        let (mut for_positive, mut for_negative) = (None, None);
        if let Some(c) = compensation {
            c.positive_buckets.iter_mut().take(positive).for_each(|c| *c = 0.0);
            c.negative_buckets.iter_mut().take(negative).for_each(|c| *c = 0.0);
            for_positive = Some(&mut c.positive_buckets);
            for_negative = Some(&mut c.negative_buckets);
        }
        compact(&mut self.positive_spans, &mut self.positive_buckets, for_positive, 0);
        compact(&mut self.negative_spans, &mut self.negative_buckets, for_negative, 0);
    }
}
