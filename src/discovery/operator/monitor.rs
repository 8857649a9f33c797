//! ServiceMonitors and PodMonitors: one scrape configuration per endpoint.

use serde_json::{Value, json};

use super::fields::{Config, endpoint, kubernetes_sd, namespaces, port_text, spec};
use super::relabeling::{
    constant, copy, copy_present, drop_finished_pods, keep, of_user, remember_job, sanitize,
};
use super::{Mapping, selector};
use crate::config::KubernetesRole;

const POD_LABEL: &str = "__meta_kubernetes_pod_label_";
const SERVICE_LABEL: &str = "__meta_kubernetes_service_label_";
const PORT_NAME: &str = "__meta_kubernetes_pod_container_port_name";
const PORT_NUMBER: &str = "__meta_kubernetes_pod_container_port_number";

/// Namespace and name of an object.
pub fn identity(object: &Value) -> (&str, &str) {
    let meta = &object["metadata"];
    (meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().unwrap_or(""))
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The scrape configurations of a ServiceMonitor.
pub fn service_monitor(object: &Value, mapping: &Mapping<'_>) -> Result<Vec<Value>, String> {
    let (namespace, name) = identity(object);
    let monitor = &object["spec"];
    let slices = match monitor["serviceDiscoveryRole"].as_str() {
        Some("EndpointSlice") => true,
        Some("Endpoints") => false,
        _ => mapping.role == KubernetesRole::EndpointSlice,
    };
    let (role, prefix) = if slices {
        ("endpointslice", "__meta_kubernetes_endpointslice")
    } else {
        ("endpoints", "__meta_kubernetes_endpoint")
    };
    let mut configs = Vec::new();
    for (i, from) in monitor["endpoints"].as_array().into_iter().flatten().enumerate() {
        let mut config = Config::new();
        let pool = format!("serviceMonitor/{namespace}/{name}/{i}");
        config.insert("job_name".to_owned(), json!(pool));
        spec(monitor, &mut config);
        endpoint(from, &mut config, namespace, mapping)?;
        let mut sd =
            kubernetes_sd(role, &namespaces(&monitor["namespaceSelector"], namespace), mapping);
        attach_node(&mut sd, monitor);
        let mut rules = vec![remember_job()];
        if monitor["selectorMechanism"].as_str() == Some("RoleSelector") {
            sd.insert("selectors".to_owned(), role_selectors(role, &monitor["selector"])?);
        } else {
            rules.extend(
                selector::rules("service", &monitor["selector"]).map_err(|e| e.to_string())?,
            );
        }
        let port = port_text(&from["port"]);
        match (&port, &from["targetPort"]) {
            (Some(port), _) => rules.push(keep(&format!("{prefix}_port_name"), port)),
            (None, Value::String(target)) if !target.is_empty() => {
                rules.push(keep(PORT_NAME, target));
            }
            (None, target) => {
                if let Some(number) = port_text(target) {
                    rules.push(keep(PORT_NUMBER, &number));
                }
            }
        }
        for (kind, label) in [("Node", "node"), ("Pod", "pod")] {
            let sources =
                [format!("{prefix}_address_target_kind"), format!("{prefix}_address_target_name")];
            rules.push(json!({"source_labels": sources, "separator": ";",
                "regex": format!("{kind};(.*)"), "replacement": "${1}", "target_label": label}));
        }
        rules.push(copy("__meta_kubernetes_namespace", "namespace"));
        rules.push(copy("__meta_kubernetes_service_name", "service"));
        rules.push(copy("__meta_kubernetes_pod_name", "pod"));
        rules.push(copy("__meta_kubernetes_pod_container_name", "container"));
        if from["filterRunning"].as_bool() != Some(false) {
            rules.push(drop_finished_pods());
        }
        for label in texts(&monitor["targetLabels"]) {
            let label = sanitize(label);
            rules.push(copy_present(&format!("{SERVICE_LABEL}{label}"), &label));
        }
        pod_target_labels(monitor, &mut rules);
        rules.push(copy("__meta_kubernetes_service_name", "job"));
        if let Some(label) = monitor["jobLabel"].as_str().filter(|l| !l.is_empty()) {
            rules.push(copy_present(&format!("{SERVICE_LABEL}{}", sanitize(label)), "job"));
        }
        if let Some(shown) = port.or_else(|| port_text(&from["targetPort"])) {
            rules.push(constant("endpoint", &shown));
        }
        finish(&mut config, sd, rules, from);
        configs.push(Value::Object(config));
    }
    Ok(configs)
}

/// The scrape configurations of a PodMonitor.
pub fn pod_monitor(object: &Value, mapping: &Mapping<'_>) -> Result<Vec<Value>, String> {
    let (namespace, name) = identity(object);
    let monitor = &object["spec"];
    let mut configs = Vec::new();
    for (i, from) in monitor["podMetricsEndpoints"].as_array().into_iter().flatten().enumerate() {
        let mut config = Config::new();
        let pool = format!("podMonitor/{namespace}/{name}/{i}");
        config.insert("job_name".to_owned(), json!(pool));
        spec(monitor, &mut config);
        endpoint(from, &mut config, namespace, mapping)?;
        let mut sd =
            kubernetes_sd("pod", &namespaces(&monitor["namespaceSelector"], namespace), mapping);
        attach_node(&mut sd, monitor);
        let mut rules = vec![remember_job()];
        if from["filterRunning"].as_bool() != Some(false) {
            rules.push(drop_finished_pods());
        }
        if monitor["selectorMechanism"].as_str() == Some("RoleSelector") {
            sd.insert("selectors".to_owned(), role_selectors("pod", &monitor["selector"])?);
        } else {
            rules.extend(selector::rules("pod", &monitor["selector"]).map_err(|e| e.to_string())?);
        }
        let port = port_text(&from["port"]);
        if let Some(port) = &port {
            rules.push(keep(PORT_NAME, port));
        } else if let Some(number) = port_text(&from["portNumber"]) {
            rules.push(keep(PORT_NUMBER, &number));
        } else if let Some(target) = port_text(&from["targetPort"]) {
            let label = if from["targetPort"].is_string() { PORT_NAME } else { PORT_NUMBER };
            rules.push(keep(label, &target));
        }
        rules.push(copy("__meta_kubernetes_namespace", "namespace"));
        rules.push(copy("__meta_kubernetes_pod_container_name", "container"));
        rules.push(copy("__meta_kubernetes_pod_name", "pod"));
        pod_target_labels(monitor, &mut rules);
        rules.push(constant("job", &format!("{namespace}/{name}")));
        if let Some(label) = monitor["jobLabel"].as_str().filter(|l| !l.is_empty()) {
            rules.push(copy_present(&format!("{POD_LABEL}{}", sanitize(label)), "job"));
        }
        if let Some(shown) = port.or_else(|| port_text(&from["targetPort"])) {
            rules.push(constant("endpoint", &shown));
        }
        finish(&mut config, sd, rules, from);
        configs.push(Value::Object(config));
    }
    Ok(configs)
}

fn pod_target_labels(monitor: &Value, rules: &mut Vec<Value>) {
    for label in texts(&monitor["podTargetLabels"]) {
        let label = sanitize(label);
        rules.push(copy_present(&format!("{POD_LABEL}{label}"), &label));
    }
}

fn attach_node(sd: &mut Config, monitor: &Value) {
    if monitor["attachMetadata"]["node"].as_bool() == Some(true) {
        sd.insert("attach_metadata".to_owned(), json!({"node": true}));
    }
}

/// Puts the discovery and the rules, the user's last, into a configuration.
fn finish(config: &mut Config, sd: Config, mut rules: Vec<Value>, from: &Value) {
    rules.extend(of_user(&from["relabelings"]));
    config.insert("kubernetes_sd_configs".to_owned(), json!([sd]));
    config.insert("relabel_configs".to_owned(), Value::Array(rules));
    let metric_rules = of_user(&from["metricRelabelings"]);
    if !metric_rules.is_empty() {
        config.insert("metric_relabel_configs".to_owned(), Value::Array(metric_rules));
    }
}

/// The selector as the API server takes it, for the watches of a role.
fn role_selectors(role: &str, selector: &Value) -> Result<Value, String> {
    // Checks the terms as the relabel rules would.
    selector::rules("service", selector).map_err(|e| e.to_string())?;
    let mut terms: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    terms.sort();
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or("");
        let values = texts(&term["values"]).collect::<Vec<_>>().join(",");
        terms.push(match term["operator"].as_str().unwrap_or("") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    let label = terms.join(",");
    let roles: &[&str] = match role {
        "pod" => &["pod"],
        "endpoints" => &["endpoints", "service"],
        _ => &["endpointslice", "service"],
    };
    Ok(roles.iter().map(|role| json!({"role": role, "label": label})).collect())
}
