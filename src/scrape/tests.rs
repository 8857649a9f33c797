//! Whole scrapes against servers on loopback.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use narthex_query::memory::MemoryStorage;
use narthex_storage::sample::is_stale;
use tokio::sync::watch;

use super::testing::{samples, scrape_config};
use super::*;
use crate::client::testing::{Answer, Server, ok, serve};
use crate::config::{BasicAuth, Secret, SecretSource};
use crate::discovery::TargetGroup;

const TEXT: &str = "text/plain; version=0.0.4";

/// A manager, its storage and the groups of its jobs.
struct Bench {
    storage: MemoryStorage,
    registry: Registry,
    manager: Manager,
    groups: BTreeMap<String, watch::Sender<TargetGroups>>,
}

fn group(addresses: &[String]) -> TargetGroups {
    let target = |a: &String| BTreeMap::from([("__address__".to_owned(), a.clone())]);
    Arc::new(vec![Arc::new(TargetGroup {
        source: "0".to_owned(),
        labels: BTreeMap::new(),
        targets: addresses.iter().map(target).collect(),
    })])
}

impl Bench {
    fn new() -> Self {
        let storage = MemoryStorage::new();
        let registry = Registry::default();
        let manager = Manager::new(Arc::new(storage.clone()), &registry, Options::default());
        Self { storage, registry, manager, groups: BTreeMap::new() }
    }

    fn apply(&mut self, configs: &[(ScrapeConfig, &[String])]) {
        for (config, addresses) in configs {
            self.groups
                .entry(config.job_name.clone())
                .or_insert_with(|| watch::channel(group(addresses)).0);
        }
        let config = Config {
            scrape_configs: configs.iter().map(|(c, _)| c.clone()).collect(),
            ..Config::default()
        };
        let groups = &self.groups;
        self.manager.apply(&config, |c| groups[&c.job_name].subscribe()).expect("applies");
    }

    /// Starts one job with one target.
    async fn scraping(config: ScrapeConfig, server: &Server) -> Self {
        let mut bench = Self::new();
        bench.apply(&[(config, &[server.address.to_string()])]);
        bench
    }

    fn values(&self, metric: &str) -> Vec<f64> {
        samples(&self.storage, metric).into_values().flatten().map(|(_, v)| v).collect()
    }

    fn last(&self) -> LastScrape {
        self.manager.status()[0].active.first().map(|t| t.last()).unwrap_or_default()
    }

    /// Waits until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited for {what}: {:?}",
                self.manager.status()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The error of a target that always fails; `up` must be 0.
    async fn error_of(config: ScrapeConfig, server: &Server) -> String {
        let bench = Self::scraping(config, server).await;
        bench.until("a failed scrape", |b| b.values("up").len() > 1).await;
        assert!(bench.values("up").iter().all(|v| *v == 0.0));
        bench.until("its report", |b| b.last().health == Health::Down).await;
        bench.last().error
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_scraped_reported_and_shown() {
    let server =
        serve(|_| ok(TEXT, b"# TYPE a counter\n# HELP a some help\na{x=\"1\"} 5\nb 6\n")).await;
    let bench = Bench::scraping(scrape_config("job"), &server).await;
    bench.until("five scrapes", |b| b.values("a").len() >= 5).await;
    bench.manager.stop().await;
    let labels = format!("{{instance=\"{}\", job=\"job\", x=\"1\"}}", server.address);
    let all = samples(&bench.storage, "a");
    assert!(all[&labels].iter().all(|(_, v)| *v == 5.0), "no marker on a clean stop: {all:?}");
    assert!(bench.values("up").iter().all(|v| *v == 1.0));
    assert!(bench.values("scrape_samples_scraped").iter().all(|v| *v == 2.0));
    assert!(bench.values("scrape_samples_post_metric_relabeling").iter().all(|v| *v == 2.0));
    let added = bench.values("scrape_series_added");
    assert_eq!((added[0], added[1..].iter().sum::<f64>()), (2.0, 0.0));
    assert!(bench.values("scrape_duration_seconds").iter().all(|v| *v > 0.0));
    // All series of one scrape have one timestamp.
    let times = |m: &str| {
        samples(&bench.storage, m).into_values().flatten().map(|(t, _)| t).collect::<Vec<_>>()
    };
    assert_eq!(times("a"), times("up"));
    let head = &server.heads()[0];
    for line in [
        "GET /metrics HTTP/1.1\r\n",
        "accept-encoding: gzip\r\n",
        "x-prometheus-scrape-timeout-seconds: 0.1\r\n",
        "accept: application/openmetrics-text;version=1.0.0",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert_eq!(server.connections(), 1);
    let exposed = bench.registry.expose();
    assert!(
        exposed.contains("prometheus_target_interval_length_seconds_count{interval=\"100ms\"}"),
        "{exposed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_status_are_those_of_the_last_page() {
    let server = serve(|_| ok(TEXT, b"# TYPE a counter\n# HELP a some help\na 5\n")).await;
    let bench = Bench::scraping(scrape_config("job"), &server).await;
    bench
        .until("metadata", |b| {
            b.manager.status()[0].active.first().is_some_and(|t| !t.metadata().is_empty())
        })
        .await;
    let status = bench.manager.status();
    let target = &status[0].active[0];
    assert_eq!(target.metadata()[0].metadata.help, "some help");
    assert_eq!(
        target.discovered(&status[0].config).get("__address__"),
        Some(server.address.to_string().as_str())
    );
    assert_eq!(target.last().health, Health::Up);
    assert!(target.last().started_ms > 0);
    use narthex_storage::read::Queryable as _;
    let stored = bench.storage.querier(0, i64::MAX).expect("reads").metadata();
    assert!(stored.iter().any(|(family, _)| family == "a"), "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_series_and_failed_scrapes_leave_markers() {
    let round = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&round);
    let server = serve(move |_| match counter.load(Ordering::Acquire) {
        0 => ok(TEXT, b"a 1\nb 1\n"),
        1 => ok(TEXT, b"a 1\n"),
        _ => {
            Answer::Bytes(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec())
        }
    })
    .await;
    let bench = Bench::scraping(scrape_config("job"), &server).await;
    let markers = |b: &Bench, m: &str| b.values(m).into_iter().filter(|v| is_stale(*v)).count();
    bench.until("b", |b| b.values("b").len() > 1).await;
    round.store(1, Ordering::Release);
    bench.until("b's marker", |b| markers(b, "b") == 1).await;
    assert_eq!(markers(&bench, "a"), 0);
    round.store(2, Ordering::Release);
    bench.until("a's marker", |b| markers(b, "a") == 1).await;
    bench
        .until("some more scrapes", |b| b.values("up").iter().filter(|v| **v == 0.0).count() > 3)
        .await;
    assert_eq!(bench.last().error, "server returned HTTP status 503 Service Unavailable");
    assert_eq!((markers(&bench, "a"), markers(&bench, "b"), markers(&bench, "up")), (1, 1, 0));
    assert_eq!(
        bench.values("b").len(),
        samples(&bench.storage, "b")
            .into_values()
            .flatten()
            .map(|(t, _)| t)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    );
    round.store(0, Ordering::Release);
    bench.until("a again", |b| b.values("a").last() == Some(&1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_target_goes_stale_after_its_ticks() {
    let server = serve(|_| ok(TEXT, b"a 1\n")).await;
    let bench = Bench::scraping(scrape_config("job"), &server).await;
    bench.until("a", |b| b.values("a").len() > 1).await;
    bench.groups["job"].send_replace(group(&[]));
    bench
        .until("markers", |b| {
            ["a", "up", "scrape_duration_seconds"]
                .iter()
                .all(|m| b.values(m).last().is_some_and(|v| is_stale(*v)))
        })
        .await;
    assert!(bench.manager.status()[0].active.is_empty());
    bench.manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_only_what_changed() {
    let server = serve(|_| ok(TEXT, b"a 1\nb 2\n")).await;
    let address = [server.address.to_string()];
    let mut bench = Bench::new();
    bench.apply(&[(scrape_config("one"), &address), (scrape_config("two"), &address)]);
    bench.until("both", |b| samples(&b.storage, "a").len() == 2).await;
    // Another timeout for one, the other is removed.
    let mut config = scrape_config("one");
    config.limits.samples = 100;
    bench.apply(&[(config.clone(), &address)]);
    let before = bench.values("scrape_series_added").len();
    bench.until("more scrapes", |b| b.values("scrape_series_added").len() > before + 3).await;
    // Metric relabeling renames series: they are new, the old ones end later.
    config.metric_relabel_configs = vec![crate::config::RelabelConfig {
        source_labels: vec!["__name__".to_owned()],
        regex: "a".to_owned(),
        action: crate::config::RelabelAction::Drop,
        ..crate::config::RelabelConfig::default()
    }];
    bench.apply(&[(config, &address)]);
    bench.until("a's marker", |b| b.values("a").iter().any(|v| is_stale(*v))).await;
    bench.manager.stop().await;
    let of = |m: &str| samples(&bench.storage, m);
    let one = |m: &str| of(m).into_iter().find(|(l, _)| l.contains("one")).expect("there").1;
    let two = |m: &str| of(m).into_iter().find(|(l, _)| l.contains("two")).expect("there").1;
    assert!(one("b").iter().chain(&two("b")).chain(&two("a")).all(|(_, v)| !is_stale(*v)));
    let added: f64 = one("scrape_series_added").iter().map(|(_, v)| v).sum();
    assert_eq!(added, 2.0 + 1.0, "two at first, one under new rules");
    let posts = one("scrape_samples_post_metric_relabeling");
    assert_eq!(posts.last().map(|(_, v)| *v), Some(1.0));
}

/// As when an object's Secret changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_that_of_the_next_scrape_and_series_go_on() {
    let server = serve(|_| ok(TEXT, b"a 1\n")).await;
    let inline = |text: &str| SecretSource::Inline(Secret::new(text.to_owned()));
    let with = |password: &str| {
        let mut config = scrape_config("one");
        let basic = BasicAuth { username: inline("u"), password: Some(inline(password)) };
        config.http.basic_auth = Some(basic);
        config
    };
    let address = [server.address.to_string()];
    let mut bench = Bench::new();
    bench.apply(&[(with("old"), &address)]);
    bench.until("a page", |b| b.values("a").len() > 1).await;
    bench.apply(&[(with("new"), &address)]);
    let asked_with = |text: &str| server.heads().iter().filter(|h| h.contains(text)).count();
    bench.until("the new one", |_| asked_with("Basic dTpuZXc=") > 2).await;
    bench.manager.stop().await;
    assert!(asked_with("Basic dTpvbGQ=") > 1);
    assert!(bench.values("a").iter().chain(&bench.values("up")).all(|v| *v == 1.0));
    assert_eq!(bench.values("scrape_series_added").iter().sum::<f64>(), 1.0);
    assert_eq!(samples(&bench.storage, "a").len(), 1, "one series");
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_inflated_within_the_limit() {
    let gzip = |page: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(page).expect("memory");
        encoder.finish().expect("memory")
    };
    let answer = |compressed: Vec<u8>| {
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            compressed.len()
        )
        .into_bytes();
        bytes.extend(compressed);
        move |_: &str| Answer::Bytes(bytes.clone())
    };
    let server = serve(answer(gzip(b"a 1\n"))).await;
    let bench = Bench::scraping(scrape_config("job"), &server).await;
    bench.until("a", |b| b.values("a").contains(&1.0)).await;

    let mut config = scrape_config("job");
    config.limits.body_size_bytes = 1 << 20;
    let bomb = serve(answer(gzip(&vec![b'\n'; 64 << 20]))).await;
    assert_eq!(Bench::error_of(config, &bomb).await, "body size limit exceeded");

    let mut cut = gzip(b"a 1\n");
    cut.truncate(cut.len() - 4);
    let server = serve(answer(cut)).await;
    assert_eq!(Bench::error_of(scrape_config("job"), &server).await, "unexpected EOF");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_targets_fail_with_a_reason() {
    let page = |page: &'static [u8]| move |_: &str| ok(TEXT, page);
    let config = || scrape_config("job");
    let utf8 = serve(page(b"a{b=\"\xff\"} 1\n")).await;
    assert_eq!(
        Bench::error_of(config(), &utf8).await,
        "invalid UTF-8 label value: \"\\\"\\xff\\\"\" (line 1)"
    );
    let broken = serve(page(b"a 1\nb{ 2\n")).await;
    assert!(Bench::error_of(config(), &broken).await.contains("(line 2)"));
    let html = serve(|_| ok("text/html", b"<html>")).await;
    assert_eq!(
        Bench::error_of(config(), &html).await,
        "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target"
    );
    let slow = serve(|_| Answer::Hang(Vec::new())).await;
    let mut impatient = config();
    impatient.scrape_timeout = Duration::from_millis(50);
    let error = Bench::error_of(impatient, &slow).await;
    assert_eq!(
        error,
        format!("Get \"http://{}/metrics\": context deadline exceeded", slow.address)
    );
    let endless = serve(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\n\r\n");
        Answer::Endless(head.into_bytes(), b"a 1\n".repeat(1000))
    })
    .await;
    let mut limited = config();
    limited.limits.body_size_bytes = 100_000;
    assert_eq!(Bench::error_of(limited, &endless).await, "body size limit exceeded");
    let truncated = serve(|_| {
        Answer::Last(
            format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: 100\r\n\r\na 1\n")
                .into_bytes(),
        )
    })
    .await;
    assert_eq!(Bench::error_of(config(), &truncated).await, "unexpected EOF");
    let exact = serve(page(b"a 1\n")).await;
    let mut limited = config();
    limited.limits.body_size_bytes = 4;
    assert_eq!(Bench::error_of(limited, &exact).await, "body size limit exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_fail_scrapes_as_a_whole() {
    let server = serve(|_| ok(TEXT, b"a{x=\"1\"} 1\nb 2\nc 3\n")).await;
    let mut config = scrape_config("job");
    config.limits.samples = 2;
    assert_eq!(Bench::error_of(config, &server).await, "sample limit exceeded");
    let mut config = scrape_config("job");
    config.limits.labels = 3;
    assert_eq!(
        Bench::error_of(config, &server).await,
        "label_limit exceeded (metric: a, number of labels: 4, limit: 3)"
    );
    let mut config = scrape_config("job");
    config.limits.targets = 1;
    let mut bench = Bench::new();
    bench.apply(&[(config, &[server.address.to_string(), "127.0.0.1:1".to_owned()])]);
    bench.until("failures", |b| b.values("up").len() > 2).await;
    assert!(bench.values("up").iter().all(|v| *v == 0.0));
    bench.until("its report", |b| !b.last().error.is_empty()).await;
    assert_eq!(bench.last().error, "target_limit exceeded (number of targets: 2, limit: 1)");
    bench.groups["job"].send_replace(group(&[server.address.to_string()]));
    bench.until("recovery", |b| b.values("a").len() > 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_is_a_good_one() {
    let full = Arc::new(Mutex::new(true));
    let answer = Arc::clone(&full);
    let server =
        serve(move |_| ok(TEXT, if *answer.lock().expect("lock") { b"a 1\n" } else { b"" })).await;
    let bench = Bench::scraping(scrape_config("job"), &server).await;
    bench.until("a", |b| b.values("a").len() > 1).await;
    *full.lock().expect("lock") = false;
    bench.until("a's marker", |b| b.values("a").last().is_some_and(|v| is_stale(*v))).await;
    bench.manager.stop().await;
    assert!(bench.values("up").iter().all(|v| *v == 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_written_to_the_log_file() {
    let dir = tempfile::tempdir().expect("dir");
    let mut config = scrape_config("job");
    let file = dir.path().join("failures.log");
    config.scrape_failure_log_file = Some(file.clone());
    let server =
        serve(|_| Answer::Bytes(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()))
            .await;
    let error = Bench::error_of(config, &server).await;
    let text = std::fs::read_to_string(&file).expect("written");
    let line: serde_json::Value =
        serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(line["msg"], error.as_str());
    assert_eq!(line["job_name"], "job");
}
