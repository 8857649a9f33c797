//! Which series has which id?
//!
//! A [`SeriesTable`] gives every label set a persistent id, ascending, and
//! finds it by its labels or its id. Labels are kept as symbols, some 20 bytes
//! a series; [`file::SeriesFile`] keeps the same on disk, appended only.

pub(crate) mod file;
mod symbols;

use std::cmp::Ordering;

use crate::engine::varint;
use crate::labels::Labels;
pub(crate) use symbols::Symbols;
use symbols::{HashSlots, tag_of};

/// Largest label set, in bytes as [`Labels::as_bytes`] counts.
pub(crate) const MAX_LABELS_BYTES: usize = 1 << 20;
/// Most bytes of all symbols or all records: offsets are 32 bits.
const MAX_ARENA_BYTES: usize = u32::MAX as usize - (16 << 20);

/// All series of a directory.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    symbols: Symbols,
    /// Per series: for each label the symbols of name and value.
    records: Vec<u8>,
    /// Where the record of each series ends.
    ends: Vec<u32>,
    slots: HashSlots,
    has_nameless: bool,
}

impl SeriesTable {
    /// Number of ids that were given.
    pub(crate) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The strings of the labels.
    pub(crate) const fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The id of a label set.
    ///
    /// Cost: one hash, one or two cache misses, comparing the labels.
    pub(crate) fn find(&self, labels: &Labels) -> Option<u32> {
        let tag = tag_of(labels.stable_hash());
        self.slots.find(tag, |id| self.is(id, labels))
    }

    /// Gives a label set that is not there an id; `None` if there is no room.
    pub(crate) fn insert(&mut self, labels: &Labels) -> Option<u32> {
        if self.records.len() > MAX_ARENA_BYTES || self.symbols.bytes() > MAX_ARENA_BYTES {
            return None;
        }
        for (name, value) in labels {
            let (name, value) = (self.symbols.intern(name), self.symbols.intern(value));
            varint::put(&mut self.records, u64::from(name));
            varint::put(&mut self.records, u64::from(value));
        }
        Some(self.end_record(tag_of(labels.stable_hash())))
    }

    fn end_record(&mut self, tag: u32) -> u32 {
        let id = self.len();
        self.ends.push(self.records.len() as u32);
        self.slots.insert(tag, id);
        id
    }

    /// Gives ids below `len` to nobody, if they were not given: something names
    /// them, but what labels they had is lost.
    pub(crate) fn skip_to(&mut self, len: u32) {
        while self.len() < len {
            self.end_record(0);
            self.has_nameless = true;
        }
    }

    /// Whether some ids have no labels.
    pub(crate) const fn has_nameless(&self) -> bool {
        self.has_nameless
    }

    /// The record of a series; empty if there is none.
    pub(crate) fn record(&self, id: u32) -> &[u8] {
        let i = id as usize;
        let Some(&end) = self.ends.get(i) else { return &[] };
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.records[start as usize..end as usize]
    }

    /// The labels of a series as symbols, ascending by name.
    pub(crate) fn pairs(&self, id: u32) -> Pairs<'_> {
        Pairs(self.record(id))
    }

    /// The labels of a series; empty if the id was never given.
    pub(crate) fn labels(&self, id: u32) -> Labels {
        let texts = self.pairs(id).map(|(n, v)| (self.symbols.get(n), self.symbols.get(v)));
        Labels::from_sorted(texts)
    }

    fn is(&self, id: u32, labels: &Labels) -> bool {
        let mut wanted = labels.as_bytes();
        for (name, value) in self.pairs(id) {
            for symbol in [name, value] {
                let text = self.symbols.get(symbol).as_bytes();
                match take_string(&mut wanted) {
                    Some(string) if string == text => {}
                    _ => return false,
                }
            }
        }
        wanted.is_empty() && !labels.is_empty()
    }

    /// As [`SeriesTable::find`], but looks at one series first: senders repeat
    /// their series in the same order, and ids were given in that order.
    pub(crate) fn find_near(&self, labels: &Labels, hint: u32) -> Option<u32> {
        if hint < self.len() && self.is(hint, labels) {
            return Some(hint);
        }
        self.find(labels)
    }

    /// Orders two series by their labels, as [`Labels`] are ordered.
    pub(crate) fn compare(&self, a: u32, b: u32) -> Ordering {
        let (mut a, mut b) = (self.pairs(a), self.pairs(b));
        loop {
            match (a.next(), b.next()) {
                (None, None) => return Ordering::Equal,
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (Some(x), Some(y)) => {
                    for (x, y) in [(x.0, y.0), (x.1, y.1)] {
                        if x != y {
                            return self.symbols.get(x).cmp(self.symbols.get(y));
                        }
                    }
                }
            }
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.symbols.heap_bytes()
            + self.records.capacity()
            + self.ends.capacity() * 4
            + self.slots.heap_bytes()
    }
}

/// Takes a string off the bytes of a label set (see [`Labels::as_bytes`]).
#[inline]
fn take_string<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = match varint::take_byte(input)? {
        u8::MAX => varint::take_u32(input)? as usize,
        short => usize::from(short),
    };
    varint::take_bytes(input, len)
}

/// The labels of one series as symbols.
#[derive(Debug, Clone)]
pub(crate) struct Pairs<'a>(&'a [u8]);

impl Iterator for Pairs<'_> {
    type Item = (u32, u32);
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let name = varint::take(&mut self.0)?;
        let value = varint::take(&mut self.0)?;
        Some((name as u32, value as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[a-d]{1,2}", "[a-f]{1,3}", 1..5)
            .prop_map(Labels::from_pairs)
    }

    proptest! {
        #[test]
        fn every_set_has_one_id(sets in proptest::collection::vec(labels(), 1..80)) {
            let mut table = SeriesTable::default();
            let mut ids = std::collections::HashMap::new();
            for set in &sets {
                let id = table.find(set).unwrap_or_else(|| table.insert(set).expect("room"));
                prop_assert_eq!(*ids.entry(set.clone()).or_insert(id), id);
            }
            prop_assert_eq!(table.len() as usize, ids.len());
            for (set, id) in &ids {
                prop_assert_eq!(&table.labels(*id), set);
                for (other, other_id) in &ids {
                    prop_assert_eq!(table.compare(*id, *other_id), set.cmp(other));
                }
            }
        }
    }
}
