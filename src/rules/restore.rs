//! What was before the restart? Alerts from their file, or from their series.

use std::collections::HashMap;
use std::time::Instant;

use narthex_storage::labels::{Labels, METRIC_NAME};
use narthex_storage::sample::is_stale;

use super::alert::AlertState;
use super::context::Context;
use super::group::Group;
use super::rule::{ALERT_NAME, Rule, RuleKind};
use super::state_file::{SavedAlert, SavedGroup, SavedRule};

impl Group {
    /// The alerts as they are kept on disk; rules without alerts are left out.
    pub(super) fn saved(&self, now_ms: i64) -> SavedGroup {
        let mut rules = Vec::new();
        for (i, rule) in self.rules.iter().enumerate() {
            let state = self.state(i);
            if state.active.is_empty() {
                continue;
            }
            rules.push(SavedRule {
                name: rule.name.clone(),
                labels: rule.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
                alerts: state.active.values().map(SavedAlert::new).collect(),
            });
        }
        SavedGroup { group: self.key.clone(), saved_ms: now_ms, rules }
    }

    /// Puts saved alerts back, exactly. Pending ones are left out after an
    /// outage that was too long: nobody knows what was in between.
    pub(super) fn restore(&self, saved: SavedGroup, now_ms: i64, outage_tolerance_ms: i64) {
        let too_long = now_ms.saturating_sub(saved.saved_ms) > outage_tolerance_ms;
        let mut saved_rules = saved.rules;
        for (i, rule) in self.rules.iter().enumerate() {
            let is_it = |saved: &SavedRule| {
                saved.name == rule.name && Labels::from_pairs(&saved.labels) == rule.labels
            };
            let Some(position) = saved_rules.iter().position(is_it) else { continue };
            let found = saved_rules.remove(position);
            let mut state = self.state(i);
            for alert in found.alerts.into_iter().filter_map(SavedAlert::restore) {
                if !(too_long && alert.state == AlertState::Pending) {
                    state.active.insert(alert.labels.clone(), alert);
                }
            }
        }
    }

    /// From now on nothing is written that a restart reads, until the alerts
    /// are [restored from their series](Self::restore_from_series).
    pub(super) fn await_series(&self) {
        for (i, _) in self.rules.iter().enumerate().filter(|(_, rule)| rule.is_alerting()) {
            self.state(i).restored = false;
        }
    }

    /// Sets since when pending alerts are seen, from `ALERTS_FOR_STATE`, as
    /// Prometheus does: for a data directory that has no state files.
    #[allow(clippy::cast_possible_truncation, reason = "saturates; checked by the arithmetic")]
    pub(super) fn restore_from_series(&self, at_ms: i64, context: &Context) {
        let started = Instant::now();
        for (i, rule) in self.rules.iter().enumerate() {
            let RuleKind::Alerting { for_ms, .. } = rule.kind else { continue };
            let mut state = self.state(i);
            if std::mem::replace(&mut state.restored, true) || for_ms < context.for_grace_ms {
                continue;
            }
            let wanted = for_state_labels(rule);
            let start_ms = at_ms - context.outage_tolerance_ms;
            let series = match context.query.newest(&wanted, start_ms, at_ms) {
                Ok(series) => series,
                Err(error) => {
                    let name = &rule.name;
                    tracing::error!(alertname = name, %error, "cannot restore the 'for' state");
                    continue;
                }
            };
            let by_labels: HashMap<Labels, (i64, f64)> = series
                .into_iter()
                .filter(|(_, _, value)| !is_stale(*value))
                .map(|(labels, time_ms, value)| (labels.drop(&[METRIC_NAME]), (time_ms, value)))
                .collect();
            for alert in state.active.values_mut() {
                let Some(&(down_ms, active_s)) = by_labels.get(&alert.labels) else { continue };
                let (down_ms, active_ms) =
                    (down_ms.div_euclid(1000) * 1000, (active_s as i64).saturating_mul(1000));
                alert.active_at_ms =
                    restored_active_at_ms(at_ms, down_ms, active_ms, for_ms, context.for_grace_ms);
            }
        }
        let took_s = started.elapsed().as_secs_f64();
        context.metrics.last_restore_duration.with(&[self.key.as_str()]).set(took_s);
    }
}

/// The labels that all `ALERTS_FOR_STATE` series of a rule have.
fn for_state_labels(rule: &Rule) -> Labels {
    let mut labels = rule.labels.to_builder();
    labels.set(METRIC_NAME, "ALERTS_FOR_STATE");
    labels.set(ALERT_NAME, &rule.name);
    labels.build()
}

/// Since when an alert counts as seen: the time the process was down does not
/// count, and an alert that would fire at once waits for the grace period.
fn restored_active_at_ms(
    at_ms: i64,
    down_ms: i64,
    active_ms: i64,
    for_ms: i64,
    grace_ms: i64,
) -> i64 {
    let remaining_ms = for_ms.saturating_sub(down_ms.saturating_sub(active_ms));
    if remaining_ms <= 0 {
        // It was firing, and fires again.
        active_ms
    } else if remaining_ms < grace_ms {
        at_ms + grace_ms - for_ms
    } else {
        active_ms.saturating_add(at_ms - down_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::restored_active_at_ms;

    #[test]
    fn time_down_does_not_count() {
        let minutes = 60_000;
        let restore = |active, down, now, for_| {
            restored_active_at_ms(
                now * minutes,
                down * minutes,
                active * minutes,
                for_ * minutes,
                10 * minutes,
            ) / minutes
        };
        // Firing before: fires at once.
        assert_eq!(restore(0, 30, 60, 20), 0);
        // 5 of 30 minutes left, less than the grace period: fires 10 later.
        assert_eq!(restore(0, 25, 60, 30), 40);
        // 20 of 30 minutes left after 50 minutes down.
        assert_eq!(restore(0, 10, 60, 30), 50);
    }
}
