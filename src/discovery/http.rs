//! `http_sd_configs`: target groups from a URL.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;

use super::metrics::DiscoveryMetrics;
use super::refresh::{Published, Rounds};
use super::{TargetGroup, listed_group};
use crate::client::{HttpClient, Request, parse_url};
use crate::config::{HttpSdConfig, StaticConfig};

/// Largest answer, in bytes.
const MAX_BODY_BYTES: u64 = 64 << 20;
/// Most groups of one answer or file.
const MAX_GROUPS: usize = 1_000_000;

/// A group in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonGroup {
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

/// Reads a list of target groups in JSON.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_json(body: &[u8]) -> Result<Vec<StaticConfig>, String> {
    let groups: Option<Vec<JsonGroup>> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let groups = groups.unwrap_or_default();
    if groups.len() > MAX_GROUPS {
        return Err(format!("there are more than {MAX_GROUPS} groups"));
    }
    let read = |group: JsonGroup| {
        let labels = group.labels.unwrap_or_default();
        if labels.contains_key("") {
            return Err("a label name must not be empty".to_owned());
        }
        Ok(StaticConfig { targets: group.targets.unwrap_or_default(), labels })
    };
    groups.into_iter().map(read).collect()
}

/// Follows one URL for ever.
pub async fn run(config: &HttpSdConfig, metrics: &DiscoveryMetrics, sender: &Published) {
    let client = match HttpClient::new_lazy(&config.http) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, url = shown(&config.url), "http_sd: not usable");
            return;
        }
    };
    let labels = ["http", &shown(&config.url)];
    let failures = metrics.refresh_failures.with(&labels);
    let duration = metrics.refresh_duration.with(&labels);
    let mut rounds = Rounds::new(config.refresh_interval, failures, duration);
    loop {
        let started = rounds.next().await;
        let found = refresh(config, &client).await;
        if found.is_err() {
            metrics.http_failures.inc();
        }
        rounds.finish(started, found, sender);
    }
}

async fn refresh(config: &HttpSdConfig, client: &HttpClient) -> Result<Vec<TargetGroup>, String> {
    let url = parse_url(&config.url).map_err(|e| e.to_string())?;
    let mut request = Request::new(Method::GET, url);
    request.timeout = config.refresh_interval;
    request.headers = headers(config).into();
    let mut response = client.send(request).await.map_err(|e| e.to_string())?;
    if response.status != StatusCode::OK {
        return Err(format!("server returned HTTP status {}", response.status));
    }
    let kind = response.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|k| k.to_str().ok()).unwrap_or_default().to_owned();
    if !is_json(&kind) {
        return Err(format!("unsupported content type {kind:?}"));
    }
    let body = response.read(MAX_BODY_BYTES).await.map_err(|e| e.to_string())?;
    let groups = parse_json(&body)?.into_iter().enumerate();
    let made = groups.map(|(i, group)| {
        listed_group(group, format!("{}:{i}", config.url), "__meta_url", &config.url)
    });
    Ok(made.collect())
}

fn headers(config: &HttpSdConfig) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let interval = config.refresh_interval.as_secs_f64().to_string();
    if let Ok(value) = HeaderValue::from_str(&interval) {
        let name = HeaderName::from_static("x-prometheus-refresh-interval-seconds");
        headers.insert(name, value);
    }
    headers
}

/// `application/json`, perhaps with the charset utf-8.
fn is_json(content_type: &str) -> bool {
    let text = content_type.trim().to_ascii_lowercase();
    let Some(rest) = text.strip_prefix("application/json") else { return false };
    let charset = rest.strip_prefix(';').map(str::trim_start);
    rest.is_empty() || matches!(charset, Some("charset=utf-8" | "charset=\"utf-8\""))
}

/// A URL without user and password.
fn shown(url: &str) -> String {
    let Ok(mut parsed) = ::url::Url::parse(url) else { return String::new() };
    let _ = parsed.set_password(None);
    let _ = parsed.set_username("");
    parsed.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_read() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "text/json", "application/jsonp", "application/json; charset=latin1"] {
            assert!(!is_json(bad), "{bad}");
        }
        assert_eq!(parse_json(b"null").map(|g| g.len()), Ok(0));
        assert_eq!(
            parse_json(br#"[{"targets": ["a:1"], "labels": {"x": "y"}}, {}]"#).map(|g| g.len()),
            Ok(2)
        );
        for bad in [&b"{}"[..], b"[null]", br#"[{"target": []}]"#, br#"[{"targets": [1]}]"#, b"["] {
            assert!(parse_json(bad).is_err());
        }
    }
}
