//! Which counter-reset hint does a histogram come back with?
//!
//! Prometheus keeps histograms in chunks whose header says whether a reset
//! stood before them; within a chunk no sample is a reset, or a new chunk
//! would have begun. So the first sample of a chunk is `Reset` or `Unknown`,
//! all others `NotReset`, and gauges stay gauges. What the writer said counts
//! only where it said `Reset` or `Gauge`.

use narthex_storage::histogram::{CounterResetHint, Histogram, Span};

/// Chunks never cross a multiple of this, in milliseconds: a day, as in the
/// storage that Prometheus tests queries with.
const CHUNK_RANGE_MS: i64 = 24 * 3600 * 1000;

/// The open chunk of a series, as far as hints depend on it.
#[derive(Debug, Default)]
pub(super) struct ChunkState {
    /// The newest sample, if the chunk holds histograms.
    newest: Option<Histogram>,
    gauge: bool,
    range: i64,
}

impl ChunkState {
    /// A float ends a chunk of histograms.
    pub(super) fn next_float(&mut self) {
        self.newest = None;
    }

    /// Takes the next histogram; gives the hint it will be read with.
    pub(super) fn next_histogram(
        &mut self,
        timestamp_ms: i64,
        histogram: &Histogram,
    ) -> CounterResetHint {
        let range = timestamp_ms.div_euclid(CHUNK_RANGE_MS);
        let gauge = histogram.counter_reset_hint == CounterResetHint::Gauge;
        let transition = match &self.newest {
            None if histogram.counter_reset_hint == CounterResetHint::Reset => Transition::Reset,
            None => Transition::Cut,
            Some(newest) => transition(newest, self.gauge, histogram),
        };
        let crosses = range != self.range;
        self.newest = Some(histogram.clone());
        self.gauge = match transition {
            Transition::Continues if !crosses => self.gauge,
            _ => gauge,
        };
        self.range = range;
        match transition {
            _ if histogram.is_stale() => CounterResetHint::Unknown,
            _ if self.gauge => CounterResetHint::Gauge,
            Transition::Reset => CounterResetHint::Reset,
            Transition::Continues if !crosses => CounterResetHint::NotReset,
            Transition::Continues | Transition::Cut => CounterResetHint::Unknown,
        }
    }
}

/// How a histogram follows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transition {
    /// In the same chunk.
    Continues,
    /// In a new chunk, for another reason than a reset.
    Cut,
    /// In a new chunk after a reset.
    Reset,
}

fn transition(newest: &Histogram, newest_is_gauge: bool, next: &Histogram) -> Transition {
    let next_is_gauge = next.counter_reset_hint == CounterResetHint::Gauge;
    if newest_is_gauge != next_is_gauge {
        return Transition::Cut;
    }
    if next.counter_reset_hint == CounterResetHint::Reset {
        return Transition::Reset;
    }
    if next.is_stale() {
        return Transition::Continues;
    }
    if newest.is_stale() {
        return Transition::Cut;
    }
    let same_layout = next.schema == newest.schema && next.zero_threshold == newest.zero_threshold;
    let same_bounds = !next.uses_custom_buckets() || next.custom_values == newest.custom_values;
    if next_is_gauge {
        return if same_layout && same_bounds { Transition::Continues } else { Transition::Cut };
    }
    if next.count < newest.count {
        return Transition::Reset;
    }
    if !same_layout {
        return Transition::Cut;
    }
    let shrinks = !same_bounds
        || next.zero_count < newest.zero_count
        || any_shrinks(
            (&newest.positive_spans, &newest.positive_buckets),
            (&next.positive_spans, &next.positive_buckets),
        )
        || any_shrinks(
            (&newest.negative_spans, &newest.negative_buckets),
            (&next.negative_spans, &next.negative_buckets),
        );
    if shrinks { Transition::Reset } else { Transition::Continues }
}

/// Whether a bucket of `before` is larger than the same one of `after`; a
/// bucket that is not there counts as empty.
fn any_shrinks(before: (&[Span], &[f64]), after: (&[Span], &[f64])) -> bool {
    let mut after = indexed(after.0, after.1).peekable();
    for (index, count) in indexed(before.0, before.1) {
        while after.next_if(|(i, _)| *i < index).is_some() {}
        let now = after.next_if(|(i, _)| *i == index).map_or(0.0, |(_, count)| count);
        if count > now {
            return true;
        }
    }
    false
}

/// Buckets with their indexes, ascending.
fn indexed<'a>(spans: &'a [Span], buckets: &'a [f64]) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut index = 0_i64;
    spans
        .iter()
        .flat_map(move |span| {
            let first = index + i64::from(span.offset);
            index = first + i64::from(span.length);
            first..index
        })
        .zip(buckets.iter().copied())
}
