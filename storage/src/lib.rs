//! narthex's storage: rows in, columns out.
//!
//! All series of one scrape share one timestamp, so samples arrive as rows and
//! are stored as columns against shared axes of timestamps. Writers meet the
//! storage in [`append`], readers in [`read`]; both speak in [`labels`] and
//! [`sample`]s, and nothing else of this crate is visible to them.

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
