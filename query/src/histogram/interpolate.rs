//! Values between two samples, for `anchored` and `smoothed` selectors.

use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};

use super::Findings;

/// The histogram at `at_ms` on the straight line between two samples.
///
/// A counter that was reset between them is taken to start from 0 at the first
/// sample's time.
///
/// # Errors
///
/// [`IncompatibleSchemas`] if exponential and custom buckets meet.
pub fn interpolate(
    left: (i64, &Histogram),
    right: (i64, &Histogram),
    at_ms: i64,
    counter: bool,
    findings: &mut Findings,
) -> Result<Histogram, IncompatibleSchemas> {
    if at_ms == left.0 {
        return Ok(left.1.clone());
    }
    let mut result = right.1.clone();
    if at_ms == right.0 {
        return Ok(result);
    }
    let part = (at_ms - left.0) as f64 / (right.0 - left.0) as f64;
    if counter && right.1.is_reset_after(left.1) {
        result.mul(part);
        return Ok(result);
    }
    findings.note_subtraction(result.sub(left.1)?);
    result.mul(part);
    findings.note_addition(result.add(left.1)?);
    Ok(result)
}

/// The value of a `smoothed` instant selector at `at_ms`, from the histograms
/// within the lookback around it; `None` if all are later or two that have to
/// be combined are incompatible.
///
/// Behind the last sample its value goes on.
pub fn smoothed_at(
    times_ms: &[i64],
    histograms: &[Arc<Histogram>],
    at_ms: i64,
    findings: &mut Findings,
) -> Option<Arc<Histogram>> {
    let next = times_ms.partition_point(|t| *t < at_ms);
    if times_ms.get(next) == Some(&at_ms) {
        return histograms.get(next).cloned();
    }
    let before = next.checked_sub(1)?;
    let (left, left_ms) = (histograms.get(before)?, *times_ms.get(before)?);
    let Some((right, &right_ms)) = histograms.get(next).zip(times_ms.get(next)) else {
        let mut last = Histogram::clone(left);
        last.counter_reset_hint = CounterResetHint::Unknown;
        return Some(Arc::new(last));
    };
    if left.uses_custom_buckets() != right.uses_custom_buckets() {
        findings.mixed_schemas = true;
        return None;
    }
    let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let counter = !(gauge(left) && gauge(right));
    interpolate((left_ms, left), (right_ms, right), at_ms, counter, findings).ok().map(Arc::new)
}
