//! One side of a histogram as spans and counts: building, joining, thinning.
//!
//! Sums of buckets may carry a compensation each (Kahan-Neumaier), in a second
//! list of the same length as the counts.

use super::Span;
use super::bounds::{exponential_bound, is_exponential, reduced_index};
use super::bucket::SideIter;

/// Longest gap that [`Layout::compact`] fills with empty buckets.
const GAP_MAX: i64 = 1 << 16;

/// `sum + increment` with the compensation of what rounding lost so far.
///
/// Neumaier's variant; an infinite sum loses its compensation, as in
/// Prometheus.
#[must_use]
pub fn kahan_add(increment: f64, sum: f64, compensation: f64) -> (f64, f64) {
    let total = sum + increment;
    let lost = if total.is_infinite() {
        return (total, 0.0);
    } else if sum.abs() >= increment.abs() {
        (sum - total) + increment
    } else {
        (increment - total) + sum
    };
    (total, compensation + lost)
}

/// Spans and counts of one side; `compensation` is empty or as long as
/// `counts`.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    pub(super) spans: Vec<Span>,
    pub(super) counts: Vec<f64>,
    pub(super) compensation: Vec<f64>,
    end: i64,
}

impl Layout {
    fn with_capacity(buckets: usize) -> Self {
        Self { counts: Vec::with_capacity(buckets), ..Self::default() }
    }

    /// Adds a bucket behind all others.
    fn push(&mut self, index: i64, count: f64) {
        match self.spans.last_mut() {
            Some(span) if index == self.end => span.length += 1,
            _ => {
                // Indexes of valid histograms fit; others end at the rim.
                let offset = i32::try_from(index - self.end).unwrap_or(if index < self.end {
                    i32::MIN
                } else {
                    i32::MAX
                });
                self.spans.push(Span { offset, length: 1 });
            }
        }
        self.end = index + 1;
        self.counts.push(count);
    }

    fn push_compensated(&mut self, index: i64, count: f64, compensation: f64) {
        self.push(index, count);
        self.compensation.push(compensation);
    }
}

/// Drops empty buckets at the ends of spans and joins spans that are at most
/// `max_empty` buckets apart, so that runs of at most that many empty buckets
/// are listed and longer ones are gaps.
///
/// With a compensation list, a bucket is empty only if both are 0. Allocates
/// unless there is nothing to do.
pub(super) fn compact(
    spans: &mut Vec<Span>,
    counts: &mut Vec<f64>,
    compensation: Option<&mut Vec<f64>>,
    max_empty: usize,
) {
    let is_compact = counts.iter().all(|&c| c != 0.0)
        && spans.iter().enumerate().all(|(i, s)| {
            s.length > 0 && (i == 0 || usize::try_from(s.offset).is_ok_and(|o| o > max_empty))
        });
    if is_compact {
        return;
    }
    let max_gap = i64::try_from(max_empty).unwrap_or(i64::MAX).min(GAP_MAX);
    let mut out = Layout::with_capacity(counts.len());
    let list = compensation.as_deref().map_or(&[][..], |c| c.as_slice());
    for (i, (index, count)) in SideIter::new(spans, counts).enumerate() {
        let lost = list.get(i).copied().unwrap_or(0.0);
        if count == 0.0 && lost == 0.0 {
            continue;
        }
        if !out.spans.is_empty() && index - out.end <= max_gap {
            for empty in out.end..index {
                out.push_compensated(empty, 0.0, 0.0);
            }
        }
        out.push_compensated(index, count, lost);
    }
    *spans = out.spans;
    *counts = out.counts;
    if let Some(compensation) = compensation {
        *compensation = out.compensation;
    }
}

/// Joins buckets into those of the coarser schema `to`.
pub(super) fn reduce(spans: &[Span], counts: &[f64], from: i32, to: i32) -> Layout {
    let mut out = Layout::with_capacity(counts.len());
    for (index, count) in SideIter::new(spans, counts) {
        let index = reduced_index(index, from, to);
        match out.counts.last_mut() {
            Some(last) if index + 1 == out.end => *last += count,
            _ => out.push(index, count),
        }
    }
    out
}

/// As [`reduce`], with compensated sums.
pub(super) fn reduce_compensated(
    spans: &[Span],
    counts: &[f64],
    compensation: &[f64],
    from: i32,
    to: i32,
) -> Layout {
    let mut out = Layout::with_capacity(counts.len());
    for (i, (index, count)) in SideIter::new(spans, counts).enumerate() {
        let index = reduced_index(index, from, to);
        let lost = compensation.get(i).copied().unwrap_or(0.0);
        match (out.counts.last_mut(), out.compensation.last_mut()) {
            (Some(sum), Some(c)) if index + 1 == out.end => {
                (*sum, *c) = kahan_add(count, *sum, *c);
                (*sum, *c) = kahan_add(lost, *sum, *c);
            }
            _ => out.push_compensated(index, count, lost),
        }
    }
    out
}

/// The buckets of a side that is added, without those within `threshold` of 0
/// at its start: they are in the zero count.
fn beyond<'a>(
    side: impl Iterator<Item = (i64, f64)> + 'a,
    schema: i32,
    threshold: f64,
) -> impl Iterator<Item = (i64, f64)> + 'a {
    let skips = is_exponential(schema);
    side.skip_while(move |&(i, _)| skips && exponential_bound(i, schema) <= threshold)
}

/// Adds (or with `sign` -1 subtracts) buckets of the same schema; missing ones
/// are inserted, even if empty. In place if both have the same spans.
pub(super) fn add(
    schema: i32,
    threshold: f64,
    sign: f64,
    spans: &mut Vec<Span>,
    counts: &mut Vec<f64>,
    other: (&[Span], &[f64]),
) {
    if same_layout(schema, threshold, spans, other.0) && counts.len() == other.1.len() {
        for (count, more) in counts.iter_mut().zip(other.1) {
            *count += sign * more;
        }
        return;
    }
    let mut out = Layout::with_capacity(counts.len() + other.1.len());
    let mut ours = SideIter::new(spans, counts).peekable();
    for (index, more) in beyond(SideIter::new(other.0, other.1), schema, threshold) {
        while let Some((i, count)) = ours.next_if(|&(i, _)| i < index) {
            out.push(i, count);
        }
        match ours.next_if(|&(i, _)| i == index) {
            Some((_, count)) => out.push(index, count + sign * more),
            None => out.push(index, sign * more),
        }
    }
    ours.for_each(|(i, count)| out.push(i, count));
    *spans = out.spans;
    *counts = out.counts;
}

/// As [`add`], with compensated sums. `other` may have compensations too.
pub(super) fn add_compensated(
    schema: i32,
    threshold: f64,
    spans: &mut Vec<Span>,
    counts: &mut Vec<f64>,
    compensation: &mut Vec<f64>,
    other: (&[Span], &[f64], &[f64]),
) {
    let join = |sum: &mut f64, c: &mut f64, more: f64, lost: f64| {
        (*sum, *c) = kahan_add(more, *sum, *c);
        if lost != 0.0 {
            (*sum, *c) = kahan_add(lost, *sum, *c);
        }
    };
    let lost_of = |i: usize| other.2.get(i).copied().unwrap_or(0.0);
    if same_layout(schema, threshold, spans, other.0) && counts.len() == other.1.len() {
        let sums = counts.iter_mut().zip(compensation.iter_mut());
        for (i, ((sum, c), &more)) in sums.zip(other.1).enumerate() {
            join(sum, c, more, lost_of(i));
        }
        return;
    }
    let mut out = Layout::with_capacity(counts.len() + other.1.len());
    let mut ours = SideIter::new(spans, counts).zip(compensation.iter().copied()).peekable();
    let skipped =
        other.1.len() - beyond(SideIter::new(other.0, other.1), schema, threshold).count();
    let theirs = beyond(SideIter::new(other.0, other.1), schema, threshold);
    for (n, (index, more)) in theirs.enumerate() {
        let lost = lost_of(n + skipped);
        while let Some(((i, count), c)) = ours.next_if(|&((i, _), _)| i < index) {
            out.push_compensated(i, count, c);
        }
        match ours.next_if(|&((i, _), _)| i == index) {
            Some(((_, mut sum), mut c)) => {
                join(&mut sum, &mut c, more, lost);
                out.push_compensated(index, sum, c);
            }
            None => out.push_compensated(index, more, lost),
        }
    }
    ours.for_each(|((i, count), c)| out.push_compensated(i, count, c));
    *spans = out.spans;
    *counts = out.counts;
    *compensation = out.compensation;
}

/// Whether `other` can be added bucket by bucket.
fn same_layout(schema: i32, threshold: f64, spans: &[Span], other: &[Span]) -> bool {
    let begins_beyond = || {
        let first = other.first().map_or(0, |s| i64::from(s.offset));
        !is_exponential(schema) || exponential_bound(first, schema) > threshold
    };
    spans == other && begins_beyond()
}

/// The bounds that both lists have.
pub(super) fn intersect_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut common = Vec::with_capacity(a.len().min(b.len()));
    let mut rest = b.iter().peekable();
    for &bound in a {
        while rest.next_if(|&&r| r < bound).is_some() {}
        if rest.next_if(|&&r| r == bound).is_some() {
            common.push(bound);
        }
    }
    common
}

/// One side with custom bounds, as it is added to another.
pub(super) struct CustomSide<'a> {
    pub(super) spans: &'a [Span],
    pub(super) counts: &'a [f64],
    pub(super) compensation: &'a [f64],
    pub(super) bounds: &'a [f64],
    pub(super) sign: f64,
}

/// Adds sides with different bounds into buckets between the `common` ones.
/// Empty buckets are left out.
pub(super) fn add_between(common: &[f64], sides: [CustomSide<'_>; 2]) -> Layout {
    let mut sums = vec![(0.0, 0.0); common.len() + 1];
    for side in sides {
        let mut target = 0;
        for (i, (index, count)) in SideIter::new(side.spans, side.counts).enumerate() {
            let bound = usize::try_from(index).ok().and_then(|i| side.bounds.get(i));
            let into = match bound {
                None => common.len(),
                Some(&bound) => {
                    while common.get(target).is_some_and(|&c| c < bound) {
                        target += 1;
                    }
                    target
                }
            };
            let (sum, c) = sums[into];
            sums[into] = kahan_add(side.sign * count, sum, c);
            if let Some(&lost) = side.compensation.get(i) {
                let (sum, c) = sums[into];
                sums[into] = kahan_add(lost, sum, c);
            }
        }
    }
    let mut out = Layout::default();
    for (index, &(sum, c)) in (0..).zip(&sums) {
        if sum != 0.0 || c != 0.0 {
            out.push_compensated(index, sum, c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: i32, length: u32) -> Span {
        Span { offset, length }
    }

    #[test]
    fn compaction_cuts_ends_fills_short_gaps_and_keeps_long_ones() {
        let mut spans = vec![span(0, 3), span(0, 0), span(1, 4), span(5, 1)];
        let mut counts = vec![0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0];
        compact(&mut spans, &mut counts, None, 3);
        assert_eq!(spans, [span(1, 5), span(7, 1)]);
        assert_eq!(counts, [1.0, 0.0, 0.0, 0.0, 2.0, 3.0]);
        compact(&mut spans, &mut counts, None, 0);
        assert_eq!(spans, [span(1, 1), span(3, 1), span(7, 1)]);
        compact(&mut spans, &mut counts, None, usize::MAX);
        assert_eq!(spans, [span(1, 13)]);
    }

    #[test]
    fn sums_take_missing_buckets_from_either_side() {
        let mut spans = vec![span(0, 2), span(2, 1)];
        let mut counts = vec![1.0, 2.0, 3.0];
        add(0, 0.0, 1.0, &mut spans, &mut counts, (&[span(-1, 3)], &[10.0, 20.0, 30.0]));
        assert_eq!(spans, [span(-1, 3), span(2, 1)]);
        assert_eq!(counts, [10.0, 21.0, 32.0, 3.0]);
    }

    #[test]
    fn what_lies_in_the_zero_bucket_is_not_added() {
        let (mut spans, mut counts) = (vec![], vec![]);
        add(0, 1.0, -1.0, &mut spans, &mut counts, (&[span(-1, 3)], &[10.0, 20.0, 30.0]));
        assert_eq!((spans, counts), (vec![span(1, 1)], vec![-30.0]));
    }

    #[test]
    fn common_bounds_are_those_of_both() {
        assert_eq!(intersect_bounds(&[1.0, 2.0, 5.0], &[0.5, 2.0, 3.0, 5.0, 9.0]), [2.0, 5.0]);
    }
}
