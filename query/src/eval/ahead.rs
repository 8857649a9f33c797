//! How do several threads work on the series of one selector?
//!
//! They share the series out in chunks, in order, and the query's own thread
//! takes the results in that order: what comes out does not depend on how many
//! threads there are, to the bit. No chunk is begun that is far ahead, so what
//! waits is bounded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::QueryError;

/// Chunks that may wait per thread.
const AHEAD: usize = 2;

/// Series that are read before it is decided whether others help.
pub(super) const PROBES: usize = 2;
/// What a series costs however short it is, in samples. Threads stand in each
/// other's way in that part, so that short series are not worth it.
const SERIES_COST: usize = 300;
/// What a chunk should cost, in samples: much more than handing it over.
const CHUNK_COST: usize = 60_000;
/// Most series of a chunk.
const MAX_CHUNK: usize = 256;

/// How series are shared out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// Series.
    pub(super) count: usize,
    /// Series per chunk.
    pub(super) chunk: usize,
    /// Threads besides the query's own.
    pub(super) helpers: usize,
}

impl Shares {
    /// How to share out `count` series of about `samples` samples and `steps`
    /// steps each, if it is worth more than `worth` samples.
    pub(super) fn of(
        count: usize,
        samples: usize,
        steps: usize,
        helpers: usize,
        worth: usize,
    ) -> Option<Self> {
        if helpers == 0 || count.saturating_mul(samples.saturating_sub(SERIES_COST)) < worth {
            return None;
        }
        let cost = samples.max(steps) + SERIES_COST;
        let fair = count.div_ceil(4 * (helpers + 1));
        let chunk = (CHUNK_COST / cost).min(MAX_CHUNK).min(fair).max(1);
        Some(Self { count, chunk, helpers })
    }
}

/// Calls `work` for each of so many series, on several threads, each with a
/// state of its own that `state` makes, and hands the results to `take` in
/// order, on this thread. Ends with the first error in that order.
pub(super) fn in_order<S, T: Send>(
    shares: Shares,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<T, QueryError> + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let line = Line {
        chunks: shares.count.div_ceil(shares.chunk),
        most_ahead: AHEAD * (shares.helpers + 1),
        places: Mutex::new(Places { next: 0, taken: 0, done: BTreeMap::new() }),
        changed: Condvar::new(),
        is_over: AtomicBool::new(false),
    };
    let range = |chunk: usize| -> Range<usize> {
        chunk * shares.chunk..((chunk + 1) * shares.chunk).min(shares.count)
    };
    let run = |state: &mut S, chunk: usize| -> Result<Vec<T>, QueryError> {
        let mut out = Vec::with_capacity(shares.chunk);
        for i in range(chunk) {
            if line.is_over.load(Ordering::Relaxed) {
                break;
            }
            out.push(work(state, i)?);
        }
        Ok(out)
    };
    std::thread::scope(|scope| {
        // However this ends, the others shall not wait any more.
        let _end = End { line: &line, is_helper: false };
        for _ in 0..shares.helpers {
            let help = || {
                let _end = End { line: &line, is_helper: true };
                let mut state = state();
                while let Some(chunk) = line.claim() {
                    let done = run(&mut state, chunk);
                    line.lock().done.insert(chunk, done);
                    line.changed.notify_all();
                }
            };
            let thread = std::thread::Builder::new().name("query".to_owned());
            // Without a thread more the others do its work.
            let _ = thread.spawn_scoped(scope, help);
        }
        let mut state = state();
        for chunk in 0..line.chunks {
            let results = line.result(chunk, |chunk| run(&mut state, chunk))?;
            for (i, result) in range(chunk).zip(results) {
                take(i, result)?;
            }
        }
        Ok(())
    })
}

/// The chunks of one selector.
struct Line<T> {
    chunks: usize,
    most_ahead: usize,
    places: Mutex<Places<T>>,
    changed: Condvar,
    /// Nothing more is needed.
    is_over: AtomicBool,
}

struct Places<T> {
    /// The first chunk that nobody began.
    next: usize,
    /// Chunks whose results were taken.
    taken: usize,
    done: BTreeMap<usize, Result<Vec<T>, QueryError>>,
}

impl<T> Line<T> {
    fn lock(&self) -> MutexGuard<'_, Places<T>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'l>(&self, places: MutexGuard<'l, Places<T>>) -> MutexGuard<'l, Places<T>> {
        self.changed.wait(places).unwrap_or_else(PoisonError::into_inner)
    }

    /// The next chunk for a helper, once it is not too far ahead; `None` when
    /// there is no more.
    fn claim(&self) -> Option<usize> {
        let mut places = self.lock();
        loop {
            if places.next >= self.chunks || self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(chunk) = self.begin(&mut places) {
                return Some(chunk);
            }
            places = self.wait(places);
        }
    }

    fn begin(&self, places: &mut Places<T>) -> Option<usize> {
        let may = places.next < self.chunks && places.next < places.taken + self.most_ahead;
        may.then(|| {
            places.next += 1;
            places.next - 1
        })
    }

    /// The result of a chunk, in order. Works on it, or on others, instead of
    /// waiting, as long as there are some.
    fn result(
        &self,
        chunk: usize,
        mut run: impl FnMut(usize) -> Result<Vec<T>, QueryError>,
    ) -> Result<Vec<T>, QueryError> {
        let mut places = self.lock();
        loop {
            if let Some(done) = places.done.remove(&chunk) {
                places.taken = chunk + 1;
                self.changed.notify_all();
                return done;
            }
            if self.is_over.load(Ordering::Relaxed) {
                // The panic of a helper goes on when the threads are joined.
                return Err(QueryError::Execution("a thread of the query ended".to_owned()));
            }
            places = match self.begin(&mut places) {
                Some(other) => {
                    drop(places);
                    let done = run(other);
                    let mut places = self.lock();
                    places.done.insert(other, done);
                    places
                }
                None => self.wait(places),
            };
        }
    }
}

/// Ends the work of all when the query's thread is through, or a helper panics.
struct End<'l, T> {
    line: &'l Line<T>,
    is_helper: bool,
}

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        if self.is_helper && !std::thread::panicking() {
            return;
        }
        // Under the lock, so that nobody looks before and waits after.
        let _places = self.line.lock();
        self.line.is_over.store(true, Ordering::Relaxed);
        self.line.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(shares: Shares, fails_at: usize) -> (Vec<usize>, Result<(), QueryError>) {
        let mut out = Vec::new();
        let work = |made: &mut usize, i: usize| {
            *made += 1;
            if i == fails_at { Err(QueryError::Canceled) } else { Ok(i * i) }
        };
        let result = in_order(
            shares,
            || 0,
            work,
            |i, square| {
                assert_eq!(square, i * i);
                out.push(i);
                Ok(())
            },
        );
        (out, result)
    }

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        for helpers in 0..4 {
            for (count, chunk) in [(0, 1), (1, 1), (7, 3), (1000, 7), (50, 100)] {
                let (out, result) = squares(Shares { count, chunk, helpers }, usize::MAX);
                assert!(result.is_ok());
                assert_eq!(out, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_first_error_ends_all() {
        for helpers in 0..4 {
            let (out, result) = squares(Shares { count: 1000, chunk: 10, helpers }, 503);
            assert!(matches!(result, Err(QueryError::Canceled)));
            assert_eq!(out, (0..500).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_takes_may_end_it() {
        let shares = Shares { count: 1000, chunk: 2, helpers: 2 };
        let mut taken = 0;
        let result = in_order(
            shares,
            || (),
            |(), i| Ok(i),
            |_, _| {
                taken += 1;
                if taken == 5 { Err(QueryError::TooManySamples) } else { Ok(()) }
            },
        );
        assert!(matches!(result, Err(QueryError::TooManySamples)));
        assert_eq!(taken, 5);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_not_waited_for() {
        let shares = Shares { count: 1000, chunk: 1, helpers: 1 };
        let own = std::thread::current().id();
        let begun = AtomicBool::new(false);
        let work = |(): &mut (), i: usize| {
            if std::thread::current().id() != own {
                begun.store(true, Ordering::Relaxed);
                panic!("a helper's");
            }
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(i)
        };
        let _ = in_order(shares, || (), work, |_, _| Ok(()));
    }
}
