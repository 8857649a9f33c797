//! When is a group due? Slots, missed ones, and clocks that jump.
//!
//! Nothing here reads a clock: the wall clock and a monotonic one are passed
//! in, and a jump is where they disagree.

use std::time::Duration;

/// Disagreement of the clocks that counts as a jump, in milliseconds. Less is
/// what time daemons correct every day.
const JUMP_MS: i64 = 10_000;

/// What to do after waking up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Nothing is due for so many milliseconds.
    Wait(i64),
    /// The wall clock jumped by so many milliseconds, compared with the
    /// monotonic one. The next slot is after now.
    Jumped(i64),
    /// Evaluate for `at_ms`; `missed` slots before it were not evaluated.
    Run {
        /// The slot that is due, the newest one.
        at_ms: i64,
        /// How many slots before it went by.
        missed: i64,
    },
}

/// The slots of one group.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    interval_ms: i64,
    slot_ms: i64,
    next_ms: i64,
    wall_ms: i64,
    monotonic: Duration,
}

impl Schedule {
    /// The first slot is the next one after `now_ms`.
    pub(super) fn new(interval_ms: i64, slot_ms: i64, now_ms: i64, monotonic: Duration) -> Self {
        let mut schedule = Self { interval_ms, slot_ms, next_ms: 0, wall_ms: now_ms, monotonic };
        schedule.next_ms = schedule.slot_before(now_ms).saturating_add(interval_ms);
        schedule
    }

    /// The newest slot that is not after `now_ms`.
    fn slot_before(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub((now_ms - self.slot_ms).rem_euclid(self.interval_ms))
    }

    /// How long to sleep at most: clocks are compared once an interval.
    pub(super) fn sleep_ms(&self, now_ms: i64) -> i64 {
        (self.next_ms - now_ms).clamp(1, self.interval_ms)
    }

    /// What is due at `now_ms`.
    pub(super) fn wake(&mut self, now_ms: i64, monotonic: Duration) -> Wake {
        let passed = monotonic.saturating_sub(self.monotonic);
        let passed_ms = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let jump_ms = now_ms.saturating_sub(self.wall_ms).saturating_sub(passed_ms);
        self.wall_ms = now_ms;
        self.monotonic = monotonic;
        if jump_ms.abs() >= JUMP_MS {
            self.next_ms = self.slot_before(now_ms).saturating_add(self.interval_ms);
            return Wake::Jumped(jump_ms);
        }
        if now_ms < self.next_ms {
            return Wake::Wait(self.sleep_ms(now_ms));
        }
        let at_ms = self.slot_before(now_ms);
        let missed = (at_ms - self.next_ms) / self.interval_ms;
        self.next_ms = at_ms.saturating_add(self.interval_ms);
        Wake::Run { at_ms, missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slots_follow_each_other() {
        let mut schedule = Schedule::new(15_000, 4_000, 100_000, ms(0));
        assert_eq!(schedule.sleep_ms(100_000), 9_000);
        assert_eq!(schedule.wake(108_000, ms(8_000)), Wake::Wait(1_000));
        assert_eq!(schedule.wake(109_001, ms(9_001)), Wake::Run { at_ms: 109_000, missed: 0 });
        assert_eq!(schedule.wake(124_000, ms(24_000)), Wake::Run { at_ms: 124_000, missed: 0 });
        assert_eq!(schedule.wake(170_000, ms(70_000)), Wake::Run { at_ms: 169_000, missed: 2 });
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_no_missed_slot() {
        let day_ms = 86_400_000;
        let mut schedule = Schedule::new(15_000, 0, 0, ms(0));
        assert_eq!(schedule.wake(day_ms + 5_000, ms(5_000)), Wake::Jumped(day_ms));
        assert_eq!(schedule.wake(day_ms + 6_000, ms(6_000)), Wake::Wait(9_000));
        assert_eq!(
            schedule.wake(day_ms + 15_000, ms(15_000)),
            Wake::Run { at_ms: day_ms + 15_000, missed: 0 }
        );
        assert_eq!(schedule.wake(16_000, ms(16_000)), Wake::Jumped(-day_ms));
        assert_eq!(schedule.wake(30_000, ms(30_000)), Wake::Run { at_ms: 30_000, missed: 0 });
    }

    proptest! {
        /// However long each wait was, slots are on the grid and none is
        /// counted twice.
        #[test]
        fn slots_are_on_the_grid(
            interval_ms in 1_i64..100_000,
            slot in 0_i64..100_000,
            waits in proptest::collection::vec(0_u64..300_000, 1..50),
        ) {
            let slot_ms = slot % interval_ms;
            let mut schedule = Schedule::new(interval_ms, slot_ms, 1_000_000, ms(0));
            let mut now = 0;
            let mut expected = schedule.next_ms;
            for wait in waits {
                now += wait;
                let now_ms = 1_000_000 + i64::try_from(now).unwrap();
                if let Wake::Run { at_ms, missed } = schedule.wake(now_ms, ms(now)) {
                    prop_assert!(at_ms <= now_ms && now_ms - at_ms < interval_ms);
                    prop_assert_eq!(at_ms, expected + missed * interval_ms);
                    expected = at_ms + interval_ms;
                } else {
                    prop_assert!(now_ms < expected);
                }
            }
        }
    }
}
