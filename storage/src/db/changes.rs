//! Since when has the past changed?
//!
//! Readers that keep what they worked out ask whether the samples it is from
//! are still the same. A commit changes nothing before its first timestamp, so
//! of the commits only pairs of number and first timestamp are kept, and of
//! these only such as no later commit reaches further back than: both ascend.
//! All else that changes what is read (deletions, damage, days that were
//! dropped) begins a new epoch, with which nothing is comparable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most pairs that are kept: then every two become one.
const MAX_PAIRS: usize = 4096;

/// Epochs are unique in the process: versions of two storages never match.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// The first timestamps of commits.
#[derive(Debug)]
pub(super) struct Changes {
    epoch: AtomicU64,
    /// Commit and first timestamp.
    pairs: Mutex<VecDeque<(u64, i64)>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { epoch: AtomicU64::new(next_epoch()), pairs: Mutex::default() }
    }
}

fn next_epoch() -> u64 {
    NEXT_EPOCH.fetch_add(1, Ordering::Relaxed)
}

impl Changes {
    /// What is read may be different from now on, whatever its time. To be
    /// called when the change is visible.
    pub(super) fn begin_epoch(&self) {
        self.epoch.store(next_epoch(), Ordering::SeqCst);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Notes a commit, greater than those before, whose samples are at
    /// `first_ms` or later. To be called before it is visible.
    pub(super) fn note(&self, commit: u64, first_ms: i64) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        while pairs.back().is_some_and(|(_, before)| *before >= first_ms) {
            pairs.pop_back();
        }
        if pairs.len() >= MAX_PAIRS {
            // Of two, the later commit with the earlier time: never too late.
            let halves: Vec<_> = pairs.drain(..).collect();
            pairs.extend(halves.chunks(2).map(|two| (two[two.len() - 1].0, two[0].1)));
        }
        pairs.push_back((commit, first_ms));
    }

    /// Samples before this are the same as they were up to `commit`.
    pub(super) fn unchanged_before(&self, commit: u64) -> i64 {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let next = pairs.partition_point(|(number, _)| *number <= commit);
        pairs.get(next).map_or(i64::MAX, |(_, first_ms)| *first_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn epochs_are_never_those_of_others() {
        let (a, b) = (Changes::default(), Changes::default());
        let before = a.epoch();
        assert_ne!(before, b.epoch());
        a.begin_epoch();
        assert!(![before, b.epoch()].contains(&a.epoch()));
    }

    #[test]
    fn many_commits_take_little_and_err_to_the_early_side() {
        let changes = Changes::default();
        for commit in 1u64..100_000 {
            changes.note(commit, commit.cast_signed() * 10);
        }
        assert!(changes.pairs.lock().expect("nothing panicked").len() <= MAX_PAIRS);
        for since in [0u64, 1, 50_000, 99_000, 99_998] {
            let exact = (since.cast_signed() + 1) * 10;
            assert!(changes.unchanged_before(since) <= exact);
        }
        assert_eq!(changes.unchanged_before(99_998), 999_990);
        assert_eq!(changes.unchanged_before(99_999), i64::MAX);
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_looking_at_all_commits(
            times in proptest::collection::vec(0i64..50, 0..60),
        ) {
            let changes = Changes::default();
            for (commit, time) in (1..).zip(&times) {
                changes.note(commit, *time);
            }
            for since in 0..=times.len() {
                let plain = times[since..].iter().copied().min().unwrap_or(i64::MAX);
                prop_assert_eq!(changes.unchanged_before(since as u64), plain);
            }
        }
    }
}
