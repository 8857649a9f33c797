//! Which exemplars are kept? The newest, of all series together.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use crate::append::AppendError;
use crate::sample::Exemplar;

/// Exemplars, oldest out first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    max: usize,
    entries: VecDeque<(u32, Exemplar)>,
    /// Per series the number of its entries and its newest.
    newest: HashMap<u32, (usize, Exemplar)>,
}

impl Ring {
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Whether an exemplar may follow the newest of its series.
    pub(super) fn check(&self, series: u32, exemplar: &Exemplar) -> Result<(), AppendError> {
        let Some((_, newest)) = self.newest.get(&series) else { return Ok(()) };
        // A native histogram may have several at one time, sorted like this.
        let order = exemplar
            .timestamp_ms
            .cmp(&newest.timestamp_ms)
            .then_with(|| exemplar.value.total_cmp(&newest.value))
            .then_with(|| exemplar.labels.cmp(&newest.labels));
        match order {
            Ordering::Greater => Ok(()),
            Ordering::Equal => Err(AppendError::Duplicate),
            Ordering::Less => Err(AppendError::OutOfOrder),
        }
    }

    /// Adds an exemplar; whether it was taken.
    pub(super) fn push(&mut self, series: u32, exemplar: Exemplar) -> bool {
        if self.max == 0 || self.check(series, &exemplar).is_err() {
            return false;
        }
        while self.entries.len() >= self.max {
            self.pop();
        }
        let entry = self.newest.entry(series).or_insert_with(|| (0, exemplar.clone()));
        entry.0 += 1;
        entry.1 = exemplar.clone();
        self.entries.push_back((series, exemplar));
        true
    }

    fn pop(&mut self) {
        let Some((series, _)) = self.entries.pop_front() else { return };
        if let Some(entry) = self.newest.get_mut(&series) {
            entry.0 -= 1;
            if entry.0 == 0 {
                self.newest.remove(&series);
            }
        }
    }

    /// All exemplars, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(u32, Exemplar)> {
        self.entries.iter()
    }

    /// Number of exemplars and of series with one.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.newest.len())
    }

    /// Oldest and newest timestamp.
    pub(super) fn bounds_ms(&self) -> Option<(i64, i64)> {
        let times = || self.entries.iter().map(|(_, e)| e.timestamp_ms);
        Some((times().min()?, times().max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;

    #[test]
    fn the_oldest_go_first() {
        let mut ring = Ring::new(3);
        let at = |t: i64| Exemplar {
            labels: Labels::from_pairs([("trace_id", t.to_string())]),
            value: 1.0,
            timestamp_ms: t,
        };
        for t in 0..5 {
            assert!(ring.push(t as u32 % 2, at(t)));
        }
        assert_eq!(ring.check(0, &at(4)), Err(AppendError::Duplicate));
        assert_eq!(ring.check(0, &at(3)), Err(AppendError::OutOfOrder));
        let with = |value: f64| Exemplar { value, ..at(4) };
        assert_eq!(ring.check(0, &with(2.0)), Ok(()), "another at the same time");
        assert_eq!(ring.check(0, &with(0.5)), Err(AppendError::OutOfOrder));
        let kept: Vec<i64> = ring.iter().map(|(_, e)| e.timestamp_ms).collect();
        assert_eq!(kept, [2, 3, 4]);
        assert_eq!((ring.len(), ring.bounds_ms()), ((3, 2), Some((2, 4))));
    }
}
