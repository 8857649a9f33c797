//! Where are the targets? Configuration to target groups.
//!
//! Each discovery of a pool yields [`TargetGroup`]s; a group replaces the one
//! before with the same `source`. Consumers see all groups of a pool at once,
//! through a watch channel whose value is replaced when anything changed.

mod dns;
mod file;
mod http;
pub mod kubernetes;
mod manager;
mod metrics;
pub mod operator;
mod refresh;
pub mod targets;
mod url;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::StaticConfig;

pub use manager::Discovery;
pub use metrics::DiscoveryMetrics;

/// Targets that were discovered together and share labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetGroup {
    /// Identifies the group within its discovery, such as `pod/shop/web-1`.
    pub source: String,
    /// Labels of all targets, `__meta_*` ones included.
    pub labels: BTreeMap<String, String>,
    /// Labels of each target; `__address__` is where it listens.
    pub targets: Vec<BTreeMap<String, String>>,
}

/// All groups of one pool, in a stable order.
pub type TargetGroups = Arc<Vec<Arc<TargetGroup>>>;

/// The group of one of `static_configs`; its position is its source.
#[must_use]
pub fn static_group(index: usize, config: &StaticConfig) -> TargetGroup {
    let target = |address: &String| BTreeMap::from([("__address__".to_owned(), address.clone())]);
    TargetGroup {
        source: index.to_string(),
        labels: config.labels.clone(),
        targets: config.targets.iter().map(target).collect(),
    }
}

/// The group of an entry of a discovered list, with one label added that says
/// where it comes from.
fn listed_group(config: StaticConfig, source: String, label: &str, value: &str) -> TargetGroup {
    let mut group = static_group(0, &config);
    group.source = source;
    group.labels.insert(label.to_owned(), value.to_owned());
    group
}

#[cfg(test)]
mod tests;
