//! How is something found by a persistent id, when most ids are of the past?
//!
//! Ids ascend forever, those in use lie anywhere among them. Pages of values
//! exist only where one of them is in use; a page that is not there costs eight
//! bytes.

/// Ids to a page.
const PAGE: usize = 512;

/// Values by id, [`Default`] where none was set.
#[derive(Debug, Default)]
pub(crate) struct Sparse<T> {
    pages: Vec<Option<Box<[T; PAGE]>>>,
    used_pages: usize,
    default: T,
}

impl<T: Copy + PartialEq> Sparse<T> {
    /// Nothing but `default`.
    pub(crate) const fn new(default: T) -> Self {
        Self { pages: Vec::new(), used_pages: 0, default }
    }

    /// The value of an id.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> T {
        match self.pages.get(id as usize / PAGE) {
            Some(Some(page)) => page[id as usize % PAGE],
            _ => self.default,
        }
    }

    /// Sets the value of an id.
    #[inline]
    pub(crate) fn set(&mut self, id: u32, value: T) {
        let at = id as usize / PAGE;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        if self.pages[at].is_none() {
            self.used_pages += 1;
        }
        let page = self.pages[at].get_or_insert_with(|| Box::new([self.default; PAGE]));
        page[id as usize % PAGE] = value;
    }

    /// Gives back the pages on which nothing is set. Walks all that are there.
    pub(crate) fn shrink(&mut self) {
        for slot in &mut self.pages {
            if slot.as_ref().is_some_and(|p| p.iter().all(|v| *v == self.default)) {
                *slot = None;
                self.used_pages -= 1;
            }
        }
    }

    /// All values that were set, pages as a whole.
    pub(crate) fn values(&self) -> impl Iterator<Item = T> {
        self.pages.iter().flatten().flat_map(|p| p.iter().copied())
    }

    /// Bytes on the heap.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.pages.capacity() * 8 + self.used_pages * PAGE * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_in_use_cost_something() {
        let mut map = Sparse::new(0u32);
        for id in 0..1_000_000 {
            map.set(id, id + 1);
            assert_eq!(map.get(id), id + 1);
        }
        let all = map.heap_bytes();
        for id in 0..999_000 {
            map.set(id, 0);
        }
        map.shrink();
        assert!(map.heap_bytes() < all / 100, "{} of {all}", map.heap_bytes());
        assert_eq!((map.get(0), map.get(999_999), map.get(u32::MAX)), (0, 1_000_000, 0));
        assert_eq!(map.values().filter(|v| *v > 0).count(), 1000);
    }
}
