//! Where do sealed rows live? In stripes, in one directory per day (UTC).
//!
//! A [`stripe`] is up to some thousand rows of one axis, transposed and
//! encoded; [`file`] appends stripes to the file of the open day and reads
//! them back; the [`catalog`] knows what is where.

pub(crate) mod catalog;
pub(crate) mod file;
pub(crate) mod stripe;

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;

/// The day (UTC, since the epoch) of a timestamp.
pub(crate) const fn day_of(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(DAY_MS)
}
