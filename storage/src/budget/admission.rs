//! May a source make another series?
//!
//! While memory is short, the source that made the most series lately is refused
//! first, then the next, one more with each look; all are while the limit is
//! reached. Series that are there are never refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::append::SourceId;

/// From this part of the limit on, in percent, the worst sources are refused.
const SHORT_PERCENT: u64 = 90;
/// Below this part all are admitted again.
const ENOUGH_PERCENT: u64 = 85;
/// What was made counts half after this time.
const HALF_LIFE_MS: i64 = 300_000;
/// Looks of which the one with the least memory beyond the accounts counts: a
/// query that ends soon is no reason to refuse.
const LOOKS: usize = 5;
/// Sources that are told apart.
const MAX_SOURCES: usize = 1 << 16;

/// Who is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    /// Nobody.
    Open = 0,
    /// Those that made the most series.
    Worst = 1,
    /// Everybody.
    Closed = 2,
}

/// What is held at one time, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// By the account of the head.
    pub(crate) head: u64,
    /// By all other accounts.
    pub(crate) others: u64,
    /// By the process; `None` if that is not known.
    pub(crate) process: Option<u64>,
}

/// Decides.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Most bytes of the head; 0: no limit.
    limit_bytes: u64,
    level: AtomicU8,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// New series by source; older ones count less.
    made: HashMap<SourceId, u64>,
    halved_ms: Option<i64>,
    refused: HashSet<SourceId>,
    beyond: VecDeque<u64>,
    charged_bytes: u64,
}

impl Admission {
    /// Everybody is admitted until `limit_bytes` are near; 0: always.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, level: AtomicU8::new(0), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is refused now.
    pub(crate) fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Open,
            1 => Level::Worst,
            _ => Level::Closed,
        }
    }

    /// Whether a source may make a series.
    pub(crate) fn admits(&self, source: SourceId) -> bool {
        match self.level() {
            Level::Open => true,
            Level::Worst => !self.state().refused.contains(&source),
            Level::Closed => false,
        }
    }

    /// Notes that a source made a series.
    pub(crate) fn note_made(&self, source: SourceId) {
        let mut state = self.state();
        if state.made.len() < MAX_SOURCES || state.made.contains_key(&source) {
            *state.made.entry(source).or_default() += 1;
        }
    }

    /// Bytes charged to the head by the last look, the limit, and the sources
    /// that are refused by name.
    pub(crate) fn figures(&self) -> (u64, u64, usize) {
        let state = self.state();
        (state.charged_bytes, self.limit_bytes, state.refused.len())
    }

    /// Looks at what is held and decides anew; the level if it changed.
    pub(crate) fn reconcile(&self, reading: Reading, now_ms: i64) -> Option<Level> {
        let mut state = self.state();
        state.charge(reading);
        state.age(now_ms);
        if self.limit_bytes == 0 {
            return None;
        }
        let before = self.level();
        let percent = state.charged_bytes.saturating_mul(100) / self.limit_bytes;
        let level = match percent {
            100.. => Level::Closed,
            SHORT_PERCENT.. => Level::Worst,
            ENOUGH_PERCENT.. => before.min(Level::Worst),
            _ => Level::Open,
        };
        match level {
            Level::Open => state.refused.clear(),
            // Still growing though the worst are refused: one more.
            _ if percent >= SHORT_PERCENT => state.refuse_worst(),
            _ => {}
        }
        self.level.store(level as u8, Ordering::Relaxed);
        (level != before).then_some(level)
    }
}

impl State {
    fn charge(&mut self, reading: Reading) {
        let accounted = reading.head + reading.others;
        let beyond = reading.process.map_or(0, |p| p.saturating_sub(accounted));
        self.beyond.push_back(beyond);
        if self.beyond.len() > LOOKS {
            self.beyond.pop_front();
        }
        self.charged_bytes = reading.head + self.beyond.iter().min().copied().unwrap_or(0);
    }

    fn age(&mut self, now_ms: i64) {
        let halved_ms = *self.halved_ms.get_or_insert(now_ms);
        // A clock that went back begins anew.
        if !(0..HALF_LIFE_MS).contains(&(now_ms - halved_ms)) {
            self.halved_ms = Some(now_ms);
            self.made.values_mut().for_each(|n| *n /= 2);
            self.made.retain(|_, n| *n > 0);
        }
    }

    fn refuse_worst(&mut self) {
        let others = self.made.iter().filter(|(source, _)| !self.refused.contains(source));
        // Of equal ones any, but always the same.
        let worst = others.max_by_key(|(source, n)| (**n, source.0)).map(|(source, _)| *source);
        self.refused.extend(worst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: SourceId = SourceId(7);
    const CALM: SourceId = SourceId(8);

    fn head(head: u64) -> Reading {
        Reading { head, ..Reading::default() }
    }

    #[test]
    fn the_source_that_made_most_is_refused_first() {
        let admission = Admission::new(1000);
        (0..50).for_each(|_| admission.note_made(BUSY));
        (0..3).for_each(|_| admission.note_made(CALM));
        assert_eq!(admission.reconcile(head(899), 0), None);
        assert!(admission.admits(BUSY));
        assert_eq!(admission.reconcile(head(900), 1000), Some(Level::Worst));
        assert!(!admission.admits(BUSY) && admission.admits(CALM));
        // It does not grow: nobody else is refused.
        assert_eq!(admission.reconcile(head(899), 2000), None);
        assert!(!admission.admits(BUSY) && admission.admits(CALM));
        assert_eq!(admission.reconcile(head(950), 3000), None);
        assert!(!admission.admits(CALM) && admission.admits(SourceId(9)));
        assert_eq!(admission.reconcile(head(1000), 4000), Some(Level::Closed));
        assert!(!admission.admits(SourceId(9)));
        assert_eq!(admission.reconcile(head(870), 5000), Some(Level::Worst));
        assert_eq!(admission.reconcile(head(849), 6000), Some(Level::Open));
        assert!(admission.admits(BUSY) && admission.admits(CALM));
    }

    #[test]
    fn what_no_account_knows_is_charged_to_the_head() {
        let admission = Admission::new(1000);
        let reading = Reading { head: 500, others: 200, process: Some(1100) };
        assert_eq!(admission.reconcile(reading, 0), Some(Level::Worst));
        assert_eq!(admission.figures().0, 900);
        // A query that held it is over.
        let calm = Reading { process: Some(750), ..reading };
        assert_eq!(admission.reconcile(calm, 1000), Some(Level::Open));
        // And the next one is not noticed unless it stays.
        for look in 0..LOOKS as i64 - 1 {
            assert_eq!(admission.reconcile(reading, 2000 + look), None);
        }
        assert_eq!(admission.reconcile(reading, 3000), Some(Level::Worst));
    }

    #[test]
    fn what_was_made_long_ago_is_forgotten() {
        let admission = Admission::new(1000);
        (0..50).for_each(|_| admission.note_made(BUSY));
        for step in 0..8 {
            admission.reconcile(head(0), step * HALF_LIFE_MS);
        }
        admission.note_made(CALM);
        admission.reconcile(head(900), 8 * HALF_LIFE_MS - 1);
        assert!(admission.admits(BUSY) && !admission.admits(CALM));
        let unlimited = Admission::new(0);
        assert_eq!(unlimited.reconcile(head(u64::MAX), 0), None);
        assert!(unlimited.admits(CALM));
    }
}
