//! Who must know? Alert queues to Alertmanagers and webhooks.
//!
//! [`Manager`] takes alerts from rules without ever blocking them. Each
//! Alertmanager has a queue of its own, in which the newest state of each
//! alert wins: an outage, an hour long or more, costs no alert and fills no
//! memory. Webhooks get grouped notifications as an Alertmanager sends them.
//!
//! Invariant: an alert leaves a queue when its receiver has accepted it, or
//! when the queue is full, which is counted.

mod grouping;
mod manager;
mod metrics;
mod queue;
mod sender;
mod target;
mod webhook;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use narthex_storage::labels::Labels;

use crate::template::escape_query;

pub use manager::{Manager, ManagerOptions, NotifyError};
pub use metrics::NotifyMetrics;

/// Names and texts; unlike labels, a text may be empty.
pub type Annotations = BTreeMap<String, String>;

/// An alert on its way out. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Its identity.
    pub labels: Labels,
    /// What people read.
    pub annotations: Annotations,
    /// Since when it fires.
    pub starts_at_ms: i64,
    /// When it was resolved; of one that fires, until when receivers may take
    /// it for firing without hearing of it again.
    pub ends_at_ms: i64,
    /// Whether `ends_at_ms` is when it was resolved.
    pub is_resolved: bool,
    /// Link to its expression.
    pub generator_url: String,
}

/// Takes alerts. Called at the end of each evaluation that has something to
/// send; must not block.
pub trait Notify: Send + Sync {
    /// Takes alerts of one rule.
    fn send(&self, alerts: Vec<Alert>);
}

/// Sends nothing to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Notify for Nobody {
    fn send(&self, _alerts: Vec<Alert>) {}
}

/// The link to an expression's table.
#[must_use]
pub fn generator_url(external_url: &str, query: &str) -> String {
    format!("{external_url}/graph?g0.expr={}&g0.tab=1", escape_query(query))
}
