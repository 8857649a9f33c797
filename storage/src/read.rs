//! The read seam: how queries see the storage.
//!
//! A [`Querier`] is a snapshot over a time range. It first answers which
//! series match, then decodes them one by one into a [`Column`] of the
//! caller's: timestamps that are shared between all series of an axis, and
//! two lanes of values.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::{Labels, Matcher};
use crate::sample::{Exemplar, Metadata};

/// Persistent identity of a series within one data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u32);

/// Opens snapshots.
pub trait Queryable: Send + Sync {
    /// A snapshot of everything committed, for `start_ms..=end_ms`
    /// (milliseconds since the Unix epoch). Holds what it needs alive.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the index of a day cannot be read.
    fn querier(&self, start_ms: i64, end_ms: i64) -> Result<Arc<dyn Querier>, ReadError>;
}

/// A consistent view of the samples of a time range.
pub trait Querier: Send + Sync {
    /// The series that match all of `matchers` and may have samples in the
    /// snapshot's range, sorted by labels if `sorted`, else in any but a
    /// stable order. Touches no samples.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the index cannot be read.
    fn select(&self, matchers: &[Matcher], sorted: bool) -> Result<Vec<SeriesRef>, ReadError>;

    /// The labels of a series. Cheap: cached or decoded from memory.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the series table cannot be read.
    fn labels(&self, series: SeriesRef) -> Result<Labels, ReadError>;

    /// The series that [`Querier::select`] gives, sorted, with their labels.
    /// What was asked before may be kept, so this is the quickest way to both.
    ///
    /// # Errors
    ///
    /// As [`Querier::select`].
    fn series(&self, matchers: &[Matcher]) -> Result<Arc<SeriesSet>, ReadError> {
        let refs = self.select(matchers, true)?.into_iter();
        let series: Result<_, ReadError> = refs.map(|s| Ok((s, self.labels(s)?))).collect();
        Ok(Arc::new(SeriesSet::new(series?)))
    }

    /// Replaces the content of `out` by the samples of `series` with
    /// timestamps in `start_ms..=end_ms`, staleness markers included.
    ///
    /// Series that share an axis get the same [`Column::axis`], so that a
    /// caller can keep what it worked out for the timestamps.
    ///
    /// # Errors
    ///
    /// [`ReadError::Corrupt`] never: damaged runs are quarantined, reported
    /// and left out. [`ReadError::Io`] if a read fails.
    fn read(
        &self,
        series: SeriesRef,
        start_ms: i64,
        end_ms: i64,
        out: &mut Column,
    ) -> Result<(), ReadError>;

    /// As [`Querier::read`], for readers that ask which samples there are and
    /// of which kind: a float that is no staleness marker may be any other
    /// number, and start timestamps may be missing. Cheaper, as most floats
    /// need not be decoded.
    ///
    /// # Errors
    ///
    /// As [`Querier::read`].
    fn read_presence(
        &self,
        series: SeriesRef,
        start_ms: i64,
        end_ms: i64,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        self.read(series, start_ms, end_ms, out)
    }

    /// Sorted names of the labels of all series that match and may have
    /// samples in the range; at most `limit` (0: all).
    ///
    /// # Errors
    ///
    /// As [`Querier::select`].
    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<Vec<String>, ReadError>;

    /// Sorted values of one label, otherwise as [`Querier::label_names`].
    ///
    /// # Errors
    ///
    /// As [`Querier::select`].
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<Vec<String>, ReadError>;

    /// Exemplars of the matching series in `start_ms..=end_ms`, sorted by
    /// labels, then time.
    ///
    /// # Errors
    ///
    /// As [`Querier::select`].
    fn exemplars(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ReadError>;

    /// Persisted metadata of the metric families, sorted by family.
    fn metadata(&self) -> Vec<(String, Vec<Metadata>)>;

    /// What this snapshot is of, for readers that keep what they work out;
    /// `None`: nothing can be told of later changes.
    fn version(&self) -> Option<Version> {
        None
    }

    /// The times, in milliseconds and both included, in which this snapshot has
    /// exactly the samples that the snapshot of `version` had; `None` if they
    /// cannot be compared. Does not touch the disk.
    fn unchanged_since(&self, version: &Version) -> Option<RangeInclusive<i64>> {
        let _ = version;
        None
    }
}

/// What a snapshot is of; see [`Querier::version`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Snapshots of different epochs have nothing in common.
    pub(crate) epoch: u64,
    pub(crate) commit: u64,
    /// Samples before this were not returned.
    pub(crate) floor_ms: i64,
}

/// Series in order of their labels.
#[derive(Debug, Default)]
pub struct SeriesSet {
    /// The series with their labels, ascending by labels.
    pub series: Vec<(SeriesRef, Labels)>,
    /// Whether a series may have the label `__type__` or `__unit__`; `false`
    /// says that none has.
    pub is_typed: bool,
}

impl SeriesSet {
    /// A set of series that are sorted by labels.
    #[must_use]
    pub fn new(series: Vec<(SeriesRef, Labels)>) -> Self {
        let is_typed = |l: &Labels| l.get("__type__").is_some() || l.get("__unit__").is_some();
        let is_typed = series.iter().any(|(_, labels)| is_typed(labels));
        Self { series, is_typed }
    }
}

/// The samples of one series in a time range: an axis and two lanes.
///
/// Sample `i` has the timestamp `timestamps()[i]` and the float `floats[i]`,
/// unless `histograms` has an entry for `i`: then `floats[i]` has no meaning.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// Timestamps in milliseconds, strictly ascending. Only `range` of it
    /// belongs to this column.
    pub axis: Axis,
    /// The part of `axis` that this column covers.
    pub range: Range<usize>,
    /// The float lane, one value per timestamp in `range`.
    pub floats: Vec<f64>,
    /// The histogram lane: position in the column and value, ascending.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// Start timestamps in milliseconds (0: unknown), one per sample; empty if
    /// none is known.
    pub starts_ms: Vec<i64>,
    /// Whether a float or histogram of this column may be a staleness marker.
    pub may_be_stale: bool,
    /// Whether all floats are integers of at most 2^53 (so that sums slide
    /// exactly); `false` promises nothing.
    pub integral: bool,
}

/// Interned timestamps: equal axes of one snapshot are the same allocation.
pub type Axis = Arc<[i64]>;

impl Column {
    /// An empty column.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The timestamps of this column, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamps(&self) -> &[i64] {
        &self.axis[self.range.clone()]
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Forgets all samples, keeps the allocations.
    pub fn clear(&mut self) {
        self.axis = Arc::default();
        self.range = 0..0;
        self.floats.clear();
        self.histograms.clear();
        self.starts_ms.clear();
        self.may_be_stale = false;
        self.integral = false;
    }
}

/// Why the storage could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A read failed.
    #[error("reading {file}: {source}")]
    Io {
        /// The file, relative to the data directory.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{file} is damaged at byte {offset}: expected {expected}, found {found}")]
    Corrupt {
        /// The file, relative to the data directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}
