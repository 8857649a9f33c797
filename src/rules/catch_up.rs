//! What did recording rules miss? Slots that went by are made up for.
//!
//! Only where it can be done in order: before anything newer is written.
//! Bounded in slots, in age and in time, because the present is more urgent.

use std::time::{Duration, Instant};

use narthex_storage::labels::METRIC_NAME;

use super::context::Context;
use super::group::Group;
use super::rule::RuleKind;

/// Most slots that are made up for at once.
const MAX_SLOTS: i64 = 240;
/// Oldest slot that is made up for, in milliseconds before now.
const MAX_AGE_MS: i64 = 3_600_000;

/// The slots after `last_ms` and before `next_ms`, oldest first.
fn slots(last_ms: i64, next_ms: i64, interval_ms: i64) -> impl Iterator<Item = i64> {
    let missed = (next_ms.saturating_sub(last_ms) - 1) / interval_ms;
    let bounded = missed.min(MAX_SLOTS).min(MAX_AGE_MS / interval_ms).max(0);
    (1..=bounded).rev().map(move |back| next_ms - back * interval_ms)
}

impl Group {
    /// The newest sample that a recording rule of this group wrote, in
    /// milliseconds since the Unix epoch, if not too old to matter.
    pub(super) fn last_recorded_ms(&self, now_ms: i64, context: &Context) -> Option<i64> {
        let recording = self.rules.iter().filter(|r| matches!(r.kind, RuleKind::Recording));
        let newest = recording.filter_map(|rule| {
            let mut labels = rule.labels.to_builder();
            labels.set(METRIC_NAME, &rule.name);
            let found = context.query.newest(&labels.build(), now_ms - MAX_AGE_MS, now_ms);
            found.ok()?.iter().map(|(_, time_ms, _)| *time_ms).max()
        });
        newest.max()
    }

    /// Runs the recording rules for the slots between `last_ms` and `next_ms`,
    /// for half an interval at most. Returns how many slots were done.
    pub(super) fn catch_up(&self, last_ms: i64, next_ms: i64, context: &Context) -> u64 {
        if self.rules.iter().all(super::rule::Rule::is_alerting) {
            return 0;
        }
        let budget = Duration::from_millis(self.interval_ms.unsigned_abs() / 2);
        let started = Instant::now();
        let mut done = 0;
        for at_ms in slots(last_ms, next_ms, self.interval_ms) {
            if started.elapsed() > budget {
                break;
            }
            self.record(at_ms, context);
            done += 1;
        }
        context.metrics.caught_up.add(done);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_between_are_made_up_for() {
        let all = |last, next, interval| slots(last, next, interval).collect::<Vec<_>>();
        assert_eq!(all(0, 15_000, 15_000), Vec::<i64>::new());
        assert_eq!(all(0, 45_000, 15_000), [15_000, 30_000]);
        // Off the grid, as after a restart with another configuration.
        assert_eq!(all(1_000, 45_000, 15_000), [15_000, 30_000]);
        assert_eq!(all(100_000, 45_000, 15_000), Vec::<i64>::new());
        let long = all(0, 86_400_000, 15_000);
        assert_eq!((long.len(), long.last()), (240, Some(&(86_400_000 - 15_000))));
        assert_eq!(all(0, 86_400_000, 7_200_000).len(), 0);
    }
}
