//! `anchored` and `smoothed`: ranges whose edges are samples.
//!
//! Anchored, the last sample at or before the left end stands for it;
//! smoothed, both ends are interpolated between the samples around them. The
//! windows given here reach a look-back further, so that those are in view.

use std::sync::Arc;

use crate::ast::Extension;
use crate::histogram::{Findings, Samples, Window, changes, extended_rate, resets, smoothed_at};
use crate::plan::Selector;

use super::hist::{note_findings, note_mixed};
use super::lanes::{Frame, Point, Series, index};
use super::notes::Notes;
use super::range_hist::{number, rate_of, samples_of};
use super::rollup::{Split, Work};
use super::rollup_float::{Function, duration_s};
use super::windows::{Shape, Windows, find};
use super::{Eval, QueryError, Sink};

/// Rolls up a series over extended windows.
pub(super) fn roll(
    work: &Work<'_>,
    split: &Split,
    windows: &Windows,
    histogram_windows: &Windows,
    name: &str,
    notes: &mut Notes,
    out: &mut Series,
) -> Result<(), QueryError> {
    let bounds = windows.bounds.iter().zip(&histogram_windows.bounds);
    for (step, (&f, &h)) in bounds.enumerate() {
        let view = samples_of(split, f, h);
        if view.floats.is_empty() && view.histograms.is_empty() {
            continue;
        }
        let end_ms = work.ends_ms[step];
        let edges = Range {
            start_ms: end_ms - work.range_ms,
            end_ms,
            smoothed: work.extension == Extension::Smoothed,
        };
        let point = match work.function {
            Function::Resets => view.anchored(edges.start_ms).map(|v| number(resets(v))),
            Function::Changes => view.anchored(edges.start_ms).map(|v| number(changes(v))),
            _ if !view.floats.is_empty() && !view.histograms.is_empty() => {
                note_mixed(notes, work.span, name);
                None
            }
            _ if !view.floats.is_empty() => {
                rate(work, view.float_times_ms, view.floats, edges).map(Point::Float)
            }
            _ => {
                let window = Window {
                    times_ms: view.histogram_times_ms,
                    histograms: view.histograms,
                    starts_ms: &[],
                    start_ms: edges.start_ms,
                    end_ms,
                };
                let mut findings = Findings::default();
                let rate = rate_of(work.function);
                let result = extended_rate(window, rate, edges.smoothed, &mut findings);
                note_findings(notes, work.span, name, &findings);
                result.map(|h| Point::Histogram(Arc::new(h)))
            }
        };
        if let Some(point) = point {
            out.set(step, work.frame.count, point);
        }
    }
    Ok(())
}

/// A range and how its edges are found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) smoothed: bool,
}

impl Range {
    /// The samples that stand for the left and right end.
    fn edges(&self, times: &[i64]) -> Option<(usize, usize)> {
        let mut last = times.len() - 1;
        let first = times[..last].partition_point(|t| *t <= self.start_ms).saturating_sub(1);
        if self.smoothed {
            last = times[..last].partition_point(|t| *t < self.end_ms);
        }
        let empty = times[last] <= self.start_ms || self.smoothed && times[first] > self.end_ms;
        (!empty).then_some((first, last))
    }
}

/// The value at `at` on the line between two samples; a counter that fell
/// started again at 0.
fn between(a: (i64, f64), b: (i64, f64), at: i64, is_counter: bool) -> f64 {
    let start = if is_counter && b.1 < a.1 { 0.0 } else { a.1 };
    #[allow(clippy::cast_precision_loss, reason = "durations are below 2^53 ms")]
    let (part, whole) = ((at - a.0) as f64, (b.0 - a.0) as f64);
    start + (b.1 - start) * part / whole
}

/// The values at both edges of the range.
fn edge_values(
    times: &[i64],
    values: &[f64],
    range: Range,
    (first, last): (usize, usize),
    is_counter: bool,
) -> (f64, f64) {
    let sample = |i: usize| (times[i], values[i]);
    let left = if range.smoothed && times[first] < range.start_ms {
        between(sample(first), sample(first + 1), range.start_ms, is_counter)
    } else {
        values[first]
    };
    let right = if range.smoothed && last > 0 && times[last] > range.end_ms {
        between(sample(last - 1), sample(last), range.end_ms, is_counter)
    } else {
        values[last]
    };
    (left, right)
}

fn rate(work: &Work<'_>, times: &[i64], values: &[f64], range: Range) -> Option<f64> {
    let (mut first, mut last) = range.edges(times)?;
    let is_counter = work.function.is_counter();
    let (left, right) = edge_values(times, values, range, (first, last), is_counter);
    let mut result = right - left;
    if is_counter {
        if times[first] <= range.start_ms {
            first += 1;
        }
        // May end before it begins; then nothing lies between the edges.
        let end = if times[last] >= range.end_ms { last } else { last + 1 };
        last = end;
        let inner = values.get(first..last).unwrap_or(&[]);
        let mut correction = 0.0;
        let mut previous = left;
        for &v in inner {
            if v < previous {
                correction += previous;
            }
            previous = v;
        }
        if right < previous {
            correction += previous;
        }
        result += correction;
    }
    if work.function == Function::Rate {
        result /= duration_s(work.range_ms);
    }
    Some(result)
}

/// The samples of an anchored or smoothed range vector that is the answer
/// itself: its edges, and what lies between.
pub(super) fn extend_floats(times: &[i64], values: &[f64], range: Range) -> Vec<(i64, f64)> {
    if times.is_empty() {
        return Vec::new();
    }
    let mut last = times.len() - 1;
    let mut first = times[..last].partition_point(|t| *t <= range.start_ms).saturating_sub(1);
    if range.smoothed {
        last = times[..last].partition_point(|t| *t < range.end_ms);
    }
    if times[last] <= range.start_ms {
        return Vec::new();
    }
    let (left, right) = edge_values(times, values, range, (first, last), false);
    if times[first] <= range.start_ms {
        first += 1;
    }
    let end = if times[last] >= range.end_ms { last } else { last + 1 };
    let mut out = vec![(range.start_ms, left)];
    let inner = times.get(first..end).unwrap_or(&[]);
    out.extend(inner.iter().zip(values.get(first..end).unwrap_or(&[])).map(|(t, v)| (*t, *v)));
    out.push((range.end_ms, right));
    out
}

/// `selector smoothed` as an instant vector: interpolated between the samples
/// around each step.
pub(super) fn stream_smoothed(
    ev: &mut Eval<'_>,
    selector: &Selector,
    frame: Frame,
    sink: Sink<'_>,
) -> Result<(), QueryError> {
    let selection = ev.selection(&selector.matchers)?;
    if selection.series().is_empty() {
        return Ok(());
    }
    let querier = ev.querier()?;
    let lookback_ms = ev.lookback_ms;
    let ends: Vec<i64> = frame.times().map(|t| selector.reference(t)).collect();
    let (first, last) =
        crate::plan::selector_range(selector, frame.start_ms, frame.end_ms(), 0, lookback_ms);
    let shape = Shape { ends_ms: &ends, before_ms: lookback_ms, after_ms: lookback_ms };
    let (mut windows, mut histogram_windows) = (Windows::default(), Windows::default());
    let mut split = Split::default();
    let mut column = std::mem::take(&mut ev.scratch.column);
    for (reference, labels) in selection.series() {
        ev.check_alive()?;
        querier.read(*reference, first, last, &mut column)?;
        split.fill(&column, false);
        find(&split.times_ms, shape, &mut windows);
        find(&split.histogram_times_ms, shape, &mut histogram_windows);
        let mut series = Series::new(labels.clone());
        let name = labels.metric_name().unwrap_or("");
        for (step, &at) in ends.iter().enumerate() {
            let view = samples_of(&split, windows.bounds[step], histogram_windows.bounds[step]);
            if !view.histograms.is_empty() && !view.floats.is_empty() {
                note_mixed(&mut ev.notes, selector.span, name);
                continue;
            }
            let mut findings = Findings::default();
            let point = smoothed_point(view, at, &mut findings);
            note_findings(&mut ev.notes, selector.span, name, &findings);
            match point {
                Some(Point::Float(v)) => series.set_float(step, frame.count, v),
                Some(Point::Histogram(h)) => series.histograms.push((index(step), h)),
                None => {}
            }
        }
        let samples = super::samples_of(&series);
        ev.budget.count_samples(samples, |step| super::samples_at(&series, step));
        if !series.is_vacant() {
            sink(ev, &mut series)?;
        }
    }
    ev.scratch.column = column;
    Ok(())
}

fn smoothed_point(view: Samples<'_>, at: i64, findings: &mut Findings) -> Option<Point> {
    if !view.histograms.is_empty() {
        return smoothed_at(view.histogram_times_ms, view.histograms, at, findings)
            .map(Point::Histogram);
    }
    let i = view.float_times_ms.partition_point(|t| *t < at);
    let sample = |i: usize| (view.float_times_ms[i], view.floats[i]);
    match view.float_times_ms.get(i) {
        Some(&t) if t == at => Some(Point::Float(view.floats[i])),
        Some(_) if i > 0 => Some(Point::Float(between(sample(i - 1), sample(i), at, false))),
        None if i > 0 => Some(Point::Float(view.floats[i - 1])),
        _ => None,
    }
}
