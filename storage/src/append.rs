//! The write seam: how scrapes, rules and remote writes hand over samples.
//!
//! An [`Appender`] collects rows and commits them together. What is committed
//! is in the log and visible to readers; what is dropped before leaves no
//! trace but the ids of new series.

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::read::SeriesRef;
use crate::sample::{Exemplar, Metadata};

/// How soon a committed row must be on the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncClass {
    /// Within one second: the sender will not send it again.
    RemoteWrite,
    /// On the shared tick: the next scrape comes anyway.
    Scrape,
}

/// Who appends. Only a hint where to look first for the axis, and the unit
/// that new series are refused by when memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId(pub u64);

/// Opens appenders.
pub trait Appendable: Send + Sync {
    /// Starts a batch of rows of one source. Cheap; takes no lock.
    fn appender(&self, source: SourceId, class: SyncClass) -> Box<dyn Appender>;
}

/// Collects rows, then commits them.
///
/// Dropping an appender abandons its rows.
pub trait Appender: Send {
    /// Finds the series with these labels, or creates it.
    ///
    /// # Errors
    ///
    /// [`AppendError::SeriesLimit`] if the series is new and memory does not
    /// allow another one, [`AppendError::Storage`] if the disk is to blame,
    /// [`AppendError::InvalidLabels`] if the set is empty.
    fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError>;

    /// Adds one row: `values[i]` is the sample of `series[i]` at
    /// `timestamp_ms` (milliseconds since the Unix epoch).
    ///
    /// Samples that cannot be taken are left out, and their position and
    /// reason pushed to `refused`. Both slices must have the same length.
    fn append_row(
        &mut self,
        timestamp_ms: i64,
        series: &[SeriesRef],
        values: &[f64],
        refused: &mut Vec<(usize, AppendError)>,
    );

    /// Adds one sample to a series.
    ///
    /// `start_ms` is the start timestamp of its counter, 0 if unknown.
    /// Repeating the newest sample exactly is accepted.
    ///
    /// # Errors
    ///
    /// See [`AppendError`].
    fn append(
        &mut self,
        series: SeriesRef,
        timestamp_ms: i64,
        start_ms: i64,
        value: f64,
    ) -> Result<(), AppendError>;

    /// Adds one native histogram to a series.
    ///
    /// # Errors
    ///
    /// As [`Appender::append`]; [`AppendError::InvalidHistogram`] if its spans
    /// do not fit its buckets or its counts are impossible.
    fn append_histogram(
        &mut self,
        series: SeriesRef,
        timestamp_ms: i64,
        start_ms: i64,
        histogram: &Histogram,
    ) -> Result<(), AppendError>;

    /// Adds an exemplar to a series. Kept in a bounded ring, oldest out first.
    ///
    /// # Errors
    ///
    /// [`AppendError::OutOfOrder`] or [`AppendError::Duplicate`] against the
    /// newest exemplar of the series.
    fn append_exemplar(
        &mut self,
        series: SeriesRef,
        exemplar: &Exemplar,
    ) -> Result<(), AppendError>;

    /// Notes type, help and unit of a metric family. Unchanged metadata costs
    /// a comparison.
    fn set_metadata(&mut self, family: &str, metadata: &Metadata);

    /// Writes the rows to the log, then makes them visible.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if the log cannot be written; nothing of the batch is
    /// then visible, and the caller may try again later.
    fn commit(self: Box<Self>) -> Result<Committed, CommitError>;
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Samples now visible.
    pub samples: u64,
    /// Samples refused between append and commit, because another appender
    /// was faster.
    pub refused: u64,
}

/// Why a sample or series was not taken. Ordinary traffic: small and `Copy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Older than the series' newest sample, and than the out-of-order window.
    #[error("out of order sample")]
    OutOfOrder,
    /// Older than anything the head still takes.
    #[error("out of bounds")]
    OutOfBounds,
    /// Older than the out-of-order window, where there is one.
    #[error("too old sample")]
    TooOld,
    /// Another value for the timestamp of the newest sample.
    #[error("duplicate sample for timestamp")]
    Duplicate,
    /// Further in the future than the storage accepts.
    #[error("too far in the future")]
    TooFarInFuture,
    /// The series reference is not known.
    #[error("unknown series reference")]
    UnknownSeries,
    /// A new series was refused because memory is short.
    #[error("series limit of the memory budget reached")]
    SeriesLimit,
    /// The disk does not say now whether a series is new, or memory is short
    /// only because the disk does not take what should leave it. The caller may
    /// try again later.
    #[error("the storage cannot be read or written")]
    Storage,
    /// The label set is empty or too large.
    #[error("label set is empty or too large")]
    InvalidLabels,
    /// The histogram contradicts itself.
    #[error("invalid native histogram")]
    InvalidHistogram,
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The log could not be written. Samples may be sent again later.
    #[error("cannot write the log: {0}")]
    Log(#[source] std::io::Error),
    /// The storage is closing.
    #[error("the storage is closed")]
    Closed,
}
