//! What on the disk cannot be trusted any more?
//!
//! Damage is found by checksums, when a file is read at the start or by a
//! query. What is hit is left out; everything else serves.

use std::collections::HashSet;
use std::fmt;

use super::stats::Counters;
use super::{Inner, lock};
use crate::series::SeriesDamage;

/// Most damages that are listed; more are only counted.
const MAX_LISTED: usize = 1000;

/// A part of a file that is left out because it is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file, relative to the data directory.
    pub file: String,
    /// Where the damaged part begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; 0 if that is not known.
    pub bytes: u64,
    /// What was found there, and what is lost.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes, what } = self;
        write!(f, "{file}: {bytes} bytes at offset {offset}: {what}")
    }
}

/// The damages found so far, each once.
#[derive(Debug, Default)]
pub(super) struct Damages {
    seen: HashSet<(String, u64)>,
    listed: Vec<Damage>,
}

impl Damages {
    /// Adds a damage; whether it is new.
    pub(super) fn add(&mut self, damage: &Damage) -> bool {
        let key = (damage.file.clone(), damage.offset);
        if self.listed.len() >= MAX_LISTED || !self.seen.insert(key) {
            return false;
        }
        self.listed.push(damage.clone());
        true
    }

    pub(super) fn all(&self) -> &[Damage] {
        &self.listed
    }
}

impl Inner {
    /// Reports what was found damaged of the series' files.
    pub(super) fn report_series(&self) {
        for damage in self.series.take_damages() {
            let SeriesDamage { file, offset, bytes, what } = damage;
            self.report(Damage { file, offset, bytes, what });
        }
    }

    /// Counts a damage, and reports it if it is new.
    pub(super) fn report(&self, damage: Damage) {
        Counters::add(&self.counters.quarantined, 1);
        if lock(&self.damages).add(&damage) {
            self.changes.begin_epoch();
            (self.options.on_damage)(&damage);
        }
    }
}
