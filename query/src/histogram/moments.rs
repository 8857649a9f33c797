//! Mean and spread of a native histogram.

use narthex_storage::histogram::{Histogram, kahan_add};

/// The mean of the observations: sum by count.
#[must_use]
pub fn average(h: &Histogram) -> f64 {
    h.sum / h.count
}

/// The estimated variance: observations are taken to lie in the middle of
/// their bucket, arithmetic for custom buckets, geometric for others, 0 for
/// the zero bucket.
#[must_use]
pub fn variance(h: &Histogram) -> f64 {
    let mean = average(h);
    let (mut sum, mut lost) = (0.0, 0.0);
    for bucket in h.ascending().filter(|b| b.count != 0.0) {
        let middle = if h.uses_custom_buckets() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let geometric = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -geometric } else { geometric }
        };
        let delta = middle - mean;
        (sum, lost) = kahan_add(bucket.count * delta * delta, sum, lost);
    }
    (sum + lost) / h.count
}

/// The square root of the [`variance`].
#[must_use]
pub fn standard_deviation(h: &Histogram) -> f64 {
    variance(h).sqrt()
}
