//! Objects in, configurations out.

use serde_json::{Value, json};

use super::{Mapping, SecretKind, SecretSource, rule_file, scrape_configs};
use crate::config::KubernetesRole;

struct OneSecret;

impl SecretSource for OneSecret {
    fn text(
        &self,
        kind: SecretKind,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<String, String> {
        match (kind, namespace, name, key) {
            (SecretKind::Secret, "shop", "auth", "user") => Ok("u".to_owned()),
            (SecretKind::Secret, "shop", "auth", "pass") => Ok("p\n".to_owned()),
            _ => Err(format!("{kind:?} {namespace}/{name} has no key {key}")),
        }
    }
}

fn map(object: &Value) -> Result<Vec<Value>, String> {
    let access = json!({"api_server": "http://127.0.0.1:1"});
    let mapping =
        Mapping { role: KubernetesRole::Endpoints, secrets: &OneSecret, api_access: &access };
    scrape_configs(object, &mapping).map_err(|e| e.to_string())
}

fn service_monitor(endpoint: &Value) -> Value {
    json!({"kind": "ServiceMonitor", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "endpoints": [endpoint]}})
}

#[test]
fn a_service_monitor_becomes_one_pool_per_endpoint() {
    let configs = map(&service_monitor(&json!({"port": "http", "scheme": "HTTPS",
        "basicAuth": {"username": {"name": "auth", "key": "user"}, "password": {"name": "auth", "key": "pass"}},
        "relabelings": [{"action": "LabelDrop", "regex": "container"}]})))
    .expect("usable");
    let [config] = configs.as_slice() else { panic!("{configs:?}") };
    assert_eq!(config["job_name"], "serviceMonitor/shop/web/0");
    assert_eq!(config["scheme"], "https");
    assert_eq!(config["basic_auth"], json!({"username": "u", "password": "p\n"}));
    assert_eq!(config["kubernetes_sd_configs"][0]["namespaces"]["names"], json!(["shop"]));
    let rules = config["relabel_configs"].as_array().expect("rules");
    assert_eq!(rules[1]["regex"], "(web);true");
    assert_eq!(rules[2]["source_labels"], json!(["__meta_kubernetes_endpoint_port_name"]));
    assert_eq!(rules.last(), Some(&json!({"action": "labeldrop", "regex": "container"})));
}

#[test]
fn a_missing_secret_rejects_the_monitor_and_names_what_is_missing() {
    let error = map(&service_monitor(&json!({"port": "http",
        "basicAuth": {"username": {"name": "auth", "key": "nobody"}}})))
    .expect_err("rejected");
    assert_eq!(error, "ServiceMonitor shop/web: Secret shop/auth has no key nobody");
}

#[test]
fn selectors_that_contradict_themselves_are_rejected() {
    for term in [
        json!({"key": "a", "operator": "In"}),
        json!({"key": "a", "operator": "Exists", "values": ["x"]}),
        json!({"key": "a", "operator": "Near", "values": ["x"]}),
    ] {
        let mut monitor = service_monitor(&json!({"port": "http"}));
        monitor["spec"]["selector"] = json!({"matchExpressions": [term]});
        assert!(map(&monitor).is_err(), "{term}");
    }
}

#[test]
fn a_pod_monitor_with_a_number_has_no_endpoint_label() {
    let configs = map(&json!({"kind": "PodMonitor", "metadata": {"name": "agents", "namespace": "infra"},
        "spec": {"selector": {}, "podMetricsEndpoints": [{"portNumber": 9999, "filterRunning": false}]}}))
    .expect("usable");
    let rules = configs[0]["relabel_configs"].as_array().expect("rules");
    assert!(rules.iter().all(|r| r["target_label"] != "endpoint"));
    assert!(rules.iter().all(|r| r["action"] != "drop"));
    assert!(rules.contains(&json!({"target_label": "job", "replacement": "infra/agents"})));
}

#[test]
fn a_probe_needs_a_prober_and_targets() {
    let probe = |spec: Value| {
        map(&json!({"kind": "Probe", "metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
    };
    assert!(
        probe(json!({"prober": {"url": "http://x/"}, "targets": {"staticConfig": {}}})).is_err()
    );
    assert!(probe(json!({"prober": {"url": "x:9115"}})).is_err());
    let configs = probe(json!({"prober": {"url": "x:9115"}, "module": "m",
        "params": [{"name": "module", "values": ["other"]}, {"name": "debug", "values": ["1"]}],
        "targets": {"staticConfig": {"static": ["a"], "labels": {"namespace": "own"}}}}))
    .expect("usable");
    assert_eq!(configs[0]["params"], json!({"module": ["m"], "debug": ["1"]}));
    assert_eq!(configs[0]["static_configs"][0]["labels"]["namespace"], "own");
    assert_eq!(configs[0]["metrics_path"], "/probe");
}

#[test]
fn unknown_discoveries_are_refused_by_name() {
    let error = map(&json!({"kind": "ScrapeConfig", "metadata": {"name": "s", "namespace": "n"},
        "spec": {"consulSDConfigs": [{"server": "x"}]}}))
    .expect_err("rejected");
    assert!(error.contains("consulSDConfigs is not supported"), "{error}");
}

#[test]
fn a_rule_object_is_a_rule_file() {
    let (name, text) = rule_file(&json!({"kind": "PrometheusRule",
        "metadata": {"name": "r", "namespace": "n", "uid": "1"},
        "spec": {"groups": [{"name": "g", "interval": "", "partial_response_strategy": "warn",
            "rules": [{"record": "answer", "expr": 42, "for": ""}]}]}}))
    .expect("usable");
    assert_eq!(name, "n-r-1.yaml");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        file,
        json!({"groups": [{"name": "g", "rules": [{"record": "answer", "expr": "42"}]}]})
    );
}

/// What a real operator's mapping was recorded as, both sides read by the
/// configuration's parser.
#[test]
fn recorded_objects_become_the_recorded_configurations() {
    let golden =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/kubernetes/golden");
    if !golden.is_dir() {
        println!("skipped: the recorded cases are not at hand");
        return;
    }
    let parse = |text: &str| {
        crate::config::parse(text, &golden, "test.yml", &crate::config::GlobalConfig::default())
            .unwrap_or_else(|e| panic!("{e}\n{text}"))
            .scrape_configs
    };
    for case in [
        "operator_1_servicemonitor_basic",
        "operator_2_servicemonitor_labels",
        "operator_4_servicemonitor_expressions",
        "operator_5_podmonitor",
        "operator_7_probe_static",
    ] {
        let read =
            |file: &str| std::fs::read_to_string(golden.join(case).join(file)).expect("recorded");
        let objects: Value = serde_json::from_str(&read("objects.json")).expect("JSON");
        let kinds = ["ServiceMonitor", "PodMonitor", "Probe", "ScrapeConfig"];
        let made: Vec<Value> = objects["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|o| kinds.contains(&o["kind"].as_str().unwrap_or("")))
            .flat_map(|o| map(o).expect("usable"))
            .collect();
        let global = json!({"scrape_interval": "1h", "scrape_timeout": "10s"});
        let made = parse(&json!({"global": global, "scrape_configs": made}).to_string());
        let recorded =
            parse(&read("prometheus.yml").replace("${API_SERVER}", "http://127.0.0.1:1"));
        assert_eq!(made.len(), recorded.len(), "{case}");
        for (made, recorded) in made.iter().zip(&recorded) {
            let targets = |c: &crate::config::ScrapeConfig| {
                (c.discovery.clone(), c.scrape_interval, c.params.clone())
            };
            assert_eq!(targets(made), targets(recorded), "{case}");
            let rules = |c: &crate::config::ScrapeConfig| {
                c.relabel_configs.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>().join("\n")
            };
            // `$1` and `${1}` are the same.
            assert_eq!(
                rules(made).replace("${1}", "$1"),
                rules(recorded).replace("${1}", "$1"),
                "{case}"
            );
        }
    }
}
