//! Whether a histogram from outside makes sense.

use super::bounds::{SCHEMA_MAX, SCHEMA_MIN, is_exponential};
use super::{CUSTOM_BUCKETS_SCHEMA, Histogram, Span};

/// Most buckets of one side, and most custom bounds. Prometheus has no such
/// limit but that of the message size; clients keep some hundreds.
pub const BUCKETS_MAX: usize = 1 << 16;

/// Largest index of an exponential bucket, absolute: no float lies beyond it
/// at the finest accepted schema, reduced to [`SCHEMA_MAX`].
const INDEX_MAX: i64 = 1 << 30;

/// Why a histogram is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HistogramError {
    /// Neither an exponential nor the custom schema.
    #[error(
        "histogram has an invalid schema, which must be between {SCHEMA_MIN} and {SCHEMA_MAX} \
         for exponential buckets, or {CUSTOM_BUCKETS_SCHEMA} for custom buckets, got schema {0}"
    )]
    Schema(i32),
    /// Spans and buckets differ in number.
    #[error("{side}: spans need {spans} buckets, have {buckets} buckets")]
    SpansMismatch {
        /// Which side.
        side: Side,
        /// Buckets that the spans cover.
        spans: u64,
        /// Buckets that there are.
        buckets: usize,
    },
    /// A span begins before the end of the one before.
    #[error("{side}: span number {number} with offset {offset} is negative")]
    NegativeOffset {
        /// Which side.
        side: Side,
        /// Number of the span, from 1.
        number: usize,
        /// Its offset.
        offset: i32,
    },
    /// Bucket indexes or numbers beyond every float.
    #[error("{0}: too many buckets, or too far from 1")]
    TooLarge(Side),
    /// A bucket with fewer than no observations.
    #[error("{side}: bucket number {number} has observation count of {count}, which is negative")]
    NegativeBucket {
        /// Which side.
        side: Side,
        /// Number of the bucket, from 1.
        number: usize,
        /// Its count.
        count: f64,
    },
    /// The zero bucket has fewer than no observations.
    #[error("zero bucket has observation count of {0}, which is negative")]
    NegativeZeroCount(f64),
    /// The zero threshold is negative or no number.
    #[error("zero threshold of {0} is not a width")]
    ZeroThreshold(f64),
    /// Fewer than no observations.
    #[error("histogram's observation count is negative: {0}")]
    NegativeCount(f64),
    /// Fewer observations in all than in the buckets.
    #[error("{buckets} observations found in buckets, but the count field is {count}")]
    CountMismatch {
        /// Observations in the buckets.
        buckets: u64,
        /// Observations in all.
        count: u64,
    },
    /// A custom bound that is no number.
    #[error("histogram custom bounds must not be NaN")]
    BoundNan,
    /// Custom bounds out of order.
    #[error("histogram custom bounds must be in strictly increasing order: {0} before {1}")]
    BoundOrder(f64, f64),
    /// An explicit +Inf bound.
    #[error("histogram custom bounds must be finite")]
    BoundInfinite,
    /// More buckets than bounds.
    #[error(
        "only {bounds} custom bounds defined which is insufficient to cover total span length of {span_length}"
    )]
    BoundsMismatch {
        /// Custom bounds.
        bounds: usize,
        /// Bucket positions that the spans reach.
        span_length: i64,
    },
    /// Custom buckets with a zero bucket or negative buckets.
    #[error("custom buckets: must have no zero bucket, zero threshold or negative buckets")]
    CustomSides,
    /// Exponential buckets with custom bounds.
    #[error("histogram with exponential schema must not have custom bounds")]
    UnexpectedBounds,
}

/// Which half of the buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Above the zero bucket, and all custom buckets.
    Positive,
    /// Below the zero bucket.
    Negative,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Positive => "positive side",
            Self::Negative => "negative side",
        })
    }
}

impl Histogram {
    /// Checks what comes from outside: spans fit buckets, no count is
    /// negative, bounds ascend, and only fields of the schema are used.
    ///
    /// As Prometheus' validation of float histograms, and stricter in two
    /// things it would not survive or has no use for: a zero threshold that is
    /// NaN or negative, and buckets beyond all floats.
    ///
    /// # Errors
    ///
    /// [`HistogramError`] names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), HistogramError> {
        if self.uses_custom_buckets() {
            check_custom_bounds(&self.custom_values, &self.positive_spans)?;
            let zero = self.zero_count != 0.0 || self.zero_threshold != 0.0;
            if zero || !self.negative_spans.is_empty() || !self.negative_buckets.is_empty() {
                return Err(HistogramError::CustomSides);
            }
        } else if is_exponential(self.schema) {
            check_counts(Side::Negative, &self.negative_buckets)?;
            check_spans(Side::Negative, &self.negative_spans, self.negative_buckets.len())?;
            if self.zero_count < 0.0 {
                return Err(HistogramError::NegativeZeroCount(self.zero_count));
            }
            // A NaN threshold must not pass either.
            if self.zero_threshold.is_nan() || self.zero_threshold < 0.0 {
                return Err(HistogramError::ZeroThreshold(self.zero_threshold));
            }
            if !self.custom_values.is_empty() {
                return Err(HistogramError::UnexpectedBounds);
            }
        } else {
            return Err(HistogramError::Schema(self.schema));
        }
        if self.count < 0.0 {
            return Err(HistogramError::NegativeCount(self.count));
        }
        check_spans(Side::Positive, &self.positive_spans, self.positive_buckets.len())?;
        check_counts(Side::Positive, &self.positive_buckets)
    }
}

pub(super) fn check_spans(
    side: Side,
    spans: &[Span],
    buckets: usize,
) -> Result<(), HistogramError> {
    let (mut covered, mut index) = (0u64, 0i64);
    for (i, span) in spans.iter().enumerate() {
        if i > 0 && span.offset < 0 {
            let number = i + 1;
            return Err(HistogramError::NegativeOffset { side, number, offset: span.offset });
        }
        covered += u64::from(span.length);
        index += i64::from(span.offset);
        if index < -INDEX_MAX {
            return Err(HistogramError::TooLarge(side));
        }
        index += i64::from(span.length);
        if index > INDEX_MAX {
            return Err(HistogramError::TooLarge(side));
        }
    }
    if covered != buckets as u64 {
        return Err(HistogramError::SpansMismatch { side, spans: covered, buckets });
    }
    if buckets > BUCKETS_MAX {
        return Err(HistogramError::TooLarge(side));
    }
    Ok(())
}

fn check_counts(side: Side, counts: &[f64]) -> Result<(), HistogramError> {
    match counts.iter().position(|&c| c < 0.0) {
        None => Ok(()),
        Some(i) => Err(HistogramError::NegativeBucket { side, number: i + 1, count: counts[i] }),
    }
}

pub(super) fn check_custom_bounds(bounds: &[f64], spans: &[Span]) -> Result<(), HistogramError> {
    if bounds.iter().any(|b| b.is_nan()) {
        return Err(HistogramError::BoundNan);
    }
    if let Some(w) = bounds.windows(2).find(|w| w[1] <= w[0]) {
        return Err(HistogramError::BoundOrder(w[0], w[1]));
    }
    if bounds.last() == Some(&f64::INFINITY) {
        return Err(HistogramError::BoundInfinite);
    }
    let side = Side::Positive;
    if bounds.len() > BUCKETS_MAX {
        return Err(HistogramError::TooLarge(side));
    }
    let mut reached = 0i64;
    for (i, span) in spans.iter().enumerate() {
        if span.offset < 0 {
            let number = i + 1;
            return Err(HistogramError::NegativeOffset { side, number, offset: span.offset });
        }
        reached = reached.saturating_add(i64::from(span.offset) + i64::from(span.length));
    }
    if reached > bounds.len() as i64 + 1 {
        let bounds = bounds.len();
        return Err(HistogramError::BoundsMismatch { bounds, span_length: reached });
    }
    Ok(())
}
