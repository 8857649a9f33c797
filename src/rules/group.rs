//! How is a group evaluated? Its rules in order, each seeing what the rules
//! before it wrote.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use narthex_query::value::VectorSample;
use narthex_storage::append::{AppendError, Appender, SourceId, SyncClass};
use narthex_storage::labels::{Labels, METRIC_NAME};
use narthex_storage::sample::{Value, stale_nan};

use super::alert::{Alert, AlertState};
use super::batch;
use super::context::Context;
use super::file::GroupSpec;
use super::metrics::seconds;
use super::rule::{self, ALERT_NAME, Rule, RuleKind};
use super::slot;
use super::status::{AlertStatus, AlertingStatus, GroupStatus, RuleHealth, RuleStatus};
use crate::notify;

/// What a group is, besides its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// The file, or the object it comes from.
    pub file: String,
    /// The interval of groups that set none, in milliseconds; above 0.
    pub default_interval_ms: i64,
}

/// A group with the state of its rules.
#[derive(Debug)]
pub struct Group {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) key: String,
    pub(super) interval_ms: i64,
    pub(super) query_offset_ms: Option<i64>,
    pub(super) limit: usize,
    pub(super) rules: Vec<Rule>,
    /// As many as rules.
    states: Vec<Mutex<RuleState>>,
    /// Series of rules that are gone, to be marked stale.
    stale: Mutex<Vec<Labels>>,
    last: Mutex<LastEvaluation>,
    /// Until then, alerts that are not seen stay as they are: after a start
    /// or a jump of the clock there may be no data yet.
    hold_until_ms: AtomicI64,
}

#[derive(Debug, Clone, Copy, Default)]
struct LastEvaluation {
    at_ms: Option<i64>,
    took_s: f64,
}

/// What changes with each evaluation of a rule.
#[derive(Debug, Default)]
pub(super) struct RuleState {
    health: RuleHealth,
    last_error: Option<String>,
    took_s: f64,
    last_ms: Option<i64>,
    /// Alerts by their labels; resolved ones for a while.
    pub(super) active: BTreeMap<Labels, Alert>,
    /// Series that the last evaluation wrote.
    written: HashSet<Labels>,
    /// Whether the alerts are what they were before a restart. Until then
    /// nothing is written that a restart reads.
    pub(super) restored: bool,
}

/// What an evaluation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evaluated {
    /// Samples that were written, staleness markers aside.
    pub samples: usize,
    /// Whether an alert came, went or changed its state.
    pub alerts_changed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each evaluation leaves its state whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    /// Prepares a group. Its alerting rules count as restored.
    ///
    /// # Errors
    ///
    /// A template that cannot be parsed; file checks find those before.
    pub fn new(spec: &GroupSpec, options: &GroupOptions) -> Result<Self, String> {
        let rules: Vec<Rule> =
            spec.rules.iter().map(|rule| Rule::new(spec, rule)).collect::<Result<_, _>>()?;
        let state = || Mutex::new(RuleState { restored: true, ..RuleState::default() });
        Ok(Self {
            name: spec.name.clone(),
            file: options.file.clone(),
            key: format!("{};{}", options.file, spec.name),
            interval_ms: spec.interval_ms.unwrap_or(options.default_interval_ms).max(1),
            query_offset_ms: spec.query_offset_ms,
            limit: spec.limit,
            states: rules.iter().map(|_| state()).collect(),
            rules,
            stale: Mutex::default(),
            last: Mutex::default(),
            hold_until_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// File and name, joined as in the label `rule_group`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &str {
        let name = self.key.len().saturating_sub(self.name.len() + 1);
        self.key.get(..name).unwrap_or_default()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Milliseconds between two evaluations.
    #[must_use]
    pub const fn interval_ms(&self) -> i64 {
        self.interval_ms
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// How far into its interval the group is evaluated, in milliseconds: the
    /// same in every process, different between groups.
    #[must_use]
    pub fn slot_ms(&self) -> i64 {
        slot::offset_ms(&self.file, &self.name, self.interval_ms)
    }

    pub(super) fn state(&self, rule: usize) -> MutexGuard<'_, RuleState> {
        lock(&self.states[rule])
    }

    /// The last error of each rule that has one, with the rule's name.
    #[must_use]
    pub fn errors(&self) -> Vec<(String, String)> {
        let errors = self.rules.iter().zip(&self.states);
        errors
            .filter_map(|(rule, state)| Some((rule.name.clone(), lock(state).last_error.clone()?)))
            .collect()
    }

    /// Alerts that are not seen stay as they are until this time.
    pub fn hold_until(&self, time_ms: i64) {
        self.hold_until_ms.store(time_ms, Ordering::Relaxed);
    }

    fn offset_ms(&self, context: &Context) -> i64 {
        self.query_offset_ms.unwrap_or(context.query_offset_ms)
    }

    pub(super) fn source(&self) -> SourceId {
        SourceId(xxhash_rust::xxh3::xxh3_64(self.key.as_bytes()))
    }

    /// Runs all rules for `at_ms`, in milliseconds since the Unix epoch:
    /// reads, writes, and hands alerts over. Blocks.
    pub fn evaluate(&self, at_ms: i64, context: &Context) -> Evaluated {
        let started = Instant::now();
        let evaluated = self.run_rules(at_ms, context, &|_| true);
        self.mark_gone(at_ms, context);
        let took_s = started.elapsed().as_secs_f64();
        *lock(&self.last) = LastEvaluation { at_ms: Some(at_ms), took_s };
        let rule_sum_s = self.states.iter().map(|state| lock(state).took_s).sum();
        let metrics = &context.metrics;
        let key = [self.key.as_str()];
        metrics.group_duration.observe(took_s);
        metrics.iterations.with(&key).inc();
        metrics.last_duration.with(&key).set(took_s);
        metrics.last_rule_duration_sum.with(&key).set(rule_sum_s);
        metrics.last_evaluation.with(&key).set(seconds(at_ms));
        let samples = f64::from(u32::try_from(evaluated.samples).unwrap_or(u32::MAX));
        metrics.last_samples.with(&key).set(samples);
        evaluated
    }

    /// Runs the recording rules only, for a time that was missed.
    pub fn record(&self, at_ms: i64, context: &Context) -> Evaluated {
        self.run_rules(at_ms, context, &|rule| !rule.is_alerting())
    }

    fn run_rules(
        &self,
        at_ms: i64,
        context: &Context,
        wanted: &dyn Fn(&Rule) -> bool,
    ) -> Evaluated {
        let mut total = Evaluated::default();
        let mut add = |evaluated: Evaluated| {
            total.samples += evaluated.samples;
            total.alerts_changed |= evaluated.alerts_changed;
        };
        let concurrent = context.concurrent_rules.as_deref();
        let batches = concurrent.and_then(|permits| Some((permits, batch::batches(&self.rules)?)));
        let Some((permits, batches)) = batches else {
            for (i, rule) in self.rules.iter().enumerate().filter(|(_, rule)| wanted(rule)) {
                add(self.run_rule(i, rule, at_ms, context));
            }
            return total;
        };
        for batch in batches {
            std::thread::scope(|scope| {
                let mut beside = Vec::new();
                let last = batch.len() - 1;
                for (k, &i) in batch.iter().enumerate() {
                    let rule = &self.rules[i];
                    if !wanted(rule) {
                        continue;
                    }
                    if k < last && permits.try_take() {
                        beside.push(scope.spawn(move || {
                            let evaluated = self.run_rule(i, rule, at_ms, context);
                            permits.give_back();
                            evaluated
                        }));
                    } else {
                        add(self.run_rule(i, rule, at_ms, context));
                    }
                }
                for thread in beside {
                    match thread.join() {
                        Ok(evaluated) => add(evaluated),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            });
        }
        total
    }

    fn run_rule(&self, i: usize, rule: &Rule, at_ms: i64, context: &Context) -> Evaluated {
        let started = Instant::now();
        let key = [self.key.as_str()];
        context.metrics.evaluations.with(&key).inc();
        let mut state = self.state(i);
        state.last_ms = Some(at_ms);
        let mut evaluated = Evaluated::default();
        match self.results(rule, &mut state, at_ms, context) {
            Ok((samples, alerts_changed)) => {
                state.health = RuleHealth::Ok;
                state.last_error = None;
                evaluated = Evaluated { samples: samples.len(), alerts_changed };
                if rule.is_alerting() {
                    self.send(rule, &mut state, at_ms, context);
                }
                self.write(rule, &mut state, &samples, at_ms, context);
            }
            Err(error) => {
                context.metrics.failures.with(&key).inc();
                tracing::warn!(
                    file = self.file, group = self.name, rule = rule.name, %error,
                    "evaluating a rule failed"
                );
                state.health = RuleHealth::Err;
                state.last_error = Some(error);
            }
        }
        state.took_s = started.elapsed().as_secs_f64();
        context.metrics.evaluation_duration.observe(state.took_s);
        evaluated
    }

    /// The series to write, and whether an alert changed.
    fn results(
        &self,
        rule: &Rule,
        state: &mut RuleState,
        at_ms: i64,
        context: &Context,
    ) -> Result<(Vec<VectorSample>, bool), String> {
        let offset_ms = self.offset_ms(context);
        let result = rule.query(context, at_ms, offset_ms)?;
        match &rule.kind {
            RuleKind::Recording => {
                rule::record(rule, result, self.limit).map(|samples| (samples, false))
            }
            RuleKind::Alerting { for_ms, keep_firing_for_ms, label_templates, annotations } => {
                let seen =
                    rule::candidates(rule, label_templates, annotations, result, at_ms, context)?;
                let hold = at_ms < self.hold_until_ms.load(Ordering::Relaxed);
                let keep_ms = if hold { None } else { Some(*keep_firing_for_ms) };
                let changed = update(&mut state.active, seen, at_ms, *for_ms, keep_ms);
                let active =
                    state.active.values().filter(|a| a.state != AlertState::Inactive).count();
                if self.limit > 0 && active > self.limit {
                    state.active.clear();
                    let limit = self.limit;
                    return Err(format!("exceeded limit of {limit} with {active} alerts"));
                }
                let samples = if state.restored {
                    alert_samples(rule, &state.active, at_ms - offset_ms)
                } else {
                    Vec::new()
                };
                Ok((samples, changed))
            }
        }
    }

    /// Hands over the alerts that have to be sent.
    fn send(&self, rule: &Rule, state: &mut RuleState, at_ms: i64, context: &Context) {
        let delay_ms = context.resend_delay_ms;
        let mut due = Vec::new();
        for alert in state.active.values_mut() {
            if !alert.needs_sending(at_ms, delay_ms) {
                continue;
            }
            alert.mark_sent(at_ms, delay_ms, self.interval_ms);
            due.push(notify::Alert {
                labels: alert.labels.clone(),
                annotations: alert.annotations.clone(),
                starts_at_ms: alert.fired_at_ms.unwrap_or(alert.active_at_ms),
                ends_at_ms: alert.resolved_at_ms.unwrap_or(alert.valid_until_ms),
                is_resolved: alert.resolved_at_ms.is_some(),
                generator_url: notify::generator_url(&context.external_url, &rule.query),
            });
        }
        if !due.is_empty() {
            context.notify.send(due);
        }
    }

    fn write(
        &self,
        rule: &Rule,
        state: &mut RuleState,
        samples: &[VectorSample],
        at_ms: i64,
        context: &Context,
    ) {
        let mut appender = context.appendable.appender(self.source(), SyncClass::Scrape);
        let mut written = HashSet::with_capacity(samples.len());
        let mut refused = None;
        for sample in samples {
            match append(&mut *appender, sample) {
                Ok(()) => {
                    written.insert(sample.labels.clone());
                }
                Err(error) => {
                    let (_, count) = refused.unwrap_or((error, 0_usize));
                    refused = Some((error, count + 1));
                }
            }
        }
        let stale_ms = at_ms - self.offset_ms(context);
        for gone in state.written.difference(&written) {
            // Another rule may have taken the series over: that is no error.
            let _ = mark_stale(&mut *appender, gone, stale_ms);
        }
        if let Some((error, count)) = refused {
            tracing::warn!(
                file = self.file, group = self.name, rule = rule.name, %error, count,
                "results of a rule were refused"
            );
            state.health = RuleHealth::Err;
            state.last_error = Some(error.to_string());
        }
        match appender.commit() {
            Ok(_) => state.written = written,
            Err(error) => {
                context.metrics.failures.with(&[self.key.as_str()]).inc();
                tracing::warn!(
                    file = self.file, group = self.name, rule = rule.name, %error,
                    "results of a rule could not be written"
                );
                state.health = RuleHealth::Err;
                state.last_error = Some(error.to_string());
            }
        }
    }

    /// Marks the series of rules that are gone.
    pub(super) fn mark_gone(&self, at_ms: i64, context: &Context) {
        let mut gone = lock(&self.stale);
        if gone.is_empty() {
            return;
        }
        let mut appender = context.appendable.appender(self.source(), SyncClass::Scrape);
        for labels in gone.iter() {
            let _ = mark_stale(&mut *appender, labels, at_ms - self.offset_ms(context));
        }
        match appender.commit() {
            Ok(_) => gone.clear(),
            Err(error) => tracing::warn!(
                file = self.file, group = self.name, %error,
                "series of rules that are gone could not be marked stale"
            ),
        }
    }

    /// Leaves all series that its rules wrote to be marked stale: the group
    /// is gone.
    pub(super) fn retire(&self) {
        let mut gone = lock(&self.stale);
        for state in &self.states {
            gone.extend(lock(state).written.drain());
        }
    }

    /// Whether both are evaluated in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.key, self.interval_ms, self.limit, self.query_offset_ms)
            == (&other.key, other.interval_ms, other.limit, other.query_offset_ms)
            && self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(|(a, b)| a.is_same(b))
    }

    /// Takes over the state of the group that this one replaces: rules are
    /// found by name and labels, the first by the first and so on.
    pub(super) fn take_over(&self, from: &Self) {
        *lock(&self.last) = *lock(&from.last);
        self.hold_until(from.hold_until_ms.load(Ordering::Relaxed));
        let mut free: Vec<usize> = (0..from.rules.len()).collect();
        for (i, rule) in self.rules.iter().enumerate() {
            let found = free.iter().position(|&k| from.rules[k].identity() == rule.identity());
            let Some(position) = found else { continue };
            let k = free.remove(position);
            let mut state = self.state(i);
            let mut before = from.state(k);
            state.written = std::mem::take(&mut before.written);
            if rule.is_alerting() && from.rules[k].is_alerting() {
                state.active = std::mem::take(&mut before.active);
                state.restored = before.restored;
            }
        }
        let mut gone = lock(&self.stale);
        gone.append(&mut lock(&from.stale));
        for k in free {
            gone.extend(from.state(k).written.drain());
        }
    }

    /// Moves all times of alerts: the clock jumped by so many milliseconds.
    pub fn shift(&self, delta_ms: i64) {
        for state in &self.states {
            lock(state).active.values_mut().for_each(|alert| alert.shift(delta_ms));
        }
    }

    /// Copies of all alerts of a rule, resolved ones included, by labels.
    #[must_use]
    pub fn alerts(&self, rule: usize) -> Vec<Alert> {
        self.states.get(rule).map_or_else(Vec::new, |s| lock(s).active.values().cloned().collect())
    }

    /// The group as it is now.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let last = *lock(&self.last);
        GroupStatus {
            name: self.name.clone(),
            file: self.file.clone(),
            interval_s: seconds(self.interval_ms),
            limit: self.limit,
            evaluation_s: last.took_s,
            last_evaluation_ms: last.at_ms,
            rules: self.rules.iter().zip(&self.states).map(|(r, s)| status(r, &lock(s))).collect(),
        }
    }
}

pub(super) fn append(
    appender: &mut dyn Appender,
    sample: &VectorSample,
) -> Result<(), AppendError> {
    let series = appender.series(&sample.labels)?;
    match &sample.value {
        Value::Float(value) => appender.append(series, sample.timestamp_ms, 0, *value),
        Value::Histogram(histogram) => {
            appender.append_histogram(series, sample.timestamp_ms, 0, histogram)
        }
    }
}

pub(super) fn mark_stale(
    appender: &mut dyn Appender,
    labels: &Labels,
    time_ms: i64,
) -> Result<(), AppendError> {
    let series = appender.series(labels)?;
    appender.append(series, time_ms, 0, stale_nan())
}

/// Brings the alerts of a rule up to date with what was seen. `keep_ms` is
/// `keep_firing_for`; `None` keeps what is not seen as it is. Tells whether
/// anything but values and annotations changed.
fn update(
    active: &mut BTreeMap<Labels, Alert>,
    mut seen: BTreeMap<Labels, Alert>,
    at_ms: i64,
    for_ms: i64,
    keep_ms: Option<i64>,
) -> bool {
    let mut changed = false;
    for (labels, mut alert) in std::mem::take(active) {
        let before = (alert.state, alert.keep_firing_since_ms);
        let after = match (seen.remove(&labels), keep_ms) {
            (Some(now), _) if alert.state != AlertState::Inactive => {
                alert.value = now.value;
                alert.annotations = now.annotations;
                alert.keep_firing_since_ms = None;
                alert.advance(at_ms, for_ms);
                Some(alert)
            }
            (Some(mut now), _) => {
                now.advance(at_ms, for_ms);
                changed = true;
                Some(now)
            }
            (None, Some(keep_ms)) => alert.not_seen(at_ms, keep_ms),
            (None, None) => Some(alert),
        };
        let Some(alert) = after else {
            changed = true;
            continue;
        };
        changed |= before != (alert.state, alert.keep_firing_since_ms);
        active.insert(labels, alert);
    }
    for (labels, mut alert) in seen {
        changed = true;
        alert.advance(at_ms, for_ms);
        active.insert(labels, alert);
    }
    changed
}

/// `ALERTS` and `ALERTS_FOR_STATE` of pending and firing alerts.
#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit 53 bits")]
fn alert_samples(
    rule: &Rule,
    active: &BTreeMap<Labels, Alert>,
    timestamp_ms: i64,
) -> Vec<VectorSample> {
    let mut samples = Vec::new();
    for alert in active.values().filter(|alert| alert.state != AlertState::Inactive) {
        let mut labels = rule.labels.to_builder();
        for (name, value) in &alert.labels {
            labels.set(name, value);
        }
        labels.set(ALERT_NAME, &rule.name);
        labels.set(METRIC_NAME, "ALERTS_FOR_STATE");
        let for_state = labels.build();
        labels.set(METRIC_NAME, "ALERTS");
        labels.set("alertstate", alert.state.as_str());
        let active_at_s = alert.active_at_ms.div_euclid(1000) as f64;
        for (labels, value) in [(labels.build(), 1.0), (for_state, active_at_s)] {
            samples.push(VectorSample { labels, timestamp_ms, value: Value::Float(value) });
        }
    }
    samples
}

fn status(rule: &Rule, state: &RuleState) -> RuleStatus {
    let alerting = match &rule.kind {
        RuleKind::Recording => None,
        RuleKind::Alerting { for_ms, keep_firing_for_ms, annotations, .. } => {
            let states = state.active.values().map(|alert| alert.state);
            let shown = state.active.values().filter(|a| a.state != AlertState::Inactive);
            Some(AlertingStatus {
                state: states.max().unwrap_or(AlertState::Inactive),
                for_s: seconds(*for_ms),
                keep_firing_for_s: seconds(*keep_firing_for_ms),
                annotations: annotations
                    .iter()
                    .map(|(name, template)| (name.clone(), template.text().to_owned()))
                    .collect(),
                alerts: shown
                    .map(|alert| AlertStatus {
                        labels: alert.labels.clone(),
                        annotations: alert.annotations.clone(),
                        state: alert.state,
                        active_at_ms: alert.active_at_ms,
                        keep_firing_since_ms: alert.keep_firing_since_ms,
                        value: alert.value,
                    })
                    .collect(),
            })
        }
    };
    RuleStatus {
        name: rule.name.clone(),
        query: rule.query.clone(),
        labels: rule.labels.clone(),
        health: state.health,
        last_error: state.last_error.clone(),
        evaluation_s: state.took_s,
        last_evaluation_ms: state.last_ms,
        alerting,
    }
}
