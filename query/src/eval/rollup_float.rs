//! Functions over ranges of floats, one series at a time.
//!
//! A hot path: free functions over the samples of a series and the windows of
//! the steps. What slides exactly slides (counts, sums of integers, resets,
//! extremes, sorted windows); all else is computed window by window in
//! Prometheus' own order. Guarded by `benches/query.rs`.

use crate::ast::Span;

use super::arith::{kahan, nan_first, quantile};
use super::lanes::{ABSENT, quiet};
use super::notes::{Notes, quoted};
use super::scalar::Scalar;
use super::windows::{Spread, Windows};

/// Functions over ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Deriv,
    PredictLinear,
    DoubleExponentialSmoothing,
    Resets,
    Changes,
    Avg,
    Sum,
    Count,
    Min,
    Max,
    First,
    Last,
    Present,
    Quantile,
    Stddev,
    Stdvar,
    Mad,
    TsOfFirst,
    TsOfLast,
    TsOfMin,
    TsOfMax,
}

impl Function {
    /// The function of this name, if it takes a range.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" | "holt_winters" => Self::DoubleExponentialSmoothing,
            "resets" => Self::Resets,
            "changes" => Self::Changes,
            "avg_over_time" => Self::Avg,
            "sum_over_time" => Self::Sum,
            "count_over_time" => Self::Count,
            "min_over_time" => Self::Min,
            "max_over_time" => Self::Max,
            "first_over_time" => Self::First,
            "last_over_time" => Self::Last,
            "present_over_time" | "absent_over_time" => Self::Present,
            "quantile_over_time" => Self::Quantile,
            "stddev_over_time" => Self::Stddev,
            "stdvar_over_time" => Self::Stdvar,
            "mad_over_time" => Self::Mad,
            "ts_of_first_over_time" => Self::TsOfFirst,
            "ts_of_last_over_time" => Self::TsOfLast,
            "ts_of_min_over_time" => Self::TsOfMin,
            "ts_of_max_over_time" => Self::TsOfMax,
            _ => return None,
        })
    }

    pub(crate) fn is_counter(self) -> bool {
        matches!(self, Self::Rate | Self::Increase)
    }

    /// Whether it looks at which samples there are, not at their values.
    pub(crate) fn counts_only(self) -> bool {
        matches!(self, Self::Count | Self::Present | Self::TsOfFirst | Self::TsOfLast)
    }

    /// Whether start timestamps matter to it.
    pub(crate) fn uses_starts(self) -> bool {
        matches!(self, Self::Rate | Self::Increase | Self::Irate | Self::Resets)
    }
}

/// The samples of a series and the windows of the steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floats<'a> {
    pub(crate) times_ms: &'a [i64],
    pub(crate) values: &'a [f64],
    /// Empty, or one per sample; 0 is unknown.
    pub(crate) starts_ms: &'a [i64],
    pub(crate) windows: &'a Windows,
    /// Whether all values are integers of at most 2^53.
    pub(crate) integral: bool,
}

/// What else a function needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) function: Function,
    pub(crate) range_ms: i64,
    /// The right end of each step's window.
    pub(crate) ends_ms: &'a [i64],
    /// The evaluation time of each step.
    pub(crate) steps_ms: &'a [i64],
    pub(crate) params: &'a [Scalar],
    pub(crate) span: Span,
}

/// Writes one value per step to `out`, [`ABSENT`] where there is none.
pub(crate) fn roll(
    floats: Floats<'_>,
    setting: Setting<'_>,
    name: &str,
    notes: &mut Notes,
    out: &mut Vec<f64>,
) {
    out.clear();
    let Floats { times_ms: times, values, .. } = floats;
    match setting.function {
        Function::Rate | Function::Increase | Function::Delta => {
            if floats.starts_ms.is_empty() || setting.function == Function::Delta {
                rate(floats, setting, out);
            } else {
                rate_with_starts(floats, setting, name, notes, out);
            }
        }
        Function::Irate | Function::Idelta => instant(floats, setting.function, out),
        Function::Deriv => each(floats, out, |_, a, b| {
            if b - a < 2 {
                return ABSENT;
            }
            linear_regression(&times[a..b], &values[a..b], times[a]).0
        }),
        Function::PredictLinear => each(floats, out, |step, a, b| {
            if b - a < 2 {
                return ABSENT;
            }
            let (slope, intercept) =
                linear_regression(&times[a..b], &values[a..b], setting.steps_ms[step]);
            slope * setting.params[0].at(step) + intercept
        }),
        Function::DoubleExponentialSmoothing => each(floats, out, |step, a, b| {
            smooth(&values[a..b], setting.params[0].at(step), setting.params[1].at(step))
        }),
        Function::Resets => {
            let starts = floats.starts_ms;
            count_between(floats, out, |i| {
                values[i] < values[i - 1]
                    || !starts.is_empty()
                        && is_start_reset(starts[i - 1], times[i - 1], starts[i], times[i])
            });
        }
        Function::Changes => count_between(floats, out, |i| {
            let (x, y) = (values[i - 1], values[i]);
            x != y && !(x.is_nan() && y.is_nan())
        }),
        Function::Sum => sum(floats, false, out),
        Function::Avg => sum(floats, true, out),
        #[allow(clippy::cast_precision_loss, reason = "counts are below 2^32")]
        Function::Count => each(floats, out, |_, a, b| (b - a) as f64),
        Function::Min => extreme(floats, out, |new, old| new < old),
        Function::Max => extreme(floats, out, |new, old| new > old),
        Function::First => each(floats, out, |_, a, _| values[a]),
        Function::Last => each(floats, out, |_, _, b| values[b - 1]),
        Function::Present => each(floats, out, |_, _, _| 1.0),
        Function::Quantile => quantiles(floats, setting, notes, out),
        Function::Stddev => each(floats, out, |_, a, b| variance(&values[a..b]).sqrt()),
        Function::Stdvar => each(floats, out, |_, a, b| variance(&values[a..b])),
        Function::Mad => {
            let mut buffer = Vec::new();
            each(floats, out, |_, a, b| mad(&values[a..b], &mut buffer));
        }
        Function::TsOfFirst => each(floats, out, |_, a, _| seconds(times[a])),
        Function::TsOfLast => each(floats, out, |_, _, b| seconds(times[b - 1])),
        Function::TsOfMin => each(floats, out, |_, a, b| {
            seconds(time_of_extreme(&times[a..b], &values[a..b], |new, old| new <= old))
        }),
        Function::TsOfMax => each(floats, out, |_, a, b| {
            seconds(time_of_extreme(&times[a..b], &values[a..b], |new, old| new >= old))
        }),
    }
}

/// Calls `f(step, first, end)` for each window that is not empty.
#[inline]
fn each(floats: Floats<'_>, out: &mut Vec<f64>, mut f: impl FnMut(usize, usize, usize) -> f64) {
    let bounds = &floats.windows.bounds;
    out.extend(
        bounds
            .iter()
            .enumerate()
            .map(|(step, &(a, b))| if a == b { ABSENT } else { f(step, a as usize, b as usize) }),
    );
}

/// A duration in seconds, computed as Go does.
pub(crate) fn duration_s(ms: i64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "durations are below 2^53 ms")]
    let (seconds, nanos) = ((ms / 1000) as f64, (ms % 1000 * 1_000_000) as f64);
    seconds + nanos / 1e9
}

#[allow(clippy::cast_precision_loss, reason = "times are below 2^53 ms")]
pub(crate) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// rate, increase and delta: last minus first plus what resets lost, extended
/// to the ends of the range.
fn rate(floats: Floats<'_>, setting: Setting<'_>, out: &mut Vec<f64>) {
    let Floats { times_ms: times, values, windows, .. } = floats;
    let is_counter = setting.function.is_counter();
    let resets = if is_counter { falls(values) } else { Vec::new() };
    let mut next_reset = 0;
    let own;
    let spreads = if windows.spreads.len() == windows.bounds.len() {
        &windows.spreads
    } else {
        own = spreads(times, &windows.bounds, setting);
        &own
    };
    let range_s = duration_s(setting.range_ms);
    let is_rate = setting.function == Function::Rate;
    for (&(a, b), spread) in windows.bounds.iter().zip(spreads) {
        if b < a + 2 {
            out.push(ABSENT);
            continue;
        }
        let first = values[a as usize];
        let mut result = values[b as usize - 1] - first;
        while next_reset < resets.len() && resets[next_reset] <= a {
            next_reset += 1;
        }
        for &reset in &resets[next_reset..] {
            if reset >= b {
                break;
            }
            result += values[reset as usize - 1];
        }
        let mut factor = spread.factor;
        // The extension is at most 1.1 of the distance between samples, so only
        // a counter that was this low can have started within it.
        if is_counter && result > 0.0 && first >= 0.0 && first < 1.2 * result {
            let to_zero = spread.sampled * (first / result);
            if to_zero < spread.to_start {
                factor = (spread.sampled + to_zero + spread.to_end) / spread.sampled;
                if is_rate {
                    factor /= range_s;
                }
            }
        }
        out.push(quiet(result * factor));
    }
}

/// The places of values that are less than the one before.
fn falls(values: &[f64]) -> Vec<u32> {
    const CHUNK: usize = 64;
    let mut places = Vec::new();
    let mut from = 1;
    while from < values.len() {
        let to = (from + CHUNK).min(values.len());
        // Most chunks have none; this loop has no branch.
        let pairs = values[from - 1..to - 1].iter().zip(&values[from..to]);
        if pairs.fold(false, |any, (a, b)| any | (b < a)) {
            let fallen = (from..to).filter(|i| values[*i] < values[*i - 1]);
            places.extend(fallen.map(|i| u32::try_from(i).unwrap_or(u32::MAX)));
        }
        from = to;
    }
    places
}

/// How each window lies within its range.
pub(crate) fn spreads(times: &[i64], bounds: &[(u32, u32)], setting: Setting<'_>) -> Vec<Spread> {
    let range_s = duration_s(setting.range_ms);
    bounds
        .iter()
        .zip(setting.ends_ms)
        .map(|(&(a, b), &end_ms)| {
            if b < a + 2 {
                return Spread::default();
            }
            let edges = Edges {
                first_ms: times[a as usize],
                last_ms: times[b as usize - 1],
                start_ms: end_ms.saturating_sub(setting.range_ms),
                end_ms,
                samples: (b - a) as usize,
            };
            let mut spread = edges.spread();
            if setting.function == Function::Rate {
                spread.factor /= range_s;
            }
            spread
        })
        .collect()
}

/// Where the samples of a window lie within its range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edges {
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) samples: usize,
}

impl Edges {
    /// How far the change between the samples extends on both sides.
    pub(crate) fn spread(&self) -> Spread {
        let mut to_start = seconds(self.first_ms - self.start_ms);
        let mut to_end = seconds(self.end_ms - self.last_ms);
        let sampled = seconds(self.last_ms - self.first_ms);
        #[allow(clippy::cast_precision_loss, reason = "counts are below 2^32")]
        let average = sampled / (self.samples - 1) as f64;
        let threshold = average * 1.1;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
        Spread { sampled, to_start, to_end, factor }
    }

    /// By how much the change between the samples grows if they are extended
    /// to the ends of the range. `zero` is the first value divided by the
    /// change: a counter is not extended beyond where it would have been 0.
    pub(crate) fn factor(&self, zero: Option<f64>) -> f64 {
        let spread = self.spread();
        let to_zero = zero.map_or(f64::INFINITY, |zero| spread.sampled * zero);
        if to_zero < spread.to_start {
            (spread.sampled + to_zero + spread.to_end) / spread.sampled
        } else {
            spread.factor
        }
    }

    /// As [`Self::factor`] if the counter is known to have started at `start_ms`
    /// within the range: nothing is extended to the left.
    pub(crate) fn factor_since(&self, started_ms: i64) -> f64 {
        let mut to_end = seconds(self.end_ms - self.last_ms);
        let sampled = seconds(self.last_ms - started_ms);
        #[allow(clippy::cast_precision_loss, reason = "counts are below 2^32")]
        let average = if self.samples > 1 {
            seconds(self.last_ms - self.first_ms) / (self.samples - 1) as f64
        } else {
            0.0
        };
        if to_end >= average * 1.1 {
            to_end = average / 2.0;
        }
        if sampled == 0.0 { 1.0 } else { (sampled + 0.0 + to_end) / sampled }
    }
}

/// rate and increase of samples whose counters' start times are known.
fn rate_with_starts(
    floats: Floats<'_>,
    setting: Setting<'_>,
    name: &str,
    notes: &mut Notes,
    out: &mut Vec<f64>,
) {
    let Floats { times_ms: times, values, starts_ms: starts, .. } = floats;
    let range_s = duration_s(setting.range_ms);
    each(floats, out, |step, a, b| {
        let last = b - 1;
        let mut result = values[last] - values[a];
        let mut overlaps = false;
        for i in a + 1..b {
            if !overlaps && starts_overlap(starts[i - 1], times[i - 1], starts[i]) {
                note_overlap(notes, setting.span, name);
                overlaps = true;
            }
            if values[i] < values[i - 1]
                || is_start_reset(starts[i - 1], times[i - 1], starts[i], times[i])
            {
                result += values[i - 1];
            }
        }
        let start_ms = setting.ends_ms[step] - setting.range_ms;
        let edges = Edges {
            first_ms: times[a],
            last_ms: times[last],
            start_ms,
            end_ms: setting.ends_ms[step],
            samples: b - a,
        };
        let mut factor = if starts[a] != 0 && starts[a] > start_ms && starts[a] < times[a] {
            result += values[a];
            edges.factor_since(starts[a])
        } else if b - a < 2 {
            return ABSENT;
        } else {
            let zero = (result > 0.0 && values[a] >= 0.0).then(|| values[a] / result);
            edges.factor(zero)
        };
        if setting.function == Function::Rate {
            factor /= range_s;
        }
        quiet(result * factor)
    });
}

/// Notes that a start time lies before the sample before.
pub(crate) fn note_overlap(notes: &mut Notes, span: Span, name: &str) {
    notes.warn_counted(
        span,
        format!(
            "sample has start time that overlaps with previous sample timestamp for metric {}",
            quoted(name)
        ),
    );
}

/// Whether the start timestamps say that the counter was reset between two
/// samples.
pub(crate) fn is_start_reset(
    previous_start: i64,
    previous_time: i64,
    start: i64,
    time: i64,
) -> bool {
    // Unknown, invalid, or OpenTelemetry's "unknown".
    if start == 0 || start >= time || start < previous_time {
        return false;
    }
    if start > previous_time {
        return true;
    }
    // Deltas start where the sample before ended; cumulative samples with an
    // unknown start look the same, so that sample's own start decides.
    previous_start <= previous_time && previous_start != 0 && previous_start != previous_time
}

pub(crate) fn starts_overlap(previous_start: i64, previous_time: i64, start: i64) -> bool {
    start != 0 && start < previous_time && start != previous_start
}

/// irate and idelta: the last two samples.
fn instant(floats: Floats<'_>, function: Function, out: &mut Vec<f64>) {
    let Floats { times_ms: times, values, starts_ms: starts, .. } = floats;
    let is_rate = function == Function::Irate;
    each(floats, out, |_, a, b| {
        if b - a < 2 {
            return ABSENT;
        }
        let (p, q) = (b - 2, b - 1);
        let reset = is_rate
            && (values[q] < values[p]
                || !starts.is_empty() && is_start_reset(starts[p], times[p], starts[q], times[q]));
        let change = if reset { values[q] } else { values[q] - values[p] };
        if is_rate { change / seconds(times[q] - times[p]) } else { change }
    });
}

/// Counts neighbours within each window for which `differs(i)` holds of
/// samples `i - 1` and `i`.
fn count_between(floats: Floats<'_>, out: &mut Vec<f64>, differs: impl Fn(usize) -> bool) {
    // before[i]: how many among samples 0..=i.
    let mut before: Vec<u32> = Vec::with_capacity(floats.values.len());
    let mut n = 0;
    for i in 0..floats.values.len() {
        n += u32::from(i > 0 && differs(i));
        before.push(n);
    }
    each(floats, out, |_, a, b| f64::from(before[b - 1] - before[a]));
}

/// Sums or means.
fn sum(floats: Floats<'_>, mean: bool, out: &mut Vec<f64>) {
    let values = floats.values;
    if floats.integral && floats.windows.total > 2 * values.len() as u64 {
        let most = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let longest = floats.windows.bounds.iter().map(|(a, b)| b - a).max().unwrap_or(0);
        // Every partial sum is exact, so the order does not matter.
        if most * f64::from(longest) <= EXACT {
            return sum_integers(floats, mean, out);
        }
    }
    each(floats, out, |_, a, b| if mean { mean_of(&values[a..b]) } else { sum_of(&values[a..b]) });
}

/// Integers up to this are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Slides over integers.
fn sum_integers(floats: Floats<'_>, mean: bool, out: &mut Vec<f64>) {
    let values = floats.values;
    let (mut from, mut to, mut total) = (0, 0, 0.0);
    each(floats, out, |_, a, b| {
        if a >= to {
            (from, to, total) = (a, a, 0.0);
        }
        while to < b {
            total += values[to];
            to += 1;
        }
        while from < a {
            total -= values[from];
            from += 1;
        }
        #[allow(clippy::cast_precision_loss, reason = "counts are below 2^32")]
        if mean { total / (b - a) as f64 + 0.0 } else { total + 0.0 }
    });
}

/// Compensated sum, in order.
pub(crate) fn sum_of(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (0.0, 0.0);
    for v in values {
        (sum, c) = kahan(*v, sum, c);
    }
    if sum.is_infinite() { sum } else { sum + c }
}

/// Mean from a compensated sum; incremental once the sum overflows.
#[allow(clippy::cast_precision_loss, reason = "counts are below 2^32")]
pub(crate) fn mean_of(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (values[0], 0.0);
    let mut mean = None;
    for (i, v) in values.iter().enumerate().skip(1) {
        let count = (i + 1) as f64;
        if mean.is_none() {
            let (new, new_c) = kahan(*v, sum, c);
            if !new.is_infinite() {
                (sum, c) = (new, new_c);
                continue;
            }
            mean = Some(sum / (count - 1.0));
            c /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        let old = mean.unwrap_or(0.0);
        let (new, new_c) = kahan(v / count, q * old, q * c);
        (mean, c) = (Some(new), new_c);
    }
    let count = values.len() as f64;
    match mean {
        Some(mean) => mean + c,
        None => sum / count + c / count,
    }
}

/// Minima or maxima: the first value that no other is `better` than; NaN only
/// if all are.
fn extreme(floats: Floats<'_>, out: &mut Vec<f64>, better: impl Fn(f64, f64) -> bool) {
    let values = floats.values;
    // The first of equals, any number before NaN; joins in any grouping.
    let pick = |first: f64, later: f64| {
        if better(later, first) || first.is_nan() { later } else { first }
    };
    // A window is `a..middle`, of which the bests up to `middle` are known from
    // each place on, and `middle..to`, which grows. When the first part has
    // gone, the second takes its place: no sample is looked at three times.
    let mut bests: Vec<f64> = Vec::new();
    let (mut first, mut middle, mut to) = (0, 0, 0);
    let mut grown = f64::NAN;
    each(floats, out, |_, a, b| {
        if a >= middle {
            (first, middle, to, grown) = (a, b, b, f64::NAN);
            bests.clear();
            bests.resize(b - a, f64::NAN);
            let mut best = f64::NAN;
            for (known, &v) in bests.iter_mut().zip(&values[a..b]).rev() {
                best = pick(v, best);
                *known = best;
            }
        }
        for &v in &values[to..b] {
            grown = pick(grown, v);
        }
        to = b;
        pick(bests[a - first], grown)
    });
}

/// The time of the last best value.
fn time_of_extreme(times: &[i64], values: &[f64], better: impl Fn(f64, f64) -> bool) -> i64 {
    let (mut best, mut time) = (values[0], times[0]);
    for (&t, &v) in times.iter().zip(values) {
        if better(v, best) || best.is_nan() {
            (best, time) = (v, t);
        }
    }
    time
}

/// Quantiles; windows that overlap much are kept sorted.
fn quantiles(floats: Floats<'_>, setting: Setting<'_>, notes: &mut Notes, out: &mut Vec<f64>) {
    let values = floats.values;
    let slides = floats.windows.total > 4 * values.len() as u64;
    let mut sorted: Vec<f64> = Vec::new();
    let (mut from, mut to) = (0, 0);
    each(floats, out, |step, a, b| {
        let q = setting.params[0].at(step);
        if q.is_nan() || !(0.0..=1.0).contains(&q) {
            note_quantile(notes, setting.span, q);
        }
        if !slides || a >= to {
            sorted.clear();
            sorted.extend_from_slice(&values[a..b]);
            sorted.sort_unstable_by(|x, y| nan_first(*x, *y));
        } else {
            for v in &values[to..b] {
                let at = sorted.partition_point(|x| nan_first(*x, *v).is_lt());
                sorted.insert(at, *v);
            }
            for v in &values[from..a] {
                let at = sorted.partition_point(|x| nan_first(*x, *v).is_lt());
                sorted.remove(at);
            }
        }
        (from, to) = (a, b);
        sorted_quantile(q, &sorted)
    });
}

/// Notes a quantile outside 0..=1.
pub(crate) fn note_quantile(notes: &mut Notes, span: Span, q: f64) {
    let q = narthex_storage::histogram::GoFloat(q);
    notes.warn(span, format!("quantile value should be between 0 and 1, got {q}"));
}

fn sorted_quantile(q: f64, sorted: &[f64]) -> f64 {
    // Sorting what is sorted costs one pass; `quantile` owns the formula.
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        return quantile(q, &mut sorted[..1].to_vec());
    }
    super::arith::quantile_of_sorted(q, sorted)
}

/// Variance by Welford's method, compensated.
fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0);
    let mut count = 0.0;
    for &v in values {
        count += 1.0;
        let delta = v - (mean + mean_c);
        (mean, mean_c) = kahan(delta / count, mean, mean_c);
        (aux, aux_c) = kahan(delta * (v - (mean + mean_c)), aux, aux_c);
    }
    (aux + aux_c) / count
}

/// Median of the distances from the median.
fn mad(values: &[f64], buffer: &mut Vec<f64>) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    buffer.clear();
    buffer.extend_from_slice(values);
    let median = quantile(0.5, buffer);
    buffer.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantile(0.5, buffer)
}

/// Slope and value at `at_ms` of the line with the least squares.
fn linear_regression(times: &[i64], values: &[f64], at_ms: i64) -> (f64, f64) {
    let first = values[0];
    if values[1..].iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut n, mut x, mut y, mut xy, mut x2) =
        (0.0, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0));
    for (&time, &value) in times.iter().zip(values) {
        n += 1.0;
        let distance = seconds(time - at_ms);
        x = kahan(distance, x.0, x.1);
        y = kahan(value, y.0, y.1);
        xy = kahan(distance * value, xy.0, xy.1);
        x2 = kahan(distance * distance, x2.0, x2.1);
    }
    let (x, y, xy, x2) = (x.0 + x.1, y.0 + y.1, xy.0 + xy.1, x2.0 + x2.1);
    let covariance = xy - x * y / n;
    let variance = x2 - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

/// Double exponential smoothing with the factors for level and trend.
pub(crate) fn smooth(values: &[f64], factor: f64, trend: f64) -> f64 {
    if values.len() < 2 {
        return ABSENT;
    }
    let mut before = 0.0;
    let mut level = values[0];
    let mut slope = values[1] - values[0];
    for (i, v) in values.iter().enumerate().skip(1) {
        let x = factor * v;
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let y = (1.0 - factor) * (level + slope);
        (before, level) = (level, x + y);
    }
    level
}
