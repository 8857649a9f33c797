//! Functions over range vectors: one series in, one series out.

use std::sync::Arc;

use narthex_storage::histogram::Histogram;
use narthex_storage::labels::{Labels, METRIC_NAME};
use narthex_storage::read::{Column, Querier, SeriesRef};
use narthex_storage::sample::is_stale;

use crate::ast::{Extension, Span};
use crate::plan::{Rollup, Selector, Source};

use super::ahead::{PROBES, Shares, in_order};
use super::lanes::{Batch, Frame, Series, is_present};
use super::notes::{Notes, quoted};
use super::rollup_float::{Floats, Function, Setting, roll, spreads};
use super::scalar::Scalar;
use super::select::strip;
use super::windows::{PerAxis, Shape, Windows, find};
use super::{Budget, Eval, QueryError, Sink, extended, lanes, range_hist};

/// The functions that `anchored` and `smoothed` may be used with.
const ANCHORED: [Function; 5] =
    [Function::Changes, Function::Delta, Function::Increase, Function::Rate, Function::Resets];
const SMOOTHED: [Function; 3] = [Function::Delta, Function::Increase, Function::Rate];

/// A series' samples, split by kind, without staleness markers.
#[derive(Debug, Default)]
pub(super) struct Split {
    pub(super) times_ms: Vec<i64>,
    pub(super) floats: Vec<f64>,
    pub(super) starts_ms: Vec<i64>,
    pub(super) histogram_times_ms: Vec<i64>,
    pub(super) histograms: Vec<Arc<Histogram>>,
    pub(super) histogram_starts_ms: Vec<i64>,
}

impl Split {
    fn clear(&mut self) {
        self.times_ms.clear();
        self.floats.clear();
        self.starts_ms.clear();
        self.histogram_times_ms.clear();
        self.histograms.clear();
        self.histogram_starts_ms.clear();
    }

    /// Takes over a column's samples.
    pub(super) fn fill(&mut self, column: &Column, with_starts: bool) {
        self.clear();
        let starts = if with_starts { &column.starts_ms[..] } else { &[] };
        let mut histograms = column.histograms.iter().peekable();
        for (i, &time) in column.timestamps().iter().enumerate() {
            if let Some((_, h)) = histograms.next_if(|(place, _)| *place as usize == i) {
                if !h.is_stale() {
                    self.histogram_times_ms.push(time);
                    self.histograms.push(Arc::clone(h));
                    self.histogram_starts_ms.extend(starts.get(i));
                }
            } else if !is_stale(column.floats[i]) {
                self.times_ms.push(time);
                self.floats.push(column.floats[i]);
                self.starts_ms.extend(starts.get(i));
            }
        }
    }

    /// Takes over the steps of an inner query.
    pub(super) fn fill_steps(&mut self, series: &Series, times_ms: &[i64]) {
        self.clear();
        for (&time, &value) in times_ms.iter().zip(&series.floats) {
            if is_present(value) {
                self.times_ms.push(time);
                self.floats.push(value);
            }
        }
        for (step, h) in &series.histograms {
            self.histogram_times_ms.push(times_ms[*step as usize]);
            self.histograms.push(range_hist::without_reset_hint(h));
        }
    }
}

/// What stays the same for all series of a rollup.
pub(super) struct Work<'r> {
    pub(super) function: Function,
    pub(super) frame: Frame,
    pub(super) range_ms: i64,
    pub(super) extension: Extension,
    pub(super) lookback_ms: i64,
    pub(super) ends_ms: Vec<i64>,
    pub(super) steps_ms: Vec<i64>,
    pub(super) params: Vec<Scalar>,
    pub(super) span: Span,
    pub(super) rollup: &'r Rollup,
    pub(super) delayed: bool,
}

impl Work<'_> {
    pub(super) fn setting(&self) -> Setting<'_> {
        Setting {
            function: self.function,
            range_ms: self.range_ms,
            ends_ms: &self.ends_ms,
            steps_ms: &self.steps_ms,
            params: &self.params,
            span: self.span,
        }
    }

    fn shape(&self) -> Shape<'_> {
        let (before, after) = match self.extension {
            Extension::None => (0, 0),
            Extension::Anchored => (self.lookback_ms, 0),
            Extension::Smoothed => (self.lookback_ms, self.lookback_ms),
        };
        let before_ms = self.range_ms.saturating_add(before);
        Shape { ends_ms: &self.ends_ms, before_ms, after_ms: after }
    }

    fn keeps_name(&self) -> bool {
        matches!(self.function, Function::First | Function::Last)
    }
}

/// What the series of one selector are read with.
struct Reading<'r> {
    selector: &'r Selector,
    querier: &'r dyn Querier,
    /// Both included, in milliseconds.
    first: i64,
    last: i64,
    /// Values do not matter.
    presence: bool,
    use_starts: bool,
}

/// What a thread keeps from series to series.
#[derive(Default)]
struct State {
    column: Column,
    per_axis: PerAxis<Windows>,
    buffers: Buffers,
}

/// What a series had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) samples: usize,
    pub(super) has_histograms: bool,
}

impl Reading<'_> {
    /// Reads a series and rolls it up into `out`; `None` if it has no samples.
    fn roll(
        &self,
        work: &Work<'_>,
        (reference, labels): &(SeriesRef, Labels),
        state: &mut State,
        budget: &mut Budget,
        notes: &mut Notes,
        out: &mut Series,
    ) -> Result<Option<Read>, QueryError> {
        let State { column, per_axis, buffers } = state;
        if self.presence {
            self.querier.read_presence(*reference, self.first, self.last, column)?;
        } else {
            self.querier.read(*reference, self.first, self.last, column)?;
        }
        if column.is_empty() {
            return Ok(None);
        }
        let read = Read { samples: column.len(), has_histograms: !column.histograms.is_empty() };
        strip(self.selector, column);
        out.floats.clear();
        out.histograms.clear();
        let starts = self.use_starts;
        roll_column(work, column, starts, labels, per_axis, buffers, budget, notes, out)?;
        Ok(Some(read))
    }
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) split: Split,
    windows: Windows,
    histogram_windows: Windows,
}

impl Eval<'_> {
    pub(super) fn stream_rollup(
        &mut self,
        rollup: &Rollup,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let work = self.rollup_work(rollup, frame)?;
        match &rollup.range.source {
            Source::Storage(selector) => self.roll_storage(&work, selector, sink),
            Source::Subquery(subquery) => {
                let (inner, batch) = self.subquery_steps(subquery, &rollup.range, frame)?;
                self.roll_batch(&work, inner, batch, sink)
            }
        }
    }

    fn rollup_work<'r>(
        &mut self,
        rollup: &'r Rollup,
        frame: Frame,
    ) -> Result<Work<'r>, QueryError> {
        let function = Function::by_name(rollup.function).ok_or_else(|| {
            QueryError::execution(format!("unknown function with range: {}", rollup.function))
        })?;
        let extension = rollup.range.extension();
        let allowed = match extension {
            Extension::None => None,
            Extension::Anchored => (!ANCHORED.contains(&function))
                .then_some(("anchored", "changes, delta, increase, rate, resets")),
            Extension::Smoothed => {
                (!SMOOTHED.contains(&function)).then_some(("smoothed", "delta, increase, rate"))
            }
        };
        if let Some((modifier, functions)) = allowed {
            return Err(QueryError::Execution(format!(
                "{modifier} modifier can only be used with: {functions} - not with {}",
                rollup.function
            )));
        }
        let mut params = Vec::with_capacity(rollup.params.len());
        for param in &rollup.params {
            params.push(self.scalar(param, frame)?);
        }
        Ok(Work {
            function,
            frame,
            range_ms: rollup.range.range_ms,
            extension,
            lookback_ms: self.lookback_ms,
            ends_ms: frame.times().map(|t| rollup.range.reference(t)).collect(),
            steps_ms: frame.times().collect(),
            params,
            span: rollup.first_span,
            rollup,
            delayed: self.delayed(),
        })
    }

    fn roll_storage(
        &mut self,
        work: &Work<'_>,
        selector: &Selector,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let selection = self.selection(&selector.matchers)?;
        if selection.series().is_empty() {
            return Ok(());
        }
        let querier = self.querier()?;
        let (first, last) = crate::plan::selector_range(
            selector,
            work.frame.start_ms,
            work.frame.end_ms(),
            work.range_ms,
            self.lookback_ms,
        );
        let mut names = Names::new(work, selection.may_collide);
        let presence = work.function.counts_only() && work.extension == Extension::None;
        let use_starts = self.options.use_start_timestamps;
        let reading = Reading { selector, querier: &*querier, first, last, presence, use_starts };
        let mut state =
            State { column: std::mem::take(&mut self.scratch.column), ..State::default() };
        let mut series = Series::default();
        let (all, mut samples) = (selection.series(), 0);
        for (i, one) in all.iter().enumerate() {
            if i == PROBES
                && let Some(shares) = self.shares(all.len() - i, samples / i, work.frame.count)
            {
                self.scratch.column = state.column;
                return self.roll_shared(work, &reading, &all[i..], shares, names, sink);
            }
            self.check_alive()?;
            let Self { budget, notes, .. } = self;
            let Some(read) = reading.roll(work, one, &mut state, budget, notes, &mut series)?
            else {
                continue;
            };
            samples += read.samples;
            self.note_read(read)?;
            if names.finish(work, &one.1, false, &mut series, &mut self.notes)? {
                sink(self, &mut series)?;
            }
        }
        self.scratch.column = state.column;
        Ok(())
    }

    /// As [`Self::roll_storage`] for many series, with the help of other threads.
    fn roll_shared(
        &mut self,
        work: &Work<'_>,
        reading: &Reading<'_>,
        all: &[(SeriesRef, Labels)],
        shares: Shares,
        mut names: Names,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let helper = self.budget.helper();
        let state = || (State::default(), helper.start());
        in_order(
            shares,
            state,
            |(state, budget), i| {
                budget.check_alive()?;
                let (mut series, mut notes) = (Series::default(), Notes::default());
                let read = reading.roll(work, &all[i], state, budget, &mut notes, &mut series)?;
                let looked_at = std::mem::take(&mut budget.total_samples);
                Ok(read.map(|read| (series, read, looked_at, notes)))
            },
            |i, rolled| {
                self.check_alive()?;
                let Some((mut series, read, looked_at, notes)) = rolled else { return Ok(()) };
                self.budget.total_samples += looked_at;
                self.notes.merge(notes);
                self.note_read(read)?;
                if names.finish(work, &all[i].1, false, &mut series, &mut self.notes)? {
                    sink(self, &mut series)?;
                }
                Ok(())
            },
        )
    }

    /// Notes what was read of a series.
    pub(super) fn note_read(&mut self, read: Read) -> Result<(), QueryError> {
        self.steps_are_linked |= read.has_histograms;
        self.budget.check_size(read.samples as u64, 0)
    }

    /// Rolls up the series of an inner query.
    fn roll_batch(
        &mut self,
        work: &Work<'_>,
        inner: Frame,
        batch: Batch,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let times: Vec<i64> = inner.times().collect();
        let mut all_steps = Windows::default();
        find(&times, work.shape(), &mut all_steps);
        let mut names = Names::new(work, true);
        let mut buffers = Buffers::default();
        let mut out = Series::default();
        for series in batch {
            self.check_alive()?;
            self.release(&series);
            out.floats.clear();
            out.histograms.clear();
            let complete =
                series.histograms.is_empty() && series.floats.iter().all(|v| is_present(*v));
            if complete {
                let floats = Floats {
                    times_ms: &times,
                    values: &series.floats,
                    starts_ms: &[],
                    windows: &all_steps,
                    integral: false,
                };
                let name = series.labels.metric_name().unwrap_or("");
                roll(floats, work.setting(), name, &mut self.notes, &mut out.floats);
                count_windows(&mut self.budget, &all_steps);
            } else {
                buffers.split.fill_steps(&series, &times);
                let Self { budget, notes, .. } = self;
                roll_split(work, &series.labels, &mut buffers, budget, notes, &mut out)?;
            }
            if names.finish(work, &series.labels, series.drop_name, &mut out, &mut self.notes)? {
                sink(self, &mut out)?;
            }
        }
        Ok(())
    }
}

/// Counts the samples in the windows of the steps.
fn count_windows(budget: &mut Budget, windows: &Windows) {
    budget.count_samples(windows.total, |step| {
        windows.bounds.get(step).map_or(0, |(a, b)| u64::from(b - a))
    });
}

/// Rolls up one column.
#[allow(clippy::too_many_arguments, reason = "the state of a scan, split by borrower")]
fn roll_column(
    work: &Work<'_>,
    column: &Column,
    use_starts: bool,
    labels: &Labels,
    per_axis: &mut PerAxis<Windows>,
    buffers: &mut Buffers,
    budget: &mut Budget,
    notes: &mut Notes,
    out: &mut Series,
) -> Result<(), QueryError> {
    let with_starts = use_starts && work.function.uses_starts();
    let plain = work.extension == Extension::None
        && column.histograms.is_empty()
        && !(column.may_be_stale && column.floats.iter().any(|v| is_stale(*v)));
    if !plain {
        buffers.split.fill(column, with_starts);
        return roll_split(work, labels, buffers, budget, notes, out);
    }
    let windows = per_axis.get(column, || {
        let mut windows = Windows::default();
        find(column.timestamps(), work.shape(), &mut windows);
        if matches!(work.function, Function::Rate | Function::Increase | Function::Delta) {
            windows.spreads = spreads(column.timestamps(), &windows.bounds, work.setting());
        }
        windows
    });
    if windows.total == 0 {
        return Ok(());
    }
    count_windows(budget, windows);
    check_smoothing(work, windows)?;
    let floats = Floats {
        times_ms: column.timestamps(),
        values: &column.floats,
        starts_ms: if with_starts { &column.starts_ms } else { &[] },
        windows,
        integral: column.integral,
    };
    let name = labels.metric_name().unwrap_or("");
    roll(floats, work.setting(), name, notes, &mut out.floats);
    Ok(())
}

/// Rolls up samples of any kind.
fn roll_split(
    work: &Work<'_>,
    labels: &Labels,
    buffers: &mut Buffers,
    budget: &mut Budget,
    notes: &mut Notes,
    out: &mut Series,
) -> Result<(), QueryError> {
    let Buffers { split, windows, histogram_windows } = buffers;
    find(&split.times_ms, work.shape(), windows);
    find(&split.histogram_times_ms, work.shape(), histogram_windows);
    let name = labels.metric_name().unwrap_or("");
    count_windows(budget, windows);
    let of_window = |(a, b): (u32, u32)| -> u64 {
        split.histograms[a as usize..b as usize].iter().map(|h| lanes::histogram_samples(h)).sum()
    };
    if histogram_windows.total > 0 {
        let at = |step: usize| histogram_windows.bounds.get(step).map_or(0, |w| of_window(*w));
        let total = histogram_windows.bounds.iter().map(|w| of_window(*w)).sum();
        budget.count_samples(total, at);
    }
    if windows.total > 0 {
        check_smoothing(work, windows)?;
    }
    if work.extension != Extension::None {
        extended::roll(work, split, windows, histogram_windows, name, notes, out)?;
    } else if histogram_windows.total == 0 {
        if windows.total > 0 {
            let floats = Floats {
                times_ms: &split.times_ms,
                values: &split.floats,
                starts_ms: &split.starts_ms,
                windows,
                integral: false,
            };
            roll(floats, work.setting(), name, notes, &mut out.floats);
        }
    } else {
        range_hist::roll(work, split, windows, histogram_windows, name, notes, out);
    }
    Ok(())
}

/// The factors of double exponential smoothing are checked where they are used.
fn check_smoothing(work: &Work<'_>, windows: &Windows) -> Result<(), QueryError> {
    if work.function != Function::DoubleExponentialSmoothing {
        return Ok(());
    }
    for (step, (a, b)) in windows.bounds.iter().enumerate() {
        if a == b {
            continue;
        }
        for (param, what) in work.params.iter().zip(["smoothing", "trend"]) {
            let value = param.at(step);
            if value <= 0.0 || value >= 1.0 {
                let letter = if what == "smoothing" { "sf" } else { "tf" };
                return Err(QueryError::Execution(format!(
                    "invalid {what} factor. Expected: 0 < {letter} < 1, got: {value:.6}"
                )));
            }
        }
    }
    Ok(())
}

/// Gives output series their labels.
struct Names {
    /// The labels given out so far, if two could be equal.
    seen: Option<std::collections::HashSet<Labels>>,
    noted: String,
}

impl Names {
    fn new(work: &Work<'_>, may_collide: bool) -> Self {
        let check = may_collide && !work.keeps_name() && !work.delayed;
        Self { seen: check.then(Default::default), noted: String::new() }
    }

    /// Names the output of a series; false if it has no value.
    fn finish(
        &mut self,
        work: &Work<'_>,
        labels: &Labels,
        input_drops: bool,
        out: &mut Series,
        notes: &mut Notes,
    ) -> Result<bool, QueryError> {
        let has_floats = out.floats.iter().any(|v| is_present(*v));
        if !has_floats && out.histograms.is_empty() {
            return Ok(false);
        }
        if !has_floats {
            out.floats.clear();
        }
        let drops = !work.keeps_name() || input_drops;
        out.drop_name = drops;
        out.labels = labels.clone();
        out.nameless = drops && !work.delayed;
        if has_floats && work.function.is_counter() {
            self.note_not_counter(work, labels, notes);
        }
        if let Some(seen) = &mut self.seen {
            out.settle_name();
            if !seen.insert(out.labels.clone()) {
                return Err(QueryError::same_labelset());
            }
        }
        Ok(true)
    }

    fn note_not_counter(&mut self, work: &Work<'_>, labels: &Labels, notes: &mut Notes) {
        let Some(name) = labels.get(METRIC_NAME) else { return };
        let span = work.rollup.range.span;
        if work.rollup.type_labels {
            let kind = labels.get("__type__").unwrap_or("");
            if kind != "counter" && kind != "histogram" {
                notes.info(
                    span,
                    format!(
                        "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                        quoted(kind),
                        quoted(name)
                    ),
                );
            }
            return;
        }
        if name == self.noted
            || ["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s))
        {
            return;
        }
        name.clone_into(&mut self.noted);
        notes.info(
            span,
            format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                quoted(name)
            ),
        );
    }
}
