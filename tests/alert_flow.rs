//! Do alerts go their way through the real binary? Over kill -9 with nothing
//! forgotten and nothing said twice, to webhooks, and, where they are there,
//! from a real node exporter to a real Alertmanager.

mod common;

#[path = "common/receiver.rs"]
mod receiver;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Peer, Server, free_port, peer, remote_write, request, wait_for};
use narthex::config::{
    AlertmanagerConfig, Config, DiscoveryConfigs, HttpClientConfig, StaticConfig,
};
use narthex::discovery::{TargetGroups, static_group};
use narthex::metrics::Registry;
use narthex::notify;
use narthex::rules::file::{FileOptions, parse_rules};
use narthex::rules::{Context, EngineQuery, Group, GroupOptions, RuleMetrics};
use narthex_query::engine::{Engine, EngineOptions};
use narthex_query::memory::MemoryStorage;
use narthex_query::parse::ParseOptions;
use narthex_storage::labels::Labels;
use receiver::Receiver;
use serde_json::{Value, json};

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292278994")
}

/// Writes one sample of each metric, for now, with the label `namespace`.
fn write(server: &Server, values: &[(&str, f64)]) {
    let at_ms = now_ms();
    let samples: Vec<[(i64, f64); 1]> = values.iter().map(|(_, value)| [(at_ms, *value)]).collect();
    let labels: Vec<[(&str, &str); 2]> =
        values.iter().map(|(name, _)| [("__name__", *name), ("namespace", "shop")]).collect();
    let series: Vec<remote_write::Series<'_>> = labels
        .iter()
        .zip(&samples)
        .map(|(labels, samples)| remote_write::Series { labels, samples })
        .collect();
    let answer = remote_write::send(server.address, &remote_write::body(&series));
    assert_eq!(answer.expect("an answer").status, 204);
}

/// Pending and firing alerts by name.
fn alerts(server: &Server) -> BTreeMap<String, Value> {
    let Ok(answer) = server.get("/api/v1/alerts") else { return BTreeMap::new() };
    let list = answer.json()["data"]["alerts"].as_array().cloned().unwrap_or_default();
    let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap_or("").to_owned();
    list.into_iter().map(|alert| (name(&alert), alert)).collect()
}

fn state<'a>(alerts: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a str> {
    alerts.get(name)?["state"].as_str()
}

/// How often the only group was evaluated since the process started.
fn evaluations(server: &Server) -> Option<f64> {
    let text = server.get("/metrics").ok()?.text();
    let line = text.lines().find(|l| l.starts_with("prometheus_rule_group_iterations_total{"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn wait_for_evaluations(server: &Server, count: f64) {
    wait_for("evaluations", || (evaluations(server)? >= count).then_some(()));
}

const STATES: &str = "\
groups:
- name: g
  rules:
  - {alert: Pending, expr: 'a == 1', for: 1h}
  - {alert: Firing, expr: 'b == 1', annotations: {summary: '{{ $value }} in {{ $labels.namespace }}'}}
  - {alert: Kept, expr: 'c == 1', keep_firing_for: 1h}
  - {alert: Resolved, expr: 'd == 1', labels: {severity: critical}}
  - {record: 'e:sum', expr: 'sum(b)'}
";

#[test]
fn kill_nine_forgets_no_alert_and_repeats_none() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("rules.yml"), STATES).expect("written");
    let alertmanager = Receiver::start();
    // Alerts are held for two scrape intervals after a start.
    let config = format!(
        "global: {{scrape_interval: 100ms, evaluation_interval: 100ms}}\nrule_files: [rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        alertmanager.address
    );
    let flags = ["--web.enable-remote-write-receiver"];
    let mut server = Server::start(directory.path(), Some(&config), &flags);
    write(&server, &[("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)]);
    wait_for("three alerts", || (alertmanager.alerts().len() == 3).then_some(()));
    write(&server, &[("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 1.0)]);
    wait_for("an alert that is kept", || {
        alerts(&server).get("Kept")?["keepFiringSince"].is_string().then_some(())
    });
    // The state is on disk before the next evaluation begins.
    let done = evaluations(&server).expect("metrics");
    wait_for_evaluations(&server, done + 2.0);
    let before = alerts(&server);
    assert_eq!(before.len(), 4, "{before:?}");
    assert_eq!(state(&before, "Pending"), Some("pending"));
    assert_eq!(state(&before, "Firing"), Some("firing"));

    for round in 0..5 {
        server.kill();
        server = Server::start(directory.path(), Some(&config), &flags);
        // At once, before anything was evaluated, and later: the same.
        assert_eq!(alerts(&server), before, "round {round}, at once");
        wait_for_evaluations(&server, f64::from(round + 3));
        assert_eq!(alerts(&server), before, "round {round}, later");
    }
    // Nothing was said twice, as nobody has to be reminded yet.
    let sent = alertmanager.alerts();
    assert_eq!(sent.len(), 3, "{sent:?}");

    // What resolves while the process is away is said, once, and only that.
    server.kill();
    server = Server::start(directory.path(), Some(&config), &flags);
    write(&server, &[("a", 1.0), ("b", 1.0), ("d", 0.0)]);
    wait_for("the end of an alert", || (alertmanager.alerts().len() > 3).then_some(()));
    let done = evaluations(&server).expect("metrics");
    wait_for_evaluations(&server, done + 5.0);
    let sent = alertmanager.alerts();
    let [_, _, _, resolved] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(resolved["labels"]["alertname"], "Resolved");
    let started = sent.iter().find(|a| a["labels"]["alertname"] == "Resolved").expect("sent");
    assert_eq!(resolved["startsAt"], started["startsAt"]);
    let mut expected = before;
    expected.remove("Resolved");
    assert_eq!(alerts(&server), expected);
}

const WEBHOOKS: &str = "\
groups:
- name: g
  rules:
  - {alert: Slow, expr: 'slow == 1', labels: {severity: warning}, annotations: {summary: slow}}
  - {alert: Slower, expr: 'slower == 1', labels: {severity: warning}}
  - {alert: Down, expr: 'down == 1', labels: {severity: critical}}
";

/// Status and names of the alerts of each notification of a receiver.
fn told(receiver: &Receiver) -> Vec<String> {
    let names = |body: &Value| {
        let alerts = body["alerts"].as_array().expect("a list");
        let one = |alert: &Value| format!("{}:{}", alert["labels"]["alertname"], alert["status"]);
        let list: Vec<String> = alerts.iter().map(one).collect();
        format!("{} {}", body["status"], list.join(" ")).replace('"', "")
    };
    receiver.bodies().iter().map(names).collect()
}

#[test]
fn webhooks_are_told_in_groups_with_repetition_and_inhibition() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("rules.yml"), WEBHOOKS).expect("written");
    let hook = Receiver::start();
    let config = format!(
        "global: {{scrape_interval: 100ms, evaluation_interval: 100ms}}\nrule_files: [rules.yml]\n\
         webhooks: {{receivers: [{{name: chat, url: 'http://{}/hook', group_by: [namespace, severity], \
         group_wait: 1s, group_interval: 1s, repeat_interval: 2s, inhibit_equal: [namespace]}}]}}\n",
        hook.address
    );
    let server =
        Server::start(directory.path(), Some(&config), &["--web.enable-remote-write-receiver"]);
    let set = |slow: f64, slower: f64, down: f64| {
        write(&server, &[("slow", slow), ("slower", slower), ("down", down)]);
    };
    let wait = |what: &str, count: usize| {
        wait_for(what, || {
            let told = told(&hook);
            (told.iter().filter(|text| *text == what).count() >= count).then_some(())
        });
    };
    set(1.0, 1.0, 0.0);
    wait("firing Slow:firing Slower:firing", 1);
    let body = &hook.bodies()[0];
    assert_eq!(body["receiver"], "chat");
    assert_eq!(body["groupLabels"], json!({"namespace": "shop", "severity": "warning"}));
    assert_eq!(body["commonLabels"], json!({"namespace": "shop", "severity": "warning"}));
    assert_eq!(body["alerts"][0]["annotations"], json!({"summary": "slow"}));
    // Nothing changes: it is repeated.
    wait("firing Slow:firing Slower:firing", 2);
    // A critical one of the same namespace keeps warnings silent.
    set(1.0, 1.0, 1.0);
    wait("firing Down:firing", 1);
    let warnings = |told: &[String]| told.iter().filter(|text| text.contains("Slow:")).count();
    let before = warnings(&told(&hook));
    wait("firing Down:firing", 3);
    assert_eq!(warnings(&told(&hook)), before, "{:?}", told(&hook));
    // Ends are told, and what fires on is heard of again.
    set(0.0, 1.0, 0.0);
    wait("resolved Down:resolved", 1);
    wait("firing Slow:resolved Slower:firing", 1);
    set(0.0, 0.0, 0.0);
    wait("resolved Slower:resolved", 1);
    let text = server.get("/metrics").expect("metrics").text();
    assert!(text.contains("prometheus_notifications_dropped_total 0\n"), "{text}");
}

#[test]
fn an_alertmanager_that_comes_back_is_told_the_newest_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules =
        "groups: [{name: g, rules: [{alert: A, expr: 'a == 1'}, {alert: B, expr: 'b == 1'}]}]";
    std::fs::write(directory.path().join("rules.yml"), rules).expect("written");
    let (up, down) = (Receiver::start(), Receiver::start());
    down.refuse(true);
    let config = format!(
        "global: {{scrape_interval: 100ms, evaluation_interval: 100ms}}\nrule_files: [rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}', '{}']}}]}}]}}\n",
        up.address, down.address
    );
    let server =
        Server::start(directory.path(), Some(&config), &["--web.enable-remote-write-receiver"]);
    write(&server, &[("a", 1.0), ("b", 1.0)]);
    wait_for("both alerts", || (up.alerts().len() == 2).then_some(()));
    write(&server, &[("a", 0.0), ("b", 1.0)]);
    wait_for("the end of one", || (up.alerts().len() == 3).then_some(()));
    assert!(down.alerts().is_empty());
    down.refuse(false);
    wait_for("what was missed", || (down.alerts().len() >= 2).then_some(()));
    let ends = |alerts: &[Value], name: &str| -> Value {
        let of = |alert: &&Value| alert["labels"]["alertname"] == name;
        alerts.iter().rev().find(of).expect("sent")["endsAt"].clone()
    };
    let (up, down) = (up.alerts(), down.alerts());
    assert_eq!(down.len(), 2, "{down:?}");
    assert_eq!(ends(&down, "A"), ends(&up, "A"), "resolved");
    assert_eq!(ends(&down, "B"), ends(&up, "B"), "still firing");
}

/// An hour of simulated time with an Alertmanager that is away: what it has
/// heard when it is back is the newest state of each alert, each once.
#[tokio::test]
async fn an_alertmanager_away_for_an_hour_misses_nothing() {
    const STEP_MS: i64 = 15_000;
    const STEPS: i64 = 240;
    const ALERTS: i64 = 300;
    let receiver = Receiver::start();
    receiver.refuse(true);
    let statics =
        StaticConfig { targets: vec![receiver.address.to_string()], ..StaticConfig::default() };
    let groups: TargetGroups = Arc::new(vec![Arc::new(static_group(0, &statics))]);
    let (_sender, watched) = tokio::sync::watch::channel(groups);
    let mut config = Config::default();
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
    let manager = Arc::new(notify::Manager::new(&registry, notify::ManagerOptions::default()));
    manager.apply(&config, |_, _| watched.clone()).await.expect("applied");

    let storage = MemoryStorage::new();
    let context = Context {
        query: Arc::new(EngineQuery {
            engine: Arc::new(Engine::new(EngineOptions::default())),
            queryable: Arc::new(storage.clone()),
            parse: ParseOptions::default(),
            log: None,
        }),
        appendable: Arc::new(storage.clone()),
        notify: manager.clone(),
        external_labels: Labels::empty(),
        external_url: String::new(),
        template_url: None,
        query_offset_ms: 0,
        resend_delay_ms: 60_000,
        outage_tolerance_ms: 3_600_000,
        for_grace_ms: 600_000,
        concurrent_rules: None,
        metrics: RuleMetrics::default(),
    };
    let text = "groups: [{name: g, interval: 15s, rules: [{alert: Down, expr: up == 0}]}]";
    let file = parse_rules("r.yml", text, &FileOptions::default()).expect("valid");
    let options = GroupOptions { file: file.name.clone(), default_interval_ms: STEP_MS };
    let group = Group::new(&file.groups[0], &options).expect("valid");
    // Half of the alerts end, each at another time.
    let ends = |i: i64| (i % 2 == 0).then_some(i / 2 + 20);
    let start_ms = 20_000 * 86_400_000;
    for step in 0..STEPS {
        let at_ms = start_ms + step * STEP_MS;
        for i in 0..ALERTS {
            let labels = [("__name__", "up".to_owned()), ("instance", i.to_string())];
            let up = f64::from(u8::from(ends(i).is_some_and(|end| step >= end)));
            storage.add(&Labels::from_pairs(labels), at_ms, up).expect("in order");
        }
        group.evaluate(at_ms, &context);
        tokio::task::yield_now().await;
    }
    assert!(receiver.bodies().is_empty());
    receiver.refuse(false);
    // Stopping sends what waits.
    manager.stop().await;
    let heard = receiver.alerts();
    assert_eq!(heard.len(), usize::try_from(ALERTS).expect("few"));
    for alert in &heard {
        let i = alert["labels"]["instance"].as_str().and_then(|i| i.parse().ok()).expect("ours");
        let ends_at = alert["endsAt"].as_str().expect("a time");
        let ends_ms = chrono::DateTime::parse_from_rfc3339(ends_at).expect("a time");
        let ends_ms = ends_ms.timestamp_millis();
        match ends(i) {
            Some(end) => assert_eq!(ends_ms, start_ms + end * STEP_MS, "{i} has ended"),
            None => assert!(ends_ms > start_ms + STEPS * STEP_MS, "{i} fires on"),
        }
    }
    assert!(registry.expose().contains("prometheus_notifications_dropped_total 0\n"));
}

const MACHINE: &str = "\
groups:
- name: machine
  rules:
  - alert: HighCpuUsage
    expr: 100 - avg by (instance, namespace) (rate(node_cpu_seconds_total{mode='idle'}[2s])) * 100 > 80
    for: 2s
    labels: {severity: warning}
    annotations: {summary: 'CPU of {{ $labels.instance }} at {{ printf \"%.0f\" $value }}%'}
  - alert: CpuSaturated
    expr: 100 - avg by (instance, namespace) (rate(node_cpu_seconds_total{mode='idle'}[2s])) * 100 > 80
    for: 6s
    labels: {severity: critical}
";

/// What the CPUs do. Busy loops if `NARTHEX_REAL_LOAD` is set; as others may
/// use this machine, too, otherwise a table of CPU times that the exporter
/// reads in the place of the kernel's.
struct Load {
    busy: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn real() -> Self {
        let (busy, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |_| {
            let (busy, stop) = (busy.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if busy.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    } else {
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                }
            })
        };
        let threads = (0..cores).map(spin).collect();
        Self { busy, stop, threads }
    }

    /// Keeps `directory/stat` as the kernel would for one CPU.
    fn told(directory: &Path) -> Self {
        let (busy, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let path = directory.join("stat");
        let mut row = Self::row(now_ms());
        row(&path, false);
        let (is_busy, ends) = (busy.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                row(&path, is_busy.load(Ordering::Relaxed));
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        Self { busy, stop, threads: vec![thread] }
    }

    /// Writes the table for now; the time since it was last written counts as
    /// idle or not, in hundredths of a second.
    fn row(mut last_ms: i64) -> impl FnMut(&Path, bool) {
        let (mut user, mut idle) = (0, 0);
        move |path, is_busy| {
            let passed = now_ms() / 10 - last_ms / 10;
            last_ms += passed * 10;
            *if is_busy { &mut user } else { &mut idle } += passed;
            let beside = path.with_extension("new");
            let text = format!("cpu0 {user} 0 0 {idle} 0 0 0 0 0 0\n");
            std::fs::write(&beside, format!("cpu {}{text}", &text[5..])).expect("written");
            std::fs::rename(&beside, path).expect("renamed");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The notifications of an Alertmanager about one alert: status and labels of
/// the group.
fn notified(hook: &Receiver, name: &str) -> Vec<(String, Value)> {
    let bodies = hook.bodies();
    let of = bodies.iter().filter(|body| body["groupLabels"]["alertname"] == name);
    of.map(|body| (body["status"].as_str().unwrap_or("").to_owned(), body.clone())).collect()
}

#[test]
fn a_loaded_machine_raises_high_cpu_usage() {
    let (Some(exporter), Some(alertmanager)) =
        (peer("prometheus-node-exporter"), peer("prometheus-alertmanager"))
    else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let hook = Receiver::start();

    let (machine, peers) = (local(free_port()), root.join("proc"));
    std::fs::create_dir(&peers).expect("a directory");
    let mut command = Command::new(exporter);
    command.args(["--collector.disable-defaults", "--collector.cpu"]);
    command.arg(format!("--web.listen-address={machine}"));
    let load = if std::env::var_os("NARTHEX_REAL_LOAD").is_some() {
        Load::real()
    } else {
        command.arg(format!("--path.procfs={}", peers.display()));
        Load::told(&peers)
    };
    let _exporter = Peer::start(&mut command, machine, "/metrics");

    let manager = local(free_port());
    let routes = format!(
        "route: {{receiver: hook, group_by: [alertname, namespace], group_wait: 100ms, \
         group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: hook, webhook_configs: [{{url: 'http://{}/', send_resolved: true}}]}}]\n\
         inhibit_rules: [{{source_matchers: [severity=critical], \
         target_matchers: [severity=warning], equal: [namespace]}}]\n",
        hook.address
    );
    std::fs::write(root.join("alertmanager.yml"), routes).expect("written");
    let mut command = Command::new(alertmanager);
    command
        .arg(format!("--config.file={}", root.join("alertmanager.yml").display()))
        .arg(format!("--storage.path={}", root.join("alertmanager").display()))
        .arg(format!("--web.listen-address={manager}"))
        .arg("--cluster.listen-address=");
    let _alertmanager = Peer::start(&mut command, manager, "/-/ready");
    let known = |name: &str| -> Option<Value> {
        let path = format!("/api/v2/alerts?filter=alertname%3D{name}");
        let list = request(manager, "GET", &path, &[], b"").ok()?.json();
        list.as_array()?.first().cloned()
    };

    std::fs::write(root.join("rules.yml"), MACHINE).expect("written");
    let config = format!(
        "global: {{scrape_interval: 250ms, evaluation_interval: 250ms}}\nrule_files: [rules.yml]\n\
         scrape_configs: [{{job_name: node, static_configs: [{{targets: ['{machine}'], \
         labels: {{namespace: shop}}}}]}}]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{manager}']}}]}}]}}\n"
    );
    let server = Server::start(root, Some(&config), &[]);
    wait_for("a machine at rest", || {
        let idle = "avg(rate(node_cpu_seconds_total{mode='idle'}[2s]))";
        (server.scalar(idle, None)? > 0.3 && alerts(&server).is_empty()).then_some(())
    });

    load.busy.store(true, Ordering::Relaxed);
    let pending = wait_for("the pending alert", || {
        let alert = alerts(&server).remove("HighCpuUsage")?;
        (alert["state"] == "pending").then_some(alert)
    });
    assert!(known("HighCpuUsage").is_none(), "nobody is told of a pending alert");
    let firing = wait_for("the firing alert", || {
        let alert = alerts(&server).remove("HighCpuUsage")?;
        (alert["state"] == "firing").then_some(alert)
    });
    assert_eq!(firing["activeAt"], pending["activeAt"]);
    let sent = wait_for("its notification", || notified(&hook, "HighCpuUsage").pop());
    assert_eq!(sent.0, "firing");
    assert_eq!(sent.1["groupLabels"], json!({"alertname": "HighCpuUsage", "namespace": "shop"}));
    let told = &sent.1["alerts"][0];
    let time = |value: &Value| {
        chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap_or("")).expect("a time")
    };
    let waited_ms = (time(&told["startsAt"]) - time(&pending["activeAt"])).num_milliseconds();
    assert!((2_000..2_600).contains(&waited_ms), "fired after {waited_ms} ms");
    assert!(told["annotations"]["summary"].as_str().is_some_and(|t| t.starts_with("CPU of 127")));

    wait_for("the critical alert", || notified(&hook, "CpuSaturated").pop());
    wait_for("the inhibition", || {
        let by = known("HighCpuUsage")?["status"]["inhibitedBy"].as_array()?.len();
        (by == 1).then_some(())
    });

    load.busy.store(false, Ordering::Relaxed);
    for name in ["CpuSaturated", "HighCpuUsage"] {
        wait_for("the end", || notified(&hook, name).pop().filter(|sent| sent.0 == "resolved"));
    }
    assert!(alerts(&server).is_empty());
}
