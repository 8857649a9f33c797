//! What do the Prometheus Operator's objects ask for? Monitors, probes and
//! rules as scrape configurations and rule files, without the operator.
//!
//! The mapping is the operator's own (release 0.93): each object becomes the
//! text that the operator would have written, which the configuration's parser
//! then checks like any other. An object that cannot be used is rejected as a
//! whole and harms no other.

mod fields;
mod follow;
mod monitor;
mod probe;
mod relabeling;
mod rule;
mod scrape_config;
mod secrets;
mod selector;

#[cfg(test)]
mod examples_tests;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use crate::config::KubernetesRole;

pub use follow::{Rules, Timing, Wanted, follow};
pub use rule::rule_file;
pub use secrets::{SecretKind, SecretSource};
pub use selector::{SelectorError, selects};

/// Which object: kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Such as ServiceMonitor.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Why an object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct Rejected {
    /// Which one.
    pub object: ObjectName,
    /// What is wrong, without secrets.
    pub reason: String,
}

/// What the mapping needs besides the objects.
pub struct Mapping<'a> {
    /// Endpoints or EndpointSlice, unless a monitor says otherwise.
    pub role: KubernetesRole,
    /// Where Secrets and ConfigMaps are looked up.
    pub secrets: &'a dyn SecretSource,
    /// The members of each `kubernetes_sd_configs` entry that say how the API
    /// server is reached.
    pub api_access: &'a Value,
}

/// The scrape configurations of one object, in the form of `scrape_configs`.
///
/// # Errors
///
/// [`Rejected`] if any part of the object cannot be used.
pub fn scrape_configs(object: &Value, mapping: &Mapping<'_>) -> Result<Vec<Value>, Rejected> {
    let made = match object["kind"].as_str().unwrap_or("") {
        "ServiceMonitor" => monitor::service_monitor(object, mapping),
        "PodMonitor" => monitor::pod_monitor(object, mapping),
        "Probe" => probe::probe(object, mapping).map(|config| vec![config]),
        "ScrapeConfig" => scrape_config::scrape_config(object, mapping).map(|config| vec![config]),
        other => Err(format!("kind {other:?} makes no scrape configuration")),
    };
    made.map_err(|reason| Rejected { object: describe(object), reason })
}

/// Kind, namespace and name of an object.
#[must_use]
pub fn describe(object: &Value) -> ObjectName {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let meta = &object["metadata"];
    ObjectName {
        kind: text(&object["kind"]),
        namespace: text(&meta["namespace"]),
        name: text(&meta["name"]),
    }
}
