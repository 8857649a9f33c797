//! Where are the Alertmanagers? Target groups to URLs.

use narthex_storage::labels::LabelsBuilder;
use url::Url;

use crate::client::parse_url;
use crate::config::AlertmanagerConfig;
use crate::discovery::TargetGroups;
use crate::relabel::Rules;

/// The Alertmanagers of one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// Where alerts are posted, each once.
    pub(super) active: Vec<Url>,
    /// Those that relabeling dropped.
    pub(super) dropped: Vec<String>,
}

/// `prefix` and the path of the API, joined by one slash.
fn push_path(prefix: &str) -> String {
    format!("/{}/api/v2/alerts", prefix.trim_matches('/')).replace("//", "/")
}

/// The Alertmanagers that the target groups name.
pub(super) fn find(config: &AlertmanagerConfig, rules: &Rules, groups: &TargetGroups) -> Found {
    let mut found = Found::default();
    for group in groups.iter() {
        for target in &group.targets {
            let mut labels = LabelsBuilder::new();
            for (name, value) in group.labels.iter().chain(target) {
                labels.set(name, value);
            }
            labels.set("__scheme__", &config.scheme);
            labels.set("__alerts_path__", &push_path(&config.path_prefix));
            let before = text(&labels);
            if !rules.apply(&mut labels) {
                found.dropped.push(before);
                continue;
            }
            match parse_url(&text(&labels)) {
                Ok(url) if !labels.get("__address__").contains('/') => {
                    if !found.active.contains(&url) {
                        found.active.push(url);
                    }
                }
                _ => {
                    let url = text(&labels);
                    tracing::error!(url, "the address of an Alertmanager cannot be used");
                }
            }
        }
    }
    found
}

fn text(labels: &LabelsBuilder) -> String {
    let (scheme, address) = (labels.get("__scheme__"), labels.get("__address__"));
    format!("{scheme}://{address}{}", labels.get("__alerts_path__"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::config::{RelabelAction, RelabelConfig};
    use crate::discovery::TargetGroup;

    #[test]
    fn groups_become_urls() {
        let config = AlertmanagerConfig {
            scheme: "https".to_owned(),
            path_prefix: "/am/".to_owned(),
            timeout: std::time::Duration::from_secs(10),
            http: crate::config::HttpClientConfig::default(),
            discovery: crate::config::DiscoveryConfigs::default(),
            relabel_configs: Vec::new(),
            alert_relabel_configs: Vec::new(),
        };
        let drop = RelabelConfig {
            source_labels: vec!["__address__".to_owned()],
            regex: "b:.*".to_owned(),
            action: RelabelAction::Drop,
            ..RelabelConfig::default()
        };
        let rules = Rules::compile(&[drop]).unwrap();
        let target =
            |address: &str| BTreeMap::from([("__address__".to_owned(), address.to_owned())]);
        let group = TargetGroup {
            targets: ["a:1", "b:2", "a:1", "c/d"].map(target).to_vec(),
            ..TargetGroup::default()
        };
        let found = find(&config, &rules, &Arc::new(vec![Arc::new(group)]));
        assert_eq!(found.active, [Url::parse("https://a:1/am/api/v2/alerts").unwrap()]);
        assert_eq!(found.dropped, ["https://b:2/am/api/v2/alerts"]);
        assert_eq!(push_path(""), "/api/v2/alerts");
    }
}
