//! Role node: one target per node, its kubelet.

use crate::discovery::TargetGroup;

use super::meta::{LabelMap, host_port, set, set_metadata, target};
use super::object::Node;

/// Types of addresses, best first.
const BEST_FIRST: [&str; 6] =
    ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

/// The group of a node; `None` if it has no usable address.
pub fn group(node: &Node) -> Option<TargetGroup> {
    let first = |kind: &str| node.status.addresses.iter().find(|a| a.kind == kind);
    let address = BEST_FIRST.iter().find_map(|kind| first(kind))?;
    let name = &node.metadata.name;
    let mut labels = LabelMap::new();
    set_metadata(&mut labels, "node", &node.metadata);
    set(&mut labels, "node_provider_id", &node.spec.provider_id);
    for condition in &node.status.conditions {
        let kind = condition.kind.to_lowercase();
        set(&mut labels, &format!("node_condition_{kind}"), condition.status.to_lowercase());
    }
    let port = node.status.daemon_endpoints.kubelet_endpoint.port;
    let mut only = target(host_port(&address.address, port));
    only.insert("instance".to_owned(), name.clone());
    for address in &node.status.addresses {
        // Of several addresses of one type the first counts.
        let label = format!("__meta_kubernetes_node_address_{}", address.kind);
        only.entry(label).or_insert_with(|| address.address.clone());
    }
    Some(TargetGroup { source: format!("node/{name}"), labels, targets: vec![only] })
}
