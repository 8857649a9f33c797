//! Functions over ranges that hold histograms, alone or among floats.

use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram};

use crate::histogram::{
    AggregationKind, Findings, Rate, Samples, Window, changes, extrapolated_rate, instant_rate,
    is_start_reset, over_time, resets,
};

use super::hist::{note_findings, note_ignored_in_range, note_mixed};
use super::lanes::{ABSENT, Point, Series, is_present};
use super::notes::Notes;
use super::rollup::{Split, Work};
use super::rollup_float::{Floats, Function, seconds};
use super::windows::Windows;

/// One step's samples.
pub(super) fn samples_of(split: &Split, floats: (u32, u32), histograms: (u32, u32)) -> Samples<'_> {
    let f = floats.0 as usize..floats.1 as usize;
    let h = histograms.0 as usize..histograms.1 as usize;
    Samples {
        float_times_ms: &split.times_ms[f.clone()],
        floats: &split.floats[f.clone()],
        float_starts_ms: split.starts_ms.get(f).unwrap_or(&[]),
        histogram_times_ms: &split.histogram_times_ms[h.clone()],
        histograms: &split.histograms[h.clone()],
        histogram_starts_ms: split.histogram_starts_ms.get(h).unwrap_or(&[]),
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
        spreads: Vec::new(),
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
        let view = samples_of(split, f, h);
        if let Some(point) = roll_window(work, step, view, name, notes) {
            out.set(step, work.frame.count, point);
        }
    }
}

/// A number of samples as a value.
#[allow(clippy::cast_precision_loss, reason = "counts are below 2^32")]
pub(super) fn number(count: usize) -> Point {
    Point::Float(count as f64)
}

/// The value of a function over a window that holds histograms.
fn roll_window(
    work: &Work<'_>,
    step: usize,
    view: Samples<'_>,
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
        Function::Resets => Some(number(resets(view))),
        Function::Changes => Some(number(changes(view))),
        Function::Avg | Function::Sum => {
            if !view.floats.is_empty() {
                note_mixed(notes, span, name);
                return None;
            }
            let kind = match work.function {
                Function::Avg => AggregationKind::Average,
                _ => AggregationKind::Sum,
            };
            let mut findings = Findings::default();
            let result = over_time(kind, view.histograms, &mut findings);
            note_findings(notes, span, name, &findings);
            result.map(histogram)
        }
        Function::Count => Some(number(view.floats.len() + view.histograms.len())),
        Function::Present => Some(Point::Float(1.0)),
        Function::First => Some(match (view.float_times_ms.first(), view.histogram_times_ms[0]) {
            (Some(&t), h) if t < h => Point::Float(view.floats[0]),
            _ => Point::Histogram(Arc::clone(&view.histograms[0])),
        }),
        Function::Last => {
            let last = view.histograms.len() - 1;
            Some(match (view.float_times_ms.last(), view.histogram_times_ms[last]) {
                (Some(&t), h) if h < t => Point::Float(view.floats[view.floats.len() - 1]),
                _ => Point::Histogram(Arc::clone(&view.histograms[last])),
            })
        }
        Function::TsOfFirst => {
            let h = view.histogram_times_ms[0];
            Some(Point::Float(seconds(view.float_times_ms.first().map_or(h, |t| h.min(*t)))))
        }
        Function::TsOfLast => {
            let h = view.histogram_times_ms[view.histograms.len() - 1];
            Some(Point::Float(seconds(view.float_times_ms.last().map_or(h, |t| h.max(*t)))))
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
    view: Samples<'_>,
    name: &str,
    notes: &mut Notes,
) -> Option<Point> {
    if view.floats.is_empty() {
        return None;
    }
    note_ignored_in_range(notes, work.span, name);
    let end = u32::try_from(view.floats.len()).unwrap_or(u32::MAX);
    let windows = Windows { bounds: vec![(0, end)], total: u64::from(end), spreads: Vec::new() };
    let params: Vec<_> =
        work.params.iter().map(|p| super::scalar::Scalar::Constant(p.at(step))).collect();
    let setting = super::rollup_float::Setting {
        ends_ms: &work.ends_ms[step..=step],
        steps_ms: &work.steps_ms[step..=step],
        params: &params,
        ..work.setting()
    };
    let floats = Floats {
        times_ms: view.float_times_ms,
        values: view.floats,
        starts_ms: view.float_starts_ms,
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
    view: Samples<'_>,
    name: &str,
    notes: &mut Notes,
) -> Option<Histogram> {
    let end_ms = work.ends_ms[step];
    let window = Window {
        times_ms: view.histogram_times_ms,
        histograms: view.histograms,
        starts_ms: view.histogram_starts_ms,
        start_ms: end_ms - work.range_ms,
        end_ms,
    };
    let mut findings = Findings::default();
    let result = extrapolated_rate(window, rate_of(work.function), &mut findings);
    note_findings(notes, work.span, name, &findings);
    result
}

/// What a function of the rate family asks for.
pub(super) fn rate_of(function: Function) -> Rate {
    Rate {
        counter: function.is_counter() || function == Function::Irate,
        per_second: matches!(function, Function::Rate | Function::Irate),
    }
}

/// irate and idelta: the last two samples, if they are of one kind.
fn instant(work: &Work<'_>, view: Samples<'_>, name: &str, notes: &mut Notes) -> Option<Point> {
    let (mut previous, mut last) = (None, None);
    for sample in view.iter() {
        previous = last.replace(sample);
    }
    let (previous, last) = (previous?, last?);
    let interval_s = seconds(last.time_ms - previous.time_ms);
    if interval_s == 0.0 {
        return None;
    }
    let rate = rate_of(work.function);
    match (previous.histogram, last.histogram) {
        (None, None) => {
            let by_start =
                is_start_reset(previous.start_ms, previous.time_ms, last.start_ms, last.time_ms);
            let reset = rate.counter && (last.float < previous.float || by_start);
            let change = if reset { last.float } else { last.float - previous.float };
            Some(Point::Float(if rate.per_second { change / interval_s } else { change }))
        }
        (Some(p), Some(q)) => {
            let mut findings = Findings::default();
            let result = instant_rate(
                (previous.time_ms, previous.start_ms, p),
                (last.time_ms, last.start_ms, q),
                rate,
                &mut findings,
            );
            note_findings(notes, work.span, name, &findings);
            result.map(|h| Point::Histogram(Arc::new(h)))
        }
        _ => {
            note_mixed(notes, work.span, name);
            None
        }
    }
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
