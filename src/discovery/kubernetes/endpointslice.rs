//! Role endpointslice: one target per endpoint, port and address.

use crate::discovery::TargetGroup;

use super::endpoints::{SeenPods, attach_service, node_behind, set_reference};
use super::groups::Context;
use super::meta::{LabelMap, host_port, sanitize, set, set_metadata, set_some, target};
use super::object::{EndpointPort, EndpointSlice, SliceEndpoint};

/// The label that names a slice's service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The group of a slice.
pub fn group(slice: &EndpointSlice, context: &Context<'_>) -> TargetGroup {
    let meta = &slice.metadata;
    let mut group = TargetGroup {
        source: format!("endpointslice/{}/{}", meta.namespace, meta.name),
        ..TargetGroup::default()
    };
    set(&mut group.labels, "namespace", &meta.namespace);
    set(&mut group.labels, "endpointslice_address_type", &slice.address_type);
    set_metadata(&mut group.labels, "endpointslice", meta);
    if let Some(service) = meta.labels.get(SERVICE_NAME) {
        attach_service(&mut group.labels, context, &meta.namespace, service);
    }
    context.attach_namespace(&mut group.labels, &meta.namespace);
    let mut seen = SeenPods::default();
    for endpoint in &slice.endpoints {
        for port in &slice.ports {
            for address in &endpoint.addresses {
                let mut labels = labels(address, endpoint, port);
                let node = node_behind(endpoint.target_ref.as_ref());
                context.attach_node(&mut labels, node.or(endpoint.node_name.as_deref()));
                let number = port.port.unwrap_or(0);
                let pod = endpoint.target_ref.as_ref();
                seen.attach(&mut labels, pod, &meta.namespace, number, None, context);
                group.targets.push(labels);
            }
        }
    }
    seen.push_rest(&mut group.targets, context);
    group
}

fn labels(address: &str, endpoint: &SliceEndpoint, port: &EndpointPort) -> LabelMap {
    let mut labels =
        target(port.port.map_or_else(|| address.to_owned(), |n| host_port(address, n)));
    set_some(&mut labels, "endpointslice_port_name", port.name.as_deref());
    set_some(&mut labels, "endpointslice_port_protocol", port.protocol.as_deref());
    set_some(&mut labels, "endpointslice_port", port.port.map(|n| n.to_string()));
    set_some(&mut labels, "endpointslice_port_app_protocol", port.app_protocol.as_deref());
    for (name, state) in [
        ("ready", endpoint.conditions.ready),
        ("serving", endpoint.conditions.serving),
        ("terminating", endpoint.conditions.terminating),
    ] {
        let name = format!("endpointslice_endpoint_conditions_{name}");
        set_some(&mut labels, &name, state.map(|s| s.to_string()));
    }
    set_some(&mut labels, "endpointslice_endpoint_hostname", endpoint.hostname.as_deref());
    set_reference(&mut labels, "endpointslice", endpoint.target_ref.as_ref());
    set_some(&mut labels, "endpointslice_endpoint_node_name", endpoint.node_name.as_deref());
    set_some(&mut labels, "endpointslice_endpoint_zone", endpoint.zone.as_deref());
    for (key, value) in &endpoint.deprecated_topology {
        let key = sanitize(key);
        set(&mut labels, &format!("endpointslice_endpoint_topology_{key}"), value);
        set(&mut labels, &format!("endpointslice_endpoint_topology_present_{key}"), "true");
    }
    labels
}
