//! Role endpoints: one target per address and port, and per further container
//! port of the pods behind them.

use std::collections::BTreeMap;

use crate::discovery::TargetGroup;

use super::groups::Context;
use super::meta::{LabelMap, host_port, set, set_metadata, set_some, target};
use super::object::{EndpointAddress, EndpointPort, Endpoints, ObjectReference, Pod};
use super::pod;

/// The group of an Endpoints object.
pub fn group(endpoints: &Endpoints, context: &Context<'_>) -> TargetGroup {
    let meta = &endpoints.metadata;
    let mut group = TargetGroup {
        source: format!("endpoints/{}/{}", meta.namespace, meta.name),
        ..TargetGroup::default()
    };
    set(&mut group.labels, "namespace", &meta.namespace);
    set_metadata(&mut group.labels, "endpoints", meta);
    attach_service(&mut group.labels, context, &meta.namespace, &meta.name);
    context.attach_namespace(&mut group.labels, &meta.namespace);
    let mut seen = SeenPods::default();
    for subset in &endpoints.subsets {
        for port in &subset.ports {
            for address in &subset.addresses {
                let labels = endpoint(address, port, true, &meta.namespace, context, &mut seen);
                group.targets.push(labels);
            }
            for address in &subset.not_ready_addresses {
                let labels = endpoint(address, port, false, &meta.namespace, context, &mut seen);
                group.targets.push(labels);
            }
        }
    }
    seen.push_rest(&mut group.targets, context);
    group
}

fn endpoint<'a>(
    address: &EndpointAddress,
    port: &EndpointPort,
    ready: bool,
    namespace: &str,
    context: &Context<'a>,
    seen: &mut SeenPods<'a>,
) -> LabelMap {
    let number = port.port.unwrap_or(0);
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let mut labels = target(host_port(&address.ip, number));
    set(&mut labels, "endpoint_port_name", port.name.as_deref().unwrap_or(""));
    set(&mut labels, "endpoint_port_protocol", protocol);
    set(&mut labels, "endpoint_ready", ready.to_string());
    set_reference(&mut labels, "endpoint", address.target_ref.as_ref());
    set_some(&mut labels, "endpoint_node_name", address.node_name.as_deref());
    if !address.hostname.is_empty() {
        set(&mut labels, "endpoint_hostname", &address.hostname);
    }
    let behind = node_behind(address.target_ref.as_ref());
    context.attach_node(&mut labels, address.node_name.as_deref().or(behind));
    seen.attach(
        &mut labels,
        address.target_ref.as_ref(),
        namespace,
        number,
        Some(protocol),
        context,
    );
    labels
}

/// Adds the metadata of the service behind endpoints, if it is known.
pub fn attach_service(labels: &mut LabelMap, context: &Context<'_>, namespace: &str, name: &str) {
    if let Some(service) = context.service(namespace, name) {
        set_metadata(labels, "service", &service.metadata);
    }
}

/// Adds kind and name of what is behind an address.
pub fn set_reference(labels: &mut LabelMap, kind: &str, reference: Option<&ObjectReference>) {
    if let Some(reference) = reference {
        set(labels, &format!("{kind}_address_target_kind"), &reference.kind);
        set(labels, &format!("{kind}_address_target_name"), &reference.name);
    }
}

/// The node, if one is behind an address.
pub fn node_behind(reference: Option<&ObjectReference>) -> Option<&str> {
    reference.filter(|r| r.kind == "Node").map(|r| r.name.as_str())
}

/// Pods behind the endpoints of one object, and which of their ports are
/// endpoint ports.
#[derive(Default)]
pub struct SeenPods<'a>(BTreeMap<(String, String), (&'a Pod, Vec<u16>)>);

impl<'a> SeenPods<'a> {
    /// Adds the labels of the pod behind an address, and of its container port
    /// with that number. `protocol` is the endpoint's, where that is shown
    /// instead of the container's.
    pub fn attach(
        &mut self,
        labels: &mut LabelMap,
        reference: Option<&ObjectReference>,
        namespace: &str,
        number: u16,
        protocol: Option<&str>,
        context: &Context<'a>,
    ) {
        let Some(reference) = reference.filter(|r| r.kind == "Pod") else { return };
        let place = if reference.namespace.is_empty() { namespace } else { &reference.namespace };
        let Some(pod) = context.pod(place, &reference.name) else { return };
        labels.extend(pod::labels(pod, context));
        let key = (place.to_owned(), reference.name.clone());
        self.0.entry(key).or_insert((pod, Vec::new())).1.push(number);
        for (container, is_init) in pod::containers(pod) {
            if let Some(port) = container.ports.iter().find(|p| p.container_port == number) {
                let shown = protocol.unwrap_or_else(|| pod::protocol(port));
                pod::set_container_port(labels, container, is_init, port, shown);
                return;
            }
        }
    }

    /// Adds a target for each container port that no endpoint port has.
    pub fn push_rest(self, targets: &mut Vec<LabelMap>, context: &Context<'a>) {
        for (pod, covered) in self.0.into_values() {
            if pod.status.pod_ip.is_empty() {
                continue;
            }
            for (container, is_init) in pod::containers(pod) {
                for port in container.ports.iter().filter(|p| !covered.contains(&p.container_port))
                {
                    let mut labels = target(host_port(&pod.status.pod_ip, port.container_port));
                    pod::set_container_port(
                        &mut labels,
                        container,
                        is_init,
                        port,
                        pod::protocol(port),
                    );
                    labels.extend(pod::labels(pod, context));
                    targets.push(labels);
                }
            }
        }
    }
}
