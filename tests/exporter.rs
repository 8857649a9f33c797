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

#[test]
fn every_series_of_the_page_has_the_value_of_the_page() {
    let Some(exporter) = peer("prometheus-node-exporter") else { return };
    let port = free_port();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = Command::new(exporter);
    command.arg(format!("--web.listen-address={target}"));
    let _exporter = Peer::start(&mut command, target, "/metrics");
    let (proxy, pages) = recorder(target);
    let configuration = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: node\n    \
         static_configs: [{{targets: ['{proxy}']}}]\n"
    );
    let directory = tempfile::tempdir().expect("a folder");
    let server =
        Server::start(directory.path(), Some(&configuration), &["--config.file=prometheus.yml"]);
    wait_for("three scrapes", || {
        server.scalar("count_over_time(up[1m])", None).filter(|n| *n >= 3.0)
    });

    // The page whose scrape is the newest that is stored: both sides count.
    let newest = server.query("up[1m]", None);
    let values = newest[0]["values"].as_array().expect("a matrix").clone();
    let at = values[2][0].as_f64().expect("a time");
    let page = pages.lock().expect("not poisoned")[2].clone();
    let (mut checked, mut wrong) = (0, Vec::new());
    for (series, value) in samples(&page) {
        let found = found_value(&server.query(&series, Some(at)));
        checked += 1;
        let same = found.is_some_and(|f| f == value || (f.is_nan() && value.is_nan()));
        if !same {
            wrong.push(format!("{series}: page {value}, query {found:?}"));
        }
    }
    assert!(checked > 100, "only {checked} series");
    assert!(
        wrong.is_empty(),
        "{} of {checked} differ: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
}
