//! Objects in, groups out: small cases of ours, and the recorded ones where
//! they are at hand.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cache::{Cache, Kind};
use super::object::Object;
use super::{Attach, groups};
use crate::config::KubernetesRole;

fn put<T: Object + DeserializeOwned>(kind: &mut Kind<T>, object: &Value) {
    kind.apply(serde_json::from_value(object.clone()).expect("an object of this kind"));
}

pub(in crate::discovery) fn load(cache: &mut Cache, object: &Value) {
    match object["kind"].as_str().unwrap_or("") {
        "Node" => put(&mut cache.nodes, object),
        "Pod" => put(&mut cache.pods, object),
        "Service" => put(&mut cache.services, object),
        "Endpoints" => put(&mut cache.endpoints, object),
        "EndpointSlice" => put(&mut cache.slices, object),
        "Ingress" => put(&mut cache.ingresses, object),
        "Namespace" => put(&mut cache.namespaces, object),
        "ReplicaSet" => put(&mut cache.replica_sets, object),
        "Job" => put(&mut cache.jobs, object),
        _ => {}
    }
}

fn cache(objects: &[Value]) -> Cache {
    let mut cache = Cache::default();
    objects.iter().for_each(|object| load(&mut cache, object));
    cache
}

/// All targets of a role, group labels merged in as discovery merges them.
fn targets(role: KubernetesRole, cache: &Cache, attach: Attach) -> Vec<BTreeMap<String, String>> {
    let merged = groups(role, cache, attach).into_iter().flat_map(|group| {
        group.targets.clone().into_iter().map(move |target| {
            let mut labels = group.labels.clone();
            labels.extend(target);
            labels
        })
    });
    merged.collect()
}

fn pod(name: &str, ip: &str, ports: &Value) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app.kubernetes.io/name": "web"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i:1", "ports": ports}],
            "initContainers": null},
        "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    })
}

#[test]
fn a_pod_has_a_target_per_port_and_one_without_ports() {
    let with = pod(
        "a",
        "192.0.2.7",
        &json!([{"containerPort": 80, "name": "http"}, {"containerPort": 81}]),
    );
    let cache = cache(&[with, pod("b", "2001:db8::1", &json!(null)), pod("c", "", &json!([]))]);
    let found = targets(KubernetesRole::Pod, &cache, Attach::default());
    let addresses: Vec<_> = found.iter().map(|t| t["__address__"].as_str()).collect();
    assert_eq!(addresses, ["192.0.2.7:80", "192.0.2.7:81", "2001:db8::1"]);
    assert_eq!(found[0]["__meta_kubernetes_pod_label_app_kubernetes_io_name"], "web");
    assert_eq!(found[0]["__meta_kubernetes_pod_container_port_protocol"], "TCP");
    assert_eq!(found[0]["__meta_kubernetes_pod_ready"], "true");
    assert!(!found[2].contains_key("__meta_kubernetes_pod_container_port_number"));
}

#[test]
fn what_is_attached_comes_from_other_objects() {
    let cache = cache(&[
        pod("a", "192.0.2.7", &json!([{"containerPort": 80}])),
        json!({"kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "z"}}}),
        json!({"kind": "Namespace", "metadata": {"name": "shop", "annotations": {"team": "red"}}}),
        json!({"kind": "ReplicaSet", "metadata": {"name": "web-1", "namespace": "shop",
            "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": true}]}}),
    ]);
    let all = Attach { node: true, namespace: true, deployment: true, job: true, cronjob: true };
    let found = targets(KubernetesRole::Pod, &cache, all);
    assert_eq!(found[0]["__meta_kubernetes_node_label_zone"], "z");
    assert_eq!(found[0]["__meta_kubernetes_namespace_annotation_team"], "red");
    assert_eq!(found[0]["__meta_kubernetes_pod_deployment_name"], "web");
    let none = targets(KubernetesRole::Pod, &cache, Attach::default());
    assert!(!none[0].contains_key("__meta_kubernetes_node_label_zone"));
    assert!(!none[0].contains_key("__meta_kubernetes_pod_deployment_name"));
}

#[test]
fn endpoints_add_the_other_ports_of_their_pods() {
    let ports =
        json!([{"containerPort": 80, "name": "http"}, {"containerPort": 9000, "name": "admin"}]);
    let cache = cache(&[
        pod("a", "192.0.2.7", &ports),
        json!({"kind": "Endpoints", "metadata": {"name": "web", "namespace": "shop"}, "subsets": [{
            "addresses": [{"ip": "192.0.2.7", "targetRef": {"kind": "Pod", "name": "a", "namespace": "shop"}}],
            "ports": [{"name": "web", "port": 80}]}]}),
    ]);
    let found = targets(KubernetesRole::Endpoints, &cache, Attach::default());
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["__meta_kubernetes_pod_container_port_name"], "http");
    assert_eq!(found[1]["__address__"], "192.0.2.7:9000");
    assert!(!found[1].contains_key("__meta_kubernetes_endpoint_port_name"));
}

#[test]
fn a_wildcard_certificate_covers_one_label() {
    let rule = |host: &str| json!({"host": host, "http": {"paths": [{"path": ""}]}});
    let cache = cache(&[
        json!({"kind": "Ingress", "metadata": {"name": "i", "namespace": "shop"}, "spec": {
        "tls": [{"hosts": ["*.example.org"]}],
        "rules": [rule("a.example.org"), rule("a.b.example.org"), {"host": "bare"}, {"host": "none", "http": {"paths": []}}]}}),
    ]);
    let found = targets(KubernetesRole::Ingress, &cache, Attach::default());
    let schemes: Vec<_> =
        found.iter().map(|t| t["__meta_kubernetes_ingress_scheme"].as_str()).collect();
    assert_eq!(schemes, ["https", "http", "http"]);
}

/// Labels that newer versions add and the recordings do not have.
fn is_newer(name: &str) -> bool {
    name.starts_with("__meta_kubernetes_node_condition_")
        || [
            "__convert_classic_histograms_to_nhcb__",
            "__always_scrape_classic_histograms__",
            "__scrape_native_histograms__",
        ]
        .contains(&name)
}

#[test]
fn recorded_cases_have_the_recorded_meta_labels() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/kubernetes/golden");
    if !golden.is_dir() {
        println!("skipped: the recorded cases are not at hand");
        return;
    }
    let single_role = [
        ("node_basic", KubernetesRole::Node, false),
        ("pod_ports", KubernetesRole::Pod, false),
        ("pod_phases", KubernetesRole::Pod, false),
        ("pod_ipv6_hostnetwork", KubernetesRole::Pod, false),
        ("pod_attach_node", KubernetesRole::Pod, true),
        ("service_types", KubernetesRole::Service, false),
        ("endpoints_basic", KubernetesRole::Endpoints, false),
        ("endpoints_no_pod", KubernetesRole::Endpoints, false),
        ("slice_basic", KubernetesRole::EndpointSlice, false),
        ("slice_attach_node", KubernetesRole::EndpointSlice, true),
        ("ingress_tls", KubernetesRole::Ingress, false),
    ];
    for (case, role, node) in single_role {
        let read = |file: &str| -> Value {
            let text = std::fs::read_to_string(golden.join(case).join(file)).expect("recorded");
            serde_json::from_str(&text).expect("JSON")
        };
        let objects = read("objects.json")["items"].as_array().expect("a list").clone();
        let attach = Attach { node, ..Attach::default() };
        let keep_meta = |labels: BTreeMap<String, String>| -> BTreeMap<String, String> {
            let wanted = |n: &str| n.starts_with("__meta_") || n == "__address__";
            labels.into_iter().filter(|(n, v)| wanted(n) && !is_newer(n) && !v.is_empty()).collect()
        };
        let mut found: Vec<_> =
            targets(role, &cache(&objects), attach).into_iter().map(keep_meta).collect();
        let recorded = read("targets.json");
        let mut expected: Vec<BTreeMap<String, String>> = ["activeTargets", "droppedTargets"]
            .iter()
            .flat_map(|list| recorded[*list].as_array().cloned().unwrap_or_default())
            .map(|t| serde_json::from_value(t["discoveredLabels"].clone()).expect("labels"))
            .map(keep_meta)
            .collect();
        found.sort();
        // Equal identities are one target.
        found.dedup();
        expected.sort();
        expected.dedup();
        assert_eq!(found, expected, "{case}");
    }
}
