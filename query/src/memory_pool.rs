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

    /// Grows to at least `wanted` bytes, unless all leases together would
    /// exceed `limit`; says how much they would be then.
    pub(crate) fn grow(&mut self, wanted: usize, limit: usize) -> Result<(), usize> {
        let Some(more) = wanted.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let take = |bytes: usize| {
            let before = self.pool.leased_bytes.fetch_add(bytes, Ordering::Relaxed);
            let after = before.saturating_add(bytes);
            if after > limit {
                self.pool.leased_bytes.fetch_sub(bytes, Ordering::Relaxed);
                return Err(after);
            }
            Ok(bytes)
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
        let limit = 3 * BLOCK_BYTES;
        let (mut a, mut b) = (Lease::new(Arc::clone(&pool)), Lease::new(Arc::clone(&pool)));
        assert_eq!(a.grow(1, limit), Ok(()));
        assert_eq!(a.bytes(), BLOCK_BYTES);
        assert_eq!(b.grow(2 * BLOCK_BYTES - 5, limit), Ok(()));
        assert_eq!(a.grow(BLOCK_BYTES + 1, limit), Err(limit + 1));
        assert_eq!(a.bytes(), BLOCK_BYTES);
        drop(b);
        assert_eq!(a.grow(limit, limit), Ok(()));
        drop(a);
        assert_eq!(pool.leased_bytes.load(Ordering::Relaxed), 0);
    }
}
