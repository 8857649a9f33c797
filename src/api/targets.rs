//! What is scraped? `targets`, `targets/metadata`, `scrape_pools`,
//! `targets/relabel_steps`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use narthex_storage::labels::{Labels, Matcher};
use serde_json::{Value, json};

use super::Api;
use super::envelope::{Answer, ApiError, ErrorType};
use super::metadata::count;
use super::params::{Params, parse_match};
use super::status::rfc3339;
use crate::config::units::format_duration;
use crate::config::{RelabelConfig, ScrapeConfig};
use crate::relabel::Rules;
use crate::scrape::Target;

fn map(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

/// `GET /api/v1/targets`.
pub async fn targets(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let state = params.get("state").unwrap_or("any").to_lowercase();
    let wanted = params.get("scrapePool");
    let pools = api.scrape.status();
    let pools: Vec<_> =
        pools.iter().filter(|p| wanted.is_none_or(|w| p.config.job_name == w)).collect();
    let shows = |kind: &str| state == kind || !["active", "dropped"].contains(&state.as_str());
    let mut active = Vec::new();
    if shows("active") {
        for pool in &pools {
            for target in &pool.active {
                active.push(active_target(&api, &pool.config, target));
            }
        }
    }
    let mut dropped = Vec::new();
    let mut counts = BTreeMap::new();
    if shows("dropped") {
        for pool in &pools {
            counts.insert(pool.config.job_name.clone(), pool.dropped_count);
            dropped.extend(pool.dropped.iter().map(|found| {
                let labels = &found.labels(&pool.config);
                let target =
                    json!({"discoveredLabels": map(labels), "scrapePool": pool.config.job_name});
                with_origin(target, &pool.config, labels)
            }));
        }
    }
    Answer::of(&json!({
        "activeTargets": active,
        "droppedTargets": dropped,
        "droppedTargetCounts": counts,
    }))
}

/// Kinds of objects that targets are found in, by the label that names the
/// object: one that was found in an object and names another as well stands
/// before that.
const FOUND_IN: [(&str, &str); 6] = [
    ("endpointslice", "EndpointSlice"),
    ("endpoints", "Endpoints"),
    ("ingress", "Ingress"),
    ("pod", "Pod"),
    ("service", "Service"),
    ("node", "Node"),
];

/// The Kubernetes object in which a target was found.
fn found_in(discovered: &Labels) -> Option<String> {
    let named = |kind: &str| discovered.get(&format!("__meta_kubernetes_{kind}_name"));
    let (kind, name) = FOUND_IN.iter().find_map(|(label, kind)| Some((kind, named(label)?)))?;
    match discovered.get("__meta_kubernetes_namespace") {
        Some(namespace) => Some(format!("{kind} {namespace}/{name}")),
        None => Some(format!("{kind} {name}")),
    }
}

/// Adds which object asks for a target, and in which one it was found.
/// Members of ours: absent where there is no such object.
fn with_origin(mut target: Value, config: &ScrapeConfig, discovered: &Labels) -> Value {
    if let Some(origin) = &config.origin {
        target["definedBy"] = json!(origin);
    }
    if let Some(object) = found_in(discovered) {
        target["foundIn"] = json!(object);
    }
    target
}

fn active_target(api: &Api, config: &ScrapeConfig, target: &Target) -> Value {
    let (spec, last) = (&target.spec, target.last());
    let discovered = target.discovered(config);
    let last_scrape = if last.started_ms == 0 {
        "0001-01-01T00:00:00Z".to_owned()
    } else {
        rfc3339(last.started_ms)
    };
    let shown = json!({
        "discoveredLabels": map(&discovered),
        "labels": map(&spec.public_labels()),
        "scrapePool": config.job_name,
        "scrapeUrl": spec.url,
        "globalUrl": global_url(&api.options.web.external_url, &spec.url),
        "lastError": last.error,
        "lastScrape": last_scrape,
        "lastScrapeDuration": last.duration.as_secs_f64(),
        "health": last.health.as_str(),
        "scrapeInterval": format_duration(spec.interval),
        "scrapeTimeout": format_duration(spec.timeout),
    });
    with_origin(shown, config, &discovered)
}

/// The URL as others reach it: on this host, the host of the external URL.
fn global_url(external: &str, scrape: &str) -> String {
    let (Ok(external), Ok(mut url)) = (url::Url::parse(external), url::Url::parse(scrape)) else {
        return scrape.to_owned();
    };
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if local && url.set_host(external.host_str()).is_ok() {
        return url.to_string();
    }
    scrape.to_owned()
}

/// `GET /api/v1/scrape_pools`.
pub async fn pools(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let names: Vec<String> =
        api.scrape.status().iter().map(|pool| pool.config.job_name.clone()).collect();
    Answer::of(&json!({ "scrapePools": names }))
}

/// `GET /api/v1/targets/metadata`.
pub async fn metadata(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let limit = count(&params, "limit", "limit")?.unwrap_or(usize::MAX);
    let metric = params.get("metric");
    let matchers = params.get("match_target").map(parse_match_target).transpose()?;
    let mut found = Vec::new();
    'all: for pool in api.scrape.status() {
        for target in &pool.active {
            let labels = target.spec.public_labels();
            let selected =
                matchers.iter().flatten().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
            if !selected {
                continue;
            }
            for family in target.metadata().iter() {
                if metric.is_some_and(|m| m != family.family) {
                    continue;
                }
                if found.len() == limit {
                    break 'all;
                }
                let mut entry = json!({
                    "target": map(&labels),
                    "type": family.metadata.kind.as_str(),
                    "help": family.metadata.help,
                    "unit": family.metadata.unit,
                });
                if metric.is_none() {
                    entry["metric"] = json!(family.family);
                }
                found.push(entry);
            }
        }
    }
    if found.is_empty() {
        return Err(ApiError::new(ErrorType::NotFound, "specified metadata not found"));
    }
    Answer::of(&found)
}

fn parse_match_target(text: &str) -> Result<Vec<Matcher>, ApiError> {
    parse_match(text)
}

/// `GET /api/v1/targets/relabel_steps`: what each rule of a pool makes of
/// these labels.
pub async fn relabel_steps(
    State(api): State<Arc<Api>>,
    params: Params,
) -> Result<Answer, ApiError> {
    let name = params
        .get("scrapePool")
        .ok_or_else(|| ApiError::bad_data("no scrapePool parameter provided"))?;
    let text =
        params.get("labels").ok_or_else(|| ApiError::bad_data("no labels parameter provided"))?;
    let labels: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|e| ApiError::bad_data(format!("failed to parse labels: {e}")))?;
    let pools = api.scrape.status();
    let pool = pools
        .iter()
        .find(|pool| pool.config.job_name == name)
        .ok_or_else(|| ApiError::bad_data(format!("scrape pool {name:?} not found")))?;
    let rules = Rules::compile(&pool.config.relabel_configs)
        .map_err(|e| ApiError::new(ErrorType::Internal, e.to_string()))?;
    let steps = rules.steps(&Labels::from_pairs(&labels));
    let steps: Vec<Value> = pool
        .config
        .relabel_configs
        .iter()
        .zip(&steps)
        .map(|(rule, step)| {
            json!({"rule": rule_json(rule), "output": map(&step.output), "keep": step.keep})
        })
        .collect();
    Answer::of(&json!({ "steps": steps }))
}

fn rule_json(rule: &RelabelConfig) -> Value {
    json!({
        "source_labels": rule.source_labels,
        "separator": rule.separator,
        "regex": rule.regex,
        "modulus": rule.modulus,
        "target_label": rule.target_label,
        "replacement": rule.replacement,
        "action": rule.action.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_found_in_the_object_of_its_role() {
        let of = |pairs: &[(&str, &str)]| {
            let named = |(n, v): &(&str, &str)| (format!("__meta_kubernetes_{n}"), (*v).to_owned());
            let labels: BTreeMap<String, String> = pairs.iter().map(named).collect();
            found_in(&Labels::from_pairs(&labels))
        };
        let (namespace, pod) = (("namespace", "shop"), ("pod_name", "web-1"));
        let slice = ("endpointslice_name", "web-x");
        let (service, node) = (("service_name", "web"), ("node_name", "n1"));
        assert_eq!(
            of(&[namespace, pod, slice, service, node]).as_deref(),
            Some("EndpointSlice shop/web-x")
        );
        assert_eq!(of(&[namespace, pod, node]).as_deref(), Some("Pod shop/web-1"));
        assert_eq!(of(&[namespace, service]).as_deref(), Some("Service shop/web"));
        assert_eq!(of(&[node]).as_deref(), Some("Node n1"));
        assert_eq!(of(&[]), None);
    }
}
