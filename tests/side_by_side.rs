//! A real Prometheus and narthex, with one configuration, scrape the same
//! targets: what they store, show and say of them is the same.
//!
//! Each page is a function of how often the same scraper asked for it, so the
//! n-th scrapes of both servers are compared: all series at its timestamp,
//! staleness and explicit timestamps included. What differs on purpose stands
//! in [`known_difference`], with its reason.

mod common;
#[path = "side_by_side/pages.rs"]
mod pages;
#[path = "side_by_side/proto.rs"]
mod proto;
#[path = "side_by_side/rules.rs"]
mod rules;
#[path = "side_by_side/target.rs"]
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Peer, Server, encode, free_port, peer, request, wait_for};
use pages::PAGES;
use serde_json::Value;

/// Scrapes that are compared; pages change no more afterwards.
const SCRAPES: usize = 6;
const FEATURES: &str = "--enable-feature=exemplar-storage,extra-scrape-metrics,native-histograms";

/// Labels that Prometheus 3.5 does not set and 3.14 does.
const NEWER_LABELS: [&str; 3] = [
    "__convert_classic_histograms_to_nhcb__",
    "__always_scrape_classic_histograms__",
    "__scrape_native_histograms__",
];

/// Why a difference is meant to be, if it is.
fn known_difference(page: &str, what: &str) -> Option<&'static str> {
    let series = |name: &str| what.contains(&format!("__name__\\\":\\\"{name}\\\""));
    match page {
        "flapping" if series("a") || series("b") => Some(
            "When a line is broken, Prometheus leaves series that stand before it without a staleness marker.",
        ),
        "timestamps_tracked" if series("backwards") || series("now_timed") => Some(
            "With track_timestamps_staleness, a sample that is refused as too old ends its series in Prometheus.",
        ),
        _ if what.starts_with("target:") && what.contains("{\"\": String(") => Some(
            "labelmap can make a label without a name in Prometheus; we leave it out, as replace does.",
        ),
        _ if what.contains("metadata") && what.ends_with("narthex None") => Some(
            "Prometheus shows metadata of pages that fail, up to the error, and for ten scrapes after they are gone.",
        ),
        _ => None,
    }
}

/// Differences found, each with its page.
#[derive(Default)]
struct Differences(Vec<(String, String)>);

impl Differences {
    fn compare<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
        &mut self,
        page: &str,
        what: &str,
        theirs: &BTreeMap<K, V>,
        ours: &BTreeMap<K, V>,
    ) {
        let keys: BTreeSet<&K> = theirs.keys().chain(ours.keys()).collect();
        for key in keys {
            let (their, our) = (theirs.get(key), ours.get(key));
            if their != our {
                let text = format!("{what}: {key:?}: Prometheus {their:?}, narthex {our:?}");
                self.0.push((page.to_owned(), text));
            }
        }
    }

    fn finish(self) {
        let (known, wrong): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|(page, what)| known_difference(page, what).is_some());
        let reasons: BTreeSet<_> = known.iter().map(|(p, w)| known_difference(p, w)).collect();
        println!("{} known differences: {reasons:#?}", known.len());
        assert!(
            wrong.is_empty(),
            "{} differences:\n{}",
            wrong.len(),
            wrong.iter().map(|(p, w)| format!("{p}: {w}\n")).collect::<String>()
        );
    }
}

fn configuration(address: SocketAddr, closed: SocketAddr) -> String {
    let mut out =
        "global: {scrape_interval: 2s, scrape_timeout: 2s, external_labels: {site: test}}\nscrape_configs:\n".to_owned();
    for page in PAGES {
        out.push_str(&format!("  - job_name: {}\n", page.name));
        if !page.job.contains("metrics_path") {
            out.push_str(&format!("    metrics_path: /{}\n", page.name));
        }
        if !page.job.contains("static_configs") {
            let name = page.name;
            out.push_str(&format!(
                "    static_configs: [{{targets: ['ADDRESS'], labels: {{page: {name}}}}}]\n"
            ));
        }
        out.push_str(page.job);
    }
    out.replace("ADDRESS", &address.to_string()).replace("NOBODY", &closed.to_string())
}

fn get(address: SocketAddr, path: &str) -> Value {
    let answer = request(address, "GET", path, &[], &[]).expect("an answer");
    answer.json()["data"].clone()
}

fn query(address: SocketAddr, query: &str, time: Option<&str>) -> Vec<Value> {
    let time = time.map_or(String::new(), |t| format!("&time={t}"));
    let data = get(address, &format!("/api/v1/query?query={}{time}", encode(query)));
    data["result"].as_array().cloned().unwrap_or_default()
}

/// Times of the scrapes of each target, by page and instance.
fn scrapes(address: SocketAddr) -> BTreeMap<(String, String), Vec<String>> {
    let mut out = BTreeMap::new();
    for series in query(address, "scrape_samples_scraped{x=\"\"}[1h]", None) {
        let label = |name: &str| series["metric"][name].as_str().unwrap_or_default().to_owned();
        let values = series["values"].as_array().expect("a matrix");
        let times = values.iter().map(|v| v[0].to_string()).collect();
        out.insert((label("page"), label("instance")), times);
    }
    out
}

/// All series of a selector at a time, but the one that measures a duration.
fn series(address: SocketAddr, selector: &str, time: &str) -> BTreeMap<String, String> {
    query(address, selector, Some(time))
        .iter()
        .filter(|s| s["metric"]["__name__"] != "scrape_duration_seconds")
        .map(|s| {
            let labels: BTreeMap<_, _> = s["metric"].as_object().expect("labels").iter().collect();
            let value = if s["histogram"].is_null() { &s["value"][1] } else { &s["histogram"][1] };
            (serde_json::to_string(&labels).expect("JSON"), value.to_string())
        })
        .collect()
}

fn compare_samples(found: &mut Differences, theirs: SocketAddr, ours: SocketAddr) -> usize {
    let complete = |address| {
        let all = scrapes(address);
        let pages: BTreeSet<&String> = all.keys().map(|(page, _)| page).collect();
        let whole = pages.len() == PAGES.len() && all.values().all(|t| t.len() > SCRAPES);
        whole.then_some(all)
    };
    let their_scrapes = wait_for("Prometheus' scrapes", || complete(theirs));
    let our_scrapes = wait_for("our scrapes", || complete(ours));
    let keys = |s: &BTreeMap<(String, String), Vec<String>>| -> BTreeMap<_, _> {
        s.keys().map(|k| (k.clone(), ())).collect()
    };
    found.compare("all", "targets with scrapes", &keys(&their_scrapes), &keys(&our_scrapes));
    let mut compared = 0;
    for ((page, instance), their_times) in &their_scrapes {
        let Some(our_times) = our_scrapes.get(&(page.clone(), instance.clone())) else { continue };
        let several = their_scrapes.keys().filter(|(p, _)| p == page).count() > 1;
        let selector = if several {
            format!("{{page=\"{page}\",instance=\"{instance}\"}}")
        } else {
            format!("{{page=\"{page}\"}}")
        };
        for n in 0..SCRAPES {
            let their = series(theirs, &selector, &their_times[n]);
            let our = series(ours, &selector, &our_times[n]);
            compared += their.len();
            found.compare(page, &format!("scrape {n}"), &their, &our);
        }
    }
    compared
}

/// States of targets, by pool, address and field; moments left out.
fn targets(address: SocketAddr) -> BTreeMap<String, Value> {
    let data = get(address, "/api/v1/targets");
    let mut out = BTreeMap::new();
    for target in data["activeTargets"].as_array().expect("a list") {
        let mut target = without_newer_labels(target);
        let discovered = &target["discoveredLabels"];
        let key = [&target["scrapePool"], &discovered["__address__"], &discovered["__group"]]
            .map(|v| v.as_str().unwrap_or_default())
            .join(" ");
        target["lastError"] = comparable_error(&target["lastError"]).into();
        let fields = target.as_object_mut().expect("an object");
        fields.retain(|name, _| !["lastScrape", "lastScrapeDuration"].contains(&name.as_str()));
        out.extend(fields.iter().map(|(name, value)| (format!("{key} {name}"), sorted(value))));
    }
    for target in data["droppedTargets"].as_array().expect("a list") {
        out.insert(format!("dropped {}", sorted(&without_newer_labels(target))), Value::Null);
    }
    out.insert("dropped".to_owned(), sorted(&data["droppedTargetCounts"]));
    out
}

fn without_newer_labels(target: &Value) -> Value {
    let mut target = target.clone();
    if let Some(labels) = target["discoveredLabels"].as_object_mut() {
        labels.retain(|name, _| !NEWER_LABELS.contains(&name.as_str()));
    }
    target
}

/// An error without what only one of the two adds: we name the line, and Go
/// says on a second line why it cannot read a content type.
fn comparable_error(error: &Value) -> String {
    let text = error.as_str().unwrap_or_default();
    let text = text.split('\n').next().unwrap_or_default();
    match text.strip_suffix(')').and_then(|t| t.rsplit_once(" (line ")) {
        Some((text, line)) if line.parse::<usize>().is_ok() => text.to_owned(),
        _ => text.to_owned(),
    }
}

/// The same value with the members of objects in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, Value> =
                fields.iter().map(|(name, value)| (name, sorted(value))).collect();
            ordered.into_iter().map(|(name, value)| (name.clone(), value)).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn compare_states(found: &mut Differences, theirs: SocketAddr, ours: SocketAddr) {
    let (their, our) = (targets(theirs), targets(ours));
    assert!(their.len() > 8 * PAGES.len(), "only {} fields of targets", their.len());
    found.compare("all", "target", &their, &our);
    let pools = |address| get(address, "/api/v1/scrape_pools");
    let pools = |address| BTreeMap::from([("pools", sorted_list(&pools(address)["scrapePools"]))]);
    found.compare("all", "scrape_pools", &pools(theirs), &pools(ours));
}

fn sorted_list(list: &Value) -> Vec<String> {
    let mut out: Vec<String> =
        list.as_array().into_iter().flatten().map(|v| sorted(v).to_string()).collect();
    out.sort();
    out
}

fn compare_metadata(found: &mut Differences, theirs: SocketAddr, ours: SocketAddr) {
    for page in PAGES {
        let selector = encode(&format!("{{page=\"{}\"}}", page.name));
        let of = |address| {
            let data = get(address, &format!("/api/v1/targets/metadata?match_target={selector}"));
            let list = data.as_array().cloned().unwrap_or_default();
            list.iter().map(|m| (m["metric"].to_string(), sorted(m))).collect::<BTreeMap<_, _>>()
        };
        found.compare(page.name, "targets/metadata", &of(theirs), &of(ours));
    }
    let all = |address| {
        let data = get(address, "/api/v1/metadata");
        let families = data.as_object().expect("an object");
        families.iter().map(|(f, list)| (f.clone(), sorted_list(list))).collect::<BTreeMap<_, _>>()
    };
    let (their, our) = (all(theirs), all(ours));
    assert!(their.len() > 20, "only {} families", their.len());
    found.compare("all", "metadata", &their, &our);
}

/// Exemplars by series; a moment of scraping is no part of them.
fn exemplars(address: SocketAddr, base_ms: i64) -> BTreeMap<String, BTreeSet<String>> {
    let now_s = base_ms / 1000 + 3600;
    let path = format!(
        "/api/v1/query_exemplars?query={}&start={}&end={now_s}",
        encode("{page!=\"\"}"),
        base_ms / 1000 - 3600
    );
    let data = get(address, &path);
    let mut out = BTreeMap::new();
    for series in data.as_array().expect("a list") {
        let shown = |e: &Value| {
            let time = e["timestamp"].as_f64().expect("a time");
            #[allow(clippy::cast_precision_loss, reason = "milliseconds are far below 2^53")]
            let exposed = time < base_ms as f64 / 1000.0;
            let time = if exposed { time.to_string() } else { "scrape".to_owned() };
            format!("{} {} {time}", sorted(&e["labels"]), e["value"])
        };
        let list = series["exemplars"].as_array().expect("a list");
        out.insert(sorted(&series["seriesLabels"]).to_string(), list.iter().map(shown).collect());
    }
    out
}

/// narthex and a Prometheus with one configuration.
struct Pair {
    ours: Server,
    theirs: SocketAddr,
    _peer: Peer,
    _directory: tempfile::TempDir,
}

impl Pair {
    /// `None`, with the reason printed, if there is no Prometheus.
    fn start(configuration: &str) -> Option<Self> {
        let prometheus = peer("prometheus")?;
        let directory = tempfile::tempdir().expect("a folder");
        let ours = Server::start(directory.path(), Some(configuration), &[FEATURES]);
        let (peer, theirs) = start_prometheus(&prometheus, directory.path(), "prometheus.yml");
        Some(Self { ours, theirs, _peer: peer, _directory: directory })
    }
}

fn start_prometheus(program: &Path, directory: &Path, configuration: &str) -> (Peer, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(program);
    command.current_dir(directory);
    command.args(["--storage.tsdb.path=theirs", FEATURES]);
    command.args(["--web.console.templates=", "--web.console.libraries="]);
    command.arg(format!("--config.file={configuration}"));
    command.arg(format!("--web.listen-address={address}"));
    (Peer::start(&mut command, address, "/-/ready"), address)
}

#[test]
fn a_prometheus_beside_us_scrapes_the_same() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let base_ms = i64::try_from(since.as_millis()).expect("in range");
    let address = target::serve(base_ms, |ask| {
        let name = ask.target.trim_start_matches('/').split('?').next().unwrap_or_default();
        let page = PAGES.iter().find(|p| p.name == name);
        let ask = target::Ask {
            n: ask.n.min(SCRAPES - 1),
            base_ms: ask.base_ms,
            target: ask.target.clone(),
            headers: ask.headers.clone(),
        };
        page.map_or(target::Answer::Page("404 Not Found", vec![], vec![]), |p| (p.answer)(&ask))
    });
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let Some(pair) = Pair::start(&configuration(address, closed)) else { return };
    let (theirs, ours) = (pair.theirs, pair.ours.address);
    let mut found = Differences::default();
    let compared = compare_samples(&mut found, theirs, ours);
    compare_states(&mut found, theirs, ours);
    compare_metadata(&mut found, theirs, ours);
    let (their, our) = (exemplars(theirs, base_ms), exemplars(ours, base_ms));
    assert!(their.len() > 5, "only {} series with exemplars", their.len());
    found.compare("all", "exemplars", &their, &our);
    println!("{compared} samples of {} pages in {SCRAPES} scrapes each compared", PAGES.len());
    assert!(compared > 2000, "only {compared} samples");
    found.finish();
}

/// Real exporters: the same series, and the same values where nothing moves.
#[test]
fn real_exporters_are_scraped_the_same() {
    let (Some(prometheus), Some(exporter)) = (peer("prometheus"), peer("prometheus-node-exporter"))
    else {
        return;
    };
    let node = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(exporter);
    command.arg(format!("--web.listen-address={node}"));
    let _node = Peer::start(&mut command, node, "/metrics");
    let directory = tempfile::tempdir().expect("a folder");
    std::fs::write(directory.path().join("empty.yml"), "global: {}\n").expect("a file");
    let (_quiet, quiet) = start_prometheus(&prometheus, directory.path(), "empty.yml");
    let mut jobs = format!(
        "global: {{scrape_interval: 3s, scrape_timeout: 3s}}\nscrape_configs:\n\
         - {{job_name: node, static_configs: [{{targets: ['{node}'], labels: {{page: node}}}}]}}\n\
         - {{job_name: node_text, scrape_protocols: [PrometheusText0.0.4], static_configs: [{{targets: ['{node}'], labels: {{page: node_text}}}}]}}\n\
         - {{job_name: quiet, static_configs: [{{targets: ['{quiet}'], labels: {{page: quiet}}}}]}}\n\
         - {{job_name: quiet_om, scrape_protocols: [OpenMetricsText1.0.0], static_configs: [{{targets: ['{quiet}'], labels: {{page: quiet_om}}}}]}}\n"
    );
    let mut pages = vec!["node", "node_text", "quiet", "quiet_om"];
    let _demo = demo_exporter().map(|(demo, address)| {
        jobs.push_str(&format!(
            "- {{job_name: demo, static_configs: [{{targets: ['{address}'], labels: {{page: demo}}}}]}}\n"
        ));
        pages.push("demo");
        demo
    });
    let Some(pair) = Pair::start(&jobs) else { return };
    let (theirs, ours) = (pair.theirs, pair.ours.address);
    let mut found = Differences::default();
    for page in pages {
        // The third good scrape: the counters of the exporters themselves are
        // all there by then.
        let settled = |address| {
            let up = query(address, &format!("up{{page=\"{page}\"}}[1h]"), None);
            let values = up.first()?["values"].as_array()?;
            values.iter().filter(|v| v[1] == "1").nth(2).map(|v| v[0].to_string())
        };
        let at = |address| wait_for(page, || settled(address));
        let selector = format!("{{page=\"{page}\"}}");
        let (their, our) =
            (series(theirs, &selector, &at(theirs)), series(ours, &selector, &at(ours)));
        println!("{page}: {} series", their.len());
        assert!(their.len() > 100, "{page}: only {} series", their.len());
        if page == "demo" {
            found.compare(page, "sample", &their, &our);
            continue;
        }
        let names = |all: BTreeMap<String, String>| -> BTreeMap<String, ()> {
            all.into_keys().map(|labels| (labels, ())).collect()
        };
        found.compare(page, "series", &names(their), &names(our));
    }
    let states = |address| {
        let mut all = targets(address);
        all.retain(|key, _| !key.ends_with("globalUrl"));
        all
    };
    found.compare("all", "target", &states(theirs), &states(ours));
    let metadata = |address| {
        let data = get(address, "/api/v1/metadata");
        let families = data.as_object().expect("an object");
        families.iter().map(|(f, list)| (f.clone(), sorted_list(list))).collect::<BTreeMap<_, _>>()
    };
    found.compare("all", "metadata", &metadata(theirs), &metadata(ours));
    found.finish();
}

/// An exporter whose values stand still for an hour, if the program is named
/// by `NARTHEX_DEMO_EXPORTER`.
fn demo_exporter() -> Option<(Peer, SocketAddr)> {
    let Some(program) = std::env::var_os("NARTHEX_DEMO_EXPORTER").map(PathBuf::from) else {
        println!("skipped: NARTHEX_DEMO_EXPORTER names no demo exporter");
        return None;
    };
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new("python3");
    command.arg(program).args(["--no-outages", "--quantize=3600", "--address=127.0.0.1"]);
    command.arg(format!("--port={}", address.port()));
    Some((Peer::start(&mut command, address, "/metrics"), address))
}

/// Rules made by chance: both make the same targets of the same groups.
#[test]
fn relabeling_by_chance_is_the_same() {
    const JOBS: u64 = 300;
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut configuration = "global: {scrape_interval: 1h}\nscrape_configs:\n".to_owned();
    for seed in 1..=JOBS {
        configuration.push_str(&rules::job(seed, closed));
    }
    let Some(pair) = Pair::start(&configuration) else { return };
    let settled = |address| {
        let mut all = targets(address);
        let dropped: u64 = all["dropped"].as_object()?.values().filter_map(Value::as_u64).sum();
        let active = all.keys().filter(|key| key.ends_with(" health")).count() as u64;
        // Within an hour, a few may have been scraped already.
        all.retain(|key, _| ![" health", " lastError"].iter().any(|end| key.ends_with(end)));
        (active + dropped == rules::GROUPS * JOBS).then_some(all)
    };
    let their = wait_for("Prometheus' targets", || settled(pair.theirs));
    let our = wait_for("our targets", || settled(pair.ours.address));
    let keys: Vec<_> = their.keys().collect();
    assert!(their.len() > 3000, "only {} fields, such as {:?}", their.len(), &keys[..3]);
    println!("{} fields of targets of {JOBS} jobs compared", their.len());
    let mut found = Differences::default();
    found.compare("all", "target", &their, &our);
    found.finish();
}
