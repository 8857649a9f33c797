//! `histogram_quantile` and its kin over classic and native histograms.
//!
//! Classic buckets of one histogram are found once, sorted by their bound, and
//! then read step by step.

use std::collections::HashMap;

use narthex_storage::histogram::GoFloat;
use narthex_storage::labels::Labels;

use crate::ast::Span;
use crate::histogram::{ClassicBucket, bucket_fraction, bucket_quantile, fraction, quantile};
use crate::plan::Call;

use super::lanes::{ABSENT, Batch, Frame, Series, drop_reserved, is_present, merge_equal};
use super::notes::{Monotonicity, quoted, with_name};
use super::rollup_float::note_quantile;
use super::scalar::Scalar;
use super::{Eval, QueryError};

/// The series that make up one classic histogram.
struct Classic {
    labels: Labels,
    /// Bound and place in the batch, ascending by bound.
    buckets: Vec<(f64, usize)>,
    /// The native histograms with the same labels.
    native: Option<usize>,
}

/// What is computed.
enum What {
    Quantile(Scalar, Span),
    Fraction(Scalar, Scalar),
}

impl Eval<'_> {
    pub(super) fn histogram_call(
        &mut self,
        call: &Call,
        frame: Frame,
    ) -> Result<Batch, QueryError> {
        let span = |i: usize| call.arg_spans[i];
        match call.function {
            "histogram_quantile" => {
                let q = self.scalar(&call.args[0], frame)?;
                let work = [(What::Quantile(q, span(0)), None)];
                self.histogram_values(&work, &call.args[1], span(1), frame)
            }
            "histogram_fraction" => {
                let lower = self.scalar(&call.args[0], frame)?;
                let upper = self.scalar(&call.args[1], frame)?;
                let work = [(What::Fraction(lower, upper), None)];
                self.histogram_values(&work, &call.args[2], span(2), frame)
            }
            _ => {
                let label = super::label::text(&call.args[1]).to_owned();
                let mut work = Vec::new();
                for (i, arg) in call.args.iter().enumerate().skip(2) {
                    let q = self.scalar(arg, frame)?;
                    work.push((What::Quantile(q, span(i)), Some(label.clone())));
                }
                self.histogram_values(&work, &call.args[0], span(0), frame)
            }
        }
    }

    fn histogram_values(
        &mut self,
        work: &[(What, Option<String>)],
        arg: &crate::plan::Node,
        span: Span,
        frame: Frame,
    ) -> Result<Batch, QueryError> {
        let batch = self.eval(arg, frame)?;
        for series in &batch {
            self.release(series);
        }
        for (what, _) in work {
            if let What::Quantile(q, place) = what {
                for step in 0..frame.count {
                    let q = q.at(step);
                    if q.is_nan() || !(0.0..=1.0).contains(&q) {
                        note_quantile(&mut self.notes, *place, q);
                    }
                }
            }
        }
        let classics = self.classics(&batch, span, frame);
        let mut out = Batch::new();
        for (what, label) in work {
            for (i, series) in batch.iter().enumerate().filter(|(_, s)| !s.histograms.is_empty()) {
                let rival = classics.iter().find(|c| c.native == Some(i));
                let floats = self.native_lane(what, series, rival, &batch, span, frame);
                self.push(&mut out, &series.labels, floats, what, label.as_deref(), frame);
            }
            for classic in &classics {
                self.check_alive()?;
                let floats = self.classic_lane(what, classic, &batch, span, frame);
                self.push(&mut out, &classic.labels, floats, what, label.as_deref(), frame);
            }
        }
        merge_equal(out, frame.count)
    }

    /// Sorts the buckets of the batch into histograms.
    fn classics(&mut self, batch: &[Series], span: Span, frame: Frame) -> Vec<Classic> {
        let delayed = self.delayed();
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut classics: Vec<Classic> = Vec::new();
        for (i, series) in batch.iter().enumerate() {
            if !series.floats.iter().any(|v| is_present(*v)) {
                continue;
            }
            let le = series.labels.get("le").unwrap_or("");
            let Some(bound) = parse_bound(le) else {
                let name = if delayed { series.labels.metric_name().unwrap_or("") } else { "" };
                let text = format!(
                    "bucket label \"le\" is missing or has a malformed value of {}",
                    quoted(le)
                );
                self.notes.warn(span, with_name(&text, name));
                continue;
            };
            let labels = series.labels.drop(&["le"]);
            let place = *places.entry(labels.clone()).or_insert_with(|| {
                classics.push(Classic { labels, buckets: Vec::new(), native: None });
                classics.len() - 1
            });
            classics[place].buckets.push((bound, i));
        }
        for classic in &mut classics {
            classic
                .buckets
                .sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        }
        for (i, series) in batch.iter().enumerate() {
            if series.histograms.is_empty() {
                continue;
            }
            if let Some(place) = places.get(&series.labels) {
                classics[*place].native = Some(i);
                let overlaps = (0..frame.count).any(|step| {
                    classics[*place].has(batch, step) && series.histogram(step).is_some()
                });
                if overlaps {
                    let name = if delayed { series.labels.metric_name().unwrap_or("") } else { "" };
                    let text = "vector contains a mix of classic and native histograms";
                    self.notes.warn(span, with_name(text, name));
                }
            }
        }
        classics
    }

    fn native_lane(
        &mut self,
        what: &What,
        series: &Series,
        rival: Option<&Classic>,
        batch: &[Series],
        span: Span,
        frame: Frame,
    ) -> Vec<f64> {
        let mut floats = vec![ABSENT; frame.count];
        let name = if self.delayed() {
            series.labels.metric_name().unwrap_or("").to_owned()
        } else {
            drop_reserved(&series.labels).metric_name().unwrap_or("").to_owned()
        };
        for (step, h) in &series.histograms {
            let step = *step as usize;
            if rival.is_some_and(|c| c.has(batch, step)) {
                continue;
            }
            let (value, effect) = match what {
                What::Quantile(q, _) => quantile(q.at(step), h),
                What::Fraction(lower, upper) => fraction(lower.at(step), upper.at(step), h),
            };
            if let Some(effect) = effect {
                self.notes.info(span, effect.text(&name));
            }
            floats[step] = value;
        }
        floats
    }

    fn classic_lane(
        &mut self,
        what: &What,
        classic: &Classic,
        batch: &[Series],
        span: Span,
        frame: Frame,
    ) -> Vec<f64> {
        let mut buckets: Vec<ClassicBucket> = Vec::with_capacity(classic.buckets.len());
        let mut floats = vec![ABSENT; frame.count];
        for (step, out) in floats.iter_mut().enumerate() {
            buckets.clear();
            for &(upper_bound, i) in &classic.buckets {
                let cumulative = batch[i].float(step);
                if is_present(cumulative) {
                    buckets.push(ClassicBucket { upper_bound, cumulative });
                }
            }
            let conflicts = classic.native.is_some_and(|i| batch[i].histogram(step).is_some());
            if buckets.is_empty() || conflicts {
                continue;
            }
            *out = match what {
                What::Fraction(lower, upper) => {
                    bucket_fraction(lower.at(step), upper.at(step), &mut buckets)
                }
                What::Quantile(q, _) => {
                    let (value, correction) = bucket_quantile(q.at(step), &mut buckets);
                    if let Some(c) = correction {
                        let name = if self.options.delayed_name_removal {
                            classic.labels.metric_name().unwrap_or("")
                        } else {
                            ""
                        };
                        let found = Monotonicity {
                            first_ms: frame.time(step),
                            last_ms: frame.time(step),
                            min_bucket: c.min_bound,
                            max_bucket: c.max_bound,
                            max_diff: c.max_diff,
                            samples: 1,
                        };
                        self.notes.monotonicity(span, name, found);
                    }
                    value
                }
            };
        }
        floats
    }

    /// Adds a lane to the answer; several quantiles are told apart by a label.
    fn push(
        &mut self,
        out: &mut Batch,
        labels: &Labels,
        mut floats: Vec<f64>,
        what: &What,
        label: Option<&str>,
        frame: Frame,
    ) {
        let base = if self.delayed() { labels.clone() } else { drop_reserved(labels) };
        let (Some(label), What::Quantile(q, _)) = (label, what) else {
            let series = Series { floats, drop_name: true, ..Series::new(base) };
            if !series.is_vacant() {
                out.push(series);
            }
            return;
        };
        // A quantile that changes from step to step makes a series per value.
        while let Some(first) = floats.iter().position(|v| is_present(*v)) {
            let value = q.at(first);
            let mut lane = vec![ABSENT; frame.count];
            for step in first..frame.count {
                if q.at(step).to_bits() == value.to_bits() {
                    lane[step] = std::mem::replace(&mut floats[step], ABSENT);
                }
            }
            let mut builder = base.to_builder();
            builder.set(label, &open_metrics_float(value));
            out.push(Series { floats: lane, drop_name: true, ..Series::new(builder.build()) });
        }
    }
}

impl Classic {
    /// Whether any bucket has a value.
    fn has(&self, batch: &[Series], step: usize) -> bool {
        self.buckets.iter().any(|(_, i)| is_present(batch[*i].float(step)))
    }
}

/// A bucket's bound as Go parses floats.
fn parse_bound(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|v| !v.is_nan())
}

/// A float as OpenMetrics writes it: with a point or an exponent.
fn open_metrics_float(value: f64) -> String {
    let text = GoFloat(value).to_string();
    if value.is_finite() && !text.contains(['.', 'e']) { format!("{text}.0") } else { text }
}
