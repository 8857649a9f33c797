//! What does a rule compute? One rule, prepared for evaluation.

use narthex_query::ast::Expr;
use narthex_query::value::VectorSample;
use narthex_storage::labels::{Labels, METRIC_NAME};

use super::alert::{Alert, AlertState};
use super::context::Context;
use super::file::{GroupSpec, RuleSpec, SpecKind};
use crate::template::{AlertData, Environment, Template};

/// The label that names an alert.
pub(super) const ALERT_NAME: &str = "alertname";

/// A rule, ready to be evaluated.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The metric that is recorded, or the alert's name.
    pub name: String,
    /// The expression.
    pub expr: Expr,
    /// Its canonical text.
    pub query: String,
    /// Labels of group and rule, as written.
    pub labels: Labels,
    /// What it is for.
    pub kind: RuleKind,
}

/// What a rule is for.
#[derive(Debug, Clone)]
pub enum RuleKind {
    /// Records its result under its name.
    Recording,
    /// Alerts for each series of its result.
    Alerting {
        /// How long a series must be there before its alert fires, in
        /// milliseconds.
        for_ms: i64,
        /// How long an alert fires on without its series, in milliseconds.
        keep_firing_for_ms: i64,
        /// The templates of the labels.
        label_templates: Vec<(String, Template)>,
        /// The templates of the annotations, by name.
        annotations: Vec<(String, Template)>,
    },
}

impl Rule {
    /// Prepares a rule of a group.
    ///
    /// # Errors
    ///
    /// A template that cannot be parsed; file checks find those before.
    pub fn new(group: &GroupSpec, spec: &RuleSpec) -> Result<Self, String> {
        let labels = Labels::from_pairs(group.labels.iter().chain(&spec.labels));
        let templates = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
            let context = format!("__alert_{}", spec.name);
            pairs
                .map(|(name, text)| Ok((name.to_owned(), Template::parse(&context, text)?)))
                .collect::<Result<Vec<_>, String>>()
        };
        let kind = match &spec.kind {
            SpecKind::Record => RuleKind::Recording,
            SpecKind::Alert { for_ms, keep_firing_for_ms, annotations } => RuleKind::Alerting {
                for_ms: *for_ms,
                keep_firing_for_ms: *keep_firing_for_ms,
                label_templates: templates(&mut labels.iter())?,
                annotations: templates(
                    &mut annotations.iter().map(|(n, t)| (n.as_str(), t.as_str())),
                )?,
            },
        };
        let query = spec.expr.to_string();
        Ok(Self { name: spec.name.clone(), expr: spec.expr.clone(), query, labels, kind })
    }

    /// Whether this is an alerting rule.
    #[must_use]
    pub const fn is_alerting(&self) -> bool {
        matches!(self.kind, RuleKind::Alerting { .. })
    }

    /// Whether both say the same: a reload then keeps everything.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let texts = |pairs: &[(String, Template)]| {
            pairs.iter().map(|(n, t)| (n.clone(), t.text().to_owned())).collect::<Vec<_>>()
        };
        let kinds = match (&self.kind, &other.kind) {
            (RuleKind::Recording, RuleKind::Recording) => true,
            (
                RuleKind::Alerting { for_ms, keep_firing_for_ms, annotations, .. },
                RuleKind::Alerting {
                    for_ms: other_for_ms,
                    keep_firing_for_ms: other_keep_ms,
                    annotations: other_annotations,
                    ..
                },
            ) => {
                for_ms == other_for_ms
                    && keep_firing_for_ms == other_keep_ms
                    && texts(annotations) == texts(other_annotations)
            }
            _ => false,
        };
        kinds
            && (&self.name, &self.query, &self.labels) == (&other.name, &other.query, &other.labels)
    }

    /// What the rule is found by when its text changed: name and labels.
    pub(super) fn identity(&self) -> (&str, &Labels) {
        (&self.name, &self.labels)
    }

    /// Runs the expression `query_offset_ms` before `at_ms`.
    pub(super) fn query(
        &self,
        context: &Context,
        at_ms: i64,
        query_offset_ms: i64,
    ) -> Result<Vec<VectorSample>, String> {
        context.query.instant(&self.expr, &self.query, at_ms - query_offset_ms)
    }
}

/// The series of a recording rule: `result` under the rule's name and labels.
pub(super) fn record(
    rule: &Rule,
    mut result: Vec<VectorSample>,
    limit: usize,
) -> Result<Vec<VectorSample>, String> {
    for sample in &mut result {
        let mut labels = sample.labels.to_builder();
        labels.set(METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        sample.labels = labels.build();
    }
    let mut seen = std::collections::HashSet::with_capacity(result.len());
    if !result.iter().all(|sample| seen.insert(&sample.labels)) {
        return Err(
            "vector contains metrics with the same labelset after applying rule labels".to_owned()
        );
    }
    if limit > 0 && result.len() > limit {
        return Err(format!("exceeded limit of {limit} with {} series", result.len()));
    }
    Ok(result)
}

/// New alerts for the series that an alerting rule's expression gave, all
/// pending since `at_ms`.
#[allow(clippy::too_many_arguments, reason = "the parts of one rule")]
pub(super) fn candidates(
    rule: &Rule,
    label_templates: &[(String, Template)],
    annotations: &[(String, Template)],
    result: Vec<VectorSample>,
    at_ms: i64,
    context: &Context,
) -> Result<std::collections::BTreeMap<Labels, Alert>, String> {
    let mut alerts = std::collections::BTreeMap::new();
    for sample in result {
        let value = match &sample.value {
            narthex_storage::sample::Value::Float(value) => *value,
            // As in Prometheus, where the float of a histogram sample is 0.
            narthex_storage::sample::Value::Histogram(_) => 0.0,
        };
        let mut labels = sample.labels.to_builder();
        let data = AlertData {
            labels: sample.labels,
            external_labels: context.external_labels.clone(),
            external_url: context.external_url.clone(),
            value: sample.value,
        };
        labels.remove(METRIC_NAME);
        for (name, template) in label_templates {
            labels.set(name, &expand(template, &data, at_ms, context));
        }
        labels.set(ALERT_NAME, &rule.name);
        let annotations = annotations
            .iter()
            .map(|(name, template)| (name.clone(), expand(template, &data, at_ms, context)))
            .collect();
        let labels = labels.build();
        let alert = Alert {
            state: AlertState::Pending,
            labels: labels.clone(),
            annotations,
            value,
            active_at_ms: at_ms,
            fired_at_ms: None,
            resolved_at_ms: None,
            last_sent_ms: None,
            valid_until_ms: 0,
            keep_firing_since_ms: None,
        };
        if alerts.insert(labels, alert).is_some() {
            return Err("vector contains metrics with the same labelset after applying alert \
                        labels"
                .to_owned());
        }
    }
    Ok(alerts)
}

/// Expands a template; an error becomes the text.
fn expand(template: &Template, data: &AlertData, at_ms: i64, context: &Context) -> String {
    let mut environment = Environment {
        now_ms: at_ms,
        external_url: context.template_url.as_deref(),
        query: &mut |text| context.query.text(text, at_ms),
    };
    context.metrics.expansions.inc();
    match template.expand(data, &mut environment) {
        Ok(text) => text,
        Err(error) => {
            context.metrics.expansion_failures.inc();
            tracing::warn!(%error, "cannot expand an alert's template");
            format!("<error expanding template: {error}>")
        }
    }
}
