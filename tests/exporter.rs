//! A real node exporter: what its page shows is what a query answers.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::{Peer, Server, free_port, peer, request, wait_for};
use serde_json::Value;

/// Passes scrapes on to `target` and keeps every page with its number.
fn recorder(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let pages = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&pages);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = BufReader::new(&stream).lines();
            while head.next().is_some_and(|line| line.is_ok_and(|l| !l.is_empty())) {}
            let answer =
                request(target, "GET", "/metrics", &[], &[]).expect("the exporter answers");
            let text = answer.text();
            let kind = answer.header("content-type").unwrap_or("text/plain").to_owned();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            );
            kept.lock().expect("not poisoned").push(text.clone());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(text.as_bytes());
        }
    });
    (address, pages)
}

/// The samples of a page, by series text without blanks.
fn samples(page: &str) -> Vec<(String, f64)> {
    page.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let value = match value {
                "+Inf" => f64::INFINITY,
                "-Inf" => f64::NEG_INFINITY,
                "NaN" => f64::NAN,
                number => number.parse().expect("a number"),
            };
            (normalized(series), value)
        })
        .collect()
}

/// Bounds and quantiles that are integers are stored as `1.0`, as Prometheus
/// does since version 3.
fn normalized(series: &str) -> String {
    let mut out = series.to_owned();
    for name in ["le", "quantile"] {
        let Some(at) = out.find(&format!("{name}=\"")) else { continue };
        let start = at + name.len() + 2;
        let end = start + out[start..].find('"').expect("a closing quote");
        if out[start..end].bytes().all(|b| b.is_ascii_digit()) {
            out.insert_str(end, ".0");
        }
    }
    out
}

fn found_value(result: &[Value]) -> Option<f64> {
    let [only] = result else { return None };
    match only["value"][1].as_str()? {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        other => other.parse().ok(),
    }
}

/// How many pages are waited for, a second apart: few in the ordinary test
/// run, more with `NARTHEX_EXPORTER_PAGES`.
fn pages_wanted() -> usize {
    std::env::var("NARTHEX_EXPORTER_PAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

/// Scrapes `target` through a recorder, then asks for every series of a page.
fn compare(target: SocketAddr) {
    let (proxy, pages) = recorder(target);
    let configuration = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: peer\n    \
         static_configs: [{{targets: ['{proxy}']}}]\n"
    );
    let directory = tempfile::tempdir().expect("a folder");
    let server =
        Server::start(directory.path(), Some(&configuration), &["--config.file=prometheus.yml"]);
    let wanted = pages_wanted();
    let (mut checked, mut wrong) = (0, Vec::new());
    // Pages are looked at in steps, as a condition has a deadline.
    for step in (3..=wanted).step_by(30) {
        wait_for("scrapes", || {
            server.scalar("count_over_time(up[1h])", None).filter(|n| *n >= step as f64)
        });
        // A page that came too late was not taken.
        let (at, number) = wait_for("a page that was taken", || {
            let up = server.query("up[1h]", None);
            let values = up.first()?["values"].as_array()?.clone();
            let number = (step - 1..values.len()).find(|i| values[*i][1] == "1")?;
            Some((values[number][0].as_f64()?, number))
        });
        let page = pages.lock().expect("not poisoned")[number].clone();
        for (series, value) in samples(&page) {
            let found = found_value(&server.query(&with_job(&series), Some(at)));
            checked += 1;
            let same = found.is_some_and(|f| f == value || (f.is_nan() && value.is_nan()));
            if !same {
                wrong.push(format!("{series}: page {value}, query {found:?}"));
            }
        }
    }
    assert!(checked > 100, "only {checked} series");
    let shown = &wrong[..wrong.len().min(10)];
    assert!(wrong.is_empty(), "{} of {checked} differ: {shown:#?}", wrong.len());
    println!("{target}: {checked} samples of {wanted} pages are as they were shown");
}

/// The series of the scraped page: a label that the target exposes itself
/// under the name of a target label was renamed.
fn with_job(series: &str) -> String {
    series.replace("{job=", "{exported_job=").replace(",job=", ",exported_job=")
}

fn listening(mut command: Command, flag: &str) -> (Peer, SocketAddr) {
    let target = SocketAddr::from(([127, 0, 0, 1], free_port()));
    command.arg(format!("{flag}={target}"));
    (Peer::start(&mut command, target, "/metrics"), target)
}

#[test]
fn every_series_of_a_node_exporter_has_the_value_of_the_page() {
    let Some(exporter) = peer("prometheus-node-exporter") else { return };
    let (_peer, target) = listening(Command::new(exporter), "--web.listen-address");
    compare(target);
}

#[test]
fn every_series_of_a_prometheus_has_the_value_of_the_page() {
    let Some(prometheus) = peer("prometheus") else { return };
    let directory = tempfile::tempdir().expect("a folder");
    let configuration = directory.path().join("empty.yml");
    std::fs::write(&configuration, "global: {}\n").expect("a file");
    let mut command = Command::new(prometheus);
    command.current_dir(directory.path());
    command.arg(format!("--config.file={}", configuration.display()));
    command.args([
        "--storage.tsdb.path=data",
        "--web.console.templates=",
        "--web.console.libraries=",
    ]);
    let (_peer, target) = listening(command, "--web.listen-address");
    compare(target);
}
