//! Do rules come out as in a real Prometheus? Both evaluate the same rules on
//! the same data, for a minute, or for `NARTHEX_SIDE_BY_SIDE_S` seconds: the
//! same alerts, states, values, labels, annotations and recorded samples at
//! each evaluation. Skipped, with the reason printed, where there is no
//! Prometheus.

mod common;

#[path = "common/rule_data.rs"]
mod rule_data;

#[path = "../src/rules/slot.rs"]
mod slot;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Peer, Server, encode, free_port, peer, remote_write, request, wait_for};
use narthex::rules::file::{FileOptions, GroupSpec, parse_rules};
use narthex::rules::{Group, GroupOptions};
use rule_data::{group_file, rule_files, series_for};
use serde_json::Value;

/// Of groups that name none; and between two samples.
const INTERVAL_MS: i64 = 10_000;
const STEP_MS: i64 = 5_000;
/// No group is evaluated in this first part of the interval: both load the
/// rules in it, and are compared in it.
const LOADED_WITHIN_MS: i64 = 4_000;
/// Between the evaluations of two groups: one may read what the other writes.
const APART_MS: i64 = 100;
/// Data from before the first evaluation.
const HISTORY_MS: i64 = 2_400_000;
/// Samples are written before their time comes, so that each evaluation finds
/// the same.
const AHEAD_MS: i64 = 30_000;
/// Durations of alerts are divided by this, or nothing would fire.
const HURRY: i64 = 15;

const FLAGS: [&str; 3] = [
    "--web.enable-remote-write-receiver",
    "--web.enable-lifecycle",
    "--web.external-url=http://rules.example.org/",
];

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292278994")
}

fn config(rules: &str) -> String {
    format!(
        "global: {{evaluation_interval: {}s, external_labels: {{region: eu}}}}\n{rules}",
        INTERVAL_MS / 1000
    )
}

/// A group in a file of its own, and where in its interval it is evaluated.
struct Placed {
    spec: GroupSpec,
    file: String,
    interval_ms: i64,
    offset_ms: i64,
}

/// Writes a group to a file whose name puts it at the same time in both, as
/// builds of Prometheus differ in how they hash labels, away from other groups,
/// and from the start of the interval, where rules are loaded.
fn place(directory: &Path, spec: &GroupSpec, placed: &[Placed]) -> Placed {
    let number = placed.len();
    let interval_ms = spec.interval_ms.unwrap_or(INTERVAL_MS);
    let busy = LOADED_WITHIN_MS..INTERVAL_MS * 19 / 20;
    let found = (0_u32..).find_map(|salt| {
        let file = directory.join(format!("{number}-{salt}.yml")).display().to_string();
        let offset_ms = slot::offset_ms(&file, &spec.name, interval_ms);
        let mut other = Vec::new();
        for text in ["file", &file, "name", &spec.name] {
            other.extend_from_slice(text.as_bytes());
            other.push(0xff);
        }
        let other_ns =
            xxhash_rust::xxh64::xxh64(&other, 0) % (interval_ms.unsigned_abs() * 1_000_000);
        let same = other_ns / 1_000_000 == offset_ms.unsigned_abs();
        let phase_ms = |offset_ms: i64| offset_ms % INTERVAL_MS;
        let apart =
            |other: &Placed| (phase_ms(other.offset_ms) - phase_ms(offset_ms)).abs() >= APART_MS;
        (same && busy.contains(&phase_ms(offset_ms)) && placed.iter().all(apart))
            .then_some((file, offset_ms))
    });
    let (file, offset_ms) = found.expect("some name fits");
    let text = group_file(spec, number, HURRY);
    std::fs::write(&file, &text).expect("written");
    let ours = parse_rules(&file, &text, &FileOptions::default()).expect("valid");
    let options = GroupOptions { file: file.clone(), default_interval_ms: INTERVAL_MS };
    let group = Group::new(&ours.groups[0], &options).expect("valid");
    assert_eq!(group.slot_ms(), offset_ms);
    Placed { spec: spec.clone(), file, interval_ms, offset_ms }
}

/// Writes the samples of a stretch of time to all servers.
fn feed(series: &[rule_data::Series], times_ms: std::ops::Range<i64>, to: &[SocketAddr]) {
    let steps: Vec<i64> = (times_ms.start..times_ms.end).step_by(STEP_MS as usize).collect();
    for series in series.chunks(200) {
        let samples: Vec<Vec<(i64, f64)>> = series
            .iter()
            .map(|one| {
                let value = |&at_ms: &i64| Some((at_ms, one.value(at_ms / 1000, STEP_MS / 1000)?));
                steps.iter().filter_map(value).collect()
            })
            .collect();
        let labels: Vec<Vec<(&str, &str)>> = series
            .iter()
            .map(|one| one.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect())
            .collect();
        let sent: Vec<remote_write::Series<'_>> = labels
            .iter()
            .zip(&samples)
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(labels, samples)| remote_write::Series { labels, samples })
            .collect();
        let body = remote_write::body(&sent);
        for &address in to {
            let answer = remote_write::send(address, &body).expect("an answer");
            assert!(answer.status / 100 == 2, "{}: {}", answer.status, answer.text());
        }
    }
}

fn time_ms(value: &Value) -> i64 {
    let text = value.as_str().expect("a time");
    chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp_millis()
}

/// What a rule says of itself, as far as it must be the same.
fn comparable(rule: &Value) -> Value {
    let mut alerts: Vec<Value> = rule["alerts"].as_array().cloned().unwrap_or_default();
    for alert in &mut alerts {
        alert["activeAt"] = time_ms(&alert["activeAt"]).into();
        if alert["keepFiringSince"].is_string() {
            alert["keepFiringSince"] = time_ms(&alert["keepFiringSince"]).into();
        }
    }
    alerts.sort_by_key(|alert| alert["labels"].to_string());
    serde_json::json!({
        "name": rule["name"], "query": rule["query"], "labels": rule["labels"],
        "annotations": rule["annotations"], "type": rule["type"], "duration": rule["duration"],
        "keepFiringFor": rule["keepFiringFor"], "state": rule["state"], "health": rule["health"],
        "lastError": rule["lastError"], "alerts": alerts,
    })
}

/// Which slot of each file's group was evaluated last, and its rules after it;
/// groups whose first slot is still to come are left out. `None` as long as
/// an evaluation before `until_ms` is missing.
fn seen(
    address: SocketAddr,
    groups: &[Placed],
    since_ms: i64,
    until_ms: i64,
) -> Option<BTreeMap<String, (i64, Vec<Value>)>> {
    let answer = request(address, "GET", "/api/v1/rules", &[], b"").ok()?.json();
    let listed = answer["data"]["groups"].as_array()?;
    let mut all = BTreeMap::new();
    for placed in groups {
        let due = (until_ms - 1 - placed.offset_ms).div_euclid(placed.interval_ms);
        if due * placed.interval_ms + placed.offset_ms < since_ms {
            continue;
        }
        let group = listed.iter().find(|group| group["file"] == placed.file.as_str())?;
        let rules = group["rules"].as_array()?;
        // Rules know better than their group what was evaluated.
        let slot = |rule: &Value| {
            (time_ms(&rule["lastEvaluation"]) - placed.offset_ms).div_euclid(placed.interval_ms)
        };
        let last = rules.iter().map(slot).min()?;
        if last < due || rules.iter().any(|rule| slot(rule) != last) {
            return None;
        }
        all.insert(placed.file.clone(), (last, rules.iter().map(comparable).collect()));
    }
    Some(all)
}

/// All samples of what rules wrote in a stretch of time, by series.
fn written(
    address: SocketAddr,
    names: &str,
    (since_ms, until_ms): (i64, i64),
) -> BTreeMap<String, Value> {
    let range_ms = until_ms - since_ms;
    let query = format!("{{__name__=~{names:?}}}[{range_ms}ms]");
    let time_s = until_ms as f64 / 1000.0;
    let path = format!("/api/v1/query?query={}&time={time_s:.3}", encode(&query));
    let answer = request(address, "GET", &path, &[], b"").expect("an answer").json();
    let result = answer["data"]["result"].as_array().expect("a list").clone();
    result
        .into_iter()
        .map(|series| (series["metric"].to_string(), series["values"].clone()))
        .collect()
}

/// Sums over floats may be added in another order.
fn same_samples(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return false };
    let number = |v: &Value| v[1].as_str().and_then(|text| text.parse::<f64>().ok());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            let (Some(x), Some(y)) = (number(a), number(b)) else { return false };
            a[0] == b[0] && (a[1] == b[1] || (x - y).abs() <= 1e-12 * x.abs().max(y.abs()))
        })
}

/// Names and label names of what a server says of its rules, and the help.
fn own_metrics(address: SocketAddr) -> BTreeSet<String> {
    let text = request(address, "GET", "/metrics", &[], b"").expect("an answer").text();
    let of_rules = |line: &&str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        ["prometheus_rule_", "prometheus_template_"].iter().any(|start| name.starts_with(start))
    };
    let without_values = |line: &str| {
        if line.starts_with('#') {
            return line.to_owned();
        }
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let parts = series.split('"').step_by(2);
        parts.collect::<Vec<_>>().join("\"\"")
    };
    text.lines().filter(of_rules).map(without_values).collect()
}

/// Where two lists of samples part.
fn first_difference(ours: Option<&Value>, theirs: Option<&Value>) -> String {
    let list = |v: Option<&Value>| v.and_then(Value::as_array).cloned().unwrap_or_default();
    let (ours, theirs) = (list(ours), list(theirs));
    let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    let (len, their_len) = (ours.len(), theirs.len());
    format!(
        "{len} and {their_len} samples, ours after {same}: {:?}, theirs: {:?}",
        ours.get(same),
        theirs.get(same)
    )
}

#[test]
fn rules_come_out_as_in_prometheus() {
    let Some(program) = peer("prometheus") else { return };
    let duration_s: i64 = std::env::var("NARTHEX_SIDE_BY_SIDE_S")
        .map_or(60, |text| text.parse().expect("NARTHEX_SIDE_BY_SIDE_S is a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let files = rule_files();
    let series = series_for(&files);
    let specs = files.iter().flat_map(|file| &file.groups);
    let mut groups: Vec<Placed> = Vec::new();
    for spec in specs {
        let placed = place(directory.path(), spec, &groups);
        groups.push(placed);
    }
    let rules: usize = groups.iter().map(|group| group.spec.rules.len()).sum();

    let ours = directory.path().join("ours");
    let theirs = directory.path().join("theirs");
    for path in [&ours, &theirs] {
        std::fs::create_dir(path).expect("a directory");
    }
    std::fs::write(theirs.join("prometheus.yml"), config("")).expect("written");
    let server = Server::start(&ours, Some(&config("")), &FLAGS);
    let reference = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", theirs.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", theirs.join("data").display()))
        .arg(format!("--web.listen-address={reference}"))
        .args(FLAGS);
    let _peer = Peer::start(&mut command, reference, "/-/ready");
    let both = [server.address, reference];

    let mut fed_ms = now_ms() / STEP_MS * STEP_MS + AHEAD_MS;
    feed(&series, fed_ms - HISTORY_MS..fed_ms, &both);

    let with_rules = config(&format!("rule_files: [{}/*.yml]\n", directory.path().display()));
    for path in [&ours, &theirs] {
        std::fs::write(path.join("prometheus.yml"), &with_rules).expect("written");
    }
    // No group is evaluated at the beginning of an interval.
    let started_ms = wait_for("the beginning of an interval", || {
        let now_ms = now_ms();
        (now_ms % INTERVAL_MS < 200).then_some(now_ms / INTERVAL_MS * INTERVAL_MS)
    });
    std::thread::scope(|scope| {
        for address in both {
            scope.spawn(move || {
                let answer = request(address, "POST", "/-/reload", &[], b"").expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
            });
        }
    });
    let loaded_after_ms = now_ms() - started_ms;
    assert!(loaded_after_ms < LOADED_WITHIN_MS, "rules were loaded after {loaded_after_ms} ms");

    let mut busy = BTreeSet::new();
    let (mut compared, mut alerts, mut firing) = (0_u64, 0_u64, 0_u64);
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut missed = 0;
    let mut differences = Vec::new();
    for turn in 1..=duration_s * 1000 / INTERVAL_MS {
        let until_ms = started_ms + turn * INTERVAL_MS;
        let (got, expected) = wait_for("an evaluation of all groups in both", || {
            let got = seen(server.address, &groups, started_ms, until_ms)?;
            let expected = seen(reference, &groups, started_ms, until_ms)?;
            let slots = |all: &BTreeMap<String, (i64, Vec<Value>)>| -> Vec<i64> {
                all.values().map(|(slot, _)| *slot).collect()
            };
            (slots(&got) == slots(&expected)).then_some((got, expected))
        });
        for (file, (slot, rules)) in &got {
            let (_, their_rules) = &expected[file];
            let before = last.insert(file.clone(), *slot);
            if before == Some(*slot) {
                continue;
            }
            missed += before.map_or(0, |before| slot - before - 1);
            for (ours, theirs) in rules.iter().zip(their_rules) {
                compared += 1;
                let list = ours["alerts"].as_array().map_or(&[][..], Vec::as_slice);
                if !list.is_empty() {
                    busy.insert(ours["name"].to_string());
                }
                alerts += list.len() as u64;
                firing += list.iter().filter(|alert| alert["state"] == "firing").count() as u64;
                if ours != theirs {
                    differences.push(format!("turn {turn}: ours {ours:#}\ntheirs {theirs:#}"));
                }
            }
        }
        feed(&series, fed_ms..until_ms + AHEAD_MS, &both);
        fed_ms = until_ms + AHEAD_MS;
    }

    let mut names: Vec<&str> = groups
        .iter()
        .flat_map(|group| &group.spec.rules)
        .filter(|rule| rule.kind == narthex::rules::file::SpecKind::Record)
        .map(|rule| rule.name.as_str())
        .chain(["ALERTS", "ALERTS_FOR_STATE"])
        .collect();
    names.sort_unstable();
    let names = names.join("|");
    let stretch = (started_ms, started_ms + duration_s * 1000);
    let got = written(server.address, &names, stretch);
    let expected = written(reference, &names, stretch);
    let samples: usize = got.values().filter_map(|v| v.as_array().map(Vec::len)).sum();
    for key in got.keys().chain(expected.keys()) {
        let (ours, theirs) = (got.get(key), expected.get(key));
        if !matches!((ours, theirs), (Some(a), Some(b)) if same_samples(a, b)) {
            differences.push(format!("series {key}: {}", first_difference(ours, theirs)));
        }
    }
    let name_of = |key: &String| {
        let labels: Value = serde_json::from_str(key).expect("JSON");
        labels["__name__"].to_string()
    };
    busy.extend(got.keys().map(name_of));
    let silent: BTreeSet<&str> = groups
        .iter()
        .flat_map(|group| &group.spec.rules)
        .map(|rule| rule.name.as_str())
        .filter(|name| !busy.contains(&format!("{name:?}")))
        .collect();
    assert_eq!(
        own_metrics(reference).difference(&own_metrics(server.address)).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "metrics about rules"
    );
    println!("rules without any result, in both: {silent:?}");
    println!(
        "{} files, {} groups, {rules} rules, {} series; {compared} evaluations of rules with \
         {alerts} alerts ({firing} firing) and {} written series with {samples} samples compared, \
         {missed} evaluations of groups not looked at: {} differences",
        files.len(),
        groups.len(),
        series.len(),
        got.len(),
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences[..differences.len().min(50)].join("\n\n"));
    assert!(compared > 0 && alerts > 0 && firing > 0 && samples > 0);
}
