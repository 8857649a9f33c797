//! Instant vectors from the storage: for each step the newest sample within
//! the look-back, unless it is a staleness marker.

use std::sync::Arc;

use narthex_storage::labels::Labels;
use narthex_storage::read::{Column, Querier, SeriesRef};

use crate::ast::Extension;
use crate::histogram::StatsReader;
use crate::plan::Selector;

use super::ahead::{PROBES, Shares, in_order};
use super::lanes::{ABSENT, Frame, Series, index, is_present};
use super::rollup::Read;
use super::windows::{NONE, PerAxis, find_last};
use super::{Eval, QueryError, Sink, extended};

/// Buffers that queries reuse between selectors.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) column: Column,
}

/// What a selector gives for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// The sample's value.
    Value,
    /// The same, but any number in place of a float.
    Presence,
    /// The sample's time in seconds (`timestamp()`).
    Time,
    /// The sample's start timestamp in seconds (`start_timestamp()`).
    Start,
    /// The sample's time in milliseconds; only floats (`info()`).
    Millis,
}

impl Eval<'_> {
    pub(super) fn stream_select(
        &mut self,
        selector: &Selector,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        if selector.extension == Extension::Smoothed {
            return extended::stream_smoothed(self, selector, frame, sink);
        }
        self.stream_newest(selector, frame, Take::Value, sink)
    }

    /// As [`Self::stream_select`] for a sink that does not look at the values
    /// of floats.
    pub(super) fn stream_presence(
        &mut self,
        selector: &Selector,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        if selector.extension == Extension::Smoothed {
            return extended::stream_smoothed(self, selector, frame, sink);
        }
        self.stream_newest(selector, frame, Take::Presence, sink)
    }

    /// Streams, for each series, something about its newest sample at each step.
    pub(super) fn stream_newest(
        &mut self,
        selector: &Selector,
        frame: Frame,
        take: Take,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let selection = self.selection(&selector.matchers)?;
        if selection.series().is_empty() {
            return Ok(());
        }
        let querier = self.querier()?;
        let at: Vec<i64> = frame.times().map(|t| selector.reference(t)).collect();
        let lookback_ms = self.lookback_ms;
        let (first, last) =
            crate::plan::selector_range(selector, frame.start_ms, frame.end_ms(), 0, lookback_ms);
        let reading =
            Reading { selector, querier: &*querier, first, last, at: &at, lookback_ms, take };
        let column = std::mem::take(&mut self.scratch.column);
        let mut state = State { column, newest: PerAxis::default() };
        let mut series = Series::default();
        let (all, mut samples) = (selection.series(), 0);
        for (i, one) in all.iter().enumerate() {
            if i == PROBES
                && let Some(shares) = self.shares(all.len() - i, samples / i, at.len())
            {
                self.scratch.column = state.column;
                return self.newest_shared(&reading, &all[i..], shares, sink);
            }
            let Some(read) = reading.newest(one, &mut state, &mut series)? else { continue };
            samples += read.samples;
            self.budget.check_alive_at(read.samples.max(at.len()))?;
            self.take_newest(read, &one.1, &mut series, sink)?;
        }
        self.scratch.column = state.column;
        Ok(())
    }

    /// As [`Self::stream_newest`] for many series, with the help of other threads.
    fn newest_shared(
        &mut self,
        reading: &Reading<'_>,
        all: &[(SeriesRef, Labels)],
        shares: Shares,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let helper = self.budget.helper();
        in_order(
            shares,
            || (State::default(), helper.start()),
            |(state, budget), i| {
                let mut series = Series::default();
                let read = reading.newest(&all[i], state, &mut series)?;
                budget.check_alive_at(reading.at.len())?;
                Ok(read.map(|read| (series, read)))
            },
            |i, found| {
                let Some((mut series, read)) = found else { return Ok(()) };
                self.budget.check_alive_at(read.samples.max(reading.at.len()))?;
                self.take_newest(read, &all[i].1, &mut series, sink)
            },
        )
    }

    fn take_newest(
        &mut self,
        read: Read,
        labels: &Labels,
        series: &mut Series,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        self.steps_are_linked |= read.has_histograms;
        if series.is_vacant() {
            return Ok(());
        }
        let samples = super::samples_of(series);
        self.budget.count_samples(samples, |step| super::samples_at(series, step));
        self.budget.check_size(samples, 0)?;
        series.labels = labels.clone();
        sink(self, series)
    }
}

/// What the series of one selector are read with.
struct Reading<'r> {
    selector: &'r Selector,
    querier: &'r dyn Querier,
    /// Both included, in milliseconds.
    first: i64,
    last: i64,
    /// The time of each step, in milliseconds.
    at: &'r [i64],
    lookback_ms: i64,
    take: Take,
}

/// What a thread keeps from series to series.
#[derive(Default)]
struct State {
    column: Column,
    newest: PerAxis<Vec<u32>>,
}

impl Reading<'_> {
    /// Reads a series and leaves its newest samples in `out`; `None` if it has
    /// none at all.
    fn newest(
        &self,
        (reference, labels): &(SeriesRef, Labels),
        State { column, newest }: &mut State,
        out: &mut Series,
    ) -> Result<Option<Read>, QueryError> {
        match self.take {
            Take::Presence | Take::Time => {
                self.querier.read_presence(*reference, self.first, self.last, column)?;
            }
            _ => self.querier.read(*reference, self.first, self.last, column)?,
        }
        if column.is_empty() {
            return Ok(None);
        }
        let read = Read { samples: column.len(), has_histograms: !column.histograms.is_empty() };
        strip(self.selector, column);
        if self.take == Take::Millis && read.has_histograms {
            return Err(QueryError::Execution(format!(
                "this should be an info metric, with float samples: {labels}"
            )));
        }
        let places = newest.get(column, || {
            let mut out = Vec::with_capacity(self.at.len());
            find_last(column.timestamps(), self.at, self.lookback_ms, &mut out);
            out
        });
        out.drop_name = false;
        out.nameless = false;
        out.histograms.clear();
        out.floats.clear();
        pick(column, places, self.take, out);
        Ok(Some(read))
    }
}

/// Leaves count and sum of a column's histograms, if no more is needed.
pub(super) fn strip(selector: &Selector, column: &mut Column) {
    if selector.stats_only && !column.histograms.is_empty() {
        let mut reader = StatsReader::new();
        for (_, h) in &mut column.histograms {
            *h = reader.next(h);
        }
    }
}

/// Copies the samples at `places` into the series' lanes. Markers become
/// [`ABSENT`] by themselves: it has the same bits.
fn pick(column: &Column, places: &[u32], take: Take, out: &mut Series) {
    let at = |place: u32| place as usize;
    if column.histograms.is_empty() {
        match take {
            Take::Value | Take::Presence => out.floats.extend(
                places.iter().map(|&p| if p == NONE { ABSENT } else { column.floats[at(p)] }),
            ),
            Take::Time | Take::Start | Take::Millis => {
                out.floats.extend(places.iter().map(|&p| {
                    if p == NONE || !is_present(column.floats[at(p)]) {
                        ABSENT
                    } else {
                        moment(column, at(p), take)
                    }
                }));
            }
        }
        return;
    }
    for (step, &p) in places.iter().enumerate() {
        if p == NONE {
            continue;
        }
        let histogram = column
            .histograms
            .binary_search_by_key(&p, |(place, _)| *place)
            .ok()
            .map(|i| &column.histograms[i].1);
        match histogram {
            Some(h) if h.is_stale() => {}
            Some(h) if matches!(take, Take::Value | Take::Presence) => {
                out.histograms.push((index(step), Arc::clone(h)))
            }
            Some(_) => out.set_float(step, places.len(), moment(column, at(p), take)),
            None if !is_present(column.floats[at(p)]) => {}
            None if matches!(take, Take::Value | Take::Presence) => {
                out.set_float(step, places.len(), column.floats[at(p)]);
            }
            None => out.set_float(step, places.len(), moment(column, at(p), take)),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "times are below 2^53 ms")]
fn moment(column: &Column, place: usize, take: Take) -> f64 {
    match take {
        Take::Start => column.starts_ms.get(place).copied().unwrap_or(0) as f64 / 1000.0,
        Take::Millis => column.timestamps()[place] as f64,
        Take::Time | Take::Value | Take::Presence => column.timestamps()[place] as f64 / 1000.0,
    }
}
