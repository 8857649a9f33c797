//! Does the API server answer? What fails for more than a moment is said
//! once, however many watches it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::reflector::WatchError;
use super::watch::WatchMetrics;

/// Failures in a row before anybody is told: a cut watch is daily business.
const PATIENCE: u32 = 2;

/// How all watches of one server are.
#[derive(Default)]
pub struct Health {
    server: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures in a row of each watch that fails.
    failing: BTreeMap<String, u32>,
    /// Watches that get no answer, and have been told of.
    away: BTreeSet<String>,
}

impl Health {
    /// `server` is how people know it.
    #[must_use]
    pub fn new(server: String) -> Self {
        Self { server, state: Mutex::default() }
    }

    fn key(&self) -> String {
        format!("kubernetes/{}", self.server)
    }

    /// A watch failed; what is known stays.
    pub fn failed(&self, what: &str, error: &WatchError, metrics: &WatchMetrics) {
        metrics.failures.inc();
        // A version that is too old is how the protocol says: list again.
        if error.is_expired() {
            tracing::debug!(%error, what, "Kubernetes watch begins anew");
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = state.failing.entry(what.to_owned()).or_default();
        *failures += 1;
        if *failures == 1 {
            metrics.failing.add(1.0);
        }
        if *failures != PATIENCE {
            tracing::debug!(%error, what, "Kubernetes watch failed");
            return;
        }
        let server = &self.server;
        if error.is_refusal() {
            tracing::warn!(%error, what, server, "Kubernetes API server refuses; what is known stays");
            let text = format!("The Kubernetes API server {server} refuses {what}: {error}");
            metrics.notices.raise(&format!("{}/{what}", self.key()), text);
            return;
        }
        if state.away.is_empty() {
            tracing::warn!(%error, what, server, "Kubernetes API server does not answer; what is known stays");
            let text = format!(
                "The Kubernetes API server {server} does not answer; the targets that are known stay: {error}"
            );
            metrics.notices.raise(&self.key(), text);
        }
        state.away.insert(what.to_owned());
    }

    /// A watch is well, or ended.
    pub fn answered(&self, what: &str, metrics: &WatchMetrics) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failures) = state.failing.remove(what) else { return };
        metrics.failing.add(-1.0);
        if failures < PATIENCE {
            return;
        }
        metrics.notices.clear(&format!("{}/{what}", self.key()));
        if state.away.remove(what) && state.away.is_empty() {
            metrics.notices.clear(&self.key());
            tracing::info!(server = self.server, "Kubernetes API server answers again");
        }
    }
}
