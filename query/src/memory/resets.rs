//! Which counter-reset hint does a histogram come back with?
//!
//! Prometheus keeps histograms in chunks in which no sample is a reset; it
//! reads them back as [`HintTracker`] says.

use narthex_storage::histogram::{CounterResetHint, HintTracker, Histogram};

/// Chunks never cross a multiple of this, in milliseconds: a day, as in the
/// storage that Prometheus tests queries with.
const CHUNK_RANGE_MS: i64 = 24 * 3600 * 1000;

/// The open chunk of a series, as far as hints depend on it.
#[derive(Debug, Default)]
pub(super) struct ChunkState {
    tracker: HintTracker,
    range: i64,
}

impl ChunkState {
    /// A float ends a chunk of histograms.
    pub(super) fn next_float(&mut self) {
        self.tracker.restart();
    }

    /// Takes the next histogram; gives the hint it will be read with.
    pub(super) fn next_histogram(
        &mut self,
        timestamp_ms: i64,
        histogram: &Histogram,
    ) -> CounterResetHint {
        let range = timestamp_ms.div_euclid(CHUNK_RANGE_MS);
        if range != self.range {
            self.tracker.restart();
            self.range = range;
        }
        self.tracker.next(histogram)
    }
}
