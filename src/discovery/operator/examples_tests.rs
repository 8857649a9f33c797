//! Objects in, targets out: each kind of object through the section
//! `operator`, by an API server of ours, up to labels and URLs. Nothing is
//! ever scraped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::follow::{Timing, Wanted, follow};
use crate::config::{self, GlobalConfig, ScrapeConfig};
use crate::discovery::kubernetes::fake::FakeApi;
use crate::discovery::targets::build;
use crate::discovery::{Discovery, TargetGroups};
use crate::metrics::Registry;
use crate::relabel::Rules;

const DEADLINE: Duration = Duration::from_secs(30);

/// Public labels and URL, by pool; sorted.
type Targets = Vec<(String, BTreeMap<String, String>, String)>;

/// The section at work on one server.
struct Cluster {
    fake: Arc<FakeApi>,
    discovery: Discovery,
    wanted: watch::Receiver<Option<Arc<Wanted>>>,
}

impl Cluster {
    async fn start(fake: Arc<FakeApi>, yaml: &str) -> Self {
        let url = format!("http://{}", fake.serve().await);
        let text = format!("operator:\n  api_server: {url}\n{yaml}");
        let global = GlobalConfig::default();
        let config = config::parse(&text, Path::new(""), "t", &global).expect("valid");
        let discovery = Discovery::new(&Registry::default(), CancellationToken::new());
        let timing = Timing {
            gather: Duration::from_millis(20),
            look_again: Duration::from_millis(200),
            patience: Duration::from_secs(5),
        };
        let wanted = follow(
            config.operator.expect("given"),
            global,
            discovery.clusters(),
            discovery.metrics().kubernetes.clone(),
            timing,
            CancellationToken::new(),
        );
        Self { fake, discovery, wanted }
    }

    /// What the objects ask for, once it is as expected.
    async fn wanted(&mut self, reached: impl Fn(&Wanted) -> bool) -> Arc<Wanted> {
        let waiting = self.wanted.wait_for(|w| w.as_ref().is_some_and(|w| reached(w)));
        let found = tokio::time::timeout(DEADLINE, waiting).await;
        let found = found.ok().and_then(|r| r.ok().and_then(|w| w.clone()));
        found.unwrap_or_else(|| panic!("not reached: {:?}", self.wanted.borrow()))
    }

    /// The targets of all pools, once they are as expected.
    async fn until(&self, pools: &[ScrapeConfig], expected: &Targets) {
        let followed: Vec<_> = pools
            .iter()
            .map(|pool| (pool, self.discovery.follow(&pool.job_name, &pool.discovery)))
            .collect();
        let waiting = async {
            while targets(&followed) != *expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            assert_eq!(targets(&followed), *expected);
        }
    }
}

fn targets(followed: &[(&ScrapeConfig, watch::Receiver<TargetGroups>)]) -> Targets {
    let mut all = Targets::new();
    for (pool, groups) in followed {
        let rules = Rules::compile(&pool.relabel_configs).expect("valid rules");
        let built = build(pool, &rules, &groups.borrow());
        assert_eq!(built.errors, []);
        all.extend(built.active.iter().map(|target| {
            let labels = target.spec.public_labels();
            let labels = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            (pool.job_name.clone(), labels, target.spec.url.clone())
        }));
    }
    all.sort();
    all
}

/// A target as tests write it: pool, URL, `name=value` in blanks.
fn target(pool: &str, url: &str, labels: &str) -> (String, BTreeMap<String, String>, String) {
    let labels = labels.split_whitespace().map(|pair| {
        let (name, value) = pair.split_once('=').expect("name=value");
        (name.to_owned(), value.to_owned())
    });
    (pool.to_owned(), labels.collect(), url.to_owned())
}

fn pod(ip: &str, labels: &Value, ports: &Value, phase: &str) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"nodeName": "node-1",
        "containers": [{"name": "main", "image": "i:1", "ports": ports}]},
        "status": {"podIP": ip, "phase": phase}})
}

/// A service with its slice and its Endpoints: a pod behind each address.
fn put_service(fake: &FakeApi, namespace: &str, name: &str, labels: &Value, port: &str) {
    let addresses = [("127.1.0.1", format!("{name}-1")), ("127.1.0.2", format!("{name}-2"))];
    for (ip, pod_name) in &addresses {
        let ports = json!([{"name": "web", "containerPort": 8080}, {"name": "admin", "containerPort": 9000}]);
        let pod_labels = json!({"app": name, "version": "v1"});
        fake.put("pods", namespace, pod_name, pod(ip, &pod_labels, &ports, "Running"));
    }
    let port = json!([{"name": port, "port": 8080, "protocol": "TCP"}]);
    let reference = |name: &str| json!({"kind": "Pod", "name": name, "namespace": namespace});
    let behind = |ready: bool| -> Vec<Value> {
        let one = |(ip, pod): &(&str, String)| {
            if ready {
                json!({"ip": ip, "targetRef": reference(pod)})
            } else {
                json!({"addresses": [ip], "conditions": {"ready": true}, "targetRef": reference(pod)})
            }
        };
        addresses.iter().map(one).collect()
    };
    fake.put("services", namespace, name, json!({"metadata": {"labels": labels}}));
    let subsets = json!([{"addresses": behind(true), "ports": port}]);
    fake.put(
        "endpoints",
        namespace,
        name,
        json!({"metadata": {"labels": labels}, "subsets": subsets}),
    );
    let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": behind(false), "ports": port});
    fake.put("endpointslices", namespace, &format!("{name}-x"), slice);
}

const MONITORS: &str = "servicemonitors";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_monitor_finds_its_services_by_either_role() {
    for role in ["Endpoints", "EndpointSlice"] {
        let fake = FakeApi::new();
        put_service(&fake, "shop", "web", &json!({"app": "web"}), "http");
        put_service(&fake, "shop", "other", &json!({"app": "other"}), "http");
        put_service(&fake, "far", "web", &json!({"app": "web"}), "http");
        fake.put(
            MONITORS,
            "monitoring",
            "m",
            json!({"spec": {
            "namespaceSelector": {"matchNames": ["shop"]},
            "selector": {"matchLabels": {"app": "web"}}, "endpoints": [{"port": "http"}]}}),
        );
        let mut cluster =
            Cluster::start(fake, &format!("  service_discovery_role: {role}\n")).await;
        let wanted = cluster.wanted(|w| w.scrape_configs.len() == 1).await;
        let (pool, common) = (
            "serviceMonitor/monitoring/m/0",
            "container=main endpoint=http job=web namespace=shop service=web",
        );
        let of = |n: u8| {
            let labels = format!("{common} instance=127.1.0.{n}:8080 pod=web-{n}");
            target(pool, &format!("http://127.1.0.{n}:8080/metrics"), &labels)
        };
        cluster.until(&wanted.scrape_configs, &vec![of(1), of(2)]).await;
        assert!(wanted.scrape_configs[0].discovery.kubernetes[0].shares_watches);
        assert_eq!(cluster.fake.count(&["/namespaces/"]), 0, "watches are shared");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_of_service_and_pod_and_rules_of_the_user_come_last() {
    let fake = FakeApi::new();
    let labels = json!({"app": "web", "team.example/name": "red", "product": "store"});
    put_service(&fake, "shop", "web", &labels, "http");
    fake.put(
        MONITORS,
        "shop",
        "m",
        json!({"spec": {
        "jobLabel": "product", "targetLabels": ["team.example/name", "none"],
        "podTargetLabels": ["version"], "selector": {},
        "endpoints": [{"port": "http", "path": "/m", "scheme": "HTTPS", "relabelings": [
            {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"},
            {"action": "LabelDrop", "regex": "container"}]}]}}),
    );
    let mut cluster = Cluster::start(fake, "").await;
    let wanted = cluster.wanted(|w| w.scrape_configs.len() == 1).await;
    let of = |n: u8| {
        let labels = format!(
            "endpoint=http job=store namespace=shop service=web node=node-1 version=v1 \
             team_example_name=red instance=127.1.0.{n}:8080 pod=web-{n}"
        );
        target("serviceMonitor/shop/m/0", &format!("https://127.1.0.{n}:8080/m"), &labels)
    };
    cluster.until(&wanted.scrape_configs, &vec![of(1), of(2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_mean_what_kubernetes_says() {
    let fake = FakeApi::new();
    let services = [
        ("good", json!({"tier": "a", "team": ""})),
        ("bad-tier", json!({"tier": "c", "team": "x"})),
        ("bad-env", json!({"tier": "b", "team": "x", "env": "dev"})),
        ("no-team", json!({"tier": "a"})),
        ("skipped", json!({"tier": "a", "team": "x", "skip": ""})),
    ];
    for (name, labels) in &services {
        put_service(&fake, name, "s", labels, "m");
    }
    fake.put(
        MONITORS,
        "monitoring",
        "m",
        json!({"spec": {
        "namespaceSelector": {"any": true}, "endpoints": [{"port": "m"}],
        "selector": {"matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "env", "operator": "NotIn", "values": ["dev"]},
            {"key": "team", "operator": "Exists"}, {"key": "skip", "operator": "DoesNotExist"}]}}}),
    );
    let mut cluster = Cluster::start(fake, "").await;
    let wanted = cluster.wanted(|w| w.scrape_configs.len() == 1).await;
    let of = |n: u8| {
        let labels = format!(
            "container=main endpoint=m job=s namespace=good service=s instance=127.1.0.{n}:8080 pod=s-{n}"
        );
        target(
            "serviceMonitor/monitoring/m/0",
            &format!("http://127.1.0.{n}:8080/metrics"),
            &labels,
        )
    };
    cluster.until(&wanted.scrape_configs, &vec![of(1), of(2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_monitor_reads_ports_of_containers_and_leaves_out_what_has_ended() {
    let fake = FakeApi::new();
    let ports = json!([{"name": "metrics", "containerPort": 9100}, {"containerPort": 9999}]);
    let labels = json!({"app": "agent", "role": "edge-agent"});
    fake.put("pods", "infra", "a", pod("127.1.1.1", &labels, &ports, "Running"));
    fake.put("pods", "infra", "b", pod("127.1.1.2", &json!({"app": "agent"}), &ports, "Succeeded"));
    fake.put("pods", "infra", "c", pod("127.1.1.3", &json!({"app": "other"}), &ports, "Running"));
    fake.put("podmonitors", "infra", "agents", json!({"spec": {
        "jobLabel": "role", "selector": {"matchLabels": {"app": "agent"}},
        "podMetricsEndpoints": [{"port": "metrics"}, {"portNumber": 9999, "filterRunning": false, "path": "/x"}]}}));
    let mut cluster = Cluster::start(fake, "").await;
    let wanted = cluster.wanted(|w| w.scrape_configs.len() == 2).await;
    let common = "container=main namespace=infra";
    let expected = vec![
        target(
            "podMonitor/infra/agents/0",
            "http://127.1.1.1:9100/metrics",
            &format!("{common} endpoint=metrics instance=127.1.1.1:9100 job=edge-agent pod=a"),
        ),
        target(
            "podMonitor/infra/agents/1",
            "http://127.1.1.1:9999/x",
            &format!("{common} instance=127.1.1.1:9999 job=edge-agent pod=a"),
        ),
        target(
            "podMonitor/infra/agents/1",
            "http://127.1.1.2:9999/x",
            &format!("{common} instance=127.1.1.2:9999 job=infra/agents pod=b"),
        ),
    ];
    cluster.until(&wanted.scrape_configs, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_scrape_configs_need_no_pods() {
    let fake = FakeApi::new();
    fake.put("probes", "monitoring", "sites", json!({"spec": {
        "jobName": "blackbox", "module": "tcp", "prober": {"url": "127.1.2.1:9115"},
        "targets": {"staticConfig": {"static": ["https://127.1.2.2/health"], "labels": {"site": "main"}}}}}));
    fake.put(
        "probes",
        "monitoring",
        "ways",
        json!({"spec": {
        "prober": {"url": "127.1.2.1:9115"},
        "targets": {"ingress": {"namespaceSelector": {"any": true}, "selector": {}}}}}),
    );
    let rule = json!({"host": "shop.example", "http": {"paths": [{"path": "/cart"}]}});
    fake.put(
        "ingresses",
        "shop",
        "front",
        json!({"spec": {"rules": [rule], "tls": [{"hosts": ["shop.example"]}]}}),
    );
    fake.put("scrapeconfigs", "edge", "box", json!({"spec": {
        "jobName": "boxes", "metricsPath": "/m", "staticConfigs": [{"targets": ["127.1.2.3:1"], "labels": {"rack": "7"}}]}}));
    let mut cluster = Cluster::start(fake, "").await;
    let wanted = cluster.wanted(|w| w.scrape_configs.len() == 3).await;
    let expected = vec![
        target(
            "probe/monitoring/sites",
            "http://127.1.2.1:9115/probe?module=tcp&target=https%3A%2F%2F127.1.2.2%2Fhealth",
            "instance=https://127.1.2.2/health job=blackbox namespace=monitoring site=main",
        ),
        target(
            "probe/monitoring/ways",
            "http://127.1.2.1:9115/probe?target=https%3A%2F%2Fshop.example%2Fcart",
            "ingress=front instance=https://shop.example/cart job=probe/monitoring/ways namespace=shop",
        ),
        target(
            "scrapeConfig/edge/box",
            "http://127.1.2.3:1/m",
            "instance=127.1.2.3:1 job=boxes rack=7",
        ),
    ];
    cluster.until(&wanted.scrape_configs, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_selected_later_comes_and_goes() {
    let fake = FakeApi::new();
    put_service(&fake, "shop", "web", &json!({}), "http");
    let monitor = |labels: Value| {
        json!({"metadata": {"labels": labels},
        "spec": {"selector": {}, "endpoints": [{"port": "http"}]}})
    };
    fake.put(MONITORS, "shop", "m", monitor(json!({"app": "web"})));
    let yaml = "  service_monitor_selector: {matchLabels: {release: kps}}\n";
    let mut cluster = Cluster::start(Arc::clone(&fake), yaml).await;
    cluster.wanted(|w| w.not_selected.len() == 1 && w.scrape_configs.is_empty()).await;
    fake.put(MONITORS, "shop", "m", monitor(json!({"app": "web", "release": "kps"})));
    cluster.wanted(|w| w.not_selected.is_empty() && w.scrape_configs.len() == 1).await;
    fake.put(MONITORS, "shop", "m", monitor(json!({"app": "web"})));
    cluster.wanted(|w| w.not_selected.len() == 1 && w.scrape_configs.is_empty()).await;
}

fn golden() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["..", "../.."].map(|up| root.join(up).join("shared/kubernetes/golden"));
    found.into_iter().find(|path| path.is_dir())
}

/// The recorded cases from the objects alone: the same public labels, URLs and
/// rules as a real Prometheus had behind the real operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_objects_give_the_recorded_targets_and_rules() {
    let Some(golden) = golden() else {
        println!("skipped: the recorded cases are not at hand");
        return;
    };
    let mut compared = 0;
    for case in std::fs::read_dir(golden).expect("readable").flatten() {
        let name = case.file_name().to_string_lossy().into_owned();
        if !name.starts_with("operator_") {
            continue;
        }
        let json = |file: &str| -> Value {
            let text = std::fs::read_to_string(case.path().join(file)).expect("recorded");
            serde_json::from_str(&text).expect("JSON")
        };
        let fake = FakeApi::new();
        fake.load(&json("objects.json")["items"]);
        let recorded = json("targets.json");
        let mut expected: Targets = recorded["activeTargets"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|t| {
                let labels = serde_json::from_value(t["labels"].clone()).expect("labels");
                let text = |name: &str| t[name].as_str().expect("a text").to_owned();
                (text("scrapePool"), labels, text("scrapeUrl"))
            })
            .collect();
        expected.sort();
        let mut cluster = Cluster::start(fake, "  service_discovery_role: Endpoints\n").await;
        let wanted = cluster.wanted(|w| *w != Wanted::default()).await;
        assert_eq!(wanted.rejected, [], "{name}");
        if name.contains("prometheusrule") {
            assert_eq!(rules(&wanted), recorded_rules(&json("rules.json")), "{name}");
        } else {
            cluster.until(&wanted.scrape_configs, &expected).await;
        }
        compared += 1;
    }
    assert_eq!(compared, 6);
    println!("{compared} recorded cases compared");
}

/// Group, name, query and the rest of all rules, sorted.
fn rules(wanted: &Wanted) -> Vec<String> {
    let mut all = Vec::new();
    for file in &wanted.rule_files {
        let text: Value = serde_json::from_str(&file.text).expect("JSON");
        for group in text["groups"].as_array().into_iter().flatten() {
            for rule in group["rules"].as_array().into_iter().flatten() {
                let name = rule["record"].as_str().or(rule["alert"].as_str()).unwrap_or("");
                let mut labels = group["labels"].as_object().cloned().unwrap_or_default();
                labels.extend(rule["labels"].as_object().cloned().unwrap_or_default());
                all.push(format!("{} {name} {} {labels:?}", group["name"], rule["expr"]));
            }
        }
    }
    all.sort();
    all
}

fn recorded_rules(recorded: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for group in recorded["groups"].as_array().into_iter().flatten() {
        for rule in group["rules"].as_array().into_iter().flatten() {
            let name = rule["name"].as_str().unwrap_or("");
            let labels = rule["labels"].as_object().cloned().unwrap_or_default();
            all.push(format!("{} {name} {} {labels:?}", group["name"], rule["query"]));
        }
    }
    all.sort();
    all
}
