//! Queries through the real binary: hostile ones end in errors and harm
//! nobody, and what was asked is logged.

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use common::remote_write::{Series, body, send};
use common::{Server, encode, peer, wait_for};
use serde_json::Value;

const END_S: i64 = 1_767_268_800;

const FLAGS: [&str; 4] = [
    "--config.file=prometheus.yml",
    "--web.enable-remote-write-receiver",
    "--storage.tsdb.retention.time=100y",
    "--memory.limit=64MB",
];

/// Series with a sample every 15 s for ten minutes.
fn fill(server: &Server, count: usize) {
    fill_at(server.address, count);
}

fn fill_at(address: SocketAddr, count: usize) {
    let names: Vec<String> = (0..count).map(|i| i.to_string()).collect();
    for step in 0..40 {
        let time_ms = (END_S - 600 + step * 15) * 1000;
        let samples = [(time_ms, step as f64)];
        let labels: Vec<[(&str, &str); 2]> =
            names.iter().map(|i| [("__name__", "hostile_total"), ("i", i.as_str())]).collect();
        let series: Vec<Series<'_>> =
            labels.iter().map(|labels| Series { labels, samples: &samples }).collect();
        let sent = send(address, &body(&series)).expect("an answer");
        assert!(sent.status < 300, "{}", sent.text());
    }
}

/// The largest resident size so far, in bytes.
fn peak_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id()));
    let status = status.expect("the process runs");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("kB") * 1024
}

/// Queries with the status that their answers must have.
fn hostile() -> Vec<(String, &'static [u16])> {
    let nested = |open: &str, close: &str| {
        let (open, close) = (open.repeat(10_000), close.repeat(10_000));
        format!("{open}hostile_total{close}")
    };
    let quick: &[u16] = &[200, 400, 422];
    vec![
        (nested("(", ")"), quick),
        (nested("-", ""), quick),
        (nested("abs(", ")"), quick),
        (nested("sum(", ")"), quick),
        (nested("", " + 1"), quick),
        (nested("", " or hostile_total"), quick),
        (nested("max_over_time((", ")[1m:1m])"), quick),
        ("(".repeat(1 << 20), &[400]),
        (format!("\"{}\"", "x".repeat(1 << 20)), quick),
        (format!("hostile_total{{i=~\"{}\"}}", "x|".repeat(1 << 19)), quick),
        (format!("hostile_total{{i=~\"{}\"}}", "(.*){1000}".repeat(20)), &[400]),
        ("hostile_total{i=~\"((a{1000}){1000}){1000}\"}".to_owned(), &[400]),
        ("hostile_total{i=~\"(x+x+)+y\"}".to_owned(), &[200]),
        (
            "label_replace(hostile_total, \"a\", \"$1\", \"i\", \"((a{999}){999}){999}\")"
                .to_owned(),
            quick,
        ),
        ("count_over_time(hostile_total[100y:1ms])".to_owned(), &[422]),
        ("sum(hostile_total * on () group_left () hostile_total)".to_owned(), &[422]),
        ("quantile(0.5, hostile_total)".to_owned(), quick),
    ]
}

#[test]
fn hostile_queries_end_in_errors_within_the_budget_and_harm_nobody() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = Server::start(directory.path(), Some("global: {}\n"), &FLAGS);
    fill(&server, 2000);
    let wide = format!(
        "/api/v1/query_range?query={}&start={}&end={END_S}&step=0.001",
        encode("{__name__=~\".+\"}"),
        END_S - 10,
    );
    // All samples of all series, and then what is made of them.
    let grouped =
        wide.replace("query=", "query=quantile+by+(i)+(0.5,").replace("&start", ")&start");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut answers = 0;
            while !stop.load(Ordering::Relaxed) {
                let count = server.scalar("count(hostile_total)", Some(END_S as f64 - 30.0));
                assert_eq!(count, Some(2000.0));
                answers += 1;
            }
            answers
        });
        let askers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for path in [&wide, &grouped] {
                        let answer = server.get(path).expect("an answer");
                        assert_eq!(answer.status, 422, "{}", answer.text());
                        let error = answer.json()["error"].as_str().expect("text").to_owned();
                        assert!(error.contains("bytes of memory"), "{error}");
                    }
                })
            })
            .collect();
        for (query, expected) in hostile() {
            let shown = query.chars().take(60).collect::<String>();
            for path in ["/api/v1/query", "/api/v1/query_range"] {
                let form = format!(
                    "query={}&time={END_S}&start={}&end={END_S}&step=60",
                    encode(&query),
                    END_S - 600
                );
                let answer = server.post_form(path, &form);
                let is_text = path.ends_with("range") && query.starts_with('"');
                assert!(
                    expected.contains(&answer.status) || is_text && answer.status == 400,
                    "{path} {shown}: {} {}",
                    answer.status,
                    answer.text().chars().take(300).collect::<String>()
                );
            }
        }
        for asker in askers {
            asker.join().expect("refused");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(others.join().expect("answers") > 0);
    });
    let peak = peak_bytes(&server);
    assert!(peak < 160 << 20, "{peak} bytes resident");
}

#[test]
fn queries_are_logged_as_by_prometheus_and_those_of_a_killed_process_are_named() {
    let directory = tempfile::tempdir().expect("a folder");
    let rules = "groups: [{name: g, interval: 1s, rules: [{record: a:b, expr: vector(1)}]}]\n";
    std::fs::write(directory.path().join("rules.yml"), rules).expect("a file");
    let configuration = "global: {query_log_file: queries.log}\nrule_files: [rules.yml]\n";
    let flags: Vec<&str> = FLAGS
        .into_iter()
        .chain(["--query.log-slower-than=1ms", "--web.enable-lifecycle"])
        .collect();
    let mut server = Server::start(directory.path(), Some(configuration), &flags);
    fill(&server, 3);
    let asked = format!(
        "/api/v1/query_range?query=hostile_total&start={}&end={END_S}&step=60",
        END_S - 600
    );
    assert_eq!(server.get(&asked).expect("an answer").status, 200);
    let bad = server
        .post_form("/api/v1/query", "query=hostile_total%2Bon()hostile_total&time=1767268700");
    assert_eq!(bad.status, 422);
    let lines = wait_for("a line of a rule", || {
        let text = std::fs::read_to_string(directory.path().join("queries.log")).ok()?;
        let lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.iter().any(|l| l["ruleGroup"].is_object()).then_some(lines)
    });
    let by = |path: &str| {
        let found = lines.iter().find(|l| l["httpRequest"]["path"] == path);
        found.unwrap_or_else(|| panic!("{path} in {lines:?}"))
    };
    let range = by("/api/v1/query_range");
    assert_eq!(range["params"]["query"], "hostile_total");
    assert_eq!(range["params"]["step"], 60);
    assert_eq!(range["params"]["start"], "2026-01-01T11:50:00.000Z");
    assert_eq!(range["httpRequest"]["clientIP"], "127.0.0.1");
    assert_eq!(range["stats"]["samples"]["totalQueryableSamples"], 3 * 11);
    let failed = by("/api/v1/query");
    assert_eq!(failed["httpRequest"]["method"], "POST");
    assert!(failed["error"].as_str().is_some_and(|e| e.contains("duplicate")), "{failed}");
    let rule = lines.iter().find(|l| l["ruleGroup"].is_object()).expect("waited for");
    assert_eq!(rule["ruleGroup"]["name"], "g");
    assert_eq!(rule["params"]["query"], "vector(1)");
    // Without the field, no more lines come after the reload.
    std::fs::write(directory.path().join("prometheus.yml"), "global: {}\n").expect("a file");
    assert_eq!(server.post_form("/-/reload", "").status, 200);
    assert_eq!(server.scalar("prometheus_engine_query_log_enabled", None), None);
    let metrics = server.get("/metrics").expect("an answer").text();
    assert!(metrics.contains("prometheus_engine_query_log_enabled 0"));

    // A query that runs while the process is killed.
    let address = server.address;
    let slow = "stddev_over_time(vector(1)[50m:10ms])";
    let path = format!(
        "/api/v1/query_range?query={}&start={}&end={END_S}&step=1",
        encode(slow),
        END_S - 3600
    );
    let asker = std::thread::spawn(move || common::request(address, "GET", &path, &[], &[]));
    let active = directory.path().join("data/queries.active");
    wait_for("the query to run", || {
        let text = std::fs::read(&active).ok()?;
        String::from_utf8_lossy(&text).contains("[50m:10ms]").then_some(())
    });
    server.kill();
    let _ = asker.join();
    let server = Server::start(directory.path(), Some("global: {}\n"), &FLAGS);
    let log = server.log();
    let line = log.lines().find(|l| l.contains("did not finish")).expect("a line");
    assert!(line.contains("[50m:10ms]"), "{line}");
}

#[test]
fn queries_wait_for_their_turn() {
    let directory = tempfile::tempdir().expect("a folder");
    let flags: Vec<&str> = FLAGS.into_iter().chain(["--query.max-concurrency=1"]).collect();
    let server = Server::start(directory.path(), Some("global: {}\n"), &flags);
    fill(&server, 3);
    let slow = "stddev_over_time(vector(1)[50m:10ms])";
    let path = format!(
        "/api/v1/query_range?query={}&start={}&end={END_S}&step=1&timeout=3s",
        encode(slow),
        END_S - 3600
    );
    let address = server.address;
    let asker = std::thread::spawn(move || common::request(address, "GET", &path, &[], &[]));
    let active = directory.path().join("data/queries.active");
    wait_for("the query to run", || {
        let text = std::fs::read(&active).ok()?;
        String::from_utf8_lossy(&text).contains("[50m:10ms]").then_some(())
    });
    let impatient = server.get("/api/v1/query?query=1&timeout=1ms").expect("an answer");
    assert_eq!(impatient.status, 503, "{}", impatient.text());
    assert_eq!(impatient.json()["error"], "query timed out in query queue");
    assert_eq!(server.scalar("vector(1)", None), Some(1.0));
    let _ = asker.join();
}

/// The same fields as in the log of a real Prometheus.
#[test]
fn log_lines_have_the_fields_of_a_real_prometheus() {
    let Some(prometheus) = peer("prometheus") else { return };
    let directory = tempfile::tempdir().expect("a folder");
    let port = common::free_port();
    std::fs::write(directory.path().join("p.yml"), "global: {query_log_file: real.log}\n")
        .expect("a file");
    let mut command = std::process::Command::new(prometheus);
    command.current_dir(directory.path()).args([
        "--config.file=p.yml",
        "--storage.tsdb.path=real",
        "--web.console.templates=",
        "--web.console.libraries=",
        &format!("--web.listen-address=127.0.0.1:{port}"),
    ]);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let _real = common::Peer::start(&mut command, address, "/-/ready");
    let ours = Server::start(
        directory.path(),
        Some("global: {query_log_file: ours.log}\n"),
        &["--config.file=prometheus.yml"],
    );
    let line = |file: &str, address| {
        let path = "/api/v1/query_range?query=vector(1)&start=100&end=200&step=15.5";
        common::request(address, "GET", path, &[], &[]).expect("an answer");
        wait_for("a line", || {
            let text = std::fs::read_to_string(directory.path().join(file)).ok()?;
            serde_json::from_str::<Value>(text.lines().next()?).ok()
        })
    };
    let (ours, real) = (line("ours.log", ours.address), line("real.log", address));
    for field in ["params", "httpRequest", "msg", "level"] {
        assert_eq!(ours[field], real[field], "{field}");
    }
    let names = |v: &Value| -> Vec<String> {
        v.as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default()
    };
    for field in ["timings", "samples"] {
        assert_eq!(names(&ours["stats"][field]), names(&real["stats"][field]));
    }
}

/// The samples that queries looked at, in all and by step.
#[test]
fn statistics_count_samples_as_a_real_prometheus_does() {
    let Some(prometheus) = peer("prometheus") else { return };
    let directory = tempfile::tempdir().expect("a folder");
    let real = SocketAddr::from(([127, 0, 0, 1], common::free_port()));
    std::fs::write(directory.path().join("p.yml"), "global: {}\n").expect("a file");
    let per_step = "--enable-feature=promql-per-step-stats";
    let mut command = std::process::Command::new(prometheus);
    command.current_dir(directory.path()).args([
        "--config.file=p.yml",
        "--storage.tsdb.path=real",
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        "--web.console.templates=",
        "--web.console.libraries=",
        per_step,
        &format!("--web.listen-address={real}"),
    ]);
    let _real = common::Peer::start(&mut command, real, "/-/ready");
    let flags: Vec<&str> = FLAGS.into_iter().chain([per_step]).collect();
    let ours = Server::start(directory.path(), Some("global: {}\n"), &flags);
    fill(&ours, 3);
    fill_at(real, 3);
    for query in [
        "hostile_total",
        "sum(rate(hostile_total[2m]))",
        "hostile_total @ 1767268500",
        "hostile_total * hostile_total",
        "hostile_total{i=\"1\"} + on () group_right () (hostile_total{i=\"1\"} * 2 + hostile_total)",
        "max_over_time(rate(hostile_total[2m])[3m:30s])",
        "max_over_time(hostile_total[3m] @ 1767268500)",
        "absent(hostile_total)",
        "timestamp(hostile_total)",
        "count(hostile_total)",
        "1 + 1",
        "time()",
    ] {
        let query = encode(query);
        for path in [
            format!(
                "/api/v1/query_range?query={query}&start={}&end={END_S}&step=60&stats=all",
                END_S - 300
            ),
            format!("/api/v1/query?query={query}&time={}&stats=all", END_S - 60),
        ] {
            let samples = |address| {
                let answer = common::request(address, "GET", &path, &[], &[]).expect("an answer");
                let samples = &answer.json()["data"]["stats"]["samples"];
                (
                    samples["totalQueryableSamples"].clone(),
                    samples["totalQueryableSamplesPerStep"].clone(),
                )
            };
            assert_eq!(samples(ours.address), samples(real), "{path}");
        }
    }
}
