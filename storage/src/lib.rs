//! narthex's storage: rows in, columns out.
//!
//! All series of one scrape share one timestamp, so samples arrive as rows and
//! are stored as columns against shared axes of timestamps. Writers meet the
//! storage in [`append`], readers in [`read`]; both speak in [`labels`] and
//! [`sample`]s, and nothing else of this crate is visible to them.
//!
//! ```
//! use narthex_storage::append::{Appendable, SourceId, SyncClass};
//! use narthex_storage::db::{Db, DbOptions};
//! use narthex_storage::labels::{Labels, Matcher};
//! use narthex_storage::read::{Column, Queryable};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! let db = Db::open(DbOptions { retention_time_ms: 0, ..DbOptions::new(path) })?;
//!
//! // One row: all samples of a scrape share its timestamp.
//! let mut appender = db.appender(SourceId(1), SyncClass::Scrape);
//! let a = appender.series(&Labels::from_pairs([("__name__", "up"), ("instance", "a")]))?;
//! let b = appender.series(&Labels::from_pairs([("__name__", "up"), ("instance", "b")]))?;
//! appender.append_row(1_000, &[a, b], &[1.0, 0.0], &mut Vec::new());
//! appender.commit()?;
//!
//! let querier = db.querier(0, 2_000)?;
//! let found = querier.select(&[Matcher::equal("instance", "b")], true)?;
//! let mut column = Column::new();
//! querier.read(found[0], 0, 2_000, &mut column)?;
//! assert_eq!((column.timestamps(), column.floats.as_slice()), (&[1_000][..], &[0.0][..]));
//! db.close()?;
//! # Ok(())
//! # }
//! ```

pub mod append;
mod axis;
mod budget;
pub mod codec;
mod day;
pub mod db;
pub mod engine;
mod head;
pub mod histogram;
mod index;
pub mod labels;
pub mod re2;
pub mod read;
pub mod sample;
mod series;
mod wal;
