//! ScrapeConfigs: a nearly literal scrape configuration in camelCase.

use serde_json::{Value, json};

use super::Mapping;
use super::fields::{Config, endpoint, http, spec};
use super::monitor::identity;
use super::relabeling::{constant, of_user, remember_job};

/// Discoveries that narthex has; all others end in `SDConfigs`, too.
const KNOWN: [&str; 4] = ["httpSDConfigs", "fileSDConfigs", "kubernetesSDConfigs", "dnsSDConfigs"];

/// The scrape configuration of a ScrapeConfig.
pub fn scrape_config(object: &Value, mapping: &Mapping<'_>) -> Result<Value, String> {
    let (namespace, name) = identity(object);
    let from = &object["spec"];
    for (member, value) in from.as_object().into_iter().flatten() {
        let used = value.as_array().is_some_and(|list| !list.is_empty());
        if member.ends_with("SDConfigs") && used && !KNOWN.contains(&member.as_str()) {
            let known = KNOWN.join(", ");
            return Err(format!("{member} is not supported; there are staticConfigs, {known}"));
        }
    }
    let mut config = Config::new();
    config.insert("job_name".to_owned(), json!(format!("scrapeConfig/{namespace}/{name}")));
    spec(from, &mut config);
    endpoint(from, &mut config, namespace, mapping)?;
    for (theirs, ours) in [("metricsPath", "metrics_path"), ("scrapeInterval", "scrape_interval")] {
        if let Some(text) = from[theirs].as_str().filter(|t| !t.is_empty()) {
            config.insert(ours.to_owned(), json!(text));
        }
    }
    let groups: Vec<Value> = list(&from["staticConfigs"])
        .map(|group| json!({"targets": group["targets"], "labels": or_empty(&group["labels"])}))
        .collect();
    put(&mut config, "static_configs", groups);
    let files = list(&from["fileSDConfigs"]).map(|sd| {
        let mut to = Config::new();
        to.insert("files".to_owned(), sd["files"].clone());
        refresh(sd, &mut to);
        Value::Object(to)
    });
    let files = files.collect();
    put(&mut config, "file_sd_configs", files);
    let mut urls = Vec::new();
    for sd in list(&from["httpSDConfigs"]) {
        let mut to = Config::new();
        to.insert("url".to_owned(), sd["url"].clone());
        refresh(sd, &mut to);
        http(sd, &mut to, namespace, mapping)?;
        urls.push(Value::Object(to));
    }
    put(&mut config, "http_sd_configs", urls);
    let names = list(&from["dnsSDConfigs"]).map(|sd| {
        let mut to = Config::new();
        for member in ["names", "type", "port"] {
            if !sd[member].is_null() {
                to.insert(member.to_owned(), sd[member].clone());
            }
        }
        refresh(sd, &mut to);
        Value::Object(to)
    });
    let names = names.collect();
    put(&mut config, "dns_sd_configs", names);
    let mut clusters = Vec::new();
    for sd in list(&from["kubernetesSDConfigs"]) {
        clusters.push(kubernetes(sd, namespace, mapping)?);
    }
    put(&mut config, "kubernetes_sd_configs", clusters);
    let mut rules = vec![remember_job()];
    if let Some(job) = from["jobName"].as_str().filter(|j| !j.is_empty()) {
        rules.push(constant("job", job));
    }
    rules.extend(of_user(&from["relabelings"]));
    config.insert("relabel_configs".to_owned(), Value::Array(rules));
    put(&mut config, "metric_relabel_configs", of_user(&from["metricRelabelings"]));
    Ok(Value::Object(config))
}

fn kubernetes(sd: &Value, namespace: &str, mapping: &Mapping<'_>) -> Result<Value, String> {
    let own_access = sd["apiServer"].as_str().is_some_and(|url| !url.is_empty());
    let mut to = if own_access {
        let mut to = Config::new();
        to.insert("api_server".to_owned(), sd["apiServer"].clone());
        http(sd, &mut to, namespace, mapping)?;
        to
    } else {
        mapping.api_access.as_object().cloned().unwrap_or_default()
    };
    let role = sd["role"].as_str().unwrap_or("").to_lowercase();
    to.insert("role".to_owned(), json!(role));
    let spaces = &sd["namespaces"];
    if spaces.is_object() {
        let mut inner = Config::new();
        if spaces["ownNamespace"].as_bool() == Some(true) {
            inner.insert("own_namespace".to_owned(), json!(true));
        }
        if spaces["names"].is_array() {
            inner.insert("names".to_owned(), spaces["names"].clone());
        }
        to.insert("namespaces".to_owned(), Value::Object(inner));
    }
    if sd["attachMetadata"]["node"].as_bool() == Some(true) {
        to.insert("attach_metadata".to_owned(), json!({"node": true}));
    }
    let selectors: Vec<Value> = list(&sd["selectors"])
        .map(|s| {
            let role = s["role"].as_str().unwrap_or("").to_lowercase();
            let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
            json!({"role": role, "label": text(&s["label"]), "field": text(&s["field"])})
        })
        .collect();
    put(&mut to, "selectors", selectors);
    Ok(Value::Object(to))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn or_empty(value: &Value) -> Value {
    if value.is_object() { value.clone() } else { json!({}) }
}

fn put(config: &mut Config, name: &str, values: Vec<Value>) {
    if !values.is_empty() {
        config.insert(name.to_owned(), Value::Array(values));
    }
}

fn refresh(sd: &Value, to: &mut Config) {
    if let Some(interval) = sd["refreshInterval"].as_str().filter(|i| !i.is_empty()) {
        to.insert("refresh_interval".to_owned(), json!(interval));
    }
}
