//! Buckets with their bounds, in the order of their values.

use std::fmt;

use super::bounds::{reduced_index, upper_bound};
use super::{Histogram, Span, text::GoFloat};

/// One bucket: an interval and how many observations lie in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether observations equal to `lower` are in this bucket.
    pub lower_inclusive: bool,
    /// Whether observations equal to `upper` are in this bucket.
    pub upper_inclusive: bool,
    /// Observations in this bucket, not cumulative.
    pub count: f64,
    /// Position within the schema, 0 for the zero bucket.
    pub index: i64,
}

impl Bucket {
    /// Which bounds are inclusive, as the HTTP API numbers it: 0 the upper,
    /// 1 the lower, 2 none, 3 both.
    #[must_use]
    pub const fn boundary_rule(&self) -> u8 {
        match (self.lower_inclusive, self.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }

    /// Which part of the bucket, between 0 and 1, lies at or below `value`,
    /// which must be strictly within finite bounds.
    ///
    /// Linear interpolation is for custom and zero buckets; exponential ones
    /// interpolate on a logarithmic scale.
    #[must_use]
    pub fn fraction_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let at = value.abs().log2();
        if value > 0.0 {
            (at - lower) / (upper - lower)
        } else {
            1.0 - (at - upper) / (lower - upper)
        }
    }
}

impl fmt::Display for Bucket {
    /// `(1,2]:3`, with round brackets where a bound is exclusive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.lower_inclusive { "[" } else { "(" })?;
        write!(f, "{},{}", GoFloat(self.lower), GoFloat(self.upper))?;
        f.write_str(if self.upper_inclusive { "]" } else { ")" })?;
        write!(f, ":{}", GoFloat(self.count))
    }
}

/// Index and count of the buckets of one side, away from zero (and backwards).
///
/// Never panics: what spans promise beyond the buckets is not there.
#[derive(Debug, Clone)]
pub struct SideIter<'a> {
    spans: std::slice::Iter<'a, Span>,
    counts: std::slice::Iter<'a, f64>,
    front_index: i64,
    front_left: u32,
    back_index: i64,
    back_left: u32,
    back_offset: i32,
}

impl<'a> SideIter<'a> {
    pub(super) fn new(spans: &'a [Span], counts: &'a [f64]) -> Self {
        let end = spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
        Self {
            spans: spans.iter(),
            counts: counts.iter(),
            front_index: 0,
            front_left: 0,
            back_index: end,
            back_left: 0,
            back_offset: 0,
        }
    }

    pub(super) fn eq_by_index(self, other: SideIter<'_>) -> bool {
        self.map(|(index, _)| index).eq(other.map(|(index, _)| index))
    }
}

impl Iterator for SideIter<'_> {
    type Item = (i64, f64);

    fn next(&mut self) -> Option<(i64, f64)> {
        while self.front_left == 0 {
            match self.spans.next() {
                Some(span) => {
                    self.front_index += i64::from(span.offset);
                    self.front_left = span.length;
                }
                // The span that the back is in may have buckets left.
                None if self.back_left > 0 => {
                    self.front_index += i64::from(self.back_offset);
                    self.front_left = self.back_left;
                    self.back_left = 0;
                }
                None => return None,
            }
        }
        let count = *self.counts.next()?;
        self.front_left -= 1;
        self.front_index += 1;
        Some((self.front_index - 1, count))
    }
}

impl DoubleEndedIterator for SideIter<'_> {
    fn next_back(&mut self) -> Option<(i64, f64)> {
        while self.back_left == 0 {
            match self.spans.next_back() {
                Some(span) => {
                    self.back_index -= i64::from(self.back_offset);
                    self.back_offset = span.offset;
                    self.back_left = span.length;
                }
                None if self.front_left > 0 => {
                    self.back_index = self.front_index + i64::from(self.front_left);
                    self.back_offset = 0;
                    self.back_left = self.front_left;
                    self.front_left = 0;
                }
                None => return None,
            }
        }
        let count = *self.counts.next_back()?;
        self.back_left -= 1;
        self.back_index -= 1;
        Some((self.back_index, count))
    }
}

/// Joins neighbours that fall into one bucket of a coarser schema.
pub(super) struct Reduced<I: Iterator> {
    inner: std::iter::Peekable<I>,
    from: i32,
    to: i32,
}

impl<I: Iterator<Item = (i64, f64)>> Reduced<I> {
    /// `to` must not be above `from`.
    pub(super) fn new(inner: I, from: i32, to: i32) -> Self {
        Self { inner: inner.peekable(), from, to }
    }

    fn target(&self, index: i64) -> i64 {
        if self.from == self.to { index } else { reduced_index(index, self.from, self.to) }
    }
}

impl<I: Iterator<Item = (i64, f64)>> Iterator for Reduced<I> {
    type Item = (i64, f64);

    fn next(&mut self) -> Option<(i64, f64)> {
        let (first, mut count) = self.inner.next()?;
        let target = self.target(first);
        if self.from != self.to {
            while let Some(&(index, more)) = self.inner.peek() {
                if self.target(index) != target {
                    break;
                }
                count += more;
                self.inner.next();
            }
        }
        Some((target, count))
    }
}

impl Histogram {
    /// Index and count of the positive buckets, ascending; empty ones included.
    #[must_use]
    pub fn positive_side(&self) -> SideIter<'_> {
        SideIter::new(&self.positive_spans, &self.positive_buckets)
    }

    /// Index and count of the negative buckets, ascending in absolute value;
    /// empty ones included.
    #[must_use]
    pub fn negative_side(&self) -> SideIter<'_> {
        SideIter::new(&self.negative_spans, &self.negative_buckets)
    }

    fn positive_bucket(&self, index: i64, count: f64) -> Bucket {
        let upper = upper_bound(index, self.schema, &self.custom_values);
        let lower = upper_bound(index - 1, self.schema, &self.custom_values);
        let (lower_inclusive, upper_inclusive) = if self.uses_custom_buckets() {
            (index == 0, true)
        } else {
            (lower < 0.0, upper > 0.0)
        };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count, index }
    }

    fn negative_bucket(&self, index: i64, count: f64) -> Bucket {
        let lower = -upper_bound(index, self.schema, &[]);
        let upper = -upper_bound(index - 1, self.schema, &[]);
        let (lower_inclusive, upper_inclusive) = (lower < 0.0, upper > 0.0);
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count, index }
    }

    /// The buckets above the zero bucket, away from zero.
    pub fn positive(&self) -> impl DoubleEndedIterator<Item = Bucket> {
        self.positive_side().map(|(index, count)| self.positive_bucket(index, count))
    }

    /// The buckets below the zero bucket, away from zero, so with descending
    /// bounds.
    pub fn negative(&self) -> impl DoubleEndedIterator<Item = Bucket> {
        self.negative_side().map(|(index, count)| self.negative_bucket(index, count))
    }

    /// The zero bucket, whether or not it has observations.
    #[must_use]
    pub const fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
            index: 0,
        }
    }

    /// All buckets with ascending bounds; the zero bucket only if it has
    /// observations. Buckets that overlap the zero bucket end at it.
    pub fn ascending(&self) -> impl Iterator<Item = Bucket> {
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        self.negative().rev().chain(zero).chain(self.positive()).map(|b| self.beside_zero(b))
    }

    /// All buckets with descending bounds; otherwise as [`Self::ascending`].
    pub fn descending(&self) -> impl Iterator<Item = Bucket> {
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        self.positive().rev().chain(zero).chain(self.negative()).map(|b| self.beside_zero(b))
    }

    fn beside_zero(&self, mut bucket: Bucket) -> Bucket {
        if bucket.lower > 0.0 && bucket.lower < self.zero_threshold {
            bucket.lower = self.zero_threshold;
        } else if bucket.upper < 0.0 && bucket.upper > -self.zero_threshold {
            bucket.upper = -self.zero_threshold;
        }
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_buckets_ascend_and_end_at_the_zero_bucket() {
        let h = Histogram {
            schema: 0,
            zero_threshold: 0.3,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: -1, length: 2 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![1.0, 2.0, 3.0],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![4.0],
            ..Histogram::default()
        };
        let shown: Vec<String> = h.ascending().map(|b| b.to_string()).collect();
        assert_eq!(shown, ["[-1,-0.5):4", "[-0.3,0.3]:2", "(0.3,0.5]:1", "(0.5,1]:2", "(2,4]:3"]);
        let mut back: Vec<String> = h.descending().map(|b| b.to_string()).collect();
        back.reverse();
        assert_eq!(shown, back);
    }

    #[test]
    fn spans_that_promise_too_much_end_with_the_buckets() {
        let spans = [Span { offset: i32::MAX, length: u32::MAX }; 3];
        assert_eq!(SideIter::new(&spans, &[1.0, 2.0]).count(), 2);
        assert_eq!(SideIter::new(&spans, &[1.0, 2.0]).rev().count(), 2);
        assert_eq!(SideIter::new(&[], &[1.0]).count(), 0);
    }

    fn side() -> impl Strategy<Value = (Vec<Span>, Vec<f64>)> {
        proptest::collection::vec((-3i32..4, 0u32..4), 0..6).prop_map(|raw| {
            let spans: Vec<Span> = raw
                .iter()
                .enumerate()
                .map(|(i, &(o, length))| Span { offset: if i == 0 { o } else { o.abs() }, length })
                .collect();
            let n = spans.iter().map(|s| s.length).sum::<u32>();
            (spans, (0..n).map(f64::from).collect())
        })
    }

    proptest! {
        #[test]
        fn any_mix_of_ends_gives_each_bucket_once((spans, counts) in side(), ends in proptest::collection::vec(any::<bool>(), 0..40)) {
            let all: Vec<_> = SideIter::new(&spans, &counts).collect();
            prop_assert_eq!(all.len(), counts.len());
            let mut it = SideIter::new(&spans, &counts);
            let (mut front, mut back) = (Vec::new(), Vec::new());
            for from_front in ends.into_iter().chain(std::iter::repeat_n(true, 40)) {
                if from_front { front.extend(it.next()) } else { back.extend(it.next_back()) }
            }
            front.extend(back.into_iter().rev());
            prop_assert_eq!(front, all);
        }
    }
}
