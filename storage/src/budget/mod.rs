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
