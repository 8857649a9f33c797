//! Where are the targets? Configuration to target groups.
//!
//! Each discovery of a pool yields [`TargetGroup`]s; a group replaces the one
//! before with the same `source`. Consumers see all groups of a pool at once,
//! through a watch channel whose value is replaced when anything changed.

pub mod kubernetes;
pub mod operator;
pub mod targets;
mod url;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::StaticConfig;

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
