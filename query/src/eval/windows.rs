//! Which samples does each step see?
//!
//! Answered once per axis: all series of a scrape share their timestamps, so
//! the index ranges found for the first series serve the rest. An axis is
//! known by the address and part of its allocation, which the cache keeps
//! alive.

use narthex_storage::read::{Axis, Column};

/// No sample at this step.
pub(crate) const NONE: u32 = u32::MAX;

/// Most axes whose windows are kept.
const MAX_CACHED: usize = 64;

/// Windows of steps into a column: `first..end` per step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Windows {
    pub(crate) bounds: Vec<(u32, u32)>,
    /// Sum of the windows' lengths.
    pub(crate) total: u64,
    /// For rates: how each window lies within its range. As it does not depend
    /// on the values, it is worked out once per axis; empty until then.
    pub(crate) spreads: Vec<Spread>,
}

/// How the samples of a window lie within its range, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread {
    /// From the first to the last sample.
    pub(crate) sampled: f64,
    /// How far the change extends to the left.
    pub(crate) to_start: f64,
    /// How far the change extends to the right.
    pub(crate) to_end: f64,
    /// What the change is multiplied with, unless a counter's zero is near.
    pub(crate) factor: f64,
}

/// How long windows are and where they end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    /// The right ends, included, ascending.
    pub(crate) ends_ms: &'a [i64],
    /// The left ends are this much before them, excluded.
    pub(crate) before_ms: i64,
    /// The windows reach this much further right.
    pub(crate) after_ms: i64,
}

/// Finds `first..end` for every step such that `end - before < t <= end + after`.
pub(crate) fn find(times_ms: &[i64], shape: Shape<'_>, out: &mut Windows) {
    out.bounds.clear();
    out.spreads.clear();
    out.total = 0;
    let (mut first, mut end) = (0, 0);
    if let Some(&at) = shape.ends_ms.first() {
        first = times_ms.partition_point(|t| *t <= at.saturating_sub(shape.before_ms));
        end = first;
    }
    for &at in shape.ends_ms {
        let (left, right) = (at.saturating_sub(shape.before_ms), at.saturating_add(shape.after_ms));
        while first < times_ms.len() && times_ms[first] <= left {
            first += 1;
        }
        end = end.max(first);
        while end < times_ms.len() && times_ms[end] <= right {
            end += 1;
        }
        out.bounds.push((narrow(first), narrow(end)));
        out.total += (end - first) as u64;
    }
}

/// Finds the last sample for every step such that `at - lookback < t <= at`;
/// [`NONE`] if there is none.
pub(crate) fn find_last(times_ms: &[i64], at_ms: &[i64], lookback_ms: i64, out: &mut Vec<u32>) {
    out.clear();
    let mut next = match at_ms.first() {
        Some(&at) => times_ms.partition_point(|t| *t <= at.saturating_sub(lookback_ms)),
        None => 0,
    };
    for &at in at_ms {
        while next < times_ms.len() && times_ms[next] <= at {
            next += 1;
        }
        let fresh = next > 0 && times_ms[next - 1] > at.saturating_sub(lookback_ms);
        out.push(if fresh { narrow(next - 1) } else { NONE });
    }
}

fn narrow(i: usize) -> u32 {
    u32::try_from(i).expect("a column has less than 2^32 samples by the storage's limits")
}

/// What was worked out per axis.
#[derive(Debug)]
pub(crate) struct PerAxis<T> {
    entries: Vec<(Axis, std::ops::Range<usize>, T)>,
    last: usize,
}

impl<T> Default for PerAxis<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), last: 0 }
    }
}

impl<T> PerAxis<T> {
    /// What is kept for the column's axis, made by `make` if there is nothing.
    pub(crate) fn get(&mut self, column: &Column, make: impl FnOnce() -> T) -> &T {
        let is_it = |(axis, range, _): &(Axis, std::ops::Range<usize>, T)| {
            std::ptr::eq(axis.as_ptr(), column.axis.as_ptr()) && *range == column.range
        };
        if !self.entries.get(self.last).is_some_and(is_it) {
            if let Some(place) = self.entries.iter().position(is_it) {
                self.last = place;
            } else {
                if self.entries.len() >= MAX_CACHED {
                    self.entries.clear();
                }
                self.last = self.entries.len();
                self.entries.push((column.axis.clone(), column.range.clone(), make()));
            }
        }
        &self.entries[self.last].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_are_left_open() {
        let mut out = Windows::default();
        let shape = Shape { ends_ms: &[20, 30], before_ms: 10, after_ms: 0 };
        find(&[10, 20, 25, 30, 31], shape, &mut out);
        assert_eq!(out.bounds, [(1, 2), (2, 4)]);
        assert_eq!(out.total, 3);
    }

    #[test]
    fn a_sample_as_old_as_the_lookback_is_not_found() {
        let mut out = Vec::new();
        find_last(&[10], &[9, 10, 19, 20], 10, &mut out);
        assert_eq!(out, [NONE, 0, 0, NONE]);
    }

    proptest! {
        #[test]
        fn windows_are_those_of_a_plain_search(
            mut times in proptest::collection::vec(0i64..200, 0..40),
            start in 0i64..100, step in 0i64..20, before in 1i64..60, after in 0i64..30,
        ) {
            times.sort_unstable();
            times.dedup();
            let ends: Vec<i64> = (0..10).map(|i| start + i * step).collect();
            let mut out = Windows::default();
            find(&times, Shape { ends_ms: &ends, before_ms: before, after_ms: after }, &mut out);
            let mut last = Vec::new();
            find_last(&times, &ends, before, &mut last);
            for (i, end) in ends.iter().enumerate() {
                let (a, b) = out.bounds[i];
                let plain: Vec<i64> = times.iter().copied()
                    .filter(|t| *t > end - before && *t <= end + after).collect();
                prop_assert_eq!(&times[a as usize..b as usize], &plain[..]);
                let newest = times.iter().rposition(|t| *t > end - before && t <= end);
                prop_assert_eq!((last[i] != NONE).then_some(last[i] as usize), newest);
            }
        }
    }
}
