//! Native histograms: one value that is a whole distribution.
//!
//! Counts are absolute floats, whatever the source sent: integer histograms
//! are exact up to 2^53 per bucket. The counts of a histogram whose source was
//! an integer histogram are integers, and the codec stores them as such.

use std::sync::Arc;

mod arithmetic;
mod bounds;
mod bucket;
pub mod codec;
mod convert;
mod layout;
mod reset;
#[cfg(test)]
mod tests;
mod text;
mod trim;
mod validate;

pub use arithmetic::{Compensation, IncompatibleSchemas, Reconciled};
pub use bounds::{SCHEMA_MAX, SCHEMA_MAX_ACCEPTED, SCHEMA_MIN, is_exponential, upper_bound};
pub use bucket::{Bucket, SideIter};
pub use convert::{ClassicError, ClassicHistogram, IntegerHistogram};
pub use layout::kahan_add;
pub use reset::{HintTracker, settle_hints};
pub use text::GoFloat;
pub use trim::Keep;
pub use validate::{BUCKETS_MAX, HistogramError, Side};

/// The schema of histograms with custom bucket bounds (NHCB).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A native histogram with absolute float counts.
///
/// `schema` is in `-4..=8` for exponential buckets (growth factor
/// 2^(2^-schema)) or [`CUSTOM_BUCKETS_SCHEMA`]. Buckets are listed densely;
/// spans say where runs of them lie.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// What is known of a counter reset before this sample.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Half-width of the zero bucket; 0 or more.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations; the staleness marker's NaN makes the whole
    /// histogram a staleness marker.
    pub sum: f64,
    /// Runs of buckets above the zero bucket.
    pub positive_spans: Vec<Span>,
    /// Runs of buckets below the zero bucket.
    pub negative_spans: Vec<Span>,
    /// Absolute counts of the positive buckets, as many as the spans cover.
    pub positive_buckets: Vec<f64>,
    /// Absolute counts of the negative buckets, as many as the spans cover.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds for [`CUSTOM_BUCKETS_SCHEMA`], ascending, without +Inf;
    /// empty otherwise.
    pub custom_values: Arc<[f64]>,
}

/// A run of consecutive buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Gap to the end of the previous span; in the first span the index of its
    /// first bucket, which may be negative.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// What is known of a counter reset between the sample before and this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CounterResetHint {
    /// Nothing: the reader has to compare.
    #[default]
    Unknown,
    /// There was a reset.
    Reset,
    /// There was none.
    NotReset,
    /// This is a gauge: resets have no meaning.
    Gauge,
}

impl Histogram {
    /// Whether this is a staleness marker.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        crate::sample::is_stale(self.sum)
    }

    /// Whether all data are equal to the bit, the hint aside. Other than `==`
    /// this takes NaNs for equal to themselves; spans may be cut differently.
    #[must_use]
    pub fn same_data(&self, other: &Self) -> bool {
        let bits = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let numbers = |h: &Self| [h.count, h.sum, h.zero_count, h.zero_threshold].map(f64::to_bits);
        self.schema == other.schema
            && numbers(self) == numbers(other)
            && self.custom_values == other.custom_values
            && bits(&self.positive_buckets, &other.positive_buckets)
            && bits(&self.negative_buckets, &other.negative_buckets)
            && self.positive_side().eq_by_index(other.positive_side())
            && self.negative_side().eq_by_index(other.negative_side())
    }

    /// Whether the buckets have custom bounds.
    #[must_use]
    pub const fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }
}
