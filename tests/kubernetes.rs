//! The real binary in a cluster of ours: an API server, nodes and pods on
//! loopback.

mod common;
#[path = "common/kubernetes.rs"]
mod fake;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Server, wait_for};
use fake::FakeApi;
use serde_json::{Value, json};

const FLAGS: [&str; 1] = ["--config.file=prometheus.yml"];

/// A page on an address of loopback, and the requests for it.
struct Page {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Serves one page on the same port of all these addresses.
fn page(addresses: &[&str]) -> Page {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut port = 0;
    for address in addresses {
        let listener = TcpListener::bind((*address, port)).expect("a free port");
        port = listener.local_addr().expect("bound").port();
        let asked = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let asked = Arc::clone(&asked);
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
                    while let Some(Ok(first)) = lines.next() {
                        while lines.next().is_some_and(|l| l.is_ok_and(|l| !l.is_empty())) {}
                        asked.lock().expect("not poisoned").push(first);
                        let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
                            Content-Length: 11\r\n\r\nshown_on 1\n";
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    Page { port, asked }
}

/// A pod with one port.
fn pod(ip: &str, port: u16, labels: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"nodeName": "n1", "containers": [
        {"name": "main", "image": "i", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"podIP": ip, "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// A slice with these pods or nodes behind its addresses.
fn slice(service: &str, kind: &str, port: u16, behind: &[(&str, &str)]) -> Value {
    let one = |(name, ip): &(&str, &str)| {
        json!({"addresses": [ip], "conditions": {"ready": true},
            "targetRef": {"kind": kind, "name": name}})
    };
    let endpoints: Vec<Value> = behind.iter().map(one).collect();
    json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
        "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}]})
}

fn endpoints(kind: &str, port: u16, behind: &[(&str, &str)]) -> Value {
    let one =
        |(name, ip): &(&str, &str)| json!({"ip": ip, "targetRef": {"kind": kind, "name": name}});
    let addresses: Vec<Value> = behind.iter().map(one).collect();
    json!({"subsets": [{"addresses": addresses, "ports": [{"name": "http", "port": port}]}]})
}

fn monitor(app: &str, endpoint: Value) -> Value {
    json!({"spec": {"selector": {"matchLabels": {"app": app}}, "endpoints": [endpoint]}})
}

fn data(server: &Server, path: &str) -> Value {
    server.get(path).expect("an answer").json()["data"].clone()
}

fn texts(list: &Value, member: &str) -> Vec<String> {
    let members = list.as_array().into_iter().flatten().filter_map(|o| o[member].as_str());
    members.map(str::to_owned).collect()
}

#[test]
fn objects_of_all_kinds_are_put_in_force_and_bad_ones_are_named() {
    for role in ["Endpoints", "EndpointSlice"] {
        let page = page(&["127.0.0.1"]);
        let port = page.port;
        let fake = FakeApi::new();
        let behind = [("web-1", "127.0.0.1")];
        fake.put("pods", "shop", "web-1", pod("127.0.0.1", port, json!({"app": "web"})));
        fake.put("services", "shop", "web", json!({"metadata": {"labels": {"app": "web"}}}));
        fake.put("endpointslices", "shop", "web-x", slice("web", "Pod", port, &behind));
        fake.put("endpoints", "shop", "web", endpoints("Pod", port, &behind));
        fake.put("servicemonitors", "shop", "web", monitor("web", json!({"port": "http"})));
        fake.put("podmonitors", "shop", "direct", json!({"spec": {
            "selector": {"matchLabels": {"app": "web"}}, "podMetricsEndpoints": [{"port": "http", "path": "/direct"}]}}));
        fake.put("probes", "shop", "site", json!({"spec": {"jobName": "probe", "module": "tcp",
            "prober": {"url": format!("127.0.0.1:{port}")}, "targets": {"staticConfig": {"static": ["somewhere"]}}}}));
        fake.put(
            "scrapeconfigs",
            "shop",
            "box",
            json!({"spec": {"jobName": "box",
            "staticConfigs": [{"targets": [format!("127.0.0.1:{port}")]}]}}),
        );
        fake.put("prometheusrules", "shop", "good", json!({"metadata": {"uid": "1"}, "spec": {"groups": [
            {"name": "g", "interval": "1s", "rules": [{"record": "jobs:up", "expr": "count by (job) (up)"}]}]}}));
        fake.put(
            "prometheusrules",
            "shop",
            "bad",
            json!({"metadata": {"uid": "2"}, "spec": {"groups": [
            {"name": "g", "rules": [{"record": "x", "expr": "sum("}]}]}}),
        );
        fake.put(
            "servicemonitors",
            "shop",
            "slow",
            monitor("web", json!({"port": "http", "interval": "1s", "scrapeTimeout": "2s"})),
        );
        fake.put(
            "servicemonitors",
            "shop",
            "regex",
            monitor(
                "web",
                json!({"port": "http",
            "relabelings": [{"sourceLabels": ["a"], "regex": "(", "targetLabel": "b"}]}),
            ),
        );

        let directory = tempfile::tempdir().expect("a folder");
        let configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             operator: {{api_server: 'http://{}', service_discovery_role: {role}}}\n",
            fake.serve_blocking()
        );
        let server = Server::start(directory.path(), Some(&configuration), &FLAGS);
        for job in ["web", "shop/direct", "probe", "box"] {
            wait_for(job, || {
                server.scalar(&format!("up{{job=\"{job}\"}}"), None).filter(|v| *v == 1.0)
            });
        }
        wait_for("the rule", || {
            let query = "sum(jobs:up)";
            server.scalar(query, None).filter(|n| *n == 4.0)
        });
        assert!(
            page.asked
                .lock()
                .unwrap()
                .iter()
                .any(|r| r.contains("/probe?module=tcp&target=somewhere"))
        );

        // Who was rejected, everywhere one may look.
        let status = data(&server, "/api/v1/status/operator");
        let rejected = status["rejected"].clone();
        assert_eq!(texts(&rejected, "name"), ["bad", "regex", "slow"], "{status}");
        assert_eq!(status["ruleFiles"], json!(["shop-good-1.yaml"]));
        let reasons = texts(&rejected, "reason");
        assert!(reasons[2].contains("timeout") && !reasons[0].is_empty(), "{reasons:?}");
        let notices = texts(&data(&server, "/api/v1/notifications"), "text");
        assert_eq!(notices.len(), 3, "{notices:?}");
        assert!(notices.iter().any(|n| n.starts_with("ServiceMonitor shop/slow: ")), "{notices:?}");
        let metrics = server.get("/metrics").expect("an answer").text();
        assert!(metrics.contains("narthex_operator_objects{state=\"rejected\"} 3\n"), "{metrics}");
        assert_eq!(server.log().matches("object not used: ServiceMonitor shop/slow").count(), 1);

        // From which object a target came.
        let active = data(&server, "/api/v1/targets?state=active")["activeTargets"].clone();
        let of = |pool: &str| {
            let found = active.as_array().and_then(|l| l.iter().find(|t| t["scrapePool"] == pool));
            found.cloned().unwrap_or_else(|| panic!("{pool} in {active}"))
        };
        let web = of("serviceMonitor/shop/web/0");
        assert_eq!(web["definedBy"], "ServiceMonitor shop/web");
        let found_in =
            if role == "Endpoints" { "Endpoints shop/web" } else { "EndpointSlice shop/web-x" };
        assert_eq!(web["foundIn"], found_in);
        assert_eq!(of("podMonitor/shop/direct/0")["foundIn"], "Pod shop/web-1");
        assert_eq!(of("scrapeConfig/shop/box")["definedBy"], "ScrapeConfig shop/box");
        assert!(of("scrapeConfig/shop/box")["foundIn"].is_null());

        // Good again, and gone.
        fake.put(
            "servicemonitors",
            "shop",
            "slow",
            monitor("web", json!({"port": "http", "path": "/slow"})),
        );
        fake.delete("prometheusrules", "shop", "bad");
        fake.delete("servicemonitors", "shop", "regex");
        wait_for("no notice", || {
            let notices = data(&server, "/api/v1/notifications");
            notices.as_array().filter(|n| n.is_empty()).map(|_| ())
        });
        wait_for("the pool", || {
            let pools = data(&server, "/api/v1/scrape_pools")["scrapePools"].clone();
            pools.as_array()?.contains(&json!("serviceMonitor/shop/slow/0")).then_some(())
        });
        fake.delete("servicemonitors", "shop", "web");
        wait_for("its end", || {
            let pools = data(&server, "/api/v1/scrape_pools")["scrapePools"].clone();
            (!pools.as_array()?.contains(&json!("serviceMonitor/shop/web/0"))).then_some(())
        });
    }
}

/// The node exporter and the kubelet of all nodes, as objects.
fn put_nodes(fake: &FakeApi, port: u16, nodes: &[(&str, &str)]) {
    let pods: Vec<(String, &str)> =
        nodes.iter().map(|(name, ip)| (format!("exporter-{name}"), *ip)).collect();
    let pods: Vec<(&str, &str)> = pods.iter().map(|(name, ip)| (name.as_str(), *ip)).collect();
    fake.put("endpointslices", "monitoring", "exporter-x", slice("exporter", "Pod", port, &pods));
    fake.put("endpointslices", "kube-system", "kubelet-x", slice("kubelet", "Node", port, nodes));
}

#[test]
fn a_node_is_scraped_when_it_comes_and_stale_when_it_goes() {
    const INTERVAL: f64 = 1.0;
    let page = page(&["127.0.0.1", "127.0.0.2"]);
    let fake = FakeApi::new();
    let (one, two) = (("n1", "127.0.0.1"), ("n2", "127.0.0.2"));
    let put_node = |(name, ip): (&str, &str)| {
        fake.put(
            "nodes",
            "",
            name,
            json!({"status": {"addresses": [{"type": "InternalIP", "address": ip}]}}),
        );
        let exporter = pod(ip, page.port, json!({"app": "exporter"}));
        fake.put("pods", "monitoring", &format!("exporter-{name}"), exporter);
    };
    for (namespace, app) in [("monitoring", "exporter"), ("kube-system", "kubelet")] {
        fake.put("services", namespace, app, json!({"metadata": {"labels": {"app": app}}}));
        fake.put("servicemonitors", namespace, app, monitor(app, json!({"port": "http"})));
    }
    put_node(one);
    put_nodes(&fake, page.port, &[one]);
    let directory = tempfile::tempdir().expect("a folder");
    let configuration = format!(
        "global: {{scrape_interval: 1s}}\noperator: {{api_server: 'http://{}'}}\n",
        fake.serve_blocking()
    );
    let server = Server::start(directory.path(), Some(&configuration), &FLAGS);
    wait_for("the first node", || server.scalar("count(up == 1)", None).filter(|n| *n == 2.0));

    // The endpoints of the second node are ready.
    let ready = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    put_node(two);
    put_nodes(&fake, page.port, &[one, two]);
    wait_for("the second node", || server.scalar("count(up == 1)", None).filter(|n| *n == 4.0));
    for job in ["exporter", "kubelet"] {
        let query = format!("up{{job=\"{job}\",instance=~\"127.0.0.2:.*\"}}[1m]");
        let first = server.query(&query, None)[0]["values"][0][0].as_f64().expect("a time");
        println!("{job} of the new node: scraped {:.3} s after it was ready", first - ready);
        // One interval, and what gathering changes takes.
        assert!(first - ready < INTERVAL + 1.0, "{job}: {} s", first - ready);
    }

    // It goes: its series end, and nothing else does.
    put_nodes(&fake, page.port, &[one]);
    fake.delete("pods", "monitoring", "exporter-n2");
    fake.delete("nodes", "", "n2");
    wait_for("stale series", || {
        server.query("{instance=~\"127.0.0.2:.*\"}", None).is_empty().then_some(())
    });
    let before =
        server.query("count by (job, __name__) ({instance=~\"127.0.0.1:.*\"})", None).len();
    assert_eq!(before, 2 * 6, "up, four report series and one of the page, of two jobs");
    for series in server.query("up{instance=~\"127.0.0.1:.*\"}[5m]", None) {
        let values = series["values"].as_array().expect("values");
        let times: Vec<f64> = values.iter().map(|v| v[0].as_f64().expect("a time")).collect();
        let gap = times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
        assert!(gap < 2.5 * INTERVAL, "a gap of {gap} s in {series}");
        assert!(values.iter().all(|v| v[1] == "1"), "{series}");
    }
}

#[test]
fn a_reload_of_other_settings_leaves_no_gap_in_targets() {
    let page = page(&["127.0.0.1"]);
    let fake = FakeApi::new();
    fake.put("services", "shop", "web", json!({"metadata": {"labels": {"app": "web"}}}));
    let behind = [("web-1", "127.0.0.1")];
    fake.put("endpointslices", "shop", "web-x", slice("web", "Pod", page.port, &behind));
    fake.put("servicemonitors", "shop", "web", monitor("web", json!({"port": "http"})));
    let address = fake.serve_blocking();
    let configuration = |site: &str| {
        format!(
            "global: {{scrape_interval: 1s, external_labels: {{site: {site}}}}}\n\
             operator: {{api_server: 'http://{address}'}}\n"
        )
    };
    let directory = tempfile::tempdir().expect("a folder");
    let server = Server::start(directory.path(), Some(&configuration("one")), &FLAGS);
    let targets = || {
        let active = data(&server, "/api/v1/targets?state=active")["activeTargets"].clone();
        active.as_array().map_or(0, Vec::len)
    };
    wait_for("the target", || (targets() == 1).then_some(()));
    let lists = || fake.count(&["/servicemonitors", "limit="]);
    let before = lists();
    // The objects are followed anew, with the new defaults.
    std::fs::write(directory.path().join("prometheus.yml"), configuration("two")).expect("writes");
    server.hang_up();
    wait_for("the reload", || {
        assert_eq!(targets(), 1, "a gap");
        server.log().contains("configuration reloaded").then_some(())
    });
    wait_for("the objects", || {
        assert_eq!(targets(), 1, "a gap");
        let status = data(&server, "/api/v1/status/operator");
        (status["complete"] == true && server.log().matches("objects are in force").count() > 1)
            .then_some(())
    });
    assert_eq!(lists(), before, "watches go on through a reload");
}

/// The rule objects of kube-prometheus, where they are at hand.
#[test]
fn the_rules_of_kube_prometheus_are_loaded_as_objects() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["..", "../.."].map(|up| root.join(up).join("shared/rules"));
    let Some(folder) = found.into_iter().find(|path| path.is_dir()) else {
        println!("skipped: the rules are not at hand");
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("readable")
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("kube-prometheus-"))
        })
        .collect();
    files.sort();
    let fake = FakeApi::new();
    let (mut groups, mut rules) = (0, 0);
    for file in &files {
        let text = std::fs::read_to_string(file).expect("UTF-8");
        let object: Value = serde_saphyr::from_str(&text).expect("YAML");
        for group in object["spec"]["groups"].as_array().expect("groups") {
            groups += 1;
            rules += group["rules"].as_array().expect("rules").len();
        }
        fake.load(&json!([object]));
    }
    let directory = tempfile::tempdir().expect("a folder");
    let configuration = format!("operator: {{api_server: 'http://{}'}}\n", fake.serve_blocking());
    let server = Server::start(directory.path(), Some(&configuration), &FLAGS);
    let status = wait_for("the objects", || {
        let status = data(&server, "/api/v1/status/operator");
        (status["ruleFiles"].as_array()?.len() == files.len()).then_some(status)
    });
    assert_eq!(status["rejected"], json!([]));
    let loaded = data(&server, "/api/v1/rules")["groups"].clone();
    let loaded = loaded.as_array().expect("groups");
    let loaded_rules: usize =
        loaded.iter().map(|g| g["rules"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!((loaded.len(), loaded_rules), (groups, rules));
    println!("{} objects, {groups} groups, {rules} rules", files.len());
}

/// What a process used: CPU seconds and resident kilobytes.
fn used(server: &Server) -> (f64, u64) {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", server.child.id())).expect("it runs")
    };
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|n| n.parse::<f64>().expect("a number")).sum();
    let status = read("status");
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size");
    (ticks / 100.0, resident.trim().trim_end_matches(" kB").parse().expect("a number"))
}

/// A number of the environment, for runs that are longer than an ordinary one.
fn setting(name: &str, ordinary: u32) -> u32 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(ordinary)
}

/// Pods come, change and go; the targets of two pools on one watch follow.
/// `NARTHEX_KUBERNETES_PODS` says how many, `NARTHEX_KUBERNETES_RATE` how many
/// changes a second (0: as fast as possible), `NARTHEX_KUBERNETES_ROUNDS` how
/// often.
#[test]
fn targets_follow_pods_that_come_change_and_go() {
    let pods = setting("NARTHEX_KUBERNETES_PODS", 300);
    let rate = setting("NARTHEX_KUBERNETES_RATE", 0);
    let rounds = setting("NARTHEX_KUBERNETES_ROUNDS", 1);
    let fake = FakeApi::new();
    let directory = tempfile::tempdir().expect("a folder");
    // Nothing listens behind the pods; they are hardly ever asked.
    let job = |side: &str, address| {
        format!(
            "  - job_name: {side}\n    \
             kubernetes_sd_configs: [{{role: pod, api_server: 'http://{address}'}}]\n    \
             relabel_configs: [{{source_labels: [__meta_kubernetes_pod_label_side], regex: {side}, action: keep}}]\n"
        )
    };
    let address = fake.serve_blocking();
    let configuration = format!(
        "global: {{scrape_interval: 1h}}\nscrape_configs:\n{}{}",
        job("left", address),
        job("right", address)
    );
    let server = Server::start(directory.path(), Some(&configuration), &FLAGS);
    let ip = |i: u32| format!("127.{}.{}.{}", 100 + i / 60_000, i / 250 % 240, i % 250 + 1);
    let put = |i: u32, side: &str| {
        let labels = json!({"app": "load", "side": side, "pod-template-hash": "6f9c",
            "app.kubernetes.io/instance": format!("load-{}", i % 50)});
        fake.put("pods", &format!("load-{}", i % 10), &format!("load-{i}"), pod(&ip(i), 9, labels));
    };
    let targets = |side: &str| -> Option<u32> {
        let metrics = server.get("/metrics").expect("an answer").text();
        let name = format!("prometheus_target_scrape_pool_targets{{scrape_job=\"{side}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
    };
    let phase = |name: &str, change: &dyn Fn(u32), left: u32, right: u32| {
        let (before, started) = (used(&server).0, Instant::now());
        for i in 0..pods {
            change(i);
            if rate > 0 {
                let due = started + Duration::from_secs(1) * (i + 1) / rate;
                std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            }
        }
        let last = Instant::now();
        wait_for(name, || {
            (targets("left") == Some(left) && targets("right") == Some(right)).then_some(())
        });
        let lag = last.elapsed();
        let (cpu, resident) = used(&server);
        println!(
            "{name} {pods} pods in {:.1} s: targets {:.2} s after the last, {:.2} CPU-s, {resident} kB",
            (last - started).as_secs_f64(),
            lag.as_secs_f64(),
            cpu - before
        );
        assert!(lag < Duration::from_secs(2) || rate == 0, "{name}: {lag:?}");
        resident
    };
    let idle = used(&server).1;
    let mut after = Vec::new();
    for _ in 0..rounds {
        phase("add", &|i| put(i, "left"), pods, 0);
        phase("change", &|i| put(i, "right"), 0, pods);
        let remove =
            |i: u32| fake.delete("pods", &format!("load-{}", i % 10), &format!("load-{i}"));
        after.push(phase("delete", &remove, 0, 0));
    }
    println!("resident: {idle} kB idle, {after:?} kB after each round");
    assert_eq!(fake.open_watches(), 1, "both pools share a watch");
    if let [first, .., last] = after.as_slice() {
        assert!(*last < first + first / 4 + 4096, "memory grows: {after:?}");
    }
}

#[test]
fn the_manifest_that_is_shipped_has_a_configuration_that_works() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes.yml");
    let text = std::fs::read_to_string(file).expect("it is shipped");
    let objects: Vec<Value> =
        text.split("\n---\n").map(|part| serde_saphyr::from_str(part).expect("YAML")).collect();
    let of = |kind: &str| objects.iter().find(|o| o["kind"] == kind).expect("it is there");
    let config = of("ConfigMap")["data"]["prometheus.yml"].as_str().expect("a file");
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("prometheus.yml");
    std::fs::write(&file, config).expect("writes");
    let binary = common::narthex();
    let checked = std::process::Command::new(binary).args(["check", "config"]).arg(&file).output();
    let checked = checked.expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let rights = of("ClusterRole")["rules"].to_string();
    for resource in
        ["endpointslices", "ingresses", "servicemonitors", "prometheusrules", "namespaces"]
    {
        assert!(rights.contains(resource), "{resource}");
    }
}
