//! Histograms reduced to count and sum, for queries that need no more.

use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram};

/// Strips the histograms of one series to count, sum and schema.
///
/// Prometheus does so below `histogram_count`, `histogram_sum` and
/// `histogram_avg`, unless a subquery, a function on quantiles or fractions or
/// a trim operator stands between or above. It shows: as resets cannot be seen
/// without buckets, they are looked for here and noted in the hint, which may
/// then be `Reset`; and custom bounds never mismatch.
#[derive(Debug, Clone, Default)]
pub struct StatsReader {
    newest: Option<Arc<Histogram>>,
}

impl StatsReader {
    /// A reader of a series whose earlier samples are not known.
    #[must_use]
    pub const fn new() -> Self {
        Self { newest: None }
    }

    /// The next histogram of the series, stripped. Staleness markers stay.
    pub fn next(&mut self, histogram: &Arc<Histogram>) -> Arc<Histogram> {
        let hint = match (histogram.counter_reset_hint, &self.newest) {
            _ if histogram.is_stale() => histogram.counter_reset_hint,
            (CounterResetHint::Unknown, Some(newest)) => {
                if histogram.is_reset_after(newest) {
                    CounterResetHint::Reset
                } else {
                    CounterResetHint::NotReset
                }
            }
            (hint, _) => hint,
        };
        if !histogram.is_stale() {
            self.newest = Some(Arc::clone(histogram));
        }
        Arc::new(Histogram {
            counter_reset_hint: hint,
            schema: histogram.schema,
            count: histogram.count,
            sum: histogram.sum,
            ..Histogram::default()
        })
    }
}
