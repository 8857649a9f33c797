//! `rate`, `increase`, `delta`, `irate` and `idelta` of histograms.

use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram};

use super::Findings;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Resets are added up (`rate`, `increase`, `irate`), not so for gauges.
    pub counter: bool,
    /// Per second (`rate`, `irate`), or over the window.
    pub per_second: bool,
}

/// The histograms of one window: `start_ms` excluded, `end_ms` included.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Times, ascending.
    pub times_ms: &'a [i64],
    /// One histogram per time.
    pub histograms: &'a [Arc<Histogram>],
    /// Start timestamps, 0 if unknown; empty if none is known or wanted.
    pub starts_ms: &'a [i64],
    /// Begin of the window.
    pub start_ms: i64,
    /// End of the window.
    pub end_ms: i64,
}

/// Whether the start timestamps tell of a reset between two samples.
#[must_use]
pub fn is_start_reset(
    previous_start_ms: i64,
    previous_ms: i64,
    start_ms: i64,
    time_ms: i64,
) -> bool {
    // Unknown, or impossible.
    if start_ms == 0 || start_ms >= time_ms || start_ms < previous_ms {
        return false;
    }
    if start_ms > previous_ms {
        return true;
    }
    // It starts at the sample before: a delta, or a cumulative series whose
    // start is not known; then the sample before does not know its own.
    previous_start_ms <= previous_ms && previous_start_ms != 0 && previous_start_ms != previous_ms
}

/// Whether a start timestamp contradicts the sample before it.
#[must_use]
pub fn overlaps_previous(previous_start_ms: i64, previous_ms: i64, start_ms: i64) -> bool {
    start_ms != 0 && start_ms < previous_ms && start_ms != previous_start_ms
}

/// `rate`, `increase` or `delta` of a window, extrapolated to its ends. The
/// result is a gauge.
///
/// `None` if there are too few samples or they cannot be combined.
///
/// Source: Prometheus, `extrapolatedRate` and `histogramRate`.
pub fn extrapolated_rate(
    window: Window<'_>,
    rate: Rate,
    findings: &mut Findings,
) -> Option<Histogram> {
    let mut local = Findings::default();
    let result = extrapolate(window, rate, &mut local);
    findings.merge(local);
    result
}

fn extrapolate(w: Window<'_>, rate: Rate, findings: &mut Findings) -> Option<Histogram> {
    let (&first_ms, &last_ms) = (w.times_ms.first()?, w.times_ms.last()?);
    let first = w.histograms.first()?;
    let mut result = None;
    if w.histograms.len() > 1 {
        match increase(w, rate.counter, findings) {
            Ok(increase) => result = Some(increase),
            Err(Mixed { alone }) => {
                if alone {
                    *findings = Findings::default();
                }
                findings.mixed_schemas = true;
                return None;
            }
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let intervals = w.histograms.len() - 1;
    let mut to_start = seconds(first_ms - w.start_ms);
    let mut to_end = seconds(w.end_ms - last_ms);
    let mut sampled = seconds(last_ms - first_ms);
    let average = if intervals > 0 { sampled / intervals as f64 } else { 0.0 };
    let threshold = average * 1.1;

    let known_start = w.starts_ms.first().copied().filter(|&start_ms| {
        rate.counter && start_ms != 0 && start_ms > w.start_ms && start_ms < first_ms
    });
    if let Some(start_ms) = known_start {
        // As if there were an empty histogram at the start.
        to_start = 0.0;
        sampled = seconds(last_ms - start_ms);
        match &mut result {
            None => result = Some(Histogram::clone(first)),
            Some(sum) => match sum.add(first) {
                Ok(reconciled) => findings.note_addition(reconciled),
                Err(_) => {
                    findings.mixed_schemas = true;
                    return None;
                }
            },
        }
    } else if intervals == 0 {
        return None;
    } else {
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if let Some(increase) = &result
            && rate.counter
            && increase.count > 0.0
            && first.count >= 0.0
        {
            // Counters do not begin below zero.
            let to_zero = sampled * (first.count / increase.count);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    if rate.per_second {
        factor /= range_s(w.start_ms, w.end_ms);
    }
    let mut result = result?;
    result.mul(factor);
    Some(result)
}

/// Exponential and custom buckets met. `alone`: what was found before does not
/// matter.
struct Mixed {
    alone: bool,
}

/// The length of a window in seconds, rounded as Go rounds durations.
pub(super) fn range_s(start_ms: i64, end_ms: i64) -> f64 {
    let range_ms = end_ms.saturating_sub(start_ms);
    (range_ms / 1000) as f64 + (range_ms % 1000 * 1_000_000) as f64 / 1e9
}

/// The last histogram less the first, plus what resets took away.
fn increase(w: Window<'_>, counter: bool, findings: &mut Findings) -> Result<Histogram, Mixed> {
    let [first, between @ .., last] = w.histograms else { return Err(Mixed { alone: true }) };
    let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let restarted = |i: usize| match (w.starts_ms.get(i - 1), w.starts_ms.get(i)) {
        (Some(&previous_start), Some(&start)) => {
            is_start_reset(previous_start, w.times_ms[i - 1], start, w.times_ms[i])
        }
        _ => false,
    };
    if counter && (gauge(first) || gauge(last)) {
        findings.not_counter = true;
    }
    // A first sample before a reset does not matter, nor does its layout.
    let mut previous: &Histogram = first;
    let empty;
    if counter {
        let second = &w.histograms[1];
        if restarted(1) || second.is_reset_after(first) {
            empty = Histogram {
                schema: second.schema,
                custom_values: Arc::clone(&second.custom_values),
                ..Histogram::default()
            };
            previous = &empty;
        }
    }
    let custom = previous.uses_custom_buckets();
    if last.uses_custom_buckets() != custom {
        return Err(Mixed { alone: false });
    }
    let mut schema = last.schema.min(previous.schema);
    if counter {
        for h in between {
            findings.not_counter |= gauge(h);
            schema = schema.min(h.schema);
            if h.uses_custom_buckets() != custom {
                return Err(Mixed { alone: true });
            }
        }
    }
    let alone = Mixed { alone: true };
    let mut sum = Histogram::clone(last);
    sum.reduce_resolution(schema);
    findings.note_subtraction(sum.sub(previous).map_err(|_| alone)?);
    if counter {
        let mut overlap = false;
        for (i, h) in w.histograms.iter().enumerate().skip(1) {
            if let (Some(&previous_start), Some(&start)) =
                (w.starts_ms.get(i - 1), w.starts_ms.get(i))
            {
                overlap |= overlaps_previous(previous_start, w.times_ms[i - 1], start);
            }
            if restarted(i) || h.is_reset_after(previous) {
                let reconciled = sum.add(previous).map_err(|_| Mixed { alone: true })?;
                findings.note_addition(reconciled);
            }
            previous = h;
        }
        findings.start_overlaps += usize::from(overlap);
    } else if !gauge(first) || !gauge(last) {
        findings.not_gauge = true;
    }
    sum.counter_reset_hint = CounterResetHint::Gauge;
    sum.compact(0);
    Ok(sum)
}

/// `irate` (a counter, per second) or `idelta` of two neighbouring histograms,
/// each with its time and start timestamp (0 if unknown). The result is a
/// gauge.
///
/// `None` if they have the same time or cannot be combined.
pub fn instant_rate(
    before: (i64, i64, &Histogram),
    last: (i64, i64, &Histogram),
    rate: Rate,
    findings: &mut Findings,
) -> Option<Histogram> {
    let (before_ms, before_start_ms, before) = before;
    let (last_ms, last_start_ms, last) = last;
    let interval_ms = last_ms - before_ms;
    if interval_ms == 0 {
        return None;
    }
    let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    if rate.counter {
        findings.not_counter |= gauge(before) || gauge(last);
    } else {
        findings.not_gauge |= !gauge(before) || !gauge(last);
    }
    let mut result = last.clone();
    let reset = rate.counter
        && (is_start_reset(before_start_ms, before_ms, last_start_ms, last_ms)
            || last.is_reset_after(before));
    if !reset {
        match result.sub(before) {
            Ok(reconciled) => findings.note_subtraction(reconciled),
            Err(_) => {
                findings.mixed_schemas = true;
                return None;
            }
        }
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    result.compact(0);
    if rate.per_second {
        result.div(interval_ms as f64 / 1000.0);
    }
    Some(result)
}
