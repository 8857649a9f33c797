//! Which series are in memory?
//!
//! Those of the tail, which are in no segment yet, and those in use. A
//! [`SeriesTable`] finds them by their labels or their id. Labels are kept as
//! symbols, some 20 bytes a series. What goes out of use stays until the next
//! table is made ([`SeriesTable::copy_to`]).

use std::cmp::Ordering;

use roaring::RoaringBitmap;

use super::sparse::Sparse;
use super::symbols::{HashSlots, Symbols, tag_of};
use crate::budget::grow;
use crate::engine::varint;
use crate::labels::Labels;

/// Largest label set, in bytes as [`Labels::as_bytes`] counts.
pub(crate) const MAX_LABELS_BYTES: usize = 1 << 20;
/// Most bytes of all symbols or all records: offsets are 32 bits.
const MAX_ARENA_BYTES: usize = u32::MAX as usize - (16 << 20);
/// Most bytes of a label in a record.
const MAX_PAIR_BYTES: usize = 10;
/// Largest id; one less than what a slot can hold.
const MAX_ID: u32 = u32::MAX - 2;

/// The series in memory.
#[derive(Debug)]
pub(crate) struct SeriesTable {
    symbols: Symbols,
    /// Per slot: for each label the symbols of name and value.
    records: Vec<u8>,
    /// Where the record of each slot ends.
    ends: Vec<u32>,
    ids: Vec<u32>,
    /// Slots by hash.
    slots: HashSlots,
    /// Slot plus one by id.
    by_id: Sparse<u32>,
    /// The first id that is in no segment.
    tail: u32,
    next_id: u32,
    /// Some of the tail have no labels: those are lost.
    has_nameless: bool,
}

impl Default for SeriesTable {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl SeriesTable {
    /// An empty table; the next series gets the id `next_id`.
    pub(crate) fn starting_at(next_id: u32) -> Self {
        Self {
            symbols: Symbols::default(),
            records: Vec::new(),
            ends: Vec::new(),
            ids: Vec::new(),
            slots: HashSlots::default(),
            by_id: Sparse::new(0),
            tail: next_id,
            next_id,
            has_nameless: false,
        }
    }

    /// The id that the next series gets.
    pub(crate) const fn next_id(&self) -> u32 {
        self.next_id
    }

    /// The ids that are in no segment.
    pub(crate) const fn tail(&self) -> std::ops::Range<u32> {
        self.tail..self.next_id
    }

    /// Number of series in memory.
    pub(crate) const fn len(&self) -> usize {
        self.ids.len()
    }

    /// The series in memory, in the order in which they came.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.ids.iter().copied()
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
        let slot = self.slots.find(tag, |slot| self.is(slot, labels))?;
        self.ids.get(slot as usize).copied()
    }

    /// As [`SeriesTable::find`], but looks at one series first: senders repeat
    /// their series in the same order, and ids were given in that order.
    pub(crate) fn find_near(&self, labels: &Labels, hint: u32) -> Option<u32> {
        if self.slot(hint).is_some_and(|slot| self.is(slot, labels)) {
            return Some(hint);
        }
        self.find(labels)
    }

    /// Gives a label set that has none an id; `None` if there is no room.
    pub(crate) fn insert(&mut self, labels: &Labels) -> Option<u32> {
        let id = self.next_id;
        if id > MAX_ID || !self.insert_as(id, labels) {
            return None;
        }
        Some(id)
    }

    /// Adds a series that has an id; `false` if there is no room.
    pub(crate) fn insert_as(&mut self, id: u32, labels: &Labels) -> bool {
        if self.records.len() > MAX_ARENA_BYTES || self.symbols.bytes() > MAX_ARENA_BYTES {
            return false;
        }
        for (name, value) in labels {
            self.push_pair(name, value);
        }
        self.end_record(id, tag_of(labels.stable_hash()));
        true
    }

    /// The symbol of a string.
    pub(super) fn intern(&mut self, text: &str) -> u32 {
        self.symbols.intern(text)
    }

    /// Adds labels to the record that [`SeriesTable::end_record`] ends.
    pub(super) fn push_record(&mut self, pairs: &[(u32, u32)]) {
        grow(&mut self.records, pairs.len() * MAX_PAIR_BYTES);
        for (name, value) in pairs {
            varint::put(&mut self.records, u64::from(*name));
            varint::put(&mut self.records, u64::from(*value));
        }
    }

    /// Adds a label to the record that [`SeriesTable::end_record`] ends.
    pub(super) fn push_pair(&mut self, name: &str, value: &str) {
        let (name, value) = (self.symbols.intern(name), self.symbols.intern(value));
        grow(&mut self.records, MAX_PAIR_BYTES);
        varint::put(&mut self.records, u64::from(name));
        varint::put(&mut self.records, u64::from(value));
    }

    /// Ends the record of an id.
    pub(super) fn end_record(&mut self, id: u32, tag: u32) {
        let slot = self.ids.len() as u32;
        grow(&mut self.ids, 1);
        self.ids.push(id);
        grow(&mut self.ends, 1);
        self.ends.push(self.records.len() as u32);
        self.slots.insert(tag, slot);
        self.by_id.set(id, slot + 1);
        self.next_id = self.next_id.max(id.saturating_add(1));
    }

    /// Leaves out ids up to `id`: their labels are lost.
    pub(super) fn skip_to(&mut self, id: u32) {
        let id = id.min(MAX_ID);
        self.has_nameless |= self.next_id < id;
        self.next_id = self.next_id.max(id);
    }

    /// Looks whether there are ids without labels; all in memory are of the tail.
    pub(super) fn note_nameless(&mut self) {
        self.has_nameless = self.ids.len() < self.tail().len();
    }

    /// The ids of the tail of which labels are known, if not all are.
    pub(super) fn named_tail(&self) -> Option<RoaringBitmap> {
        let named = || self.ids.iter().copied().filter(|id| *id >= self.tail).collect();
        self.has_nameless.then(named)
    }

    fn slot(&self, id: u32) -> Option<u32> {
        self.by_id.get(id).checked_sub(1)
    }

    /// Whether a series is in memory.
    pub(crate) fn contains(&self, id: u32) -> bool {
        self.slot(id).is_some()
    }

    /// Those of `ids` that are in memory, and the others.
    pub(super) fn split(&self, ids: &RoaringBitmap) -> (RoaringBitmap, RoaringBitmap) {
        if ids.iter().all(|id| self.contains(id)) {
            return (ids.clone(), RoaringBitmap::new());
        }
        let (known, others): (Vec<u32>, Vec<u32>) = ids.iter().partition(|id| self.contains(*id));
        (known.into_iter().collect(), others.into_iter().collect())
    }

    fn record(&self, slot: u32) -> &[u8] {
        let i = slot as usize;
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.records[start as usize..self.ends[i] as usize]
    }

    /// The labels of a series as symbols, ascending by name; none if it is not
    /// in memory.
    pub(crate) fn pairs(&self, id: u32) -> Pairs<'_> {
        Pairs(self.slot(id).map_or(&[], |slot| self.record(slot)))
    }

    /// The labels of a series in memory.
    pub(crate) fn labels(&self, id: u32) -> Option<Labels> {
        self.slot(id)?;
        let texts = self.pairs(id).map(|(n, v)| (self.symbols.get(n), self.symbols.get(v)));
        Some(Labels::from_sorted(texts))
    }

    fn is(&self, slot: u32, labels: &Labels) -> bool {
        let mut wanted = labels.as_bytes();
        for (name, value) in Pairs(self.record(slot)) {
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

    /// Orders two series in memory by their labels, as [`Labels`] are ordered.
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

    /// Copies the series for which `keep` holds to the table that follows this
    /// one, from a slot on, at most `count` slots; the next slot to copy.
    ///
    /// Cost: about half a microsecond for each that is kept.
    pub(super) fn copy_to(
        &self,
        next: &mut Self,
        from: usize,
        count: usize,
        keep: impl Fn(u32) -> bool,
    ) -> usize {
        let end = self.ids.len().min(from.saturating_add(count));
        for &id in &self.ids[from..end] {
            if keep(id) {
                for (name, value) in self.pairs(id) {
                    next.push_pair(self.symbols.get(name), self.symbols.get(value));
                }
                next.end_record(id, self.tag(id));
            }
        }
        next.next_id = next.next_id.max(self.next_id);
        next.has_nameless |= self.has_nameless && next.tail == self.tail;
        end
    }

    /// The upper half of the hash of a series' labels.
    pub(crate) fn tag(&self, id: u32) -> u32 {
        self.labels(id).map_or(0, |labels| tag_of(labels.stable_hash()))
    }

    /// Makes room for `more` further series.
    pub(super) fn reserve(&mut self, more: usize) {
        self.slots.reserve_more(more);
        self.ends.reserve_exact(more);
        self.ids.reserve_exact(more);
    }

    /// Makes room for those of `other` that are kept.
    pub(super) fn reserve_kept(&mut self, other: &Self, keep: impl Fn(u32) -> bool) {
        let kept = other.ids.iter().filter(|id| keep(**id)).count();
        self.reserve(kept);
        let share = other.records.len() as u64 * kept as u64 / other.len().max(1) as u64;
        self.records.reserve_exact(share as usize);
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.symbols.heap_bytes()
            + self.records.capacity()
            + self.ends.capacity() * 4
            + self.ids.capacity() * 4
            + self.by_id.heap_bytes()
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
        fn every_set_has_one_id(
            sets in proptest::collection::vec(labels(), 1..80),
            keep in any::<u32>(),
        ) {
            let mut table = SeriesTable::default();
            let mut ids = std::collections::HashMap::new();
            for set in &sets {
                let id = table.find(set).unwrap_or_else(|| table.insert(set).expect("room"));
                prop_assert_eq!(*ids.entry(set.clone()).or_insert(id), id);
            }
            prop_assert_eq!(table.next_id() as usize, ids.len());
            for (set, id) in &ids {
                prop_assert_eq!(table.labels(*id), Some(set.clone()));
                for (other, other_id) in &ids {
                    prop_assert_eq!(table.compare(*id, *other_id), set.cmp(other));
                }
            }
            let kept = |id: u32| keep >> (id % 32) & 1 == 1;
            let mut next = SeriesTable::starting_at(0);
            let half = table.copy_to(&mut next, 0, table.len() / 2, kept);
            prop_assert_eq!(table.copy_to(&mut next, half, usize::MAX, kept), table.len());
            prop_assert_eq!(next.next_id(), table.next_id());
            for (set, id) in &ids {
                prop_assert_eq!(next.find(set), kept(*id).then_some(*id));
                prop_assert_eq!(next.labels(*id), kept(*id).then(|| set.clone()));
            }
        }
    }
}
