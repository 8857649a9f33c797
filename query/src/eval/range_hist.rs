//! Functions over ranges that hold histograms, alone or among floats.

use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram};

use crate::ast::Span;

use super::hist::{
    Hints, Mean, Sum, note_bounds, note_collision, note_ignored_in_range, note_mixed,
    note_mixed_schemas, note_not_counter, note_not_gauge,
};
use super::lanes::{ABSENT, Point, Series, is_present};
use super::notes::Notes;
use super::rollup::{Split, Work};
use super::rollup_float::{
    Edges, Floats, Function, duration_s, is_start_reset, note_overlap, seconds, starts_overlap,
};
use super::windows::Windows;

/// One step's samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) times_ms: &'a [i64],
    pub(super) floats: &'a [f64],
    pub(super) starts_ms: &'a [i64],
    pub(super) histogram_times_ms: &'a [i64],
    pub(super) histograms: &'a [Arc<Histogram>],
    pub(super) histogram_starts_ms: &'a [i64],
}

impl<'a> View<'a> {
    pub(super) fn new(split: &'a Split, floats: (u32, u32), histograms: (u32, u32)) -> Self {
        let f = floats.0 as usize..floats.1 as usize;
        let h = histograms.0 as usize..histograms.1 as usize;
        Self {
            times_ms: &split.times_ms[f.clone()],
            floats: &split.floats[f.clone()],
            starts_ms: split.starts_ms.get(f).unwrap_or(&[]),
            histogram_times_ms: &split.histogram_times_ms[h.clone()],
            histograms: &split.histograms[h.clone()],
            histogram_starts_ms: split.histogram_starts_ms.get(h).unwrap_or(&[]),
        }
    }
}

/// Rolls up a series of which some windows hold histograms.
pub(super) fn roll(
    work: &Work<'_>,
    split: &Split,
    windows: &Windows,
    histogram_windows: &Windows,
    name: &str,
    notes: &mut Notes,
    out: &mut Series,
) {
    // Windows without histograms are ordinary ones.
    let only_floats = Windows {
        bounds: windows
            .bounds
            .iter()
            .zip(&histogram_windows.bounds)
            .map(|(f, h)| if h.0 == h.1 { *f } else { (f.0, f.0) })
            .collect(),
        total: windows.total,
    };
    let floats = Floats {
        times_ms: &split.times_ms,
        values: &split.floats,
        starts_ms: &split.starts_ms,
        windows: &only_floats,
        integral: false,
    };
    super::rollup_float::roll(floats, work.setting(), name, notes, &mut out.floats);
    let bounds = windows.bounds.iter().zip(&histogram_windows.bounds);
    for (step, (&f, &h)) in bounds.enumerate() {
        if h.0 == h.1 {
            continue;
        }
        let view = View::new(split, f, h);
        if let Some(point) = roll_window(work, step, view, name, notes) {
            out.set(step, work.frame.count, point);
        }
    }
}

/// The value of a function over a window that holds histograms.
fn roll_window(
    work: &Work<'_>,
    step: usize,
    view: View<'_>,
    name: &str,
    notes: &mut Notes,
) -> Option<Point> {
    let span = work.span;
    let histogram = |h: Histogram| Point::Histogram(Arc::new(h));
    match work.function {
        Function::Rate | Function::Increase | Function::Delta => {
            if !view.floats.is_empty() {
                note_mixed(notes, span, name);
                return None;
            }
            rate(work, step, view, name, notes).map(histogram)
        }
        Function::Irate | Function::Idelta => instant(work, view, name, notes),
        Function::Resets => Some(Point::Float(resets(view))),
        Function::Changes => Some(Point::Float(changes(view))),
        Function::Avg | Function::Sum => {
            if !view.floats.is_empty() {
                note_mixed(notes, span, name);
                return None;
            }
            combine(work.function, view.histograms, span, name, notes).map(histogram)
        }
        #[allow(clippy::cast_precision_loss, reason = "counts are below 2^32")]
        Function::Count => Some(Point::Float((view.floats.len() + view.histograms.len()) as f64)),
        Function::Present => Some(Point::Float(1.0)),
        Function::First => Some(match (view.times_ms.first(), view.histogram_times_ms[0]) {
            (Some(&t), h) if t < h => Point::Float(view.floats[0]),
            _ => Point::Histogram(Arc::clone(&view.histograms[0])),
        }),
        Function::Last => {
            let last = view.histograms.len() - 1;
            Some(match (view.times_ms.last(), view.histogram_times_ms[last]) {
                (Some(&t), h) if h < t => Point::Float(view.floats[view.floats.len() - 1]),
                _ => Point::Histogram(Arc::clone(&view.histograms[last])),
            })
        }
        Function::TsOfFirst => {
            let h = view.histogram_times_ms[0];
            Some(Point::Float(seconds(view.times_ms.first().map_or(h, |t| h.min(*t)))))
        }
        Function::TsOfLast => {
            let h = view.histogram_times_ms[view.histograms.len() - 1];
            Some(Point::Float(seconds(view.times_ms.last().map_or(h, |t| h.max(*t)))))
        }
        Function::Deriv
        | Function::PredictLinear
        | Function::DoubleExponentialSmoothing
        | Function::Min
        | Function::Max
        | Function::Quantile
        | Function::Stddev
        | Function::Stdvar
        | Function::Mad
        | Function::TsOfMin
        | Function::TsOfMax => floats_only(work, step, view, name, notes),
    }
}

/// Functions that look at the floats and pass over the histograms.
fn floats_only(
    work: &Work<'_>,
    step: usize,
    view: View<'_>,
    name: &str,
    notes: &mut Notes,
) -> Option<Point> {
    if view.floats.is_empty() {
        return None;
    }
    note_ignored_in_range(notes, work.span, name);
    let end = u32::try_from(view.floats.len()).unwrap_or(u32::MAX);
    let windows = Windows { bounds: vec![(0, end)], total: u64::from(end) };
    let params: Vec<_> =
        work.params.iter().map(|p| super::scalar::Scalar::Constant(p.at(step))).collect();
    let setting = super::rollup_float::Setting {
        ends_ms: &work.ends_ms[step..=step],
        steps_ms: &work.steps_ms[step..=step],
        params: &params,
        ..work.setting()
    };
    let floats = Floats {
        times_ms: view.times_ms,
        values: view.floats,
        starts_ms: view.starts_ms,
        windows: &windows,
        integral: false,
    };
    let mut out = Vec::with_capacity(1);
    super::rollup_float::roll(floats, setting, name, notes, &mut out);
    let value = out.first().copied().unwrap_or(ABSENT);
    is_present(value).then_some(Point::Float(value))
}

/// rate, increase and delta of histograms.
fn rate(
    work: &Work<'_>,
    step: usize,
    view: View<'_>,
    name: &str,
    notes: &mut Notes,
) -> Option<Histogram> {
    let (times, starts) = (view.histogram_times_ms, view.histogram_starts_ms);
    let is_counter = work.function.is_counter();
    let starts = if is_counter { starts } else { &[] };
    let last = times.len() - 1;
    let mut result = if last > 0 {
        Some(change(view, starts, is_counter, work.span, name, notes)?)
    } else {
        None
    };
    let end_ms = work.ends_ms[step];
    let start_ms = end_ms - work.range_ms;
    let edges =
        Edges { first_ms: times[0], last_ms: times[last], start_ms, end_ms, samples: times.len() };
    let first = &view.histograms[0];
    let started = starts.first().copied().filter(|s| *s != 0 && *s > start_ms && *s < times[0]);
    let mut factor = match (started, &mut result) {
        (Some(started), result) => {
            match result {
                None => *result = Some(first.as_ref().clone()),
                Some(sum) => match sum.add(first) {
                    Ok(r) if r.bounds => note_bounds(notes, work.span, "addition"),
                    Ok(_) => {}
                    Err(_) => {
                        note_mixed_schemas(notes, work.span, name);
                        return None;
                    }
                },
            }
            edges.factor_since(started)
        }
        (None, None) => return None,
        (None, Some(sum)) => {
            let zero = (is_counter && sum.count > 0.0 && first.count >= 0.0)
                .then(|| first.count / sum.count);
            edges.factor(zero)
        }
    };
    if work.function == Function::Rate {
        factor /= duration_s(work.range_ms);
    }
    let mut result = result?;
    result.mul(factor);
    Some(result)
}

/// Last minus first plus what resets lost.
fn change(
    view: View<'_>,
    starts: &[i64],
    is_counter: bool,
    span: Span,
    name: &str,
    notes: &mut Notes,
) -> Option<Histogram> {
    let (points, times) = (view.histograms, view.histogram_times_ms);
    let end = points.len() - 1;
    let (last, first) = (&points[end], &points[0]);
    let is_gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    if is_counter && (is_gauge(first) || is_gauge(last)) {
        note_not_counter(notes, span, name);
    }
    let start_reset = |i: usize| {
        starts.len() > i && is_start_reset(starts[i - 1], times[i - 1], starts[i], times[i])
    };
    // With a reset behind it, nothing of the first sample counts.
    let blank;
    let mut previous: &Histogram = first;
    if is_counter && (start_reset(1) || points[1].is_reset_after(previous)) {
        blank = Histogram {
            schema: points[1].schema,
            custom_values: points[1].custom_values.clone(),
            ..Histogram::default()
        };
        previous = &blank;
    }
    let custom = previous.uses_custom_buckets();
    if last.uses_custom_buckets() != custom {
        note_mixed_schemas(notes, span, name);
        return None;
    }
    let mut schema = last.schema.min(previous.schema);
    if is_counter {
        for point in &points[1..end] {
            if is_gauge(point) {
                note_not_counter(notes, span, name);
            }
            schema = schema.min(point.schema);
            if point.uses_custom_buckets() != custom {
                note_mixed_schemas(notes, span, name);
                return None;
            }
        }
    }
    let mut result = last.as_ref().clone();
    result.reduce_resolution(schema);
    match result.sub(previous) {
        Ok(r) if r.bounds => note_bounds(notes, span, "subtraction"),
        Ok(_) => {}
        Err(_) => {
            note_mixed_schemas(notes, span, name);
            return None;
        }
    }
    if is_counter {
        let mut overlaps = false;
        for (i, point) in points.iter().enumerate().skip(1) {
            if !overlaps
                && starts.len() > i
                && starts_overlap(starts[i - 1], times[i - 1], starts[i])
            {
                note_overlap(notes, span, name);
                overlaps = true;
            }
            if start_reset(i) || point.is_reset_after(previous) {
                match result.add(previous) {
                    Ok(r) if r.bounds => note_bounds(notes, span, "addition"),
                    Ok(_) => {}
                    Err(_) => {
                        note_mixed_schemas(notes, span, name);
                        return None;
                    }
                }
            }
            previous = point;
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        note_not_gauge(notes, span, name);
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    result.compact(0);
    Some(result)
}

/// A sample of either kind.
struct Sample<'a> {
    time_ms: i64,
    start_ms: i64,
    float: f64,
    histogram: Option<&'a Arc<Histogram>>,
}

/// The samples of both lanes from `first_float` and `first_histogram` on, by time.
fn in_order(view: View<'_>) -> impl Iterator<Item = Sample<'_>> {
    let (mut f, mut h) = (0, 0);
    std::iter::from_fn(move || {
        let float = view.times_ms.get(f).copied();
        let histogram = view.histogram_times_ms.get(h).copied();
        let take_float = match (float, histogram) {
            (None, None) => return None,
            (Some(f), Some(h)) => f < h,
            (Some(_), None) => true,
            (None, Some(_)) => false,
        };
        if take_float {
            f += 1;
            Some(Sample {
                time_ms: view.times_ms[f - 1],
                start_ms: view.starts_ms.get(f - 1).copied().unwrap_or(0),
                float: view.floats[f - 1],
                histogram: None,
            })
        } else {
            h += 1;
            Some(Sample {
                time_ms: view.histogram_times_ms[h - 1],
                start_ms: view.histogram_starts_ms.get(h - 1).copied().unwrap_or(0),
                float: 0.0,
                histogram: Some(&view.histograms[h - 1]),
            })
        }
    })
}

/// Counter resets among samples of both kinds; a change of kind is one.
pub(super) fn resets(view: View<'_>) -> f64 {
    pairs(view, |a, b| {
        let by_start = is_start_reset(a.start_ms, a.time_ms, b.start_ms, b.time_ms);
        match (a.histogram, b.histogram) {
            (None, None) => b.float < a.float || by_start,
            (Some(p), Some(q)) => by_start || q.is_reset_after(p),
            _ => true,
        }
    })
}

/// Changes among samples of both kinds; a change of kind is one.
pub(super) fn changes(view: View<'_>) -> f64 {
    pairs(view, |a, b| match (a.histogram, b.histogram) {
        (None, None) => a.float != b.float && !(a.float.is_nan() && b.float.is_nan()),
        (Some(p), Some(q)) => !q.same_data(p),
        _ => true,
    })
}

fn pairs(view: View<'_>, holds: impl Fn(&Sample<'_>, &Sample<'_>) -> bool) -> f64 {
    let mut n = 0.0;
    let mut before: Option<Sample<'_>> = None;
    for sample in in_order(view) {
        if before.as_ref().is_some_and(|b| holds(b, &sample)) {
            n += 1.0;
        }
        before = Some(sample);
    }
    n
}

/// irate and idelta: the last two samples, if they are of one kind.
fn instant(work: &Work<'_>, view: View<'_>, name: &str, notes: &mut Notes) -> Option<Point> {
    if view.floats.len() + view.histograms.len() < 2 {
        return None;
    }
    let is_rate = work.function == Function::Irate;
    let span = work.span;
    let mut samples: Vec<Sample<'_>> = in_order(view).collect();
    let (last, previous) = (samples.pop()?, samples.pop()?);
    let interval_s = seconds(last.time_ms - previous.time_ms);
    if interval_s == 0.0 {
        return None;
    }
    let by_start = is_start_reset(previous.start_ms, previous.time_ms, last.start_ms, last.time_ms);
    match (previous.histogram, last.histogram) {
        (None, None) => {
            let reset = is_rate && (last.float < previous.float || by_start);
            let change = if reset { last.float } else { last.float - previous.float };
            Some(Point::Float(if is_rate { change / interval_s } else { change }))
        }
        (Some(p), Some(q)) => {
            let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
            if is_rate && (gauge(p) || gauge(q)) {
                note_not_counter(notes, span, name);
            }
            if !is_rate && !(gauge(p) && gauge(q)) {
                note_not_gauge(notes, span, name);
            }
            let mut result = q.as_ref().clone();
            if !is_rate || !(by_start || q.is_reset_after(p)) {
                match result.sub(p) {
                    Ok(r) if r.bounds => note_bounds(notes, span, "subtraction"),
                    Ok(_) => {}
                    Err(_) => {
                        note_mixed_schemas(notes, span, name);
                        return None;
                    }
                }
            }
            result.counter_reset_hint = CounterResetHint::Gauge;
            result.compact(0);
            if is_rate {
                result.div(interval_s);
            }
            Some(Point::Histogram(Arc::new(result)))
        }
        _ => {
            note_mixed(notes, span, name);
            None
        }
    }
}

/// Sum or mean of histograms.
fn combine(
    function: Function,
    histograms: &[Arc<Histogram>],
    span: Span,
    name: &str,
    notes: &mut Notes,
) -> Option<Histogram> {
    let mut hints = Hints::default();
    histograms.iter().for_each(|h| hints.see(h));
    let mut bounds = false;
    let result = if function == Function::Sum {
        let mut sum = Sum::new(&histograms[0]);
        histograms[1..]
            .iter()
            .try_for_each(|h| sum.add(h).map(|r| bounds |= r.bounds))
            .map(|()| sum.finish())
    } else {
        let mut mean = Mean::new(&histograms[0]);
        histograms[1..]
            .iter()
            .try_for_each(|h| mean.add(h).map(|r| bounds |= r.bounds))
            .map(|()| mean.finish())
    };
    let Ok(result) = result else {
        note_mixed_schemas(notes, span, name);
        return None;
    };
    if hints.collide() {
        note_collision(notes, span, "aggregation");
    }
    if bounds {
        note_bounds(notes, span, "aggregation");
    }
    Some(result)
}

/// What an inner query gives says nothing of the samples between its steps, so
/// "reset" and "not reset" are forgotten.
pub(super) fn without_reset_hint(h: &Arc<Histogram>) -> Arc<Histogram> {
    match h.counter_reset_hint {
        CounterResetHint::Reset | CounterResetHint::NotReset => {
            let mut h = h.as_ref().clone();
            h.counter_reset_hint = CounterResetHint::Unknown;
            Arc::new(h)
        }
        CounterResetHint::Unknown | CounterResetHint::Gauge => Arc::clone(h),
    }
}
