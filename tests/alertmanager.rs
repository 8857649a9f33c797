//! Do alerts reach a real Alertmanager as they should? From rule to receiver:
//! pending, firing, grouped, inhibited, resolved. Skipped, with the reason
//! printed, where there is no Alertmanager.
#![allow(clippy::unwrap_used, reason = "a test that fails names the place")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{free_port, request, wait_for};
use narthex::config::{
    AlertmanagerConfig, Config, DiscoveryConfigs, HttpClientConfig, StaticConfig,
};
use narthex::discovery::{TargetGroups, static_group};
use narthex::metrics::Registry;
use narthex::rules::AlertState;
use narthex::{notify, rules};
use narthex_query::engine::{Engine, EngineOptions};
use narthex_query::memory::MemoryStorage;
use narthex_storage::labels::Labels;
use serde_json::Value;

/// Where the Alertmanager is: `$NARTHEX_PEERS`, or `target/peers/usr/bin`.
fn program() -> Option<PathBuf> {
    let directory = std::env::var_os("NARTHEX_PEERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/usr/bin"),
        PathBuf::from,
    );
    let path = directory.join("prometheus-alertmanager");
    path.is_file().then_some(path)
}

/// A running Alertmanager. Killed when dropped.
struct Alertmanager {
    child: Child,
    port: u16,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Alertmanager {
    fn start(program: &Path, directory: &Path) -> Self {
        let config = directory.join("alertmanager.yml");
        std::fs::write(
            &config,
            "route: {receiver: none, group_by: [alertname, namespace], group_wait: 0s}\n\
             receivers: [{name: none}]\n\
             inhibit_rules:\n- {source_matchers: [severity=critical], \
             target_matchers: [severity=warning], equal: [namespace]}\n",
        )
        .unwrap();
        let port = free_port();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.join("am").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Alertmanager starts");
        let alertmanager = Self { child, port };
        wait_for("the Alertmanager", || alertmanager.get("/-/ready"));
        alertmanager
    }

    fn get(&self, path: &str) -> Option<Vec<u8>> {
        let address = ([127, 0, 0, 1], self.port).into();
        let answer = request(address, "GET", path, &[], b"").ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    fn json(&self, path: &str) -> Vec<Value> {
        let body = self.get(path).unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or_default()
    }
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

const RULES: &str = "\
groups:
- name: g
  interval: 200ms
  rules:
  - alert: HighCpuUsage
    expr: cpu > 80
    for: 1s
    labels: {severity: warning}
    annotations: {summary: 'CPU of {{ $labels.instance }} is {{ printf `%.1f` $value }}%'}
  - alert: NodeDown
    expr: cpu > 95
    labels: {severity: critical}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_reach_a_real_alertmanager() {
    let Some(program) = program() else {
        eprintln!("skipped: no Alertmanager in $NARTHEX_PEERS or target/peers/usr/bin");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let alertmanager = Alertmanager::start(&program, directory.path());
    let rule_file = directory.path().join("rules.yml");
    std::fs::write(&rule_file, RULES).unwrap();

    let statics = StaticConfig {
        targets: vec![format!("127.0.0.1:{}", alertmanager.port)],
        ..StaticConfig::default()
    };
    let groups: TargetGroups = Arc::new(vec![Arc::new(static_group(0, &statics))]);
    let (_sender, watched) = tokio::sync::watch::channel(groups);
    let mut config = Config::default();
    config.global.external_labels = Labels::from_pairs([("region", "eu")]);
    config.rule_files = vec![rule_file];
    config.alerting.alertmanagers = vec![AlertmanagerConfig {
        scheme: "http".to_owned(),
        path_prefix: String::new(),
        timeout: Duration::from_secs(5),
        http: HttpClientConfig::default(),
        discovery: DiscoveryConfigs::default(),
        relabel_configs: Vec::new(),
        alert_relabel_configs: Vec::new(),
    }];

    let registry = Registry::default();
    let notifier = Arc::new(notify::Manager::new(&registry, notify::ManagerOptions::default()));
    notifier.apply(&config, |_, _| watched.clone()).await.unwrap();
    let storage = MemoryStorage::new();
    let manager = Arc::new(
        rules::Manager::new(
            Arc::new(storage.clone()),
            Arc::new(storage.clone()),
            Arc::new(Engine::new(EngineOptions::default())),
            notifier.clone(),
            &registry,
            rules::ManagerOptions {
                external_url: "http://narthex.example.org".to_owned(),
                data: Some(directory.path().join("data")),
                ..rules::ManagerOptions::default()
            },
        )
        .unwrap(),
    );
    let cpu = Arc::new(Mutex::new(10.0));
    let set = {
        let (storage, cpu) = (storage.clone(), cpu.clone());
        move |value: f64| {
            *cpu.lock().unwrap() = value;
            let labels = Labels::from_pairs([
                ("__name__", "cpu"),
                ("instance", "a:9100"),
                ("namespace", "shop"),
            ]);
            storage.add(&labels, now_ms(), value).unwrap();
        }
    };
    manager.apply(&config).await.unwrap();
    let wait = |what: &'static str, check: Box<dyn FnMut() -> Option<()> + Send>| async move {
        tokio::task::spawn_blocking(move || wait_for(what, check)).await.unwrap();
    };
    let state = |manager: &rules::Manager, rule: usize| {
        manager.status()[0].rules[rule].alerting.as_ref().map(|alerting| alerting.state)
    };

    set(90.0);
    let watch = manager.clone();
    let pending = Box::new(move || (state(&watch, 0)? == AlertState::Pending).then_some(()));
    wait("the pending alert", pending).await;
    assert!(alertmanager.json("/api/v2/alerts").is_empty());

    let alertmanager = Arc::new(alertmanager);
    let watch = alertmanager.clone();
    wait("the alert", Box::new(move || (!watch.json("/api/v2/alerts").is_empty()).then_some(())))
        .await;
    let alert = alertmanager.json("/api/v2/alerts").remove(0);
    assert_eq!(
        alert["labels"],
        serde_json::json!({"alertname": "HighCpuUsage", "instance": "a:9100", "namespace": "shop",
                           "region": "eu", "severity": "warning"})
    );
    assert_eq!(alert["annotations"]["summary"], "CPU of a:9100 is 90.0%");
    assert_eq!(
        alert["generatorURL"],
        "http://narthex.example.org/graph?g0.expr=cpu+%3E+80&g0.tab=1"
    );
    let groups = alertmanager.json("/api/v2/alerts/groups");
    assert_eq!(
        groups[0]["labels"],
        serde_json::json!({"alertname": "HighCpuUsage", "namespace": "shop"})
    );

    // A critical one of the same namespace suppresses it.
    set(99.0);
    let watch = alertmanager.clone();
    let inhibited = Box::new(move || {
        let alerts = watch.json("/api/v2/alerts?filter=severity%3Dwarning");
        let by = alerts.first()?["status"]["inhibitedBy"].as_array()?;
        (!by.is_empty()).then_some(())
    });
    wait("the inhibition", inhibited).await;

    set(10.0);
    let watch = alertmanager.clone();
    wait("the end", Box::new(move || watch.json("/api/v2/alerts").is_empty().then_some(()))).await;
    let series = storage.series_count();
    assert!(series >= 5, "cpu, ALERTS twice and ALERTS_FOR_STATE: {series}");
    manager.stop().await;
    notifier.stop().await;
    let text = registry.expose();
    assert!(text.contains("prometheus_notifications_dropped_total 0\n"), "{text}");
    assert!(text.contains("prometheus_rule_evaluation_failures_total{"), "{text}");
}
