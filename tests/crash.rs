//! What was acknowledged is there after kill -9, at any moment.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use common::remote_write::{Series, body, send};
use common::{Server, free_port, wait_for};

const SCRAPE_ITSELF: &str = "
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: self
    static_configs: [{targets: ['127.0.0.1:PORT']}]
";

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("it fits")
}

/// How often the process is killed: few times in the ordinary test run, more
/// with `NARTHEX_CRASH_ROUNDS`.
fn rounds() -> usize {
    std::env::var("NARTHEX_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

#[test]
fn acknowledged_samples_survive_kill_9() {
    let directory = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let configuration = SCRAPE_ITSELF.replace("PORT", &port.to_string());
    let flags = ["--web.enable-remote-write-receiver", "--config.file=prometheus.yml"];
    let mut server = Server::start_at(directory.path(), Some(&configuration), &flags, port);
    let address = server.address;
    let acknowledged = Arc::new(Mutex::new(Vec::<i64>::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        move || {
            let labels = [("__name__", "ack_probe"), ("instance", "probe")];
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                let time_ms = now_ms().max(last + 1);
                last = time_ms;
                let samples = [(time_ms, time_ms as f64)];
                let request = body(&[Series { labels: &labels, samples: &samples }]);
                if send(address, &request).is_ok_and(|a| a.status / 100 == 2) {
                    acknowledged.lock().expect("not poisoned").push(time_ms);
                }
            }
        }
    });
    let mut slowest = 0.0_f64;
    for round in 0..rounds() {
        // A different number of requests each time, so that the kill falls
        // into another place.
        let wanted = acknowledged.lock().expect("not poisoned").len() + 20 + 37 * round % 101;
        wait_for("writes", || {
            (acknowledged.lock().expect("not poisoned").len() >= wanted).then_some(())
        });
        server.kill();
        let expected: BTreeSet<i64> =
            acknowledged.lock().expect("not poisoned").iter().copied().collect();
        let started = Instant::now();
        server = Server::start_at(directory.path(), Some(&configuration), &flags, port);
        slowest = slowest.max(started.elapsed().as_secs_f64());
        let end = *expected.last().expect("some were acknowledged");
        let found = server.query("ack_probe[1h]", Some(end as f64 / 1000.0 + 0.001));
        let found: BTreeSet<i64> = found
            .iter()
            .flat_map(|s| s["values"].as_array().expect("a matrix").clone())
            .map(|v| (v[0].as_f64().expect("a time") * 1000.0).round() as i64)
            .collect();
        let lost: Vec<_> = expected.difference(&found).collect();
        assert!(
            lost.is_empty(),
            "round {round}: {} of {} lost: {lost:?}",
            lost.len(),
            expected.len()
        );
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer ends");
    println!("{} rounds, slowest start {slowest:.3} s", rounds());
}
