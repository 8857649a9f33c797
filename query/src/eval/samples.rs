//! Range vectors as the answer itself: raw samples with their own times.

use narthex_storage::read::Column;

use crate::ast::Extension;
use crate::plan::{Node, RangeVector, Selector, Source};
use crate::value::MatrixSeries;

use super::extended::{Range, extend_floats};
use super::lanes::{Frame, drop_reserved, histogram_samples, is_present};
use super::rollup::Split;
use super::{Eval, QueryError};

impl Eval<'_> {
    /// The samples of a range vector, for an instant query.
    pub(crate) fn samples(
        &mut self,
        node: &Node,
        frame: Frame,
    ) -> Result<Vec<MatrixSeries>, QueryError> {
        match node {
            Node::Samples(range) => match &range.source {
                Source::Storage(selector) => self.stored_samples(range, selector, frame),
                Source::Subquery(subquery) => {
                    let (inner, batch) = self.subquery_steps(subquery, range, frame)?;
                    let delayed = self.delayed();
                    let series = batch.into_iter().map(|series| {
                        let floats = series
                            .floats
                            .iter()
                            .enumerate()
                            .filter(|(_, v)| is_present(**v))
                            .map(|(i, v)| (inner.time(i), *v))
                            .collect();
                        let histograms = series
                            .histograms
                            .iter()
                            .map(|(i, h)| (inner.time(*i as usize), h.clone()))
                            .collect();
                        let labels = if delayed && series.drop_name {
                            drop_reserved(&series.labels)
                        } else {
                            series.labels
                        };
                        MatrixSeries { labels, floats, histograms }
                    });
                    Ok(series
                        .filter(|s| !(s.floats.is_empty() && s.histograms.is_empty()))
                        .collect())
                }
            },
            Node::Invariant(inner) => self.samples(inner, frame),
            Node::Shared(_, inner) => self.samples(inner, frame),
            _ => Err(QueryError::execution("expected a range vector")),
        }
    }

    fn stored_samples(
        &mut self,
        range: &RangeVector,
        selector: &Selector,
        frame: Frame,
    ) -> Result<Vec<MatrixSeries>, QueryError> {
        let selection = self.selection(&selector.matchers)?;
        if selection.series().is_empty() {
            return Ok(Vec::new());
        }
        let querier = self.querier()?;
        let time_ms = frame.start_ms;
        let (first, last) = crate::plan::selector_range(
            selector,
            time_ms,
            time_ms,
            range.range_ms,
            self.lookback_ms,
        );
        let end_ms = selector.reference(time_ms);
        let edges = Range {
            start_ms: end_ms.saturating_sub(range.range_ms),
            end_ms,
            smoothed: selector.extension == Extension::Smoothed,
        };
        let mut column = Column::new();
        let mut split = Split::default();
        let mut out = Vec::new();
        for (reference, labels) in selection.series() {
            self.check_alive()?;
            querier.read(*reference, first, last, &mut column)?;
            split.fill(&column, false);
            let floats: Vec<(i64, f64)> = if selector.extension == Extension::None {
                split.times_ms.iter().copied().zip(split.floats.iter().copied()).collect()
            } else {
                let name = if edges.smoothed { "smoothed" } else { "anchored" };
                if !split.histograms.is_empty() {
                    return Err(QueryError::Execution(format!(
                        "{name} modifier is not supported with histograms"
                    )));
                }
                extend_floats(&split.times_ms, &split.floats, edges)
            };
            let histograms: Vec<_> = split
                .histogram_times_ms
                .iter()
                .copied()
                .zip(split.histograms.iter().cloned())
                .collect();
            if floats.is_empty() && histograms.is_empty() {
                continue;
            }
            let samples = floats.len() as u64
                + histograms.iter().map(|(_, h)| histogram_samples(h)).sum::<u64>();
            self.budget.count_samples(samples, |_| samples);
            self.budget.samples += samples;
            self.budget.peak_samples = self.budget.peak_samples.max(self.budget.samples);
            self.budget.bytes += floats.len() * 16;
            self.budget.check_size(0, 0)?;
            out.push(MatrixSeries { labels: labels.clone(), floats, histograms });
        }
        Ok(out)
    }
}
