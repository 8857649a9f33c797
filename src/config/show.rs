//! What is running? The configuration as YAML, defaults filled in and secrets
//! hidden, in Prometheus' order of fields.

use std::collections::BTreeMap;
use std::path::Path;

use super::emit::{Fields, Out};
use super::units::{format_duration, format_size};
use super::{
    AlertmanagerConfig, Config, DiscoveryConfigs, DnsRecordType, GlobalConfig, HttpClientConfig,
    KubernetesRole, KubernetesSdConfig, LabelSelector, LabelSelectorOp, ObjectSelector,
    OperatorConfig, ProxyConfig, RelabelAction, RelabelConfig, ScrapeConfig, ScrapeLimits,
    ScrapeProtocol, SecretSource, StorageConfig, TlsConfig, TlsVersion, WebhookConfig,
};

const HIDDEN: &str = "<secret>";

impl Config {
    /// The configuration of the main file as YAML, for
    /// `/api/v1/status/config`. Secrets read `<secret>`; what
    /// `scrape_config_files` name is not repeated.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut out = Fields::default();
        out.map("global", global(&self.global));
        let mut alerting = Fields::default();
        relabel(&mut alerting, "alert_relabel_configs", &self.alerting.alert_relabel_configs);
        alerting.list("alertmanagers", self.alerting.alertmanagers.iter().map(alertmanager));
        out.map("alerting", alerting);
        out.texts("rule_files", self.rule_files.iter().map(|p| text(p)));
        out.texts("scrape_config_files", self.scrape_config_files.iter().map(|p| text(p)));
        let main = &self.scrape_configs[..self.main_scrape_configs.min(self.scrape_configs.len())];
        out.list("scrape_configs", main.iter().map(scrape));
        out.map("storage", storage(&self.storage));
        if let Some(config) = &self.operator {
            out.put("operator", Out::Map(operator(config)));
        }
        let mut webhooks = Fields::default();
        webhooks.list("receivers", self.webhooks.receivers.iter().map(webhook));
        out.map("webhooks", webhooks);
        out.to_yaml()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn some_path(out: &mut Fields, name: &str, path: Option<&std::path::PathBuf>) {
    if let Some(path) = path {
        out.text(name, text(path));
    }
}

fn texts(map: &BTreeMap<String, String>) -> Fields {
    let mut fields = Fields::default();
    map.iter().for_each(|(name, value)| fields.text(name, value));
    fields
}

fn global(config: &GlobalConfig) -> Fields {
    let mut out = Fields::default();
    out.text("scrape_interval", format_duration(config.scrape_interval));
    out.text("scrape_timeout", format_duration(config.scrape_timeout));
    let protocols = config.default_protocols(config.scrape_native_histograms);
    out.texts("scrape_protocols", protocols.into_iter().map(ScrapeProtocol::as_str));
    out.text("evaluation_interval", format_duration(config.evaluation_interval));
    if !config.rule_query_offset.is_zero() {
        out.text("rule_query_offset", format_duration(config.rule_query_offset));
    }
    let mut external = Fields::default();
    config.external_labels.iter().for_each(|(name, value)| external.text(name, value));
    out.map("external_labels", external);
    some_path(&mut out, "query_log_file", config.query_log_file.as_ref());
    some_path(&mut out, "scrape_failure_log_file", config.scrape_failure_log_file.as_ref());
    limits(&mut out, &config.limits);
    out.text("metric_name_validation_scheme", config.metric_name_validation.as_str());
    out.text("metric_name_escaping_scheme", config.metric_name_escaping.as_str());
    out.if_true("scrape_native_histograms", config.scrape_native_histograms);
    out.if_true("convert_classic_histograms_to_nhcb", config.convert_classic_histograms_to_nhcb);
    out.if_true("always_scrape_classic_histograms", config.always_scrape_classic_histograms);
    out.if_true("extra_scrape_metrics", config.extra_scrape_metrics);
    out
}

fn limits(out: &mut Fields, limits: &ScrapeLimits) {
    if limits.body_size_bytes > 0 {
        out.text("body_size_limit", format_size(limits.body_size_bytes));
    }
    out.if_not_zero("sample_limit", limits.samples);
    out.if_not_zero("target_limit", limits.targets);
    out.if_not_zero("label_limit", limits.labels);
    out.if_not_zero("label_name_length_limit", limits.label_name_bytes);
    out.if_not_zero("label_value_length_limit", limits.label_value_bytes);
    out.if_not_zero("keep_dropped_targets", limits.keep_dropped_targets);
}

fn scrape(config: &ScrapeConfig) -> Out {
    let mut out = Fields::default();
    out.text("job_name", &config.job_name);
    out.if_true("honor_labels", config.honor_labels);
    out.plain("honor_timestamps", config.honor_timestamps);
    out.plain("track_timestamps_staleness", config.track_timestamps_staleness);
    let mut params = Fields::default();
    for (name, values) in &config.params {
        params.put(name, Out::List(values.iter().map(|v| Out::Text(v.clone())).collect()));
    }
    out.map("params", params);
    out.text("scrape_interval", format_duration(config.scrape_interval));
    out.text("scrape_timeout", format_duration(config.scrape_timeout));
    out.texts("scrape_protocols", config.scrape_protocols.iter().map(|p| p.as_str()));
    if let Some(protocol) = config.fallback_scrape_protocol {
        out.text("fallback_scrape_protocol", protocol.as_str());
    }
    out.if_true("scrape_native_histograms", config.scrape_native_histograms);
    out.plain("always_scrape_classic_histograms", config.always_scrape_classic_histograms);
    out.plain("convert_classic_histograms_to_nhcb", config.convert_classic_histograms_to_nhcb);
    some_path(&mut out, "scrape_failure_log_file", config.scrape_failure_log_file.as_ref());
    out.text("metrics_path", &config.metrics_path);
    out.text("scheme", &config.scheme);
    out.plain("enable_compression", config.enable_compression);
    limits(&mut out, &config.limits);
    out.if_not_zero("native_histogram_bucket_limit", config.native_histogram_bucket_limit);
    if config.native_histogram_min_bucket_factor != 0.0 {
        out.plain("native_histogram_min_bucket_factor", config.native_histogram_min_bucket_factor);
    }
    out.text("metric_name_validation_scheme", config.metric_name_validation.as_str());
    out.text("metric_name_escaping_scheme", config.metric_name_escaping.as_str());
    out.if_true("extra_scrape_metrics", config.extra_scrape_metrics);
    http(&mut out, &config.http);
    relabel(&mut out, "relabel_configs", &config.relabel_configs);
    relabel(&mut out, "metric_relabel_configs", &config.metric_relabel_configs);
    discovery(&mut out, &config.discovery);
    Out::Map(out)
}

fn relabel(out: &mut Fields, name: &str, rules: &[RelabelConfig]) {
    out.list(name, rules.iter().map(|rule| Out::Map(rule.to_fields())));
}

impl RelabelConfig {
    fn to_fields(&self) -> Fields {
        let defaults = Self::default();
        let mut out = Fields::default();
        if !self.source_labels.is_empty() {
            out.put("source_labels", Out::Flow(self.source_labels.clone()));
        }
        out.text("separator", &self.separator);
        if self.regex != defaults.regex {
            out.text("regex", &self.regex);
        }
        out.if_not_zero("modulus", self.modulus);
        out.some_text("target_label", &self.target_label);
        out.text("replacement", &self.replacement);
        out.text("action", RelabelAction::as_str(self.action));
        out
    }
}

fn secret(out: &mut Fields, name: &str, source: Option<&SecretSource>) {
    match source {
        Some(SecretSource::Inline(_)) => out.text(name, HIDDEN),
        Some(SecretSource::File(path)) => out.text(&format!("{name}_file"), text(path)),
        None => {}
    }
}

fn http(out: &mut Fields, config: &HttpClientConfig) {
    if let Some(basic) = &config.basic_auth {
        let mut inner = Fields::default();
        match &basic.username {
            SecretSource::Inline(name) => inner.some_text("username", name.expose()),
            file @ SecretSource::File(_) => secret(&mut inner, "username", Some(file)),
        }
        secret(&mut inner, "password", basic.password.as_ref());
        out.put("basic_auth", Out::Map(inner));
    }
    if let Some(authorization) = &config.authorization {
        let mut inner = Fields::default();
        inner.text("type", &authorization.scheme);
        secret(&mut inner, "credentials", authorization.credentials.as_ref());
        out.map("authorization", inner);
    }
    if let Some(oauth2) = &config.oauth2 {
        let mut inner = Fields::default();
        inner.text("client_id", &oauth2.client_id);
        secret(&mut inner, "client_secret", oauth2.client_secret.as_ref());
        inner.texts("scopes", oauth2.scopes.iter());
        inner.text("token_url", without_password(&oauth2.token_url));
        inner.map("endpoint_params", texts(&oauth2.endpoint_params));
        inner.map("tls_config", tls(&oauth2.tls));
        proxy(&mut inner, &oauth2.proxy);
        out.map("oauth2", inner);
    }
    out.map("tls_config", tls(&config.tls));
    out.plain("follow_redirects", config.follow_redirects);
    out.plain("enable_http2", config.enable_http2);
    proxy(out, &config.proxy);
    let mut headers = Fields::default();
    for (name, header) in &config.headers {
        let mut inner = Fields::default();
        inner.texts("values", header.values.iter());
        inner.texts("secrets", header.secrets.iter().map(|_| HIDDEN));
        inner.texts("files", header.files.iter().map(|p| text(p)));
        headers.map(name, inner);
    }
    out.map("http_headers", headers);
}

fn tls(config: &TlsConfig) -> Fields {
    let mut out = Fields::default();
    for (name, source) in [("ca", &config.ca), ("cert", &config.cert), ("key", &config.key)] {
        secret(&mut out, name, source.as_ref());
    }
    out.some_text("server_name", config.server_name.clone().unwrap_or_default());
    if config.insecure_skip_verify {
        out.plain("insecure_skip_verify", true);
    }
    for (name, version) in
        [("min_version", config.min_version), ("max_version", config.max_version)]
    {
        match version {
            Some(TlsVersion::Tls12) => out.text(name, "TLS12"),
            Some(TlsVersion::Tls13) => out.text(name, "TLS13"),
            None => {}
        }
    }
    out
}

fn proxy(out: &mut Fields, config: &ProxyConfig) {
    if let Some(url) = &config.url {
        out.text("proxy_url", without_password(url.expose()));
    }
    out.some_text("no_proxy", &config.no_proxy);
    out.if_true("proxy_from_environment", config.from_environment);
    let mut headers = Fields::default();
    for (name, values) in &config.connect_headers {
        headers.texts(name, values.iter().map(|_| HIDDEN));
    }
    out.map("proxy_connect_header", headers);
}

/// A URL whose password, if it has one, reads `xxxxx`.
fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            let replaced = parsed.set_password(Some("xxxxx"));
            if replaced.is_ok() { parsed.to_string() } else { HIDDEN.to_owned() }
        }
        _ => url.to_owned(),
    }
}

fn discovery(out: &mut Fields, configs: &DiscoveryConfigs) {
    out.list(
        "dns_sd_configs",
        configs.dns.iter().map(|config| {
            let mut inner = Fields::default();
            inner.texts("names", config.names.iter());
            inner.text("refresh_interval", format_duration(config.refresh_interval));
            inner.text(
                "type",
                match config.record_type {
                    DnsRecordType::A => "A",
                    DnsRecordType::Aaaa => "AAAA",
                    DnsRecordType::Srv => "SRV",
                    DnsRecordType::Mx => "MX",
                    DnsRecordType::Ns => "NS",
                },
            );
            inner.plain("port", config.port);
            Out::Map(inner)
        }),
    );
    out.list(
        "file_sd_configs",
        configs.file.iter().map(|config| {
            let mut inner = Fields::default();
            inner.texts("files", config.files.iter().map(|p| text(p)));
            inner.text("refresh_interval", format_duration(config.refresh_interval));
            Out::Map(inner)
        }),
    );
    out.list(
        "http_sd_configs",
        configs.http.iter().map(|config| {
            let mut inner = Fields::default();
            http(&mut inner, &config.http);
            inner.text("refresh_interval", format_duration(config.refresh_interval));
            inner.text("url", without_password(&config.url));
            Out::Map(inner)
        }),
    );
    out.list("kubernetes_sd_configs", configs.kubernetes.iter().map(kubernetes));
    out.list(
        "static_configs",
        configs.static_configs.iter().map(|config| {
            let mut inner = Fields::default();
            inner.texts("targets", config.targets.iter());
            inner.map("labels", texts(&config.labels));
            Out::Map(inner)
        }),
    );
}

fn kubernetes(config: &KubernetesSdConfig) -> Out {
    let mut out = Fields::default();
    out.some_text("api_server", without_password(config.api_server.as_deref().unwrap_or("")));
    out.text("role", KubernetesRole::as_str(config.role));
    some_path(&mut out, "kubeconfig_file", config.kubeconfig_file.as_ref());
    http(&mut out, &config.http);
    let mut namespaces = Fields::default();
    if config.own_namespace || !config.namespaces.is_empty() {
        namespaces.plain("own_namespace", config.own_namespace);
        namespaces.texts("names", config.namespaces.iter());
    }
    out.map("namespaces", namespaces);
    out.list(
        "selectors",
        config.selectors.iter().map(|selector| {
            let mut inner = Fields::default();
            inner.text("role", selector.role.as_str());
            inner.some_text("label", &selector.label);
            inner.some_text("field", &selector.field);
            Out::Map(inner)
        }),
    );
    let mut attach = Fields::default();
    attach.if_true("node", config.attach_node);
    attach.if_true("namespace", config.attach_namespace);
    attach.if_true("deployment", config.attach_deployment);
    attach.if_true("job", config.attach_job);
    attach.if_true("cronjob", config.attach_cronjob);
    out.map("attach_metadata", attach);
    Out::Map(out)
}

fn alertmanager(config: &AlertmanagerConfig) -> Out {
    let mut out = Fields::default();
    http(&mut out, &config.http);
    out.text("scheme", &config.scheme);
    out.some_text("path_prefix", &config.path_prefix);
    out.text("timeout", format_duration(config.timeout));
    out.text("api_version", "v2");
    relabel(&mut out, "relabel_configs", &config.relabel_configs);
    relabel(&mut out, "alert_relabel_configs", &config.alert_relabel_configs);
    discovery(&mut out, &config.discovery);
    Out::Map(out)
}

fn storage(config: &StorageConfig) -> Fields {
    let mut tsdb = Fields::default();
    if !config.out_of_order_window.is_zero() {
        tsdb.text("out_of_order_time_window", format_duration(config.out_of_order_window));
    }
    let mut retention = Fields::default();
    if let Some(time) = config.retention_time {
        retention.text("time", format_duration(time));
    }
    if let Some(size) = config.retention_size_bytes {
        retention.text("size", format_size(size));
    }
    if let Some(percentage) = config.retention_percentage {
        retention.plain("percentage", percentage);
    }
    tsdb.map("retention", retention);
    let mut out = Fields::default();
    out.map("tsdb", tsdb);
    if let Some(max) = config.max_exemplars {
        let mut exemplars = Fields::default();
        exemplars.plain("max_exemplars", max);
        out.map("exemplars", exemplars);
    }
    out
}

fn operator(config: &OperatorConfig) -> Fields {
    let mut out = Fields::default();
    out.some_text("api_server", without_password(config.api_server.as_deref().unwrap_or("")));
    some_path(&mut out, "kubeconfig_file", config.kubeconfig_file.as_ref());
    if config.api_server.is_some() {
        http(&mut out, &config.http);
    }
    let role = match config.service_discovery_role {
        KubernetesRole::Endpoints => "Endpoints",
        _ => "EndpointSlice",
    };
    out.text("service_discovery_role", role);
    let kinds: [(&str, &ObjectSelector); 5] = [
        ("service_monitor", &config.service_monitors),
        ("pod_monitor", &config.pod_monitors),
        ("probe", &config.probes),
        ("scrape_config", &config.scrape_configs),
        ("rule", &config.rules),
    ];
    for (kind, selector) in kinds {
        out.put(&format!("{kind}_selector"), label_selector(selector.objects.as_ref()));
        let namespaces = label_selector(selector.namespaces.as_ref());
        out.put(&format!("{kind}_namespace_selector"), namespaces);
    }
    out
}

fn label_selector(selector: Option<&LabelSelector>) -> Out {
    let Some(selector) = selector else { return Out::Plain("null".to_owned()) };
    let mut out = Fields::default();
    out.map("matchLabels", texts(&selector.match_labels));
    out.list(
        "matchExpressions",
        selector.match_expressions.iter().map(|term| {
            let mut inner = Fields::default();
            inner.text("key", &term.key);
            inner.text(
                "operator",
                match term.operator {
                    LabelSelectorOp::In => "In",
                    LabelSelectorOp::NotIn => "NotIn",
                    LabelSelectorOp::Exists => "Exists",
                    LabelSelectorOp::DoesNotExist => "DoesNotExist",
                },
            );
            inner.texts("values", term.values.iter());
            Out::Map(inner)
        }),
    );
    Out::Map(out)
}

fn webhook(config: &WebhookConfig) -> Out {
    let mut out = Fields::default();
    out.text("name", &config.name);
    out.text("url", HIDDEN);
    http(&mut out, &config.http);
    out.texts("group_by", config.group_by.iter());
    out.text("group_wait", format_duration(config.group_wait));
    out.text("group_interval", format_duration(config.group_interval));
    out.text("repeat_interval", format_duration(config.repeat_interval));
    out.plain("send_resolved", config.send_resolved);
    out.texts("inhibit_equal", config.inhibit_equal.iter());
    Out::Map(out)
}
