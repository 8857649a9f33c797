//! Who may hold how much memory?
//!
//! A [`Cache`] holds what was loaded from files, within its share. [`Admission`]
//! says whether the head may grow by another series: rows, series and index are
//! accounted, and what the process has beyond all accounts is charged to the
//! head, so that the sum stays within the limit whatever was forgotten.
//!
//! A start holds no more than was admitted before it: the log is cut to about
//! twice what open rows need. So refusing in time is all that it takes to not
//! run out of memory, again and again.

mod admission;
mod cache;

pub(crate) use admission::{Admission, Level, Reading};
pub(crate) use cache::Cache;

/// Makes room for `more` elements, and for an eighth beyond, where a vector by
/// itself would double. For what is large, or many, and lives long: copying costs
/// nine times its size while it grows, and next to nothing of its life.
pub(crate) fn grow<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 8 + 4));
    }
}
