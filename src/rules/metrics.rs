//! What do rules say of themselves? Prometheus' rule metrics.

use crate::metrics::{Counter, Family, Gauge, Registry, Summary};

/// The metrics of all groups. Cloning shares them.
#[derive(Debug, Clone)]
pub struct RuleMetrics {
    pub(super) evaluation_duration: Summary,
    pub(super) group_duration: Summary,
    pub(super) missed: Family<Counter>,
    pub(super) iterations: Family<Counter>,
    pub(super) evaluations: Family<Counter>,
    pub(super) failures: Family<Counter>,
    pub(super) interval: Family<Gauge>,
    pub(super) last_evaluation: Family<Gauge>,
    pub(super) last_duration: Family<Gauge>,
    pub(super) last_rule_duration_sum: Family<Gauge>,
    pub(super) last_restore_duration: Family<Gauge>,
    pub(super) rules: Family<Gauge>,
    pub(super) last_samples: Family<Gauge>,
    pub(super) caught_up: Counter,
    pub(super) clock_jumps: Counter,
    pub(super) expansions: Counter,
    pub(super) expansion_failures: Counter,
}

impl Default for RuleMetrics {
    /// Metrics that nobody sees.
    fn default() -> Self {
        let counters = || Family::new(&["rule_group"], Counter::default);
        let gauges = || Family::new(&["rule_group"], Gauge::default);
        Self {
            evaluation_duration: Summary::new(&[0.5, 0.9, 0.99]),
            group_duration: Summary::new(&[0.01, 0.05, 0.5, 0.9, 0.99]),
            missed: counters(),
            iterations: counters(),
            evaluations: counters(),
            failures: counters(),
            interval: gauges(),
            last_evaluation: gauges(),
            last_duration: gauges(),
            last_rule_duration_sum: gauges(),
            last_restore_duration: gauges(),
            rules: gauges(),
            last_samples: gauges(),
            caught_up: Counter::default(),
            clock_jumps: Counter::default(),
            expansions: Counter::default(),
            expansion_failures: Counter::default(),
        }
    }
}

impl RuleMetrics {
    /// Metrics that `registry` exposes.
    ///
    /// # Panics
    ///
    /// If they are registered already.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        let all = &metrics;
        registry.register(
            "prometheus_rule_evaluation_duration_seconds",
            "The duration for a rule to execute.",
            all.evaluation_duration.clone(),
        );
        registry.register(
            "prometheus_rule_group_duration_seconds",
            "The duration of rule group evaluations.",
            all.group_duration.clone(),
        );
        for (name, help, family) in [
            (
                "prometheus_rule_group_iterations_missed_total",
                "The total number of rule group evaluations missed due to slow rule group evaluation.",
                &all.missed,
            ),
            (
                "prometheus_rule_group_iterations_total",
                "The total number of scheduled rule group evaluations, whether executed or missed.",
                &all.iterations,
            ),
            (
                "prometheus_rule_evaluations_total",
                "The total number of rule evaluations.",
                &all.evaluations,
            ),
            (
                "prometheus_rule_evaluation_failures_total",
                "The total number of rule evaluation failures.",
                &all.failures,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        for (name, help, family) in [
            (
                "prometheus_rule_group_interval_seconds",
                "The interval of a rule group.",
                &all.interval,
            ),
            (
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "The timestamp of the last rule group evaluation in seconds.",
                &all.last_evaluation,
            ),
            (
                "prometheus_rule_group_last_duration_seconds",
                "The duration of the last rule group evaluation.",
                &all.last_duration,
            ),
            (
                "prometheus_rule_group_last_rule_duration_sum_seconds",
                "The sum of time in seconds it took to evaluate each rule in the group regardless of concurrency. This should be higher than the group duration if rules are evaluated concurrently.",
                &all.last_rule_duration_sum,
            ),
            (
                "prometheus_rule_group_last_restore_duration_seconds",
                "The duration of the last alert rules alerts restoration using the `ALERTS_FOR_STATE` series.",
                &all.last_restore_duration,
            ),
            ("prometheus_rule_group_rules", "The number of rules.", &all.rules),
            (
                "prometheus_rule_group_last_evaluation_samples",
                "The number of samples returned during the last rule group evaluation.",
                &all.last_samples,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        for (name, help, counter) in [
            (
                "narthex_rule_evaluations_caught_up_total",
                "Evaluations of recording rules that were made up for after a pause.",
                &all.caught_up,
            ),
            (
                "narthex_rule_clock_jumps_total",
                "Jumps of the wall clock that rule groups noticed.",
                &all.clock_jumps,
            ),
            (
                "prometheus_template_text_expansions_total",
                "The total number of template text expansions.",
                &all.expansions,
            ),
            (
                "prometheus_template_text_expansion_failures_total",
                "The total number of template text expansion failures.",
                &all.expansion_failures,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        metrics
    }

    /// Makes the members of a group, so that they are exposed from the start.
    pub(super) fn add_group(&self, key: &str, interval_ms: i64, rules: usize) {
        for family in [&self.missed, &self.iterations, &self.evaluations, &self.failures] {
            let _ = family.with(&[key]);
        }
        for family in [
            &self.last_evaluation,
            &self.last_duration,
            &self.last_rule_duration_sum,
            &self.last_samples,
        ] {
            let _ = family.with(&[key]);
        }
        self.interval.with(&[key]).set(seconds(interval_ms));
        self.rules.with(&[key]).set(f64::from(u32::try_from(rules).unwrap_or(u32::MAX)));
    }

    /// Forgets a group.
    pub(super) fn remove_group(&self, key: &str) {
        for family in [&self.missed, &self.iterations, &self.evaluations, &self.failures] {
            family.remove(&[key]);
        }
        for family in [
            &self.interval,
            &self.last_evaluation,
            &self.last_duration,
            &self.last_rule_duration_sum,
            &self.last_restore_duration,
            &self.rules,
            &self.last_samples,
        ] {
            family.remove(&[key]);
        }
    }
}

/// Milliseconds as seconds.
#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
