//! `anchored` and `smoothed`: ranges whose edges are samples.
//!
//! Anchored, the last sample at or before the left end stands for it;
//! smoothed, both ends are interpolated between the samples around them. The
//! windows given here reach a look-back further, so that those are in view.

use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram, IncompatibleSchemas};

use crate::ast::{Extension, Span};
use crate::plan::Selector;

use super::hist::{note_bounds, note_mixed, note_mixed_schemas, note_not_counter, note_not_gauge};
use super::lanes::{Frame, Point, Series, index};
use super::notes::Notes;
use super::range_hist::{View, changes, resets};
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
        let view = View::new(split, f, h);
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
            Function::Resets => anchored_view(view, edges).map(|v| Point::Float(resets(v))),
            Function::Changes => anchored_view(view, edges).map(|v| Point::Float(changes(v))),
            _ if !view.floats.is_empty() && !view.histograms.is_empty() => {
                note_mixed(notes, work.span, name);
                None
            }
            _ if !view.floats.is_empty() => {
                rate(work, view.times_ms, view.floats, edges).map(Point::Float)
            }
            _ => {
                let mut about = About { notes: &mut *notes, span: work.span, name };
                histogram_rate(work, view, edges, &mut about).map(|h| Point::Histogram(Arc::new(h)))
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

/// What annotations need to know.
struct About<'a> {
    notes: &'a mut Notes,
    span: Span,
    name: &'a str,
}

impl About<'_> {
    fn mixed_schemas(&mut self) {
        note_mixed_schemas(self.notes, self.span, self.name);
    }

    /// Adds or subtracts; `None` if the histograms do not fit.
    fn add(&mut self, base: &mut Histogram, other: &Histogram) -> Option<()> {
        match base.add(other) {
            Ok(r) if r.bounds => note_bounds(self.notes, self.span, "addition"),
            Ok(_) => {}
            Err(IncompatibleSchemas) => {
                self.mixed_schemas();
                return None;
            }
        }
        Some(())
    }

    fn sub(&mut self, base: &mut Histogram, other: &Histogram) -> Option<()> {
        match base.sub(other) {
            Ok(r) if r.bounds => note_bounds(self.notes, self.span, "subtraction"),
            Ok(_) => {}
            Err(IncompatibleSchemas) => {
                self.mixed_schemas();
                return None;
            }
        }
        Some(())
    }

    fn between(
        &mut self,
        a: (i64, &Histogram),
        b: (i64, &Histogram),
        at: i64,
        is_counter: bool,
    ) -> Option<Histogram> {
        if at == a.0 {
            return Some(a.1.clone());
        }
        if at == b.0 {
            return Some(b.1.clone());
        }
        #[allow(clippy::cast_precision_loss, reason = "durations are below 2^53 ms")]
        let fraction = (at - a.0) as f64 / (b.0 - a.0) as f64;
        let mut result = b.1.clone();
        if is_counter && b.1.is_reset_after(a.1) {
            result.mul(fraction);
            return Some(result);
        }
        self.sub(&mut result, a.1)?;
        result.mul(fraction);
        self.add(&mut result, a.1)?;
        Some(result)
    }
}

fn histogram_rate(
    work: &Work<'_>,
    view: View<'_>,
    range: Range,
    about: &mut About<'_>,
) -> Option<Histogram> {
    let (times, h) = (view.histogram_times_ms, view.histograms);
    let (first, last) = range.edges(times)?;
    let is_counter = work.function.is_counter();
    let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let custom = h[first].uses_custom_buckets();
    // A smoothed range that lies before all later samples may end at its first.
    for sample in h.get(first..=last).unwrap_or(&[]) {
        if sample.uses_custom_buckets() != custom {
            about.mixed_schemas();
            return None;
        }
        if is_counter && gauge(sample) {
            note_not_counter(about.notes, about.span, about.name);
        }
    }
    let sample = |i: usize| (times[i], h[i].as_ref());
    let left = if range.smoothed && times[first] < range.start_ms {
        about.between(sample(first), sample(first + 1), range.start_ms, is_counter)?
    } else {
        h[first].as_ref().clone()
    };
    let right = if range.smoothed && last > 0 && times[last] > range.end_ms {
        about.between(sample(last - 1), sample(last), range.end_ms, is_counter)?
    } else {
        h[last].as_ref().clone()
    };
    if !is_counter && !(gauge(&left) && gauge(&right)) {
        note_not_gauge(about.notes, about.span, about.name);
    }
    let mut result = right.clone();
    about.sub(&mut result, &left)?;
    if is_counter
        && let Some(correction) =
            histogram_correction(times, h, (first, last), &left, &right, range, about)?
    {
        about.add(&mut result, &correction)?;
    }
    if work.function == Function::Rate {
        result.div(duration_s(work.range_ms));
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    result.compact(0);
    Some(result)
}

/// What resets between the edges lost: `None` if the histograms do not fit.
#[allow(clippy::option_option, reason = "no result, or no correction")]
fn histogram_correction(
    times: &[i64],
    h: &[Arc<Histogram>],
    (first, last): (usize, usize),
    left: &Histogram,
    right: &Histogram,
    range: Range,
    about: &mut About<'_>,
) -> Option<Option<Histogram>> {
    let mut from = first + 1;
    let mut previous = left;
    if range.smoothed && times[first] < range.start_ms && h[first + 1].is_reset_after(&h[first]) {
        // The left edge lies within this reset and has accounted for it.
        previous = &h[first + 1];
        from += 1;
    }
    // The last sample is the right edge itself.
    if from > last {
        return Some(None);
    }
    let mut correction: Option<Histogram> = None;
    let mut lost = |previous: &Histogram, about: &mut About<'_>| match &mut correction {
        None => {
            correction = Some(previous.clone());
            Some(())
        }
        Some(sum) => about.add(sum, previous),
    };
    for sample in &h[from..last] {
        if sample.is_reset_after(previous) {
            lost(previous, about)?;
        }
        previous = sample;
    }
    if right.is_reset_after(previous) {
        lost(previous, about)?;
    }
    Some(correction)
}

/// The samples after the left end and the newest one at or before it; `None`
/// if there is none after it.
fn anchored_view(view: View<'_>, range: Range) -> Option<View<'_>> {
    let floats = view.times_ms.partition_point(|t| *t <= range.start_ms);
    let histograms = view.histogram_times_ms.partition_point(|t| *t <= range.start_ms);
    if floats >= view.floats.len() && histograms >= view.histograms.len() {
        return None;
    }
    let (mut f, mut h) = (floats, histograms);
    match (floats.checked_sub(1), histograms.checked_sub(1)) {
        (None, None) => {}
        (Some(i), None) => f = i,
        (None, Some(j)) => h = j,
        (Some(i), Some(j)) if view.times_ms[i] >= view.histogram_times_ms[j] => f = i,
        (Some(_), Some(j)) => h = j,
    }
    Some(View {
        times_ms: &view.times_ms[f..],
        floats: &view.floats[f..],
        starts_ms: view.starts_ms.get(f..).unwrap_or(&[]),
        histogram_times_ms: &view.histogram_times_ms[h..],
        histograms: &view.histograms[h..],
        histogram_starts_ms: view.histogram_starts_ms.get(h..).unwrap_or(&[]),
    })
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
    if selection.series.is_empty() {
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
    for (reference, labels) in &selection.series {
        ev.check_alive()?;
        querier.read(*reference, first, last, &mut column)?;
        split.fill(&column, false);
        find(&split.times_ms, shape, &mut windows);
        find(&split.histogram_times_ms, shape, &mut histogram_windows);
        let mut series = Series::new(labels.clone());
        let name = labels.metric_name().unwrap_or("");
        for (step, &at) in ends.iter().enumerate() {
            let view = View::new(&split, windows.bounds[step], histogram_windows.bounds[step]);
            let mut about = About { notes: &mut ev.notes, span: selector.span, name };
            match smoothed_point(view, at, &mut about) {
                Some(Point::Float(v)) => series.set_float(step, frame.count, v),
                Some(Point::Histogram(h)) => series.histograms.push((index(step), h)),
                None => {}
            }
        }
        ev.budget.total_samples += super::samples_of(&series);
        if !series.is_vacant() {
            sink(ev, &mut series)?;
        }
    }
    ev.scratch.column = column;
    Ok(())
}

fn smoothed_point(view: View<'_>, at: i64, about: &mut About<'_>) -> Option<Point> {
    if !view.histograms.is_empty() && !view.floats.is_empty() {
        note_mixed(about.notes, about.span, about.name);
        return None;
    }
    let keep = |h: &Histogram| Some(Point::Histogram(Arc::new(h.clone())));
    if view.histograms.is_empty() {
        let i = view.times_ms.partition_point(|t| *t < at);
        let sample = |i: usize| (view.times_ms[i], view.floats[i]);
        return match view.times_ms.get(i) {
            Some(&t) if t == at => Some(Point::Float(view.floats[i])),
            Some(_) if i > 0 => Some(Point::Float(between(sample(i - 1), sample(i), at, false))),
            None if i > 0 => Some(Point::Float(view.floats[i - 1])),
            _ => None,
        };
    }
    let (times, h) = (view.histogram_times_ms, view.histograms);
    let i = times.partition_point(|t| *t < at);
    match times.get(i) {
        Some(&t) if t == at => keep(&h[i]),
        Some(_) if i > 0 => {
            let (a, b) = (&h[i - 1], &h[i]);
            if a.uses_custom_buckets() != b.uses_custom_buckets() {
                about.notes.warn(
                    about.span,
                    format!(
                        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                        super::notes::quoted(about.name)
                    ),
                );
                return None;
            }
            let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
            let is_counter = !(gauge(a) && gauge(b));
            about
                .between((times[i - 1], a), (times[i], b), at, is_counter)
                .map(|h| Point::Histogram(Arc::new(h)))
        }
        None if i > 0 => {
            let mut last = h[i - 1].as_ref().clone();
            last.counter_reset_hint = CounterResetHint::Unknown;
            keep(&last)
        }
        _ => None,
    }
}
