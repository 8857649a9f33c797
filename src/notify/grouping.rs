//! Which alerts go into one notification, and when? Alertmanager's grouping,
//! repetition and inhibition, for webhooks.
//!
//! Nothing here reads a clock or sends: times are passed in, and what is due
//! comes out.

use std::collections::{BTreeMap, BTreeSet};

use narthex_storage::labels::Labels;

use super::Alert;

/// How alerts are grouped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grouping {
    /// Labels that make a group; `...` is all.
    pub(super) group_by: Vec<String>,
    /// Before the first notification of a group, in milliseconds.
    pub(super) group_wait_ms: i64,
    /// Before the next one when it changed.
    pub(super) group_interval_ms: i64,
    /// Before an unchanged group is sent again.
    pub(super) repeat_interval_ms: i64,
    /// Whether resolved alerts are sent.
    pub(super) send_resolved: bool,
    /// Critical alerts suppress warnings with equal values of these labels.
    pub(super) inhibit_equal: Vec<String>,
}

/// Wait before a notification that failed is tried again, in milliseconds.
const RETRY_MS: i64 = 10_000;

/// Most alerts that are known at one time.
const MAX_ALERTS: usize = 100_000;

/// All groups of one receiver.
#[derive(Debug)]
pub(super) struct Groups {
    grouping: Grouping,
    groups: BTreeMap<Labels, Group>,
    count: usize,
}

#[derive(Debug, Default)]
struct Group {
    alerts: BTreeMap<Labels, Alert>,
    /// When it is looked at next.
    due_ms: i64,
    /// When it was sent last, and which alerts then fired.
    last_ms: Option<i64>,
    firing: BTreeSet<Labels>,
}

impl Groups {
    pub(super) fn new(grouping: Grouping) -> Self {
        Self { grouping, groups: BTreeMap::new(), count: 0 }
    }

    fn key(&self, labels: &Labels) -> Labels {
        if self.grouping.group_by.iter().any(|name| name == "...") {
            return labels.clone();
        }
        labels.keep(&self.grouping.group_by)
    }

    /// Takes an alert. `false` if there are too many.
    pub(super) fn receive(&mut self, alert: Alert, now_ms: i64) -> bool {
        let key = self.key(&alert.labels);
        let is_known =
            self.groups.get(&key).is_some_and(|group| group.alerts.contains_key(&alert.labels));
        if !is_known {
            // A resolved alert that nobody heard of is no news.
            if alert.is_resolved {
                return true;
            }
            if self.count >= MAX_ALERTS {
                return false;
            }
            self.count += 1;
        }
        let wait_ms = self.grouping.group_wait_ms;
        let group = self.groups.entry(key).or_insert_with(|| {
            // An alert that has waited elsewhere does not wait again.
            let due_ms = now_ms.max(alert.starts_at_ms.saturating_add(wait_ms));
            Group { due_ms: due_ms.min(now_ms.saturating_add(wait_ms)), ..Group::default() }
        });
        group.alerts.insert(alert.labels.clone(), alert);
        true
    }

    /// When something is due next.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.groups.values().map(|group| group.due_ms).min()
    }

    /// Label sets of groups that are due, with the alerts to be sent. Each
    /// must be answered by [`Groups::sent`] or [`Groups::failed`].
    pub(super) fn due(&mut self, now_ms: i64) -> Vec<(Labels, Vec<Alert>)> {
        // Alerts that nobody confirmed for too long are resolved.
        for alert in self.groups.values_mut().flat_map(|group| group.alerts.values_mut()) {
            alert.is_resolved |= alert.ends_at_ms <= now_ms;
        }
        let sources = self.inhibiting();
        let mut due = Vec::new();
        for (key, group) in &mut self.groups {
            if group.due_ms > now_ms {
                continue;
            }
            let grouping = &self.grouping;
            let alerts: Vec<Alert> = group
                .alerts
                .values()
                .filter(|alert| grouping.send_resolved || !alert.is_resolved)
                .filter(|alert| !is_inhibited(alert, &sources, &grouping.inhibit_equal))
                // What was never sent as firing is not sent as resolved.
                .filter(|alert| !alert.is_resolved || group.firing.contains(&alert.labels))
                .cloned()
                .collect();
            if alerts.is_empty() || !group.is_news(&alerts, now_ms, grouping.repeat_interval_ms) {
                group.due_ms = now_ms.saturating_add(grouping.group_interval_ms);
                group.alerts.retain(|_, alert| !alert.is_resolved);
                continue;
            }
            due.push((key.clone(), alerts));
        }
        self.groups.retain(|_, group| !group.alerts.is_empty());
        self.count = self.groups.values().map(|group| group.alerts.len()).sum();
        due
    }

    /// Label sets, by the labels of inhibition, of critical alerts that fire.
    fn inhibiting(&self) -> BTreeSet<Labels> {
        let alerts = self.groups.values().flat_map(|group| group.alerts.values());
        alerts
            .filter(|alert| !alert.is_resolved && alert.labels.get("severity") == Some("critical"))
            .map(|alert| alert.labels.keep(&self.grouping.inhibit_equal))
            .collect()
    }

    /// The alerts of a group were accepted.
    pub(super) fn sent(&mut self, key: &Labels, alerts: &[Alert], now_ms: i64) {
        let Some(group) = self.groups.get_mut(key) else { return };
        group.last_ms = Some(now_ms);
        group.due_ms = now_ms.saturating_add(self.grouping.group_interval_ms);
        group.firing = alerts.iter().filter(|a| !a.is_resolved).map(|a| a.labels.clone()).collect();
        for alert in alerts.iter().filter(|alert| alert.is_resolved) {
            // Unless it has changed meanwhile.
            if group.alerts.get(&alert.labels).is_some_and(|now| now.is_resolved) {
                group.alerts.remove(&alert.labels);
            }
        }
        if group.alerts.is_empty() {
            self.groups.remove(key);
        }
        self.count = self.groups.values().map(|group| group.alerts.len()).sum();
    }

    /// The alerts of a group were not accepted.
    pub(super) fn failed(&mut self, key: &Labels, now_ms: i64) {
        if let Some(group) = self.groups.get_mut(key) {
            group.due_ms = now_ms.saturating_add(RETRY_MS);
        }
    }

    /// Everything that is not sent yet is due now: the process ends.
    pub(super) fn flush(&mut self, now_ms: i64) {
        self.groups.values_mut().for_each(|group| group.due_ms = now_ms);
    }
}

impl Group {
    /// Whether these alerts are worth a notification.
    fn is_news(&self, alerts: &[Alert], now_ms: i64, repeat_interval_ms: i64) -> bool {
        let changed =
            alerts.iter().any(|alert| alert.is_resolved || !self.firing.contains(&alert.labels));
        let repeats = self.last_ms.is_none_or(|last_ms| now_ms - last_ms >= repeat_interval_ms);
        changed || repeats
    }
}

fn is_inhibited(alert: &Alert, sources: &BTreeSet<Labels>, equal: &[String]) -> bool {
    !equal.is_empty()
        && !alert.is_resolved
        && alert.labels.get("severity") == Some("warning")
        && sources.contains(&alert.labels.keep(equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn groups() -> Groups {
        Groups::new(Grouping {
            group_by: vec!["alertname".to_owned(), "namespace".to_owned()],
            group_wait_ms: 30_000,
            group_interval_ms: 5 * MINUTE,
            repeat_interval_ms: 4 * 60 * MINUTE,
            send_resolved: true,
            inhibit_equal: vec!["namespace".to_owned()],
        })
    }

    fn alert(name: &str, pod: &str, severity: &str, now_ms: i64) -> Alert {
        Alert {
            labels: Labels::from_pairs([
                ("alertname", name),
                ("namespace", "shop"),
                ("pod", pod),
                ("severity", severity),
            ]),
            annotations: Default::default(),
            starts_at_ms: now_ms,
            ends_at_ms: i64::MAX,
            is_resolved: false,
            generator_url: String::new(),
        }
    }

    fn resolved(name: &str, pod: &str, severity: &str, now_ms: i64) -> Alert {
        Alert { ends_at_ms: now_ms, is_resolved: true, ..alert(name, pod, severity, 0) }
    }

    /// Sends what is due; `pod` and whether it is resolved, per notification.
    fn send(groups: &mut Groups, now_ms: i64) -> Vec<String> {
        let due = groups.due(now_ms);
        due.iter()
            .map(|(key, alerts)| {
                groups.sent(key, alerts, now_ms);
                let pod = |a: &Alert| {
                    let mark = if a.is_resolved { "-" } else { "+" };
                    format!("{mark}{}", a.labels.get("pod").unwrap())
                };
                alerts.iter().map(pod).collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    #[test]
    fn a_group_waits_changes_and_repeats() {
        let mut groups = groups();
        assert!(groups.receive(alert("A", "1", "warning", 0), 0));
        assert!(groups.receive(alert("A", "2", "warning", 0), 1_000));
        assert_eq!(groups.next_ms(), Some(30_000));
        assert_eq!(send(&mut groups, 29_999), Vec::<String>::new());
        assert_eq!(send(&mut groups, 30_000), ["+1 +2"]);
        // Unchanged: nothing at the group interval, again after the repeat one.
        assert_eq!(send(&mut groups, 30_000 + 5 * MINUTE), Vec::<String>::new());
        groups.receive(resolved("A", "1", "warning", 6 * MINUTE), 6 * MINUTE);
        assert_eq!(send(&mut groups, 30_000 + 10 * MINUTE), ["-1 +2"]);
        let later = 30_000 + 10 * MINUTE + 4 * 60 * MINUTE;
        assert_eq!(send(&mut groups, later), ["+2"]);
        // Nobody confirms it any more: it is resolved at its end.
        let mut ends = alert("A", "2", "warning", 0);
        ends.ends_at_ms = later + MINUTE;
        groups.receive(ends, later);
        assert_eq!(send(&mut groups, later + 5 * MINUTE), ["-2"]);
        assert_eq!(groups.next_ms(), None);
    }

    #[test]
    fn critical_alerts_suppress_warnings() {
        let mut groups = groups();
        groups.receive(alert("A", "1", "warning", 0), 0);
        groups.receive(alert("B", "1", "critical", 0), 0);
        assert_eq!(send(&mut groups, 30_000), ["+1"]);
        // The warning is heard of when the critical one is gone.
        groups.receive(resolved("B", "1", "critical", MINUTE), MINUTE);
        assert_eq!(send(&mut groups, 30_000 + 5 * MINUTE), ["+1", "-1"]);
    }

    #[test]
    fn what_fails_is_tried_again() {
        let mut groups = groups();
        groups.receive(alert("A", "1", "warning", -MINUTE), 0);
        // It has waited elsewhere.
        let due = groups.due(0);
        assert_eq!(due.len(), 1);
        groups.failed(&due[0].0, 0);
        assert_eq!(groups.next_ms(), Some(RETRY_MS));
        assert_eq!(send(&mut groups, RETRY_MS), ["+1"]);
    }
}
