//! What is kept in memory only because somebody may read it again?

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Things by key, at most so many bytes of them.
///
/// Two generations: when the young one is half the limit, it becomes the old
/// one and the old one is dropped; what is read from the old one is young
/// again. So what was not read for a while goes first, without a list.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    limit_bytes: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    young_bytes: usize,
    old: HashMap<K, (V, usize)>,
    old_bytes: usize,
    hits: u64,
    misses: u64,
}

/// Bytes that an entry costs beyond what it holds.
const ENTRY_BYTES: usize = 64;

impl<K: Eq + Hash + Copy, V: Clone> Cache<K, V> {
    /// A cache of at most `limit_bytes`.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                young_bytes: 0,
                old: HashMap::new(),
                old_bytes: 0,
                hits: 0,
                misses: 0,
            }),
        }
    }

    /// Most bytes that are held.
    pub(crate) const fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// The entry of a key.
    pub(crate) fn get(&self, key: K) -> Option<V> {
        let mut g = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, _)) = g.young.get(&key) {
            let value = value.clone();
            g.hits += 1;
            return Some(value);
        }
        let Some((value, bytes)) = g.old.remove(&key) else {
            g.misses += 1;
            return None;
        };
        g.hits += 1;
        g.old_bytes -= bytes;
        g.insert(key, value.clone(), bytes, self.limit_bytes);
        Some(value)
    }

    /// Keeps an entry of `bytes` bytes.
    pub(crate) fn insert(&self, key: K, value: V, bytes: usize) {
        let mut g = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        g.insert(key, value, bytes + ENTRY_BYTES, self.limit_bytes);
    }

    /// Drops what was not read since the last call.
    pub(crate) fn age(&self) {
        let mut g = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        g.rotate();
    }

    /// Bytes held, hits and misses so far.
    pub(crate) fn figures(&self) -> (usize, u64, u64) {
        let g = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        (g.young_bytes + g.old_bytes, g.hits, g.misses)
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V, bytes: usize, limit: usize) {
        if bytes > limit / 2 {
            return;
        }
        if self.young_bytes + bytes > limit / 2 {
            self.rotate();
        }
        self.young_bytes += bytes;
        if let Some((_, before)) = self.young.insert(key, (value, bytes)) {
            self.young_bytes -= before;
        }
    }

    fn rotate(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.old_bytes = std::mem::take(&mut self.young_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_stays_within_its_limit_and_keeps_what_is_read() {
        let cache = Cache::new(100 * (ENTRY_BYTES + 36));
        for i in 0..1000u32 {
            cache.insert(i, i, 36);
            assert_eq!(cache.get(0), Some(0));
            assert!(cache.figures().0 <= 100 * 100);
        }
        assert_eq!(cache.get(1), None);
        cache.age();
        cache.age();
        assert_eq!(cache.get(0), None);
        assert_eq!(cache.figures().0, 0);
    }
}
