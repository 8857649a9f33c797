//! Quantiles and fractions of native histograms.

use narthex_storage::histogram::{Bucket, Histogram};

/// What NaN observations did to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NanEffect {
    /// The quantile lies among them: the result is NaN.
    Result,
    /// They count as above all others: the quantile is too high.
    Skew,
    /// They are in no fraction.
    Excluded,
}

impl NanEffect {
    /// The info, without kind and position.
    #[must_use]
    pub fn text(self, name: &str) -> String {
        let text = match self {
            Self::Result => "input to histogram_quantile has NaN observations, result is NaN",
            Self::Skew => {
                "input to histogram_quantile has NaN observations, result is skewed higher"
            }
            Self::Excluded => {
                "input to histogram_fraction has NaN observations, which are excluded from all \
                 fractions"
            }
        };
        super::with_name(text, name)
    }
}

/// The `q`-quantile (0 to 1; below gives -Inf, above +Inf, NaN gives NaN).
///
/// Within a bucket observations are taken to be spread evenly: linearly in
/// custom buckets and the zero bucket, on a logarithmic scale in others. The
/// zero bucket ends at 0 on a side without buckets. The search begins at the
/// nearer end, so that rounding hurts least. NaN for an empty histogram.
///
/// Source: Prometheus, `HistogramQuantile`.
#[must_use]
pub fn quantile(q: f64, h: &Histogram) -> (f64, Option<NanEffect>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    if h.sum.is_nan() || q < 0.5 {
        search(q * h.count, h, h.ascending(), true)
    } else {
        search((1.0 - q) * h.count, h, h.descending(), false)
    }
}

fn search(
    mut rank: f64,
    h: &Histogram,
    mut buckets: impl Iterator<Item = Bucket>,
    ascending: bool,
) -> (f64, Option<NanEffect>) {
    let (mut lower, mut upper, mut own, mut count) = (0.0, 0.0, 0.0, 0.0);
    for bucket in buckets.by_ref() {
        (lower, upper, own) = (bucket.lower, bucket.upper, bucket.count);
        if own == 0.0 {
            continue;
        }
        count += own;
        if count >= rank {
            break;
        }
    }
    if h.uses_custom_buckets() {
        if lower == f64::NEG_INFINITY {
            if upper <= 0.0 {
                return (upper, None);
            }
            lower = 0.0;
        } else if upper == f64::INFINITY {
            return (lower, None);
        }
    } else if lower < 0.0 && upper > 0.0 {
        (lower, upper) = zero_bucket_bounds(h, lower, upper);
    }
    // Rounding must not make more of the parts than the whole.
    count = if count > h.count { h.count } else { count };
    if count < rank {
        if h.sum.is_nan() {
            return (f64::NAN, Some(NanEffect::Result));
        }
        return (upper, None);
    }
    rank = if ascending { rank - (count - own) } else { count - rank };
    let mut effect = None;
    if h.sum.is_nan() {
        // As upstream, the bucket that the search ended in stays the one that
        // is interpolated in only if it is the last.
        for bucket in buckets {
            (lower, upper, own) = (bucket.lower, bucket.upper, bucket.count);
            count += own;
        }
        if count < h.count {
            effect = Some(NanEffect::Skew);
        }
    }
    let part = rank / own;
    if h.uses_custom_buckets() || (lower <= 0.0 && upper >= 0.0) {
        return (lower + (upper - lower) * part, effect);
    }
    let (log_lower, log_upper) = (lower.abs().log2(), upper.abs().log2());
    let value = if lower > 0.0 {
        (log_lower + (log_upper - log_lower) * part).exp2()
    } else {
        -(log_upper + (log_lower - log_upper) * (1.0 - part)).exp2()
    };
    (value, effect)
}

fn zero_bucket_bounds(h: &Histogram, lower: f64, upper: f64) -> (f64, f64) {
    match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
        (true, false) => (0.0, upper),
        (false, true) => (lower, 0.0),
        _ => (lower, upper),
    }
}

/// The fraction of observations between `lower` and `upper`, 0 to 1.
///
/// Interpolates like [`quantile`]. NaN if a bound is NaN or there are no
/// observations, 0 if `lower >= upper`. NaN observations are in no fraction,
/// but in the whole.
///
/// Source: Prometheus, `HistogramFraction`.
#[must_use]
pub fn fraction(lower: f64, upper: f64, h: &Histogram) -> (f64, Option<NanEffect>) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let mut buckets = h.ascending();
    let (mut count, mut rank) = (0.0, 0.0);
    let mut ranks: [Option<f64>; 2] = [None; 2];
    for mut bucket in buckets.by_ref() {
        count += bucket.count;
        let around_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        if around_zero {
            (bucket.lower, bucket.upper) = zero_bucket_bounds(h, bucket.lower, bucket.upper);
        }
        let linear = h.uses_custom_buckets() || around_zero;
        let rank_at = |value: f64| {
            if linear && bucket.lower == f64::NEG_INFINITY {
                // Nothing can be said of an infinite bucket.
                return bucket.count;
            }
            rank + bucket.count * bucket.fraction_below(value, linear)
        };
        for (bound, found) in [lower, upper].into_iter().zip(&mut ranks) {
            if found.is_none() && bucket.lower >= bound {
                *found = Some(rank);
            } else if found.is_none() && bucket.lower < bound && bucket.upper > bound {
                *found = Some(rank_at(bound));
            }
        }
        if ranks.iter().all(Option::is_some) {
            break;
        }
        rank += bucket.count;
    }
    let mut effect = None;
    if h.sum.is_nan() {
        count += buckets.map(|b| b.count).sum::<f64>();
        if count < h.count {
            effect = Some(NanEffect::Excluded);
        }
    } else {
        count = h.count;
    }
    let at_most = |rank: Option<f64>| rank.map_or(count, |r| if r > count { count } else { r });
    ((at_most(ranks[1]) - at_most(ranks[0])) / h.count, effect)
}
