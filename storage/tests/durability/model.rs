//! What the storage promised, and whether it is there.

use std::collections::BTreeMap;

use narthex_storage::append::SyncClass;
use narthex_storage::db::Db;
use narthex_storage::labels::Labels;
use narthex_storage::read::{Column, Queryable, ReadError};

/// The longest that samples of a class are not durable. Milliseconds.
pub const fn interval_ms(class: SyncClass) -> i64 {
    match class {
        SyncClass::RemoteWrite => 1000,
        SyncClass::Scrape => 15_000,
    }
}

/// How sure a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its commit was not answered.
    Maybe,
    /// Its commit failed: not there, unless a crash comes before the next.
    Failed,
    /// Committed, durable from this time on.
    DueMs(i64),
    /// As before, but in memory only: a kill may lose it.
    Memory(i64),
    /// It must be there whatever happens.
    Durable,
    /// Its deletion failed or was not answered.
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub timestamp_ms: i64,
    pub bits: u64,
    pub state: State,
}

/// Samples by series, each in order of their commits.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub series: BTreeMap<u32, Vec<Sample>>,
}

/// What a storage says, by series.
pub type Answer = BTreeMap<u32, Vec<(i64, u64)>>;

/// The labels of a series of the model.
pub fn labels_of(id: u32) -> Labels {
    let name = format!("m{}", id % 5);
    Labels::from_pairs([("__name__", name), ("id", id.to_string())])
}

/// All that a storage answers.
pub fn read_all(db: &Db) -> Result<Answer, ReadError> {
    let querier = db.querier(i64::MIN / 2, i64::MAX / 2)?;
    let (mut found, mut column) = (Answer::new(), Column::new());
    for series in querier.select(&[], false)? {
        querier.read(series, i64::MIN / 2, i64::MAX / 2, &mut column)?;
        let values = column.floats.iter().map(|v| v.to_bits());
        let samples: Vec<_> = column.timestamps().iter().copied().zip(values).collect();
        if samples.is_empty() {
            continue;
        }
        let labels = querier.labels(series)?;
        let id = labels.get("id").and_then(|id| id.parse().ok());
        let id = id.unwrap_or_else(|| panic!("a series that nobody wrote: {labels}"));
        assert_eq!(labels, labels_of(id));
        assert!(found.insert(id, samples).is_none(), "{labels} is there twice");
    }
    Ok(found)
}

impl Model {
    pub fn add(&mut self, id: u32, timestamp_ms: i64, value: f64, state: State) {
        let sample = Sample { timestamp_ms, bits: value.to_bits(), state };
        self.series.entry(id).or_default().push(sample);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Sample> {
        self.series.values_mut().flatten()
    }

    /// The log has what was in memory only.
    pub fn caught_up(&mut self) {
        for sample in self.all() {
            if let State::Memory(due_ms) = sample.state {
                sample.state = State::DueMs(due_ms);
            }
        }
    }

    /// All that was committed is durable.
    pub fn synced(&mut self) {
        self.caught_up();
        for sample in self.all() {
            if matches!(sample.state, State::DueMs(_)) {
                sample.state = State::Durable;
            }
        }
    }

    /// All that was due is durable.
    pub fn maintained(&mut self, now_ms: i64) {
        self.caught_up();
        for sample in self.all() {
            if matches!(sample.state, State::DueMs(due_ms) if due_ms <= now_ms) {
                sample.state = State::Durable;
            }
        }
    }

    /// Deletes samples of series; for sure, or perhaps.
    pub fn delete(&mut self, is_hit: impl Fn(u32, i64) -> bool, is_sure: bool) {
        for (id, samples) in &mut self.series {
            if is_sure {
                samples.retain(|s| !is_hit(*id, s.timestamp_ms));
            } else {
                samples.iter_mut().filter(|s| is_hit(*id, s.timestamp_ms)).for_each(|s| {
                    s.state = State::Deleted;
                });
            }
        }
    }

    /// Whether it cannot be told if a sample is there.
    fn is_unsure(&self, id: u32, timestamp_ms: i64) -> bool {
        let of = self.series.get(&id).into_iter().flatten();
        of.into_iter().any(|s| s.timestamp_ms == timestamp_ms && s.state == State::Deleted)
    }

    /// Compares with what a storage answers that did not crash.
    pub fn compare(&self, found: &Answer) {
        let expected = self.answer();
        for id in found.keys().chain(expected.keys()) {
            let of = |answer: &Answer| {
                let mut samples = answer.get(id).cloned().unwrap_or_default();
                samples.retain(|(t, _)| !self.is_unsure(*id, *t));
                samples
            };
            let (found, expected) = (of(found), of(&expected));
            if found != expected {
                let lost: Vec<_> = expected.iter().filter(|s| !found.contains(s)).collect();
                let more: Vec<_> = found.iter().filter(|s| !expected.contains(s)).collect();
                panic!("series {id}: {lost:?} are lost, {more:?} too many");
            }
        }
    }

    /// What a storage that lost nothing answers.
    pub fn answer(&self) -> Answer {
        let sorted = |samples: &Vec<Sample>| {
            let there = samples.iter().filter(|s| s.state != State::Failed);
            let mut all: Vec<(i64, u64)> = there.map(|s| (s.timestamp_ms, s.bits)).collect();
            all.sort_unstable();
            all
        };
        let all = self.series.iter().map(|(id, samples)| (*id, sorted(samples)));
        all.filter(|(_, samples)| !samples.is_empty()).collect()
    }

    /// Compares with what a storage answers that started at `now_ms` after a
    /// crash, and takes that over. With `is_kill` nothing committed may be
    /// missing, and nothing more is durable than before.
    pub fn settle(&mut self, found: &Answer, is_kill: bool, now_ms: i64) {
        for (id, samples) in found {
            let known = self.series.get(id).map_or(&[][..], Vec::as_slice);
            for (timestamp_ms, bits) in samples {
                let is_known =
                    known.iter().any(|s| s.timestamp_ms == *timestamp_ms && s.bits == *bits);
                assert!(is_known, "series {id}: {timestamp_ms} was never committed, or deleted");
            }
        }
        for (id, samples) in &mut self.series {
            let there = found.get(id).map_or(&[][..], Vec::as_slice);
            let is_there =
                |s: &Sample| there.binary_search_by_key(&s.timestamp_ms, |(t, _)| *t).is_ok();
            let mut missing = None;
            for sample in samples.iter() {
                match (sample.state, is_there(sample)) {
                    (State::Durable, false) => panic!("series {id}: durable {sample:?} is lost"),
                    (State::DueMs(_), false) if is_kill => {
                        panic!("series {id}: {sample:?} is lost by a kill")
                    }
                    (State::DueMs(_) | State::Memory(_) | State::Maybe, false) => {
                        missing.get_or_insert(*sample);
                    }
                    (State::Deleted | State::Failed, _) => {}
                    (_, true) => {
                        let hole = missing.map(|m| (m, *sample));
                        assert_eq!(hole, None, "series {id}: a hole before what is there");
                    }
                }
            }
            samples.retain(is_there);
            for sample in samples {
                sample.state = match sample.state {
                    State::DueMs(due_ms) if is_kill => State::DueMs(due_ms),
                    State::Maybe | State::Memory(_) | State::Failed if is_kill => {
                        State::DueMs(now_ms)
                    }
                    State::Deleted if is_kill => State::Deleted,
                    _ => State::Durable,
                };
            }
        }
    }
}
