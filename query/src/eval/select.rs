//! Instant vectors from the storage: for each step the newest sample within
//! the look-back, unless it is a staleness marker.

use std::sync::Arc;

use narthex_storage::read::Column;

use crate::ast::Extension;
use crate::histogram::StatsReader;
use crate::plan::Selector;

use super::lanes::{ABSENT, Frame, Series, index, is_present};
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
        let mut newest: PerAxis<Vec<u32>> = PerAxis::default();
        let mut column = std::mem::take(&mut self.scratch.column);
        let mut series = Series::default();
        for (reference, labels) in selection.series() {
            match take {
                Take::Presence | Take::Time => {
                    querier.read_presence(*reference, first, last, &mut column)?;
                }
                _ => querier.read(*reference, first, last, &mut column)?,
            }
            self.budget.check_alive_at(column.len().max(at.len()))?;
            if column.is_empty() {
                continue;
            }
            self.steps_are_linked |= !column.histograms.is_empty();
            strip(selector, &mut column);
            if take == Take::Millis && !column.histograms.is_empty() {
                return Err(QueryError::Execution(format!(
                    "this should be an info metric, with float samples: {labels}"
                )));
            }
            let places = newest.get(&column, || {
                let mut out = Vec::with_capacity(at.len());
                find_last(column.timestamps(), &at, lookback_ms, &mut out);
                out
            });
            series.drop_name = false;
            series.nameless = false;
            series.histograms.clear();
            series.floats.clear();
            pick(&column, places, take, &mut series);
            if series.is_vacant() {
                continue;
            }
            let samples = super::samples_of(&series);
            self.budget.count_samples(samples, |step| super::samples_at(&series, step));
            self.budget.check_size(samples, 0)?;
            series.labels = labels.clone();
            sink(self, &mut series)?;
        }
        self.scratch.column = column;
        Ok(())
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
