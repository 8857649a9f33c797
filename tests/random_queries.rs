//! Random expressions against a real Prometheus with the same data: the same
//! answers, or errors on both sides.
//!
//! `NARTHEX_RANDOM_QUERIES` says how many expressions (300 by default),
//! `NARTHEX_RANDOM_SEED` where the generator starts.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use common::remote_write::{Series, body, send};
use common::{Peer, Server, encode, free_port, peer, request};
use serde_json::Value;

const END_S: i64 = 1_767_268_800;
const START_S: i64 = END_S - 3600;

/// A generator of numbers that only depends on its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// The labels of a series, and its samples.
type Recorded = (Vec<(&'static str, &'static str)>, Vec<(i64, f64)>);

/// Counters that restart, gauges with NaN, infinities and staleness markers,
/// series with gaps, and the buckets of classic histograms.
fn data() -> Vec<Recorded> {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let mut random = Random(7);
    let mut all = Vec::new();
    for name in ["a_total", "b", "c"] {
        for (x, y) in [("1", "p"), ("1", "q"), ("2", "p"), ("10", "r"), ("3", "")] {
            let mut labels = vec![("__name__", name), ("x", x)];
            if !y.is_empty() {
                labels.push(("y", y));
            }
            let mut total = 0.0;
            let mut samples = Vec::new();
            for step in 0..240 {
                if (name == "c" || x == "2") && random.below(3) == 0 {
                    continue;
                }
                total = if random.below(40) == 0 { 0.0 } else { total + random.below(9) as f64 };
                let value = match name {
                    "a_total" => total,
                    "b" => random.below(2000) as f64 / 8.0 - 100.0,
                    _ => match random.below(30) {
                        0 => f64::NAN,
                        1 => f64::INFINITY,
                        2 => stale,
                        _ => random.below(7) as f64 * 0.1,
                    },
                };
                samples.push(((START_S + step * 15) * 1000, value));
            }
            all.push((labels, samples));
        }
    }
    for y in ["p", "q"] {
        let mut counts = [0.0; 5];
        let mut columns = vec![Vec::new(); 5];
        for step in 0..240 {
            let hit = random.below(5);
            counts[hit..].iter_mut().for_each(|c| *c += 1.0 + (hit as f64));
            for (column, count) in columns.iter_mut().zip(counts) {
                column.push(((START_S + step * 15) * 1000, count));
            }
        }
        for (le, column) in ["0.1", "0.5", "1", "5", "+Inf"].into_iter().zip(columns) {
            all.push((vec![("__name__", "h_bucket"), ("le", le), ("y", y)], column));
        }
    }
    // Of equal values topk takes the first: a storage in order of arrival and
    // one in order of labels shall agree on it.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// A random expression whose value is an instant vector.
fn vector(r: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return leaf(r);
    }
    let inner = |r: &mut Random| {
        let less = 1 + r.below(2);
        vector(r, depth.saturating_sub(less))
    };
    match r.below(17) {
        0 | 1 => leaf(r),
        2..=4 => {
            let op = r.one(&["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]);
            format!("{op} {}({})", grouping(r), inner(r))
        }
        // What is equal in both is in one order here and in another there, once
        // it went through a map; and the last bits of powers and sines differ.
        5 => format!("{}({}, {})", r.one(&["topk", "bottomk"]), r.one(&["1", "2", "0"]), leaf(r)),
        6 => format!(
            "quantile {}({}, {})",
            grouping(r),
            r.one(&["0.5", "0", "1.5", "NaN"]),
            inner(r)
        ),
        7 => format!("count_values {}(\"v\", {})", grouping(r), selector(r)),
        8 | 9 => {
            let f = r.one(&[
                "abs",
                "ceil",
                "floor",
                "exp",
                "sqrt",
                "ln",
                "log2",
                "sgn",
                "-",
                "timestamp",
                "minute",
                "hour",
                "absent",
                "round",
                "sin",
                "deg",
                "sort",
                "sort_desc",
            ]);
            format!("{f}({})", inner(r))
        }
        10 => format!("clamp({}, -1, {})", inner(r), scalar(r)),
        11 | 12 => {
            let op = r.one(&["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<="]);
            let bool_ =
                if ["==", "!=", ">", "<="].contains(&op) { r.one(&["", "bool "]) } else { "" };
            match r.below(3) {
                0 => format!("({} {op} {bool_}{})", inner(r), scalar(r)),
                1 => format!("({} {op} {bool_}{})", scalar(r), inner(r)),
                _ => {
                    let on = r.one(&[
                        "",
                        "on (x, y) ",
                        "ignoring (y) ",
                        "on (x) group_left () ",
                        "on (y) group_right (x) ",
                    ]);
                    format!("({} {op} {bool_}{on}{})", inner(r), inner(r))
                }
            }
        }
        13 => {
            let on = r.one(&["", "on (x) ", "ignoring (x) "]);
            format!("({} {} {on}{})", inner(r), r.one(&["and", "or", "unless"]), inner(r))
        }
        14 => {
            let f = r.one(&[
                "max_over_time",
                "sum_over_time",
                "rate",
                "last_over_time",
                "avg_over_time",
                "deriv",
                "changes",
                "stddev_over_time",
                "count_over_time",
            ]);
            let at = r.one(&["", "", " offset 1m", " @ end()"]);
            format!(
                "{f}(({})[{}:{}]{at})",
                inner(r),
                r.one(&["2m", "5m", "7m30s"]),
                r.one(&["30s", "1m", ""])
            )
        }
        15 => format!(
            "label_replace({}, \"z\", \"{}\", \"x\", \"{}\")",
            inner(r),
            r.one(&["$1", "k", "$1$1"]),
            r.one(&["(.).*", "(1.*)", ".*"])
        ),
        _ => format!(
            "histogram_quantile({}, {}(h_bucket[{}]))",
            scalar(r),
            r.one(&["rate", "increase"]),
            range(r)
        ),
    }
}

fn leaf(r: &mut Random) -> String {
    match r.below(12) {
        0..=3 => format!("{}{}", selector(r), modifier(r)),
        4..=9 => {
            let f = r.one(&[
                "rate",
                "increase",
                "delta",
                "irate",
                "idelta",
                "deriv",
                "resets",
                "changes",
                "avg_over_time",
                "sum_over_time",
                "count_over_time",
                "min_over_time",
                "max_over_time",
                "last_over_time",
                "present_over_time",
                "stddev_over_time",
                "stdvar_over_time",
                "absent_over_time",
            ]);
            format!("{f}({}[{}]{})", selector(r), range(r), modifier(r))
        }
        10 => format!("quantile_over_time({}, {}[{}])", scalar(r), selector(r), range(r)),
        _ => r.one(&["vector(2)", "vector(time())", "absent(b{x=\"9\"})"]).to_owned(),
    }
}

fn selector(r: &mut Random) -> String {
    let matcher =
        r.one(&["", "{x=\"1\"}", "{y!=\"p\"}", "{x=~\"1.*\"}", "{y=\"\"}", "{x!~\"1|2\"}"]);
    format!("{}{matcher}", r.one(&["a_total", "b", "c"]))
}

fn range(r: &mut Random) -> &'static str {
    r.one(&["20s", "1m", "5m", "17m", "1h"])
}

fn modifier(r: &mut Random) -> &'static str {
    r.one(&["", "", "", "", " offset 1m", " offset -30s", " @ 1767267000", " @ start()"])
}

fn grouping(r: &mut Random) -> &'static str {
    r.one(&["", "by (x) ", "without (y) ", "by (x, y) ", "by (nothing) "])
}

fn scalar(r: &mut Random) -> &'static str {
    r.one(&["0.7", "2", "-1", "0", "scalar(b{x=\"10\"})", "time()", "Inf", "1e9", "pi()"])
}

/// What an answer says: the kind of the error, or series by labels with values
/// by time; the order of instant vectors too.
#[derive(Debug)]
enum Answer {
    Error(String),
    Series(BTreeMap<String, Vec<(String, f64)>>),
}

fn answer(address: SocketAddr, path: &str) -> Answer {
    let answer = request(address, "GET", path, &[], &[]).expect("an answer").json();
    if let Some(kind) = answer["errorType"].as_str() {
        return Answer::Error(kind.to_owned());
    }
    let sample = |v: &Value| {
        let number = v[1].as_str().unwrap_or_default().replace("Inf", "inf");
        (v[0].to_string(), number.parse().expect("a number"))
    };
    let mut series = BTreeMap::new();
    let Some(result) = answer["data"]["result"].as_array() else { panic!("{answer}") };
    for one in result {
        let labels: BTreeMap<String, Value> = one["metric"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let values = match one["values"].as_array() {
            Some(values) => values.iter().map(sample).collect(),
            None => vec![sample(&one["value"])],
        };
        series.insert(format!("{labels:?}"), values);
    }
    Answer::Series(series)
}

/// Whether two numbers are the same but for the order of additions.
fn is_near(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-6)
}

fn difference(ours: &Answer, real: &Answer) -> Option<String> {
    match (ours, real) {
        (Answer::Error(a), Answer::Error(b)) => (a != b).then(|| format!("{a} instead of {b}")),
        (Answer::Series(a), Answer::Series(b)) => {
            for (labels, real) in b {
                let Some(ours) = a.get(labels) else { return Some(format!("no {labels}")) };
                let differs = ours.len() != real.len()
                    || ours.iter().zip(real).any(|(x, y)| x.0 != y.0 || !is_near(x.1, y.1));
                if differs {
                    return Some(format!("{labels}: {ours:?} instead of {real:?}"));
                }
            }
            a.keys().find(|labels| !b.contains_key(*labels)).map(|labels| format!("has {labels}"))
        }
        (a, b) => Some(format!("{a:?} instead of {b:?}")),
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn random_expressions_have_the_answers_of_a_real_prometheus() {
    let Some(prometheus) = peer("prometheus") else { return };
    let directory = tempfile::tempdir().expect("a folder");
    let real = SocketAddr::from(([127, 0, 0, 1], free_port()));
    std::fs::write(directory.path().join("p.yml"), "global: {}\n").expect("a file");
    let mut command = Command::new(prometheus);
    command.current_dir(directory.path()).args([
        "--config.file=p.yml",
        "--storage.tsdb.path=real",
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        "--web.console.templates=",
        "--web.console.libraries=",
        &format!("--web.listen-address={real}"),
    ]);
    let _real = Peer::start(&mut command, real, "/-/ready");
    let ours = Server::start(
        directory.path(),
        Some("global: {}\n"),
        &[
            "--config.file=prometheus.yml",
            "--storage.tsdb.retention.time=100y",
            "--web.enable-remote-write-receiver",
        ],
    );
    for (labels, samples) in data() {
        let request = body(&[Series { labels: &labels, samples: &samples }]);
        for address in [ours.address, real] {
            let sent = send(address, &request).expect("an answer");
            assert!(sent.status < 300, "{}", sent.text());
        }
    }
    let mut random = Random(setting("NARTHEX_RANDOM_SEED", 1));
    let mut different = Vec::new();
    let count = setting("NARTHEX_RANDOM_QUERIES", 300);
    for number in 0..count {
        let depth = random.below(5);
        let text = vector(&mut random, depth);
        let step = random.one(&["15", "60", "7", "300"]);
        let start = START_S + random.below(1800) as i64;
        let end = start + random.below(2400) as i64;
        let at = START_S + random.below(4200) as i64;
        let query = encode(&text);
        for path in [
            format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}"),
            format!("/api/v1/query?query={query}&time={at}"),
        ] {
            let found = difference(&answer(ours.address, &path), &answer(real, &path));
            if let Some(found) = found {
                let shown: String = found.chars().take(600).collect();
                println!("{number}: {text}\n  {path}\n  {shown}");
                different.push(text.clone());
            }
        }
    }
    assert!(different.is_empty(), "{} of {count} differ: {different:#?}", different.len());
}
