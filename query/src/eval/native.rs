//! What functions make of one native histogram.

use narthex_storage::histogram::Histogram;

use crate::histogram::{average, standard_deviation, variance};

/// `histogram_count` and the like.
pub(super) fn float_of(function: &str, h: &Histogram) -> f64 {
    match function {
        "histogram_count" => h.count,
        "histogram_sum" => h.sum,
        "histogram_avg" => average(h),
        "histogram_stddev" => standard_deviation(h),
        _ => variance(h),
    }
}
