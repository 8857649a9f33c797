use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, Path::new("/etc/narthex"), "prometheus.yml", &GlobalConfig::default())
}

fn error(text: &str) -> String {
    read(text).expect_err("refused").to_string()
}

/// A scrape configuration with these further lines.
fn job(lines: &str) -> String {
    let lines: String = lines.lines().map(|l| format!("    {l}\n")).collect();
    format!("scrape_configs:\n  - job_name: a\n{lines}")
}

#[test]
fn nothing_is_a_configuration() {
    for text in ["", "# only a comment\n", "global:\nscrape_configs:\nrule_files: []\n"] {
        assert_eq!(read(text), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn a_usual_file_is_read() {
    let config = read(
        "global:\n  scrape_interval: 15s\n  external_labels: {site: north, empty: ''}\n\
         rule_files: [rules/*.yml, /abs.yml]\n\
         scrape_configs:\n  - job_name: node\n    scrape_timeout: 5s\n    scheme: https\n    \
         params: {module: [a, b]}\n    sample_limit: 100\n    body_size_limit: 10MB\n    \
         basic_auth: {username: u, password_file: pw}\n    tls_config: {ca_file: ca.pem}\n    \
         static_configs:\n      - targets: ['a:1', 'b:2']\n        labels: {x: y}\n    \
         relabel_configs:\n      - source_labels: [__address__]\n        regex: ''\n        action: Drop\n\
         alerting:\n  alertmanagers:\n    - static_configs: [{targets: ['am:9093']}]\n\
         storage: {tsdb: {out_of_order_time_window: 30m, retention: {time: 30d, size: 5GB, percentage: 62.5}}}\n",
    )
    .expect("valid");
    let scrape = &config.scrape_configs[0];
    assert_eq!(scrape.scrape_interval, Duration::from_secs(15));
    assert_eq!(scrape.scrape_timeout, Duration::from_secs(5));
    assert_eq!(scrape.limits.body_size_bytes, 10 << 20);
    assert_eq!(scrape.scrape_protocols.len(), 4);
    assert_eq!(
        scrape.http.basic_auth.as_ref().and_then(|b| b.password.clone()),
        Some(SecretSource::File("/etc/narthex/pw".into()))
    );
    assert_eq!(scrape.http.tls.ca, Some(SecretSource::File("/etc/narthex/ca.pem".into())));
    assert_eq!(scrape.discovery.static_configs[0].targets, ["a:1", "b:2"]);
    assert_eq!(
        (scrape.relabel_configs[0].regex.as_str(), scrape.relabel_configs[0].action),
        ("", RelabelAction::Drop)
    );
    assert_eq!(config.rule_files, [Path::new("/etc/narthex/rules/*.yml"), Path::new("/abs.yml")]);
    assert_eq!(config.global.external_labels.to_string(), r#"{site="north"}"#);
    assert_eq!(config.alerting.alertmanagers[0].timeout, Duration::from_secs(10));
    assert_eq!(config.storage.retention_size_bytes, Some(5 << 30));
    assert_eq!(config.storage.retention_percentage, Some(62.5));
}

#[test]
fn errors_name_file_line_column_and_field() {
    assert_eq!(
        error("global:\n  scrape_interval: 15\n"),
        "prometheus.yml:2:20: global.scrape_interval: \"15\" is not a duration (such as 30s, 5m or 1h30m)"
    );
    assert_eq!(
        error(&job("scrape_intervall: 1m")),
        "prometheus.yml:3:5: scrape_configs[0].scrape_intervall: unknown field"
    );
    assert_eq!(
        error(&job("tls_config:\n  cert_file: x")),
        "prometheus.yml:4:7: scrape_configs[0].tls_config: cert and key go together: key or key_file is missing"
    );
    assert_eq!(
        error("a: b: c"),
        "prometheus.yml:1:5: mapping values are not allowed in this context"
    );
    assert_eq!(error("- a"), "prometheus.yml:1:1: expected a mapping, found a list");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (text, place) in [
        ("remote_write: [{url: 'http://x'}]", "prometheus.yml:1:15: remote_write: "),
        ("remote_read: [{url: 'http://x'}]", "prometheus.yml:1:14: remote_read: "),
        ("tracing: {endpoint: x}", "prometheus.yml:1:10: tracing: "),
        ("otlp: {keep_identifying_resource_attributes: true}", "prometheus.yml:1:7: otlp: "),
    ] {
        assert_eq!(error(text), format!("{place}narthex does not support this section yet"));
    }
    assert!(read("remote_write: []\ntracing:\notlp: {}\n").is_ok());
    assert!(
        error(&job("ec2_sd_configs: [{region: x}]"))
            .contains("it has static_configs, file_sd_configs")
    );
    assert!(error(&job("basic_auth: {username_ref: x}")).contains("no secret manager"));
    assert!(error(&job("tls_config: {min_version: TLS10}")).contains("does not speak TLS10"));
    let warned = read("runtime: {gogc: 75}\nstorage: {tsdb: {chunk_encoding: {floats: xor}}}")
        .expect("accepted");
    assert_eq!(warned.warnings.len(), 2);
    assert!(warned.warnings[0].starts_with("prometheus.yml:1:17: runtime.gogc: has no meaning"));
}

#[test]
fn the_rules_of_prometheus_hold() {
    let refused = [
        "global: {scrape_interval: 5s, scrape_timeout: 6s}".to_owned(),
        "global: {scrape_protocols: []}".to_owned(),
        "global: {scrape_protocols: [PrometheusProto, PrometheusProto]}".to_owned(),
        "global: {scrape_protocols: [prometheusproto]}".to_owned(),
        "global: {metric_name_validation_scheme: x}".to_owned(),
        "global: {metric_name_validation_scheme: legacy, metric_name_escaping_scheme: allow-utf-8}"
            .to_owned(),
        "global: {external_labels: {a-b: x}, metric_name_validation_scheme: legacy}".to_owned(),
        "scrape_configs: [{job_name: a}, {job_name: a}]".to_owned(),
        "scrape_configs: [{}]".to_owned(),
        "scrape_configs: [null]".to_owned(),
        "scrape_configs: {a: b}".to_owned(),
        "rule_files: ['a*/b']".to_owned(),
        job("scrape_interval: 5s\nscrape_timeout: 6s"),
        job("static_configs: [{targets: ['http://x']}]"),
        job("static_configs: [null]"),
        job("static_configs: [{target: ['x']}]"),
        job("relabel_configs: [null]"),
        job("relabel_configs: [{action: x}]"),
        job("relabel_configs: [{action: hashmod, target_label: x}]"),
        job("relabel_configs: [{action: labeldrop, source_labels: [x]}]"),
        job("relabel_configs: [{regex: '(', target_label: x}]"),
        job("relabel_configs: [{source_labels: ['']}]"),
        job("metric_relabel_configs: [{action: replace}]"),
        job("basic_auth: {password: a, password_file: b}"),
        job("basic_auth: {}\nauthorization: {}"),
        job("bearer_token: a\nbearer_token_file: b"),
        job("bearer_token: a\nauthorization: {credentials: b}"),
        job("authorization: {type: basic}"),
        job("oauth2: {token_url: 'http://x'}"),
        job("oauth2: {client_id: x}"),
        job("proxy_url: 'http://x'\nproxy_from_environment: true"),
        job("no_proxy: x"),
        job("http_headers: {Authorization: {values: [x]}}"),
        job("http_headers: {'a b': {values: [x]}}"),
        job("scheme: ftp"),
        job("file_sd_configs: [{files: [a.txt]}]"),
        job("file_sd_configs: [{}]"),
        job("http_sd_configs: [{url: 'ftp://x'}]"),
        job("http_sd_configs: [{url: x}]"),
        job("dns_sd_configs: [{names: [x], type: A}]"),
        job("dns_sd_configs: [{names: [x], type: TXT, port: 1}]"),
        job("dns_sd_configs: [{names: []}]"),
        job("kubernetes_sd_configs: [{}]"),
        job("kubernetes_sd_configs: [{role: Pod}]"),
        job("kubernetes_sd_configs: [{role: pod, bearer_token: x}]"),
        job("kubernetes_sd_configs: [{role: pod, api_server: 'http://x', kubeconfig_file: y}]"),
        job(
            "kubernetes_sd_configs: [{role: pod, kubeconfig_file: y, namespaces: {own_namespace: true}}]",
        ),
        job("kubernetes_sd_configs: [{role: pod, selectors: [{role: service, label: a}]}]"),
        job("kubernetes_sd_configs: [{role: pod, selectors: [{role: pod}, {role: pod}]}]"),
        job("kubernetes_sd_configs: [{role: pod, selectors: [{role: pod, label: 'a b'}]}]"),
        job("kubernetes_sd_configs: [{role: pod, attach_metadata: {nodes: true}}]"),
        job("fallback_scrape_protocol: x"),
        "alerting: {alertmanagers: [{api_version: v1}]}".to_owned(),
        "alerting: {alertmanagers: [{static_configs: [{targets: ['http://x']}]}]}".to_owned(),
        "storage: {tsdb: {retention: {percentage: 101}}}".to_owned(),
        "storage: {tsdb: {chunk_encoding: {floats: XOR}}}".to_owned(),
        "storage: {tsdb: {chunk_encoding: {flots: xor}}}".to_owned(),
        "operator: {service_discovery_role: pod}".to_owned(),
        "operator: {rule_selector: {matchExpressions: [{key: a, operator: In}]}}".to_owned(),
        "webhooks: {receivers: [{name: a}]}".to_owned(),
        "webhooks: {receivers: [{name: a, url: 'http://x'}, {name: a, url: 'http://y'}]}"
            .to_owned(),
    ];
    for text in refused {
        assert!(read(&text).is_err(), "accepted: {text}");
    }
    let accepted = [
        job("static_configs: [{targets: ['http://x']}]\nrelabel_configs: [{target_label: a}]"),
        job(
            "kubernetes_sd_configs: [{role: endpoints, selectors: [{role: pod, label: 'a=b', field: 'x=y'}]}]",
        ),
        job("dns_sd_configs: [{names: [x]}, {names: [y], type: a, port: 1}]"),
        job("scrape_interval: 5s"),
        job("metric_name_validation_scheme: legacy"),
    ];
    for text in accepted {
        assert_eq!(read(&text).err(), None, "{text}");
    }
    let short = read(&job("scrape_interval: 5s")).expect("valid");
    assert_eq!(short.scrape_configs[0].scrape_timeout, Duration::from_secs(5));
}

#[test]
fn absent_and_null_selectors_of_the_operator_differ() {
    let config =
        read("operator:\n  probe_selector: null\n  rule_namespace_selector:\n").expect("valid");
    let operator = config.operator.expect("given");
    assert_eq!(operator.service_monitors.objects, Some(LabelSelector::default()));
    assert_eq!((operator.probes.objects, operator.rules.namespaces), (None, None));
    assert_eq!(operator.service_discovery_role, KubernetesRole::EndpointSlice);
    assert!(read("operator:\n").expect("valid").operator.is_some());
}

#[test]
fn scrape_config_files_are_appended() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("d")).expect("created");
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("main.yml", "scrape_config_files: [d/*.yml]\nscrape_configs: [{job_name: a}]");
    write("d/b.yml", "scrape_configs:\n- job_name: b\n  file_sd_configs: [{files: [x.json]}]\n");
    let path = dir.path().join("main.yml");
    let config = load(&path, &GlobalConfig::default()).expect("valid");
    assert_eq!(config.scrape_configs.len(), 2);
    assert_eq!(config.main_scrape_configs, 1);
    assert_eq!(config.scrape_configs[1].discovery.file[0].files, [dir.path().join("d/x.json")]);
    write("d/c.yml", "scrape_configs: [{job_name: a}]");
    assert!(
        load(&path, &GlobalConfig::default())
            .expect_err("twice")
            .to_string()
            .contains("d/c.yml:1:17")
    );
    write("d/c.yml", "scrape_configs: [{job_name: c}]\nglobal: {}");
    assert!(load(&path, &GlobalConfig::default()).is_err());
}

const SHOWN: &str = "\
global:
  scrape_interval: 15s
  scrape_timeout: 10s
  scrape_protocols:
  - OpenMetricsText1.0.0
  - OpenMetricsText0.0.1
  - PrometheusText1.0.0
  - PrometheusText0.0.4
  evaluation_interval: 1m
  external_labels:
    site: north
  body_size_limit: 10MiB
  metric_name_validation_scheme: utf8
  metric_name_escaping_scheme: allow-utf-8
scrape_configs:
- job_name: a
  honor_timestamps: true
  track_timestamps_staleness: false
  params:
    module:
    - x
  scrape_interval: 15s
  scrape_timeout: 10s
  scrape_protocols:
  - OpenMetricsText1.0.0
  - OpenMetricsText0.0.1
  - PrometheusText1.0.0
  - PrometheusText0.0.4
  always_scrape_classic_histograms: false
  convert_classic_histograms_to_nhcb: false
  metrics_path: /metrics
  scheme: http
  enable_compression: true
  body_size_limit: 10MiB
  metric_name_validation_scheme: utf8
  metric_name_escaping_scheme: allow-utf-8
  basic_auth:
    username: u
    password: <secret>
  follow_redirects: true
  enable_http2: true
  proxy_url: http://pu:xxxxx@127.0.0.1:1/
  relabel_configs:
  - source_labels: [a, b]
    separator: ;
    regex: x(.*)
    target_label: t
    replacement: \"\"
    action: replace
  static_configs:
  - targets:
    - h:1
    labels:
      v: \"1.5\"
operator:
  service_discovery_role: EndpointSlice
  service_monitor_selector: {}
  service_monitor_namespace_selector: {}
  pod_monitor_selector: {}
  pod_monitor_namespace_selector: {}
  probe_selector: null
  probe_namespace_selector: {}
  scrape_config_selector: {}
  scrape_config_namespace_selector: {}
  rule_selector: {}
  rule_namespace_selector: {}
";

/// Recorded from a real Prometheus but for `operator`, the order of newer
/// fields, and `replacement`, which 3.5 leaves out when it is empty.
#[test]
fn a_configuration_is_shown_without_its_secrets() {
    let config = read(
        "global: {scrape_interval: 15s, external_labels: {site: north}, body_size_limit: 10MB}\n\
         scrape_configs:\n- job_name: a\n  params: {module: [x]}\n  \
         basic_auth: {username: u, password: hidden}\n  proxy_url: 'http://pu:hidden@127.0.0.1:1'\n  \
         static_configs: [{targets: ['h:1'], labels: {v: '1.5'}}]\n  \
         relabel_configs: [{source_labels: [a, b], regex: x(.*), target_label: t, replacement: ''}]\n\
         operator: {probe_selector: null}\n",
    )
    .expect("valid");
    let shown = config.to_yaml();
    assert_eq!(shown, SHOWN);
    assert!(!shown.contains("hidden"));
}

/// What is shown reads the same, but for what is hidden.
#[test]
fn what_is_shown_is_a_configuration() {
    let config = read(
        "global: {rule_query_offset: 5s, metric_name_validation_scheme: legacy, scrape_protocols: [PrometheusText0.0.4]}\n\
         rule_files: [/a/*.yml]\nscrape_config_files: [/none/*.yml]\n\
         scrape_configs:\n- job_name: 'a: b'\n  honor_labels: true\n  sample_limit: 5\n  \
         authorization: {credentials_file: /t}\n  tls_config: {ca_file: /c, min_version: TLS13}\n  \
         http_headers: {X-A: {files: [/f]}}\n  native_histogram_min_bucket_factor: 1.5\n  \
         file_sd_configs: [{files: [/x/*.json]}]\n  dns_sd_configs: [{names: [n], type: mx, port: 9}]\n  \
         http_sd_configs: [{url: 'http://u'}]\n  \
         kubernetes_sd_configs:\n  - {role: endpoints, api_server: 'http://x', namespaces: {names: [a]}, \
         selectors: [{role: pod, label: a=b}], attach_metadata: {node: true}}\n\
         alerting: {alertmanagers: [{path_prefix: /am, static_configs: [{targets: [a]}]}]}\n\
         storage: {tsdb: {out_of_order_time_window: 30m, retention: {time: 3d, size: 1GB}}}\n\
         operator: {rule_selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}}\n",
    )
    .expect("valid");
    assert_eq!(read(&config.to_yaml()), Ok(config));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Lines of a real file, mixed up and cut, never panic.
    #[test]
    fn no_text_panics(
        lines in proptest::collection::vec(
            (0usize..6, prop_oneof![
                "[a-z_]{1,8}: [a-z0-9*&!'\"{}\\[\\]|>-]{0,8}",
                Just("scrape_configs:".to_owned()),
                Just("- job_name: a".to_owned()),
                Just("global: &g {scrape_interval: 1m}".to_owned()),
                Just("<<: *g".to_owned()),
                Just("relabel_configs: [{regex: '('}]".to_owned()),
                Just("static_configs: [{targets: [a]}]".to_owned()),
                Just("tls_config: {ca: x}".to_owned()),
                "\\PC{0,12}",
            ]), 0..12),
    ) {
        let text: String = lines.iter().map(|(n, l)| format!("{}{l}\n", " ".repeat(*n))).collect();
        let _ = read(&text);
    }
}
