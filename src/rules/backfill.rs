//! What would recording rules have recorded, had they been there? Past slots,
//! filled in.
//!
//! A rule is evaluated as a range query over a window of slots, rule after
//! rule, window after window: rules see what the rules before them in their
//! group recorded, and what all recorded in windows before. The slots are
//! those on which the server evaluates the group, so that what is there
//! already is met again and not doubled. Alerting rules are passed over:
//! nobody wants to be woken by the past.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use narthex_query::engine::{Engine, QueryOptions};
use narthex_query::value::{MatrixSeries, QueryValue, VectorSample};
use narthex_storage::append::{Appendable, SyncClass};
use narthex_storage::labels::{Labels, METRIC_NAME};
use narthex_storage::read::Queryable;
use narthex_storage::sample::Value;

use super::group::{Group, append, mark_stale};
use super::rule::{Rule, RuleKind};

/// Most slots of one query.
const WINDOW_SLOTS: i64 = 1_000;

/// What filling in stands on.
pub struct Backfill {
    /// Evaluates.
    pub engine: Engine,
    /// Holds the past.
    pub queryable: Arc<dyn Queryable>,
    /// Takes late samples, however late.
    pub appendable: Arc<dyn Appendable>,
    /// `global.rule_query_offset`, in milliseconds.
    pub query_offset_ms: i64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filled {
    /// Samples that were written, staleness markers aside.
    pub samples: u64,
    /// Samples that the storage did not take; most are there already.
    pub refused: u64,
    /// Rules that failed in a window, with the reason.
    pub failures: Vec<String>,
}

/// A window of slots, both ends included.
#[derive(Debug, Clone, Copy)]
struct Window {
    first_ms: i64,
    last_ms: i64,
    step_ms: i64,
}

impl Backfill {
    /// Fills in the slots of a group in `start_ms..=end_ms`. Blocks, for long.
    pub fn fill(&self, group: &Group, start_ms: i64, end_ms: i64) -> Filled {
        let mut filled = Filled::default();
        let step_ms = group.interval_ms();
        let first_ms = start_ms.saturating_add((group.slot_ms() - start_ms).rem_euclid(step_ms));
        // Series that go on from the window before, by rule.
        let mut open: Vec<HashSet<Labels>> = group.rules().iter().map(|_| HashSet::new()).collect();
        let mut first_ms = first_ms;
        while first_ms <= end_ms {
            let slots = ((end_ms - first_ms) / step_ms).min(WINDOW_SLOTS - 1);
            let window = Window { first_ms, last_ms: first_ms + slots * step_ms, step_ms };
            for (rule, open) in group.rules().iter().zip(&mut open) {
                if !matches!(rule.kind, RuleKind::Recording) {
                    continue;
                }
                if let Err(error) = self.fill_rule(group, rule, window, open, &mut filled) {
                    filled.failures.push(format!("{}: {error}", rule.name));
                }
            }
            let Some(next_ms) = window.last_ms.checked_add(step_ms) else { break };
            first_ms = next_ms;
        }
        filled
    }

    fn fill_rule(
        &self,
        group: &Group,
        rule: &Rule,
        window: Window,
        open: &mut HashSet<Labels>,
        filled: &mut Filled,
    ) -> Result<(), String> {
        let offset_ms = group.query_offset_ms.unwrap_or(self.query_offset_ms);
        let options = QueryOptions::default();
        let result = self
            .engine
            .range(
                &*self.queryable,
                &rule.expr,
                &rule.query,
                window.first_ms - offset_ms,
                window.last_ms - offset_ms,
                window.step_ms,
                &options,
            )
            .map_err(|error| error.to_string())?;
        let QueryValue::Matrix(matrix) = result.value else {
            return Err("rule result is not a vector or scalar".to_owned());
        };
        let recorded = recorded(rule, matrix, group.limit)?;
        let last_ms = window.last_ms - offset_ms;
        let mut appender = self.appendable.appender(group.source(), SyncClass::RemoteWrite);
        for gone in open.iter().filter(|labels| !recorded.contains_key(*labels)) {
            // It may be marked already.
            let _ = mark_stale(&mut *appender, gone, window.first_ms - offset_ms);
        }
        open.clear();
        for (labels, samples) in recorded {
            let times: Vec<i64> = samples.iter().map(|sample| sample.timestamp_ms).collect();
            for (i, sample) in samples.iter().enumerate() {
                match append(&mut *appender, sample) {
                    Ok(()) => filled.samples += 1,
                    Err(_) => filled.refused += 1,
                }
                let next_ms = times[i] + window.step_ms;
                if next_ms <= last_ms && times.get(i + 1) != Some(&next_ms) {
                    let _ = mark_stale(&mut *appender, &labels, next_ms);
                }
            }
            if times.last() == Some(&last_ms) {
                open.insert(labels);
            }
        }
        let committed = appender.commit().map_err(|error| error.to_string())?;
        filled.samples = filled.samples.saturating_sub(committed.refused);
        filled.refused += committed.refused;
        Ok(())
    }
}

/// The samples of a matrix under the rule's name and labels, by series.
fn recorded(
    rule: &Rule,
    matrix: Vec<MatrixSeries>,
    limit: usize,
) -> Result<BTreeMap<Labels, Vec<VectorSample>>, String> {
    let mut out: BTreeMap<Labels, Vec<VectorSample>> = BTreeMap::new();
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for series in matrix {
        let mut labels = series.labels.to_builder();
        labels.set(METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        let labels = labels.build();
        let sample = |timestamp_ms: i64, value: Value| VectorSample {
            labels: labels.clone(),
            timestamp_ms,
            value,
        };
        let floats = series.floats.into_iter().map(|(ms, value)| sample(ms, Value::Float(value)));
        let histograms =
            series.histograms.into_iter().map(|(ms, value)| sample(ms, Value::Histogram(value)));
        let mut samples: Vec<VectorSample> = floats.chain(histograms).collect();
        samples.sort_by_key(|sample| sample.timestamp_ms);
        for sample in &samples {
            *counts.entry(sample.timestamp_ms).or_default() += 1;
        }
        let same = out.entry(labels.clone()).or_default();
        same.append(&mut samples);
        same.sort_by_key(|sample| sample.timestamp_ms);
        if same.windows(2).any(|pair| pair[0].timestamp_ms == pair[1].timestamp_ms) {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels"
                    .to_owned(),
            );
        }
    }
    match counts.values().max() {
        Some(&most) if limit > 0 && most > limit => {
            Err(format!("exceeded limit of {limit} with {most} series"))
        }
        _ => Ok(out),
    }
}
