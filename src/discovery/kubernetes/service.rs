//! Role service: one target per port of a service.

use crate::discovery::TargetGroup;

use super::groups::Context;
use super::meta::{LabelMap, host_port, set, set_metadata, target};
use super::object::Service;

/// The group of a service.
pub fn group(service: &Service, context: &Context<'_>) -> TargetGroup {
    let (meta, spec) = (&service.metadata, &service.spec);
    let mut labels = LabelMap::new();
    set(&mut labels, "namespace", &meta.namespace);
    set_metadata(&mut labels, "service", meta);
    context.attach_namespace(&mut labels, &meta.namespace);
    let kind = if spec.kind.is_empty() { "ClusterIP" } else { &spec.kind };
    let targets = spec.ports.iter().map(|port| {
        let host = format!("{}.{}.svc", meta.name, meta.namespace);
        let mut labels = target(host_port(&host, port.port));
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        set(&mut labels, "service_port_name", &port.name);
        set(&mut labels, "service_port_number", port.port.to_string());
        set(&mut labels, "service_port_protocol", protocol);
        set(&mut labels, "service_type", kind);
        if kind == "ExternalName" {
            set(&mut labels, "service_external_name", &spec.external_name);
        } else {
            set(&mut labels, "service_cluster_ip", &spec.cluster_ip);
        }
        if kind == "LoadBalancer" {
            set(&mut labels, "service_loadbalancer_ip", &spec.load_balancer_ip);
        }
        labels
    });
    TargetGroup {
        source: format!("svc/{}/{}", meta.namespace, meta.name),
        targets: targets.collect(),
        labels,
    }
}
