//! Fields that endpoints, pods, probes and scrape configurations share.

use serde_json::{Map, Value, json};

use super::Mapping;
use super::secrets::{of_either, of_secret};

/// A member of a scrape configuration on its way.
pub type Config = Map<String, Value>;

/// Fields of a monitor as a whole, in its spelling and ours.
const SPEC: [(&str, &str); 14] = [
    ("sampleLimit", "sample_limit"),
    ("targetLimit", "target_limit"),
    ("labelLimit", "label_limit"),
    ("labelNameLengthLimit", "label_name_length_limit"),
    ("labelValueLengthLimit", "label_value_length_limit"),
    ("keepDroppedTargets", "keep_dropped_targets"),
    ("bodySizeLimit", "body_size_limit"),
    ("scrapeProtocols", "scrape_protocols"),
    ("fallbackScrapeProtocol", "fallback_scrape_protocol"),
    ("scrapeNativeHistograms", "scrape_native_histograms"),
    ("scrapeClassicHistograms", "always_scrape_classic_histograms"),
    ("nativeHistogramBucketLimit", "native_histogram_bucket_limit"),
    ("nativeHistogramMinBucketFactor", "native_histogram_min_bucket_factor"),
    ("convertClassicHistogramsToNHCB", "convert_classic_histograms_to_nhcb"),
];

/// Fields of one endpoint.
const ENDPOINT: [(&str, &str); 9] = [
    ("path", "metrics_path"),
    ("interval", "scrape_interval"),
    ("scrapeTimeout", "scrape_timeout"),
    ("params", "params"),
    ("honorTimestamps", "honor_timestamps"),
    ("trackTimestampsStaleness", "track_timestamps_staleness"),
    ("followRedirects", "follow_redirects"),
    ("enableHttp2", "enable_http2"),
    ("enableCompression", "enable_compression"),
];

/// Whether a field says anything: null and empty texts do not.
fn is_set(value: &Value) -> bool {
    !value.is_null() && value.as_str() != Some("")
}

fn copy_fields(from: &Value, to: &mut Config, fields: &[(&str, &str)]) {
    for (theirs, ours) in fields {
        if is_set(&from[*theirs]) {
            to.insert((*ours).to_owned(), from[*theirs].clone());
        }
    }
}

/// Copies the limits and formats of a whole monitor.
pub fn spec(from: &Value, to: &mut Config) {
    copy_fields(from, to, &SPEC);
}

/// Copies what one endpoint says of its scrapes.
pub fn endpoint(
    from: &Value,
    to: &mut Config,
    namespace: &str,
    mapping: &Mapping<'_>,
) -> Result<(), String> {
    copy_fields(from, to, &ENDPOINT);
    to.insert("honor_labels".to_owned(), json!(from["honorLabels"].as_bool().unwrap_or(false)));
    if let Some(scheme) = from["scheme"].as_str().filter(|s| !s.is_empty()) {
        to.insert("scheme".to_owned(), json!(scheme.to_lowercase()));
    }
    http(from, to, namespace, mapping)
}

/// Copies authentication, TLS and proxies.
pub fn http(
    from: &Value,
    to: &mut Config,
    namespace: &str,
    mapping: &Mapping<'_>,
) -> Result<(), String> {
    let secret = |selector: &Value| of_secret(mapping.secrets, namespace, selector);
    proxy(from, to, namespace, mapping)?;
    let basic = &from["basicAuth"];
    if basic.is_object() {
        let mut auth = Config::new();
        for part in ["username", "password"] {
            if basic[part].is_object() {
                auth.insert(part.to_owned(), json!(secret(&basic[part])?));
            }
        }
        to.insert("basic_auth".to_owned(), Value::Object(auth));
    }
    let authorization = &from["authorization"];
    if authorization["credentials"].is_object() {
        let kind = authorization["type"].as_str().filter(|t| !t.trim().is_empty());
        let credentials = secret(&authorization["credentials"])?;
        let auth = json!({"type": kind.unwrap_or("Bearer"), "credentials": credentials});
        to.insert("authorization".to_owned(), auth);
    }
    if is_set(&from["bearerTokenSecret"]["name"]) {
        let credentials = secret(&from["bearerTokenSecret"])?;
        to.insert(
            "authorization".to_owned(),
            json!({"type": "Bearer", "credentials": credentials}),
        );
    }
    if is_set(&from["bearerTokenFile"]) {
        let file = &from["bearerTokenFile"];
        to.insert("authorization".to_owned(), json!({"type": "Bearer", "credentials_file": file}));
    }
    if from["oauth2"].is_object() {
        to.insert("oauth2".to_owned(), oauth2(&from["oauth2"], namespace, mapping)?);
    }
    if from["tlsConfig"].is_object() {
        to.insert("tls_config".to_owned(), tls(&from["tlsConfig"], namespace, mapping)?);
    }
    Ok(())
}

fn proxy(
    from: &Value,
    to: &mut Config,
    namespace: &str,
    mapping: &Mapping<'_>,
) -> Result<(), String> {
    let names = [
        ("proxyUrl", "proxy_url"),
        ("noProxy", "no_proxy"),
        ("proxyFromEnvironment", "proxy_from_environment"),
    ];
    copy_fields(from, to, &names);
    let mut headers = Config::new();
    for (name, selectors) in from["proxyConnectHeader"].as_object().into_iter().flatten() {
        let mut values = Vec::new();
        for selector in selectors.as_array().into_iter().flatten() {
            values.push(json!(of_secret(mapping.secrets, namespace, selector)?));
        }
        headers.insert(name.clone(), Value::Array(values));
    }
    if !headers.is_empty() {
        to.insert("proxy_connect_header".to_owned(), Value::Object(headers));
    }
    Ok(())
}

fn oauth2(from: &Value, namespace: &str, mapping: &Mapping<'_>) -> Result<Value, String> {
    let mut to = Config::new();
    let id = of_either(mapping.secrets, namespace, &from["clientId"])?;
    to.insert("client_id".to_owned(), json!(id.ok_or("oauth2: clientId names no text")?));
    let secret = of_secret(mapping.secrets, namespace, &from["clientSecret"])?;
    to.insert("client_secret".to_owned(), json!(secret));
    let names =
        [("tokenUrl", "token_url"), ("scopes", "scopes"), ("endpointParams", "endpoint_params")];
    copy_fields(from, &mut to, &names);
    proxy(from, &mut to, namespace, mapping)?;
    if from["tlsConfig"].is_object() {
        to.insert("tls_config".to_owned(), tls(&from["tlsConfig"], namespace, mapping)?);
    }
    Ok(Value::Object(to))
}

fn tls(from: &Value, namespace: &str, mapping: &Mapping<'_>) -> Result<Value, String> {
    let mut to = Config::new();
    let names = [
        ("caFile", "ca_file"),
        ("certFile", "cert_file"),
        ("keyFile", "key_file"),
        ("serverName", "server_name"),
        ("insecureSkipVerify", "insecure_skip_verify"),
        ("minVersion", "min_version"),
        ("maxVersion", "max_version"),
    ];
    copy_fields(from, &mut to, &names);
    for part in ["ca", "cert"] {
        if let Some(text) = of_either(mapping.secrets, namespace, &from[part])? {
            to.insert(part.to_owned(), json!(text));
        }
    }
    if from["keySecret"].is_object() {
        let key = of_secret(mapping.secrets, namespace, &from["keySecret"])?;
        to.insert("key".to_owned(), json!(key));
    }
    Ok(Value::Object(to))
}

/// One `kubernetes_sd_configs` entry with the mapping's API access.
pub fn kubernetes_sd(role: &str, namespaces: &[String], mapping: &Mapping<'_>) -> Config {
    let mut sd = mapping.api_access.as_object().cloned().unwrap_or_default();
    sd.insert("role".to_owned(), json!(role));
    if !namespaces.is_empty() {
        sd.insert("namespaces".to_owned(), json!({"names": namespaces}));
    }
    sd
}

/// The namespaces that a `namespaceSelector` means; empty is all.
pub fn namespaces(selector: &Value, own: &str) -> Vec<String> {
    if selector["any"].as_bool() == Some(true) {
        return Vec::new();
    }
    let names: Vec<String> = selector["matchNames"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n.as_str().map(ToOwned::to_owned))
        .collect();
    if names.is_empty() { vec![own.to_owned()] } else { names }
}

/// A text or a number, as text; `None` if absent, empty or 0.
pub fn port_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.as_i64() != Some(0) => Some(number.to_string()),
        _ => None,
    }
}
