//! Which queries are evaluated where they arrive?
//!
//! Handing a query to another thread and its answer back costs more than most
//! queries of dashboards and alerts: two wake-ups, each a change of threads. So
//! what took little when it was asked the last time is evaluated on the
//! runtime's thread, within a limit; if it takes longer after all, it is asked
//! again on a thread that may block. What was never asked, or was slow, goes
//! there at once.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What may keep a thread of the runtime busy.
const QUICK: Duration = Duration::from_millis(1);

/// When it is given up there.
pub const LIMIT: Duration = Duration::from_millis(10);

/// Queries that are remembered.
const PLACES: usize = 1024;

/// The queries that took little, as far as remembered.
#[derive(Debug)]
pub struct QuickQueries {
    /// Keys by their remainder: of two with one place the later is remembered.
    places: Box<[AtomicU64]>,
}

impl Default for QuickQueries {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

/// What tells queries apart whose times differ only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The key of a query over a range of this length, in milliseconds.
    #[must_use]
    pub fn of(text: &str, length_ms: i64, step_ms: i64) -> Self {
        let mut hasher = DefaultHasher::new();
        (text, length_ms, step_ms).hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl QuickQueries {
    /// Whether the query took little the last time.
    #[must_use]
    pub fn knows(&self, key: Key) -> bool {
        self.place(key).load(Ordering::Relaxed) == key.0
    }

    /// Remembers how long it took.
    pub fn note(&self, key: Key, took: Duration) {
        let place = self.place(key);
        if took <= QUICK {
            place.store(key.0, Ordering::Relaxed);
        } else {
            let _ = place.compare_exchange(key.0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn place(&self, key: Key) -> &AtomicU64 {
        #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 1024")]
        let place = (key.0 % PLACES as u64) as usize;
        &self.places[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_quick_is_known_until_it_is_slow() {
        let queries = QuickQueries::default();
        let (key, other) = (Key::of("up", 0, 0), Key::of("up", 3_600_000, 15_000));
        assert!(!queries.knows(key));
        queries.note(key, QUICK);
        assert!(queries.knows(key) && !queries.knows(other));
        queries.note(other, LIMIT);
        assert!(queries.knows(key));
        queries.note(key, LIMIT);
        assert!(!queries.knows(key));
    }
}
