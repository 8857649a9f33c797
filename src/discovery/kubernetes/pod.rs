//! Role pod: one target per declared container port.

use crate::discovery::TargetGroup;

use super::groups::Context;
use super::meta::{LabelMap, host_port, set, set_labels_and_annotations, set_some, target};
use super::object::{Container, ContainerPort, Pod};

/// The group of a pod; without targets until it has an address.
pub fn group(pod: &Pod, context: &Context<'_>) -> TargetGroup {
    let meta = &pod.metadata;
    let mut group = TargetGroup {
        source: format!("pod/{}/{}", meta.namespace, meta.name),
        ..TargetGroup::default()
    };
    if pod.status.pod_ip.is_empty() {
        return group;
    }
    group.labels = labels(pod, context);
    set(&mut group.labels, "namespace", &meta.namespace);
    context.attach_namespace(&mut group.labels, &meta.namespace);
    context.attach_node(&mut group.labels, Some(&pod.spec.node_name));
    for (container, is_init) in containers(pod) {
        if container.ports.is_empty() {
            let mut labels = target(pod.status.pod_ip.clone());
            set_container(&mut labels, pod, container, is_init);
            group.targets.push(labels);
        }
        for port in &container.ports {
            let mut labels = target(host_port(&pod.status.pod_ip, port.container_port));
            set_container(&mut labels, pod, container, is_init);
            set_port(&mut labels, port, protocol(port));
            group.targets.push(labels);
        }
    }
    group
}

/// The containers, then the init containers.
pub fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let ordinary = pod.spec.containers.iter().map(|c| (c, false));
    ordinary.chain(pod.spec.init_containers.iter().map(|c| (c, true)))
}

/// The protocol of a declared port.
pub fn protocol(port: &ContainerPort) -> &str {
    if port.protocol.is_empty() { "TCP" } else { &port.protocol }
}

/// Labels of the pod itself, as they are attached to endpoints, too.
pub fn labels(pod: &Pod, context: &Context<'_>) -> LabelMap {
    let meta = &pod.metadata;
    let mut labels = LabelMap::new();
    let ready = pod.status.conditions.iter().find(|c| c.kind == "Ready");
    for (name, value) in [
        ("pod_name", meta.name.as_str()),
        ("pod_ip", &pod.status.pod_ip),
        ("pod_phase", &pod.status.phase),
        ("pod_node_name", &pod.spec.node_name),
        ("pod_host_ip", &pod.status.host_ip),
        ("pod_uid", &meta.uid),
    ] {
        set(&mut labels, name, value);
    }
    let ready = ready.map_or_else(|| "unknown".to_owned(), |c| c.status.to_lowercase());
    set(&mut labels, "pod_ready", ready);
    set_labels_and_annotations(&mut labels, "pod", meta);
    if let Some(owner) = meta.controller() {
        set(&mut labels, "pod_controller_kind", &owner.kind);
        set(&mut labels, "pod_controller_name", &owner.name);
        set_owners(&mut labels, context, &meta.namespace, &owner.kind, &owner.name);
    }
    labels
}

/// Names of the deployment, job and cron job above the owner.
fn set_owners(
    labels: &mut LabelMap,
    context: &Context<'_>,
    namespace: &str,
    kind: &str,
    name: &str,
) {
    let above = |owner: Option<&super::object::Meta>, wanted: &str| {
        owner
            .and_then(super::object::Meta::controller)
            .filter(|o| o.kind == wanted)
            .map(|o| o.name.clone())
    };
    let attach = context.attach;
    match kind {
        "ReplicaSet" if attach.deployment => {
            let set = context.replica_set(namespace, name).map(|r| &r.metadata);
            set_some(labels, "pod_deployment_name", above(set, "Deployment"));
        }
        "Job" => {
            if attach.job {
                set(labels, "pod_job_name", name);
            }
            if attach.cronjob {
                let job = context.job(namespace, name).map(|j| &j.metadata);
                set_some(labels, "pod_cronjob_name", above(job, "CronJob"));
            }
        }
        _ => {}
    }
}

/// Labels of a container.
fn set_container(labels: &mut LabelMap, pod: &Pod, container: &Container, is_init: bool) {
    let statuses =
        if is_init { &pod.status.init_container_statuses } else { &pod.status.container_statuses };
    let id = statuses.iter().find(|s| s.name == container.name).map_or("", |s| &s.container_id);
    set(labels, "pod_container_name", &container.name);
    set(labels, "pod_container_id", id);
    set(labels, "pod_container_image", &container.image);
    set(labels, "pod_container_init", is_init.to_string());
}

/// Labels of a container's port.
fn set_port(labels: &mut LabelMap, port: &ContainerPort, protocol: &str) {
    set(labels, "pod_container_port_name", &port.name);
    set(labels, "pod_container_port_number", port.container_port.to_string());
    set(labels, "pod_container_port_protocol", protocol);
}

/// Labels of a container and its port as endpoints attach them: without the
/// container's id.
pub fn set_container_port(
    labels: &mut LabelMap,
    container: &Container,
    is_init: bool,
    port: &ContainerPort,
    protocol: &str,
) {
    set(labels, "pod_container_name", &container.name);
    set(labels, "pod_container_image", &container.image);
    set(labels, "pod_container_init", is_init.to_string());
    set_port(labels, port, protocol);
}
