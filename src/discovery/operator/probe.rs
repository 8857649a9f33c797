//! Probes: one scrape configuration that asks a prober about targets.

use serde_json::{Value, json};

use super::fields::{Config, endpoint, kubernetes_sd, namespaces, spec};
use super::monitor::identity;
use super::relabeling::{constant, copy, of_user, remember_job};
use super::{Mapping, selector};

/// The path that the object's definition gives by default.
const DEFAULT_PATH: &str = "/probe";

/// The scrape configuration of a Probe.
pub fn probe(object: &Value, mapping: &Mapping<'_>) -> Result<Value, String> {
    let (namespace, name) = identity(object);
    let probe = &object["spec"];
    let prober = &probe["prober"];
    let prober_url = prober["url"].as_str().unwrap_or("");
    if !is_host_and_port(prober_url) {
        return Err(format!("prober.url {prober_url:?} is neither a host nor host:port"));
    }
    let mut config = Config::new();
    config.insert("job_name".to_owned(), json!(format!("probe/{namespace}/{name}")));
    spec(probe, &mut config);
    endpoint(probe, &mut config, namespace, mapping)?;
    config.remove("honor_labels");
    config.insert("honor_timestamps".to_owned(), json!(true));
    let path = prober["path"].as_str().filter(|p| !p.is_empty()).unwrap_or(DEFAULT_PATH);
    config.insert("metrics_path".to_owned(), json!(path));
    if let Some(scheme) = prober["scheme"].as_str().filter(|s| !s.is_empty()) {
        config.insert("scheme".to_owned(), json!(scheme.to_lowercase()));
    }
    if let Some(url) = prober["proxyUrl"].as_str().filter(|u| !u.is_empty()) {
        config.insert("proxy_url".to_owned(), json!(url));
    }
    config.insert("params".to_owned(), params(probe));
    let mut rules = vec![remember_job()];
    if let Some(job) = probe["jobName"].as_str().filter(|j| !j.is_empty()) {
        rules.push(constant("job", job));
    }
    let (fixed, ingress) = (&probe["targets"]["staticConfig"], &probe["targets"]["ingress"]);
    let user_rules = if fixed.is_object() {
        static_targets(&mut config, fixed, namespace);
        rules.push(copy("__address__", "__param_target"));
        rules.push(copy("__param_target", "instance"));
        rules.push(constant("__address__", prober_url));
        of_user(&fixed["relabelingConfigs"])
    } else if ingress.is_object() {
        let found = namespaces(&ingress["namespaceSelector"], namespace);
        let sd = kubernetes_sd("ingress", &found, mapping);
        config.insert("kubernetes_sd_configs".to_owned(), json!([sd]));
        rules.extend(selector::rules("ingress", &ingress["selector"]).map_err(|e| e.to_string())?);
        rules.push(json!({
            "source_labels": ["__meta_kubernetes_ingress_scheme", "__address__", "__meta_kubernetes_ingress_path"],
            "separator": ";", "regex": "(.+);(.+);(.+)",
            "target_label": "__param_target", "replacement": "${1}://${2}${3}", "action": "replace"}));
        rules.push(copy("__meta_kubernetes_namespace", "namespace"));
        rules.push(copy("__meta_kubernetes_ingress_name", "ingress"));
        rules.push(copy("__address__", "__tmp_ingress_address"));
        rules.push(copy("__param_target", "instance"));
        rules.push(constant("__address__", prober_url));
        of_user(&ingress["relabelingConfigs"])
    } else {
        return Err("it has neither staticConfig nor ingress".to_owned());
    };
    rules.extend(user_rules);
    config.insert("relabel_configs".to_owned(), Value::Array(rules));
    let metric_rules = of_user(&probe["metricRelabelings"]);
    if !metric_rules.is_empty() {
        config.insert("metric_relabel_configs".to_owned(), Value::Array(metric_rules));
    }
    Ok(Value::Object(config))
}

/// `module` first; an entry of that name counts only without it.
fn params(probe: &Value) -> Value {
    let mut params = Config::new();
    let module = probe["module"].as_str().filter(|m| !m.is_empty());
    if let Some(module) = module {
        params.insert("module".to_owned(), json!([module]));
    }
    for entry in probe["params"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or("");
        if name.is_empty() || (name == "module" && module.is_some()) {
            continue;
        }
        params.insert(name.to_owned(), entry["values"].clone());
    }
    Value::Object(params)
}

fn static_targets(config: &mut Config, fixed: &Value, namespace: &str) {
    let mut labels = fixed["labels"].as_object().cloned().unwrap_or_default();
    labels.entry("namespace").or_insert_with(|| json!(namespace));
    let group = json!({"targets": fixed["static"], "labels": labels});
    config.insert("static_configs".to_owned(), json!([group]));
}

fn is_host_and_port(text: &str) -> bool {
    let Ok(url) = url::Url::parse(&format!("http://{text}")) else { return false };
    !text.contains('/') && url.has_host() && url.username().is_empty() && url.query().is_none()
}
