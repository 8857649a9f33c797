//! The plan against naive evaluation: a range query must have, at each of its
//! steps, exactly what an instant query at that time gives, bit by bit; and the
//! same from several threads.
//!
//! Range queries slide over windows, share what occurs twice, evaluate what
//! does not depend on the step once and stream into aggregations; an instant
//! query has one window of everything and nothing to slide.

#![allow(clippy::unwrap_used, reason = "a test that fails shall stop")]

use std::collections::BTreeMap;

use narthex_query::engine::{Engine, EngineOptions, QueryOptions};
use narthex_query::memory::MemoryStorage;
use narthex_query::parse::{ParseOptions, parse};
use narthex_query::value::QueryValue;
use narthex_storage::labels::Labels;
use narthex_storage::sample::{Value, stale_nan};
use proptest::prelude::*;

/// Samples every 15 s for 20 minutes: counters that restart, gauges with NaN,
/// infinities and staleness markers, and a series with gaps.
fn storage(seed: u64) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let mut state = seed;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for name in ["a_total", "b", "c"] {
        for (x, y) in [("1", "p"), ("1", "q"), ("2", "p"), ("10", "")] {
            let labels = Labels::from_pairs([("__name__", name), ("x", x), ("y", y)]);
            let mut total = 0.0;
            for i in 0..80 {
                if (name == "c" || x == "2") && random(3) == 0 {
                    continue;
                }
                total = if random(25) == 0 { 0.0 } else { total + random(9) as f64 };
                let value = match name {
                    "a_total" => total,
                    "b" => random(2000) as f64 / 8.0 - 100.0,
                    _ => match random(30) {
                        0 => f64::NAN,
                        1 => f64::INFINITY,
                        2 => stale_nan(),
                        _ => random(7) as f64 * 0.1,
                    },
                };
                storage.add(&labels, i * 15_000, value).unwrap();
            }
        }
    }
    storage
}

fn selector() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a_total", "b", "c"]);
    let matcher = prop::sample::select(vec!["", "{x=\"1\"}", "{y!=\"p\"}", "{x=~\"1.*\"}"]);
    (name, matcher).prop_map(|(n, m)| format!("{n}{m}"))
}

fn modifier() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", "", " offset 1m", " offset -30s", " @ 600", " @ 0"])
}

/// Vector expressions. What sums up does not take what ranks: its order differs
/// between a range and an instant, and sums of floats depend on their order.
fn vector() -> impl Strategy<Value = String> {
    let ranked = (
        prop::sample::select(vec!["", "max ", "count by (x) ", "abs", "-"]),
        prop::sample::select(vec!["topk", "bottomk"]),
        prop::sample::select(vec!["", "by (x) ", "without (y) ", "by (x, y) "]),
        unranked(),
    );
    prop_oneof![
        4 => unranked(),
        1 => ranked.prop_map(|(f, a, g, e)| format!("{f}({a} {g}(1, {e}))")),
    ]
}

fn unranked() -> impl Strategy<Value = String> {
    let range = prop::sample::select(vec!["20s", "1m", "5m", "17m"]);
    let rollup = prop::sample::select(vec![
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
        "first_over_time",
        "present_over_time",
        "stddev_over_time",
        "mad_over_time",
        "ts_of_max_over_time",
        "absent_over_time",
    ]);
    let leaf = prop_oneof![
        (selector(), modifier()).prop_map(|(s, m)| format!("{s}{m}")),
        (rollup, selector(), range.clone(), modifier())
            .prop_map(|(f, s, r, m)| format!("{f}({s}[{r}]{m})")),
        (selector(), range, modifier())
            .prop_map(|(s, r, m)| format!("quantile_over_time(0.7, {s}[{r}]{m})")),
        prop::sample::select(vec!["vector(2)", "vector(time())", "absent(b{x=\"3\"})"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        let aggregation = prop::sample::select(vec![
            "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar",
        ]);
        let grouping = prop::sample::select(vec!["", "by (x) ", "without (y) ", "by (x, y) "]);
        let function = prop::sample::select(vec![
            "abs",
            "ceil",
            "sgn",
            "-",
            "timestamp",
            "minute",
            "absent",
            "round",
            "sqrt",
        ]);
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", ">", "<= bool", "and", "or", "unless",
        ]);
        let matching = prop::sample::select(vec!["", "on (x, y) ", "ignoring (y) "]);
        let over =
            prop::sample::select(vec!["max_over_time", "sum_over_time", "rate", "last_over_time"]);
        prop_oneof![
            (aggregation, grouping, inner.clone()).prop_map(|(a, g, e)| format!("{a} {g}({e})")),
            (function, inner.clone()).prop_map(|(f, e)| format!("{f}({e})")),
            (inner.clone(), operator.clone(), matching, inner.clone()).prop_map(|(l, o, m, r)| {
                match o.split_once(' ') {
                    Some((op, _)) => format!("({l} {op} bool {m}{r})"),
                    None => format!("({l} {o} {m}{r})"),
                }
            }),
            (inner.clone(), prop::sample::select(vec!["+ 1", "* 2", "> 3", "== bool 0", "% 7"]))
                .prop_map(|(e, o)| format!("({e} {o})")),
            inner.clone().prop_map(|e| format!("({e} - {e})")),
            (over, inner.clone()).prop_map(|(f, e)| format!("{f}(({e})[2m:30s])")),
            inner.prop_map(|e| format!("label_replace({e}, \"z\", \"$1\", \"x\", \"(.).*\")")),
        ]
    })
}

/// What an answer says at one time, by labels: bits, so that -0 counts; any
/// NaN is the same.
type At = BTreeMap<Labels, u64>;

fn bits(v: f64) -> u64 {
    if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_range_query_gives_what_instant_queries_give(
        seed in any::<u64>(),
        text in vector(),
        start_s in 0i64..600,
        step_s in prop::sample::select(vec![7i64, 15, 60, 200]),
        delayed in any::<bool>(),
    ) {
        let storage = storage(seed);
        let expr = parse(&text, &ParseOptions::all()).unwrap();
        let alone = EngineOptions { delayed_name_removal: delayed, ..EngineOptions::default() };
        let helped = EngineOptions { threads: 3, share_from_samples: 0, ..alone.clone() };
        let (engine, helped) = (Engine::new(alone), Engine::new(helped));
        let options = QueryOptions::default();
        let (start, step) = (start_s * 1000, step_s * 1000);
        let end = start + 12 * step;
        let range = engine.range(&storage, &expr, &text, start, end, step, &options);
        let Ok(range) = range else {
            // Then some step has no answer either.
            let fails = (0..13).any(|i| {
                engine.instant(&storage, &expr, &text, start + i * step, &options).is_err()
            });
            // Rollups refuse equal series even at different times.
            prop_assume!(fails);
            return Ok(());
        };
        let same = helped.range(&storage, &expr, &text, start, end, step, &options).unwrap();
        prop_assert_eq!(format!("{:?}", same.value), format!("{:?}", range.value), "{}", text);
        prop_assert_eq!((same.warnings, same.infos), (range.warnings, range.infos), "{}", text);
        prop_assert_eq!(same.stats.total_samples, range.stats.total_samples, "{}", text);
        let QueryValue::Matrix(matrix) = range.value else { panic!("no matrix") };
        for i in 0..13 {
            let time = start + i * step;
            let instant = engine.instant(&storage, &expr, &text, time, &options).unwrap();
            let QueryValue::Vector(samples) = instant.value else { panic!("no vector") };
            let expected: At = samples
                .into_iter()
                .map(|s| match s.value {
                    Value::Float(v) => (s.labels, bits(v)),
                    Value::Histogram(h) => panic!("{h}"),
                })
                .collect();
            let got: At = matrix
                .iter()
                .filter_map(|s| {
                    let (_, v) = s.floats.iter().find(|(t, _)| *t == time)?;
                    Some((s.labels.clone(), bits(*v)))
                })
                .collect();
            prop_assert_eq!(got, expected, "{} at {} of {}..{}", text, time, start, end);
        }
    }
}
