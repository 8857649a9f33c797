//! Which series do these label bytes stand for? What earlier requests told.
//!
//! A sender repeats its series in the same order and in the same bytes, so
//! that their labels need not be read, checked and looked up again. Kept are
//! 16 bytes per series in the order of their first sight, a keyed hash of the
//! bytes and the series, and some 8 bytes for finding them out of that order.
//!
//! As with the lines of a page, that two label sets collide is left to chance
//! (2^-64 per pair; the key is a number of this process).

use std::hash::{BuildHasher as _, RandomState};

use narthex_storage::read::SeriesRef;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most series that are kept; beyond, all start anew.
const MAX_ENTRIES: usize = 4 << 20;

/// Forget all so often, in milliseconds: series that no longer come.
const MAX_AGE_MS: i64 = 3_600_000;

/// Marks a slot without entry.
const FREE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    series: SeriesRef,
}

/// The series that senders have sent of late.
#[derive(Debug)]
pub struct KnownSeries {
    key: u64,
    entries: Vec<Entry>,
    /// Positions in `entries`, by linear probing; at most three quarters full.
    slots: Vec<u32>,
    /// When the oldest entry may have come.
    since_ms: i64,
}

impl Default for KnownSeries {
    fn default() -> Self {
        let key = RandomState::new().hash_one(0_u8);
        Self { key, entries: Vec::new(), slots: Vec::new(), since_ms: i64::MIN }
    }
}

impl KnownSeries {
    /// The hash of a series' label bytes.
    #[inline]
    pub fn hash(&self, labels: &[u8]) -> u64 {
        xxh3_64_with_seed(labels, self.key)
    }

    /// The series of a hash. `cursor` is where it probably is, and then where
    /// the next one probably is.
    #[inline]
    pub fn find(&self, hash: u64, cursor: &mut usize) -> Option<SeriesRef> {
        let position = match self.entries.get(*cursor) {
            Some(entry) if entry.hash == hash => *cursor,
            _ => self.slots.get(self.slot(hash)?).map(|p| *p as usize)?,
        };
        *cursor = position + 1;
        self.entries.get(position).map(|entry| entry.series)
    }

    /// Takes what a request found out by reading labels.
    pub fn learn(&mut self, found: &[(u64, SeriesRef)], now_ms: i64) {
        let too_old = now_ms.saturating_sub(self.since_ms) > MAX_AGE_MS;
        if too_old || self.entries.len() + found.len() > MAX_ENTRIES {
            (self.entries, self.slots) = (Vec::new(), Vec::new());
            self.since_ms = now_ms;
        }
        for &(hash, series) in found.iter().take(MAX_ENTRIES) {
            match self.slot(hash).and_then(|slot| self.slots.get(slot)) {
                Some(&position) => self.entries[position as usize].series = series,
                None => self.insert(Entry { hash, series }),
            }
        }
    }

    fn insert(&mut self, entry: Entry) {
        if (self.entries.len() + 1) * 4 > self.slots.len() * 3 {
            self.slots = vec![FREE; (self.slots.len() * 2).max(64)];
            for position in 0..self.entries.len() {
                self.occupy(self.entries[position].hash, position);
            }
        }
        self.occupy(entry.hash, self.entries.len());
        self.entries.push(entry);
    }

    fn occupy(&mut self, hash: u64, position: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != FREE {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = position as u32;
    }

    /// The slot that holds the entry of a hash.
    fn slot(&self, hash: u64) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                FREE => return None,
                position if self.entries[position as usize].hash == hash => return Some(slot),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_in_order_and_out_of_it() {
        let mut known = KnownSeries::default();
        let hashes: Vec<u64> = (0..1000_u32).map(|n| known.hash(&n.to_le_bytes())).collect();
        let found: Vec<_> = hashes.iter().zip(0..).map(|(h, n)| (*h, SeriesRef(n))).collect();
        known.learn(&found[..500], 0);
        known.learn(&found[250..], 0);
        let mut cursor = 0;
        for (hash, series) in &found {
            assert_eq!(known.find(*hash, &mut cursor), Some(*series));
        }
        assert_eq!(cursor, 1000);
        for (hash, series) in found.iter().rev() {
            assert_eq!(known.find(*hash, &mut cursor), Some(*series));
        }
        assert_eq!(known.find(known.hash(b"another"), &mut cursor), None);
    }

    #[test]
    fn a_series_that_changed_its_reference_has_the_new_one() {
        let mut known = KnownSeries::default();
        let hash = known.hash(b"labels");
        known.learn(&[(hash, SeriesRef(1))], 0);
        known.learn(&[(hash, SeriesRef(2))], 0);
        assert_eq!(known.find(hash, &mut 0), Some(SeriesRef(2)));
        assert_eq!(known.entries.len(), 1);
    }

    #[test]
    fn what_no_longer_comes_is_forgotten() {
        let mut known = KnownSeries::default();
        let (old, new) = (known.hash(b"old"), known.hash(b"new"));
        known.learn(&[(old, SeriesRef(1))], 0);
        known.learn(&[(new, SeriesRef(2))], MAX_AGE_MS + 1);
        assert_eq!(known.find(old, &mut 0), None);
        assert_eq!(known.find(new, &mut 0), Some(SeriesRef(2)));
    }
}
