//! Aggregations that make one series per group: `sum`, `avg` and the like.
//!
//! Inputs arrive one series at a time and are added to the running values of
//! their group, step by step, in the order of the series.

use std::collections::HashMap;
use std::sync::Arc;

use narthex_storage::histogram::Histogram;
use narthex_storage::labels::{Labels, METRIC_NAME};

use crate::ast::{AggregateOp, Grouping};
use crate::histogram::{Aggregation, AggregationKind, Findings};
use crate::plan::{Aggregate, Node};

use super::arith::{kahan, quantile};
use super::hist::note_findings;
use super::lanes::{ABSENT, Batch, Frame, RESERVED, Series, index, is_present};
use super::notes::Notes;
use super::{Eval, QueryError};

impl AggregateOp {
    /// Whether it makes one series per group, labelled by the grouping.
    pub(crate) fn is_plain(self) -> bool {
        !matches!(
            self,
            Self::Topk | Self::Bottomk | Self::Limitk | Self::LimitRatio | Self::CountValues
        )
    }

    /// Whether it looks at which values there are, not at what they are.
    fn counts_only(self) -> bool {
        matches!(self, Self::Count | Self::Group)
    }

    /// The name in annotations.
    fn name(self) -> &'static str {
        match self {
            Self::Stdvar => "stdvar",
            Self::Stddev => "stddev",
            Self::Quantile => "quantile",
            Self::Min => "min",
            Self::Max => "max",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            _ => "",
        }
    }

    pub(super) fn note_ignored(self, notes: &mut Notes, span: crate::ast::Span) {
        notes.info(span, format!("ignored histogram in {} aggregation", self.name()));
    }
}

/// Gives series the labels of their group.
pub(super) struct Grouper<'g> {
    without: bool,
    names: Vec<&'g str>,
    /// The same for series whose names are gone but still written down.
    nameless: Vec<&'g str>,
}

impl<'g> Grouper<'g> {
    pub(super) fn new(grouping: &'g Grouping) -> Self {
        let names = || grouping.labels.iter().map(String::as_str);
        if grouping.without {
            Self {
                without: true,
                names: names().chain([METRIC_NAME]).collect(),
                nameless: names().chain(RESERVED).collect(),
            }
        } else {
            Self {
                without: false,
                names: names().collect(),
                nameless: names().filter(|n| !RESERVED.contains(n)).collect(),
            }
        }
    }

    /// Replaces `key` by the bytes of [`Self::labels`].
    fn key(&self, series: &Series, key: &mut Vec<u8>) {
        let names = if series.nameless { &self.nameless } else { &self.names };
        key.clear();
        if self.without {
            series.labels.push_undropped(names, key);
        } else if !names.is_empty() {
            series.labels.push_kept(names, key);
        }
    }

    pub(super) fn labels(&self, series: &Series) -> Labels {
        let names = if series.nameless { &self.nameless } else { &self.names };
        if self.without {
            series.labels.drop(names)
        } else if names.is_empty() {
            Labels::empty()
        } else {
            series.labels.keep(names)
        }
    }
}

impl Eval<'_> {
    pub(super) fn aggregate(&mut self, a: &Aggregate, frame: Frame) -> Result<Batch, QueryError> {
        match a.op {
            AggregateOp::CountValues => return self.count_values(a, frame),
            op if !op.is_plain() => return self.ranked(a, frame),
            _ => {}
        }
        let param = match &a.param {
            Some(param) => Some(self.scalar(param, frame)?),
            None => None,
        };
        let grouper = Grouper::new(&a.grouping);
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut key = Vec::new();
        // Neighbours are often of one group.
        let mut last = 0;
        let mut add = |ev: &mut Eval<'_>, series: &mut Series| {
            grouper.key(series, &mut key);
            let is_last = groups.get(last).is_some_and(|g| g.labels.as_bytes() == key);
            let known = if is_last { Some(last) } else { places.get(&key[..]).copied() };
            let place = match known {
                Some(place) => place,
                None => {
                    ev.budget.take(frame.count * 24)?;
                    let key = grouper.labels(series);
                    places.insert(key.clone(), groups.len());
                    groups.push(Group::new(key, a.op));
                    groups.len() - 1
                }
            };
            last = place;
            if a.op == AggregateOp::Quantile {
                ev.budget.take(series.floats.len() * 8)?;
            }
            groups[place].add(a, frame.count, series, &mut ev.notes);
            Ok(())
        };
        let before = self.budget.bytes;
        match &a.node {
            Node::Select(selector) if a.op.counts_only() => {
                self.stream_presence(selector, frame, &mut add)?;
            }
            node => self.stream(node, frame, &mut add)?,
        }
        if let (AggregateOp::Quantile, Some(q)) = (a.op, &param) {
            super::ranked::note_quantile_range(q, frame, a.param_span, &mut self.notes);
        }
        let held = self.budget.bytes.saturating_sub(before);
        self.budget.give_back(held);
        let mut out = Batch::with_capacity(groups.len());
        for group in groups {
            let series = group.finish(a, frame, param.as_ref(), &mut self.notes);
            if !series.is_vacant() {
                out.push(series);
            }
        }
        Ok(out)
    }
}

/// The running values of a group.
struct Group {
    labels: Labels,
    op: AggregateOp,
    drop_name: bool,
    /// Sum, extreme, or sum of squared distances; [`ABSENT`] before the first
    /// value of a step.
    values: Vec<f64>,
    /// What rounding lost of the sum; the mean of stddev.
    lost: Vec<f64>,
    counts: Vec<f64>,
    /// The means of steps whose sum overflowed.
    means: HashMap<usize, f64>,
    /// quantile: all values of a step.
    all: Vec<Vec<f64>>,
    histograms: HashMap<usize, HistogramState>,
}

/// The histograms of a group at one step.
enum HistogramState {
    Combined(Box<Aggregation>),
    /// Floats came first: the group has no value.
    Mixed,
    /// Exponential and custom buckets met, perhaps after floats; what comes
    /// later does not count.
    Incompatible {
        after_floats: bool,
    },
}

impl Group {
    fn new(labels: Labels, op: AggregateOp) -> Self {
        Self {
            labels,
            op,
            drop_name: false,
            values: Vec::new(),
            lost: Vec::new(),
            counts: Vec::new(),
            means: HashMap::new(),
            all: Vec::new(),
            histograms: HashMap::new(),
        }
    }

    fn add(&mut self, a: &Aggregate, count: usize, series: &Series, notes: &mut Notes) {
        self.drop_name |= series.drop_name;
        if !series.floats.is_empty() {
            self.add_floats(count, &series.floats);
        }
        for (step, h) in &series.histograms {
            self.add_histogram(a, count, *step as usize, h, series, notes);
        }
    }

    /// Adds a float lane.
    fn add_floats(&mut self, count: usize, floats: &[f64]) {
        match self.op {
            AggregateOp::Sum => self.add_sum(count, floats),
            AggregateOp::Avg => self.add_mean(count, floats),
            AggregateOp::Count | AggregateOp::Group => {
                self.values.resize(count, ABSENT);
                let grouped = self.op == AggregateOp::Group;
                for (out, v) in self.values.iter_mut().zip(floats) {
                    if is_present(*v) {
                        *out = if grouped || !is_present(*out) { 1.0 } else { *out + 1.0 };
                    }
                }
            }
            AggregateOp::Min => self.add_extreme(count, floats, |new, old| new < old),
            AggregateOp::Max => self.add_extreme(count, floats, |new, old| new > old),
            AggregateOp::Stddev | AggregateOp::Stdvar => self.add_variance(count, floats),
            AggregateOp::Quantile => {
                self.all.resize(count, Vec::new());
                for (all, v) in self.all.iter_mut().zip(floats) {
                    if is_present(*v) {
                        all.push(*v);
                    }
                }
            }
            op => debug_assert!(false, "BUG: {op:?} is no plain aggregation"),
        }
    }

    fn add_sum(&mut self, count: usize, floats: &[f64]) {
        if self.values.is_empty() {
            self.values.extend_from_slice(floats);
            self.lost.resize(count, 0.0);
            return;
        }
        for ((sum, c), v) in self.values.iter_mut().zip(&mut self.lost).zip(floats) {
            if !is_present(*v) {
                continue;
            }
            if is_present(*sum) {
                (*sum, *c) = kahan(*v, *sum, *c);
            } else {
                *sum = *v;
            }
        }
    }

    fn add_mean(&mut self, count: usize, floats: &[f64]) {
        if self.values.is_empty() {
            self.values.resize(count, ABSENT);
            self.lost.resize(count, 0.0);
            self.counts.resize(count, 0.0);
        }
        for (step, v) in floats.iter().enumerate() {
            if !is_present(*v) {
                continue;
            }
            self.counts[step] += 1.0;
            let n = self.counts[step];
            let (sum, c) = (&mut self.values[step], &mut self.lost[step]);
            if !is_present(*sum) {
                *sum = *v;
                continue;
            }
            let mean = match self.means.get(&step) {
                Some(mean) => *mean,
                None => {
                    let (new, new_c) = kahan(*v, *sum, *c);
                    if !new.is_infinite() {
                        (*sum, *c) = (new, new_c);
                        continue;
                    }
                    *c /= n - 1.0;
                    *sum / (n - 1.0)
                }
            };
            let q = (n - 1.0) / n;
            let (new, new_c) = kahan(v / n, q * mean, q * *c);
            *c = new_c;
            self.means.insert(step, new);
        }
    }

    fn add_extreme(&mut self, count: usize, floats: &[f64], better: impl Fn(f64, f64) -> bool) {
        if self.values.is_empty() {
            self.values.extend_from_slice(floats);
            self.values.resize(count, ABSENT);
            return;
        }
        for (out, v) in self.values.iter_mut().zip(floats) {
            if is_present(*v) && (out.is_nan() || better(*v, *out)) {
                *out = *v;
            }
        }
    }

    /// Welford's method; not compensated, as in Prometheus.
    fn add_variance(&mut self, count: usize, floats: &[f64]) {
        if self.values.is_empty() {
            self.values.resize(count, ABSENT);
            self.lost.resize(count, 0.0);
            self.counts.resize(count, 0.0);
        }
        for (step, v) in floats.iter().enumerate() {
            if !is_present(*v) {
                continue;
            }
            self.counts[step] += 1.0;
            if !is_present(self.values[step]) {
                self.values[step] = if v.is_finite() { 0.0 } else { f64::NAN };
                self.lost[step] = *v;
                continue;
            }
            let mean = &mut self.lost[step];
            let delta = v - *mean;
            *mean += delta / self.counts[step];
            self.values[step] += delta * (v - *mean);
        }
    }

    fn add_histogram(
        &mut self,
        a: &Aggregate,
        count: usize,
        step: usize,
        h: &Arc<Histogram>,
        series: &Series,
        notes: &mut Notes,
    ) {
        match self.op {
            AggregateOp::Count | AggregateOp::Group => {
                self.values.resize(count, ABSENT);
                let out = &mut self.values[step];
                let first = self.op == AggregateOp::Group || !is_present(*out);
                *out = if first { 1.0 } else { *out + 1.0 };
            }
            AggregateOp::Sum | AggregateOp::Avg => {
                self.combine_histogram(a, step, h, series, notes);
            }
            op => op.note_ignored(notes, a.inner_span),
        }
    }

    fn combine_histogram(
        &mut self,
        a: &Aggregate,
        step: usize,
        h: &Arc<Histogram>,
        series: &Series,
        notes: &mut Notes,
    ) {
        let has_float = self.values.get(step).is_some_and(|v| is_present(*v));
        let kind = match self.op {
            AggregateOp::Avg => AggregationKind::Average,
            _ => AggregationKind::Sum,
        };
        let Some(state) = self.histograms.get_mut(&step) else {
            let state = if has_float {
                HistogramState::Mixed
            } else {
                HistogramState::Combined(Box::new(Aggregation::new(kind, h)))
            };
            self.histograms.insert(step, state);
            return;
        };
        let HistogramState::Combined(aggregation) = state else { return };
        if aggregation.add(h).is_err() {
            let name = series.labels.metric_name().unwrap_or("");
            let findings = Findings { mixed_schemas: true, ..without_collision(aggregation) };
            note_findings(notes, a.inner_span, name, &findings);
            *state = HistogramState::Incompatible { after_floats: has_float };
        }
    }

    fn finish(
        mut self,
        a: &Aggregate,
        frame: Frame,
        param: Option<&super::scalar::Scalar>,
        notes: &mut Notes,
    ) -> Series {
        let mut series = Series { drop_name: self.drop_name, ..Series::new(self.labels) };
        match self.op {
            AggregateOp::Sum => {
                for (sum, c) in self.values.iter_mut().zip(&self.lost) {
                    if is_present(*sum) {
                        *sum += c;
                    }
                }
            }
            AggregateOp::Avg => {
                for (step, sum) in self.values.iter_mut().enumerate() {
                    if !is_present(*sum) {
                        continue;
                    }
                    let (c, n) = (self.lost[step], self.counts[step]);
                    *sum = match self.means.get(&step) {
                        Some(mean) => mean + c,
                        None => *sum / n + c / n,
                    };
                }
            }
            AggregateOp::Stdvar | AggregateOp::Stddev => {
                for (v, n) in self.values.iter_mut().zip(&self.counts) {
                    if is_present(*v) {
                        *v /= n;
                        if self.op == AggregateOp::Stddev {
                            *v = v.sqrt();
                        }
                    }
                }
            }
            AggregateOp::Quantile => {
                let q = |step| param.map_or(f64::NAN, |p| p.at(step));
                self.values = self
                    .all
                    .iter_mut()
                    .enumerate()
                    .map(|(step, all)| if all.is_empty() { ABSENT } else { quantile(q(step), all) })
                    .collect();
            }
            _ => {}
        }
        series.floats = self.values;
        let mut steps: Vec<_> = self.histograms.into_iter().collect();
        steps.sort_unstable_by_key(|(step, _)| *step);
        for (step, state) in steps {
            settle(a, frame, step, state, &mut series, notes);
        }
        series
    }
}

/// Puts the histogram of a step into the result, unless floats are there too.
fn settle(
    a: &Aggregate,
    frame: Frame,
    step: usize,
    state: HistogramState,
    series: &mut Series,
    notes: &mut Notes,
) {
    debug_assert!(step < frame.count, "BUG: step {step} of {}", frame.count);
    let has_float = is_present(series.float(step));
    if has_float {
        series.floats[step] = ABSENT;
    }
    let mixed = match state {
        HistogramState::Incompatible { after_floats } => after_floats,
        _ => has_float,
    };
    if mixed {
        notes.warn(a.inner_span, "encountered a mix of histograms and floats for aggregation");
    }
    let HistogramState::Combined(aggregation) = state else { return };
    if mixed {
        note_findings(notes, a.inner_span, "", &without_collision(&aggregation));
        return;
    }
    note_findings(notes, a.inner_span, "", &aggregation.findings());
    let mut h = aggregation.finish();
    h.compact(0);
    series.histograms.push((index(step), Arc::new(h)));
}

/// What was found, less contradicting hints: they matter for a result only.
fn without_collision(aggregation: &Aggregation) -> Findings {
    let mut findings = aggregation.findings();
    findings.collided.aggregation = false;
    findings
}
