//! When is a target scraped, and which timestamp do its samples get?

use std::time::Duration;

/// Timestamps are moved to the schedule over at most this distance.
const TOLERANCE: Duration = Duration::from_millis(2);

/// Scrapes begin at multiples of this: however many targets there are, the
/// process wakes so often at most, and does for several at once what would
/// find all caches cold for each.
const GRID_NS: u128 = 1_000_000_000 / 32;

/// The time from `now_ns` (since the epoch) to the first scrape of a target:
/// a target is scraped whenever the time modulo the interval is its `hash`
/// modulo the interval, on a grid of 1/32 s, or of 1/32 of an interval below a
/// second. Stable across restarts, evenly spread.
#[must_use]
pub fn offset(hash: u64, now_ns: u128, interval: Duration) -> Duration {
    let interval_ns = interval.as_nanos().max(1);
    let due = u128::from(hash) % interval_ns;
    let due = due - due % GRID_NS.min(interval_ns / 32).max(1);
    let wait = (due + interval_ns - now_ns % interval_ns) % interval_ns;
    Duration::from_nanos(u64::try_from(wait).unwrap_or(0))
}

/// The schedule of one loop, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    aligned_ns: i128,
    interval_ns: i128,
    last_ms: i64,
}

impl Schedule {
    /// A schedule whose first scrape is at `now_ns`.
    #[must_use]
    pub fn new(now_ns: u128, interval: Duration) -> Self {
        let signed = |n: u128| i128::try_from(n).unwrap_or(i128::MAX);
        Self {
            aligned_ns: signed(now_ns),
            interval_ns: signed(interval.as_nanos().max(1)),
            last_ms: i64::MIN,
        }
    }

    /// The timestamp of a scrape that starts at `now_ns`, in milliseconds:
    /// that of the schedule if it is within 2 ms and 1 % of the interval,
    /// else the clock's. After a jump back of the clock the schedule starts
    /// again (Prometheus would repeat one timestamp until the clock caught up).
    /// A scrape that is late by nearly an interval and the next one differ by a
    /// millisecond at least: with one timestamp the second would be refused.
    pub fn timestamp_ms(&mut self, now_ns: u128) -> i64 {
        let now = i128::try_from(now_ns).unwrap_or(i128::MAX);
        let tolerance =
            i128::try_from(TOLERANCE.as_nanos()).unwrap_or(0).min(self.interval_ns / 100);
        let ahead = now - self.aligned_ns;
        if ahead >= self.interval_ns {
            self.aligned_ns += ahead / self.interval_ns * self.interval_ns;
        } else if ahead < -tolerance {
            self.aligned_ns = now;
        }
        let chosen = if now - self.aligned_ns <= tolerance { self.aligned_ns } else { now };
        let chosen_ms = i64::try_from(chosen / 1_000_000).unwrap_or(i64::MAX);
        self.last_ms = chosen_ms.saturating_add(i64::from(chosen_ms == self.last_ms));
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u128 = 1_000_000;

    #[test]
    fn small_delays_keep_the_schedule() {
        let mut s = Schedule::new(1_000_000 * MS, Duration::from_secs(1));
        assert_eq!(s.timestamp_ms(1_000_000 * MS), 1_000_000);
        assert_eq!(s.timestamp_ms(1_001_002 * MS), 1_001_000);
        assert_eq!(s.timestamp_ms(1_002_003 * MS), 1_002_003);
        assert_eq!(s.timestamp_ms(1_005_001 * MS), 1_005_000);
        // The clock jumps back and goes on from there.
        assert_eq!(s.timestamp_ms(900_000 * MS), 900_000);
        assert_eq!(s.timestamp_ms(901_001 * MS), 901_000);
        // Late by an interval less a little: the next one is another moment.
        let mut s = Schedule::new(500_000, Duration::from_millis(100));
        assert_eq!(s.timestamp_ms(500_000), 0);
        assert_eq!(s.timestamp_ms(200 * MS + 100_000), 200);
        assert_eq!(s.timestamp_ms(200 * MS + 500_000), 201);
        assert_eq!(s.timestamp_ms(300 * MS + 500_000), 300);
        // One percent of a short interval.
        let mut s = Schedule::new(0, Duration::from_millis(50));
        assert_eq!(s.timestamp_ms(51 * MS), 51);
    }

    proptest! {
        #[test]
        fn a_target_is_due_at_its_hash(hash in any::<u64>(), now in any::<u64>(), ms in 1u64..100_000_000) {
            let interval = Duration::from_millis(ms);
            let wait = offset(hash, now.into(), interval);
            prop_assert!(wait < interval);
            let due = (u128::from(now) + wait.as_nanos()) % interval.as_nanos();
            let exact = u128::from(hash) % interval.as_nanos();
            prop_assert!(due <= exact && exact - due < GRID_NS.min(interval.as_nanos() / 32));
            prop_assert_eq!(due % GRID_NS.min(interval.as_nanos() / 32), 0);
        }
    }
}
