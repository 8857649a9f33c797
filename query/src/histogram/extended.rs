//! `rate`, `increase` and `delta` of `anchored` and `smoothed` windows.

use narthex_storage::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};

use super::rate::range_s;
use super::{Findings, Rate, Window, interpolate};

/// The increase between exactly the ends of a window. The result is a gauge.
///
/// `window` holds samples from before its start and, if `smoothed`, from
/// behind its end, as far as the lookback reaches. Anchored, the last sample
/// before the start stands for the value there; smoothed, the ends are
/// interpolated.
///
/// `None` if no sample is in the window or they cannot be combined.
///
/// Source: Prometheus, `extendedHistogramRate`.
pub fn extended_rate(
    window: Window<'_>,
    rate: Rate,
    smoothed: bool,
    findings: &mut Findings,
) -> Option<Histogram> {
    match extend(window, rate, smoothed, findings) {
        Ok(result) => result,
        Err(IncompatibleSchemas) => {
            findings.mixed_schemas = true;
            None
        }
    }
}

fn extend(
    w: Window<'_>,
    rate: Rate,
    smoothed: bool,
    findings: &mut Findings,
) -> Result<Option<Histogram>, IncompatibleSchemas> {
    let Some(newest) = w.times_ms.len().min(w.histograms.len()).checked_sub(1) else {
        return Ok(None);
    };
    let first = w.times_ms[..newest].partition_point(|t| *t <= w.start_ms).saturating_sub(1);
    let last =
        if smoothed { w.times_ms[..newest].partition_point(|t| *t < w.end_ms) } else { newest };
    if w.times_ms[last] <= w.start_ms || (smoothed && w.times_ms[first] > w.end_ms) {
        return Ok(None);
    }
    let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let custom = w.histograms[first].uses_custom_buckets();
    for h in &w.histograms[first..=last] {
        if h.uses_custom_buckets() != custom {
            return Err(IncompatibleSchemas);
        }
        findings.not_counter |= rate.counter && gauge(h);
    }
    let at = |i: usize| (w.times_ms[i], w.histograms[i].as_ref());
    let left = if smoothed && w.times_ms[first] < w.start_ms && first < newest {
        interpolate(at(first), at(first + 1), w.start_ms, rate.counter, findings)?
    } else {
        at(first).1.clone()
    };
    let right = if smoothed && last > 0 && w.times_ms[last] > w.end_ms {
        interpolate(at(last - 1), at(last), w.end_ms, rate.counter, findings)?
    } else {
        at(last).1.clone()
    };
    if !rate.counter && (!gauge(&left) || !gauge(&right)) {
        findings.not_gauge = true;
    }
    let mut result = right.clone();
    findings.note_subtraction(result.sub(&left)?);
    if rate.counter
        && let Some(correction) = correction(w, first, last, [&left, &right], smoothed, findings)?
    {
        findings.note_addition(result.add(&correction)?);
    }
    if rate.per_second {
        result.div(range_s(w.start_ms, w.end_ms));
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    result.compact(0);
    Ok(Some(result))
}

/// What the resets between the ends took away. `ends` stand for the samples
/// `first` and `last`.
fn correction(
    w: Window<'_>,
    first: usize,
    last: usize,
    ends: [&Histogram; 2],
    smoothed: bool,
    findings: &mut Findings,
) -> Result<Option<Histogram>, IncompatibleSchemas> {
    let [left, right] = ends;
    let mut previous = left;
    let mut next = first + 1;
    if smoothed
        && w.times_ms[first] < w.start_ms
        && let Some(second) = w.histograms.get(next)
        && second.is_reset_after(&w.histograms[first])
    {
        // The interpolation has accounted for this reset.
        previous = second;
        next += 1;
    }
    if next > last {
        return Ok(None);
    }
    let mut sum: Option<Histogram> = None;
    let between = w.histograms[next..last].iter().map(AsRef::as_ref);
    for h in between.chain([right]) {
        if h.is_reset_after(previous) {
            match &mut sum {
                None => sum = Some(previous.clone()),
                Some(sum) => findings.note_addition(sum.add(previous)?),
            }
        }
        previous = h;
    }
    Ok(sum)
}
