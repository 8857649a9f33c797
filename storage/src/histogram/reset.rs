//! Counter resets: did a histogram start again between two samples?

use std::iter::Peekable;
use std::sync::Arc;

use super::bounds::{exponential_bound, is_exponential};
use super::bucket::{Reduced, SideIter};
use super::{CounterResetHint, Histogram, Span};

impl Histogram {
    /// Whether a counter reset lies between `previous` and this sample.
    ///
    /// The hint decides if it says so. Otherwise it is a reset if the count,
    /// the zero count or any bucket is smaller than before (buckets that are
    /// gone count as empty), the resolution is finer, the zero bucket is
    /// narrower, or grew into the middle of a bucket that had observations.
    /// Coarser resolution and a wider zero bucket alone are none. Custom
    /// buckets with other bounds are compared between the bounds they share.
    /// A gauge is treated like a counter.
    ///
    /// Does not allocate.
    #[must_use]
    pub fn is_reset_after(&self, previous: &Self) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::Reset => return true,
            CounterResetHint::NotReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if self.custom_values != previous.custom_values {
                return shrinks_between_bounds(previous, self);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_count, threshold, _) = previous.widened_zero(self.zero_threshold, None);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let (to, width) = (self.schema, self.zero_threshold);
        let within = move |index| is_exponential(to) && exponential_bound(index, to) <= width;
        let shrunk = |before: SideIter<'_>, now: SideIter<'_>| {
            let before = Reduced::new(before, previous.schema, to);
            shrinks(before.skip_while(|b| within(b.0)), now.skip_while(|b| within(b.0)))
        };
        shrunk(previous.positive_side(), self.positive_side())
            || shrunk(previous.negative_side(), self.negative_side())
    }
}

/// Whether a bucket of `before` is larger than that of `now`.
fn shrinks(
    before: impl Iterator<Item = (i64, f64)>,
    now: impl Iterator<Item = (i64, f64)>,
) -> bool {
    let mut now = now.peekable();
    for (index, count) in before {
        while now.next_if(|&(i, _)| i < index).is_some() {}
        let current = now.peek().filter(|b| b.0 == index).map(|b| b.1);
        if current.map_or(count != 0.0, |current| current < count) {
            return true;
        }
    }
    false
}

/// Whether fewer observations than before lie between two neighbouring bounds
/// that both histograms have.
fn shrinks_between_bounds(before: &Histogram, now: &Histogram) -> bool {
    let (mut old, mut new) = (before.positive_side().peekable(), now.positive_side().peekable());
    let mut old_bounds = before.custom_values.iter().enumerate().peekable();
    for (j, bound) in now.custom_values.iter().enumerate() {
        while old_bounds.next_if(|(_, b)| *b < bound).is_some() {}
        if let Some((i, _)) = old_bounds.next_if(|(_, b)| *b == bound)
            && sum_up_to(&mut new, j) < sum_up_to(&mut old, i)
        {
            return true;
        }
    }
    sum_up_to(&mut new, usize::MAX) < sum_up_to(&mut old, usize::MAX)
}

/// Takes the buckets with indexes up to `last` and adds them up.
fn sum_up_to(side: &mut Peekable<SideIter<'_>>, last: usize) -> f64 {
    let last = i64::try_from(last).unwrap_or(i64::MAX);
    let mut sum = 0.0;
    while let Some((_, count)) = side.next_if(|&(i, _)| i <= last) {
        sum += count;
    }
    sum
}

/// Works out the hints that the samples of one series are read with.
///
/// Prometheus' storage keeps histograms in chunks in which no sample is a
/// reset or has another layout; what it gives back is `NotReset` within a
/// chunk, `Unknown` for a chunk's first sample, and `Gauge` for gauges. It
/// does not give `Reset`, even where it saw one: readers compare the samples
/// around it. We have no such chunks, but the same rules, so that answers and
/// warnings are the same.
#[derive(Debug, Clone, Default)]
pub struct HintTracker {
    newest: Option<Histogram>,
}

impl HintTracker {
    /// A tracker of a series of which nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self { newest: None }
    }

    /// Forgets what was before: a float, a gap in what is known, or the border
    /// of a chunk. The next histogram is `Unknown` or `Gauge`.
    pub fn restart(&mut self) {
        self.newest = None;
    }

    /// The hint that the next histogram of the series is to be read with.
    ///
    /// Keeps a copy of it.
    pub fn next(&mut self, histogram: &Histogram) -> CounterResetHint {
        let hint = match &self.newest {
            _ if histogram.counter_reset_hint == CounterResetHint::Gauge => CounterResetHint::Gauge,
            Some(newest) if newest.continues_with(histogram) => CounterResetHint::NotReset,
            _ => CounterResetHint::Unknown,
        };
        match &mut self.newest {
            Some(newest) => newest.clone_from(histogram),
            None => self.newest = Some(histogram.clone()),
        }
        hint
    }
}

/// Gives the histograms of a column the hints that a [`HintTracker`] would;
/// the numbers are positions in the column, floats between them end a chunk.
///
/// Copies histograms whose hint changes and that are shared with others; equal
/// neighbours stay shared.
pub fn settle_hints(histograms: &mut [(u32, Arc<Histogram>)]) {
    // The sample before: its position, as it was, and as it is now.
    let mut before: Option<(u32, Arc<Histogram>, Arc<Histogram>)> = None;
    for (position, histogram) in histograms {
        let follows = before.as_ref().filter(|b| b.0.checked_add(1) == Some(*position));
        let hint = match follows {
            _ if histogram.counter_reset_hint == CounterResetHint::Gauge => CounterResetHint::Gauge,
            Some((_, previous, _)) if previous.continues_with(histogram) => {
                CounterResetHint::NotReset
            }
            _ => CounterResetHint::Unknown,
        };
        let was = Arc::clone(histogram);
        match &before {
            Some((_, previous, now))
                if Arc::ptr_eq(previous, &was) && now.counter_reset_hint == hint =>
            {
                *histogram = Arc::clone(now);
            }
            _ if was.counter_reset_hint == hint => {}
            _ => {
                let mut changed = Histogram::clone(&was);
                changed.counter_reset_hint = hint;
                *histogram = Arc::new(changed);
            }
        }
        before = Some((*position, was, Arc::clone(histogram)));
    }
}

impl Histogram {
    /// Whether `next` goes on counting in the same layout, without a reset:
    /// in Prometheus, whether it fits the chunk.
    #[must_use]
    pub fn continues_with(&self, next: &Self) -> bool {
        let gauge = |h: &Self| h.counter_reset_hint == CounterResetHint::Gauge;
        if gauge(self) != gauge(next) || next.counter_reset_hint == CounterResetHint::Reset {
            return false;
        }
        if next.is_stale() || self.is_stale() {
            return next.is_stale();
        }
        if self.schema != next.schema
            || self.zero_threshold != next.zero_threshold
            || (self.uses_custom_buckets() && self.custom_values != next.custom_values)
        {
            return false;
        }
        if gauge(next) {
            return true;
        }
        let shrunk = |a: (&[Span], &[f64]), b: (&[Span], &[f64])| {
            shrinks(SideIter::new(a.0, a.1), SideIter::new(b.0, b.1))
        };
        !(next.count < self.count
            || next.zero_count < self.zero_count
            || shrunk(
                (&self.positive_spans, &self.positive_buckets),
                (&next.positive_spans, &next.positive_buckets),
            )
            || shrunk(
                (&self.negative_spans, &self.negative_buckets),
                (&next.negative_spans, &next.negative_buckets),
            ))
    }
}
