//! How are a million strings found without a million allocations?
//!
//! Strings lie one after the other; [`HashSlots`] finds an id by its hash in
//! eight bytes a slot.

use xxhash_rust::xxh3::xxh3_64;

use crate::budget::grow;

/// Strings, each once, by id.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    text: String,
    ends: Vec<u32>,
    slots: HashSlots,
}

impl Symbols {
    /// Number of symbols.
    pub(crate) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Bytes of all strings.
    pub(crate) const fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The string of a symbol; empty if there is none.
    #[inline]
    pub(crate) fn get(&self, symbol: u32) -> &str {
        let i = symbol as usize;
        let Some(&end) = self.ends.get(i) else { return "" };
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..end as usize]
    }

    /// The symbol of a string.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.slots.find(tag_of(xxh3_64(text.as_bytes())), |s| self.get(s) == text)
    }

    /// The symbol of a string, given to it now if it has none.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        self.find(text).unwrap_or_else(|| self.push(text))
    }

    /// Gives the next symbol to a string that has none.
    pub(crate) fn push(&mut self, text: &str) -> u32 {
        let symbol = self.len();
        if self.text.capacity() - self.text.len() < text.len() {
            self.text.reserve_exact(text.len().max(self.text.len() / 8));
        }
        self.text.push_str(text);
        grow(&mut self.ends, 1);
        self.ends.push(self.text.len() as u32);
        self.slots.insert(tag_of(xxh3_64(text.as_bytes())), symbol);
        symbol
    }

    /// Forgets all strings, keeps the allocations.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.slots.clear();
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * 4 + self.slots.heap_bytes()
    }
}

/// What of a hash is kept in a slot.
pub(crate) const fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Ids by hash: open addressing, one word a slot, the tag above the id plus
/// one, so that growing needs no keys.
#[derive(Debug, Default)]
pub(crate) struct HashSlots {
    slots: Vec<u64>,
    len: usize,
}

impl HashSlots {
    /// The id with this tag for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, tag: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            let id = slot as u32 - 1;
            if (slot >> 32) as u32 == tag && is(id) {
                return Some(id);
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
    }

    /// Adds an id, which must be less than `u32::MAX`.
    pub(crate) fn insert(&mut self, tag: u32, id: u32) {
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.reserve(self.len + 1);
        }
        self.place(u64::from(tag) << 32 | u64::from(id + 1));
        self.len += 1;
    }

    /// Makes room for at least `len` ids.
    pub(crate) fn reserve(&mut self, len: usize) {
        let wanted = (len * 5 / 4 + 16).max(self.slots.len() * 3 / 2);
        let old = std::mem::replace(&mut self.slots, vec![0; wanted]);
        for slot in old {
            if slot != 0 {
                self.place(slot);
            }
        }
    }

    /// Makes room for `more` further ids.
    pub(crate) fn reserve_more(&mut self, more: usize) {
        if (self.len + more) * 5 > self.slots.len() * 4 {
            self.reserve(self.len + more);
        }
    }

    /// Forgets all ids, keeps the allocation.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(0);
        self.len = 0;
    }

    fn place(&mut self, slot: u64) {
        let mut at = self.home((slot >> 32) as u32);
        while self.slots[at] != 0 {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        self.slots[at] = slot;
    }

    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.slots.len() as u64) >> 32) as usize
    }

    /// Bytes on the heap.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.slots.capacity() * 8
    }
}
