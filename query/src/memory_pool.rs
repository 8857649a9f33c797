//! How much memory do all queries together hold?
//!
//! Each query has a [`Lease`] on its engine's [`Pool`] and enlarges it before
//! it takes more memory; an answer keeps the lease of its query. So whatever
//! is asked at the same time, the sum stays within the limit: the query that
//! would exceed it ends with an error, the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Leases grow in steps of this many bytes: most queries take one.
const BLOCK_BYTES: usize = 256 << 10;

/// Memory that queries share.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    leased_bytes: AtomicUsize,
}

impl Pool {
    /// Bytes of all leases.
    pub(crate) fn leased_bytes(&self) -> usize {
        self.leased_bytes.load(Ordering::Relaxed)
    }
}

/// What one query and its answer hold of the memory of all queries; given back
/// when dropped.
#[derive(Debug, Default)]
pub struct Lease {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Lease {
    /// A lease of nothing yet.
    pub(crate) const fn new(pool: Arc<Pool>) -> Self {
        Self { pool, bytes: 0 }
    }

    /// Bytes that are leased.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows to at least `wanted` bytes, if all leases together stay within
    /// `limit` and the query within its part of it; else says by how many bytes
    /// it is too much.
    ///
    /// No query gets more than half, and the last quarter is for those that
    /// need little: a dashboard goes on while somebody asks for everything.
    pub(crate) fn grow(&mut self, wanted: usize, limit: usize) -> Result<(), usize> {
        let Some(more) = wanted.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let is_small = wanted <= BLOCK_BYTES;
        if let Some(over) = wanted.checked_sub(limit / 2).filter(|over| *over > 0)
            && !is_small
        {
            return Err(over);
        }
        let end = if is_small { limit } else { limit - limit / 4 };
        let take = |bytes: usize| {
            let before = self.pool.leased_bytes.fetch_add(bytes, Ordering::Relaxed);
            match before.saturating_add(bytes).checked_sub(end) {
                None | Some(0) => Ok(bytes),
                Some(over) => {
                    self.pool.leased_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    Err(over)
                }
            }
        };
        // The last bytes of the pool are given away one by one.
        let blocks = more.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(more);
        self.bytes += take(blocks).or_else(|_| take(more))?;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.leased_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl PartialEq for Lease {
    /// Answers are equal whatever they hold.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_share_a_limit_and_give_back() {
        let pool = Arc::new(Pool::default());
        let limit = 16 * BLOCK_BYTES;
        let lease = || Lease::new(Arc::clone(&pool));
        let (mut a, mut b, mut c) = (lease(), lease(), lease());
        assert_eq!(a.grow(1, limit), Ok(()));
        assert_eq!(a.bytes(), BLOCK_BYTES);
        assert_eq!(a.grow(8 * BLOCK_BYTES + 1, limit), Err(1), "half is the most");
        assert_eq!(a.grow(8 * BLOCK_BYTES, limit), Ok(()));
        assert_eq!(b.grow(4 * BLOCK_BYTES - 5, limit), Ok(()));
        assert_eq!(
            c.grow(2 * BLOCK_BYTES, limit),
            Err(2 * BLOCK_BYTES),
            "the rest is for small ones"
        );
        assert_eq!(c.grow(BLOCK_BYTES, limit), Ok(()));
        assert_eq!(c.grow(BLOCK_BYTES + 1, limit), Err(BLOCK_BYTES + 1));
        assert_eq!(pool.leased_bytes(), [&a, &b, &c].map(Lease::bytes).iter().sum::<usize>());
        drop(b);
        assert_eq!(c.grow(2 * BLOCK_BYTES, limit), Ok(()));
        drop((a, c));
        assert_eq!(pool.leased_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn where_there_is_little_small_queries_pass() {
        let pool = Arc::new(Pool::default());
        let mut lease = Lease::new(Arc::clone(&pool));
        assert_eq!(lease.grow(1000, 1500), Ok(()));
        assert_eq!(lease.grow(1501, 1500), Err(1));
        assert_eq!(lease.grow(usize::MAX, usize::MAX / 4), Err(usize::MAX - usize::MAX / 8));
    }
}
