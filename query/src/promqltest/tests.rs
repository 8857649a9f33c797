use super::*;
use crate::value::{Lease, MatrixSeries, QueryStats};
use narthex_storage::read::{Column, Queryable as _};

/// Answers a selector by its newest sample, a number by itself, and adds what
/// the query's metric name asks for.
struct Newest;

fn result(value: QueryValue, warnings: Vec<String>) -> QueryResult {
    QueryResult {
        value,
        warnings,
        infos: Vec::new(),
        stats: QueryStats::default(),
        samples_per_step: Vec::new(),
        lease: Lease::default(),
    }
}

impl Newest {
    fn samples(storage: &MemoryStorage, expr: &Expr, time_ms: i64) -> Vec<VectorSample> {
        let crate::ast::ExprKind::Vector(selector) = &expr.kind else { return Vec::new() };
        let time_ms = match selector.at {
            Some(crate::ast::AtModifier::At(t)) => t,
            _ => time_ms,
        };
        let querier = storage.querier(time_ms - 299_999, time_ms).expect("memory");
        let mut samples = Vec::new();
        for series in querier.select(&selector.matchers, true).expect("memory") {
            let mut column = Column::new();
            querier.read(series, i64::MIN, time_ms, &mut column).expect("memory");
            let position = column.len() - 1;
            let histogram = column
                .histograms
                .iter()
                .find(|(i, _)| *i as usize == position)
                .map(|(_, h)| h.clone());
            let value = histogram.map_or(Value::Float(column.floats[position]), Value::Histogram);
            let labels = querier.labels(series).expect("memory");
            samples.push(VectorSample { labels, timestamp_ms: time_ms, value });
        }
        samples
    }
}

impl Evaluator for Newest {
    fn instant(
        &self,
        storage: &MemoryStorage,
        expr: &Expr,
        text: &str,
        time_ms: i64,
    ) -> Result<QueryResult, String> {
        if text.contains("failing") {
            return Err("it failed".to_owned());
        }
        let warnings = if text.contains("warning") {
            vec!["PromQL warning: beware".to_owned()]
        } else {
            Vec::new()
        };
        Ok(match &expr.kind {
            crate::ast::ExprKind::Number(n) => {
                result(QueryValue::Scalar(time_ms, n.value), warnings)
            }
            crate::ast::ExprKind::String(s) => {
                result(QueryValue::String(time_ms, s.clone()), warnings)
            }
            _ => result(QueryValue::Vector(Self::samples(storage, expr, time_ms)), warnings),
        })
    }

    fn range(
        &self,
        storage: &MemoryStorage,
        expr: &Expr,
        _text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<QueryResult, String> {
        let mut series: std::collections::BTreeMap<Labels, MatrixSeries> = Default::default();
        let mut time_ms = start_ms;
        while time_ms <= end_ms {
            let samples = match &expr.kind {
                crate::ast::ExprKind::Number(n) => vec![VectorSample {
                    labels: Labels::empty(),
                    timestamp_ms: time_ms,
                    value: Value::Float(n.value),
                }],
                _ => Self::samples(storage, expr, time_ms),
            };
            for sample in samples {
                let entry = series.entry(sample.labels.clone()).or_default();
                entry.labels = sample.labels;
                match sample.value {
                    Value::Float(v) => entry.floats.push((time_ms, v)),
                    Value::Histogram(h) => entry.histograms.push((time_ms, h)),
                }
            }
            time_ms += step_ms;
        }
        Ok(result(QueryValue::Matrix(series.into_values().collect()), Vec::new()))
    }
}

const LOAD: &str =
    "load 1m\n  a{x=\"1\"} 1 2 3\n  a{x=\"2\"} 10 _ 30\n  h {{count:3 sum:4 buckets:[1 2]}}x2\n\n";

fn outcome(case: &str) -> Report {
    run(&format!("{LOAD}{case}"), "test", &Newest)
}

#[test]
fn what_is_as_expected_passes() {
    for case in [
        "eval instant at 2m a\n a{x=\"1\"} 3\n a{x=\"2\"} 30\n",
        "eval instant at 1m a\n a{x=\"2\"} 10\n # ends the block\n a{x=\"1\"} 2\n",
        "eval range from 0 to 2m step 1m a{x=\"2\"}\n a{x=\"2\"} 10 10 30\n",
        "eval instant at 5m 1.0000001\n 1\neval instant at 0 2\n 2\n",
        "eval instant at 0 \"a\\n\"\n expect string \"a\\n\"\n",
        "eval instant at 2m h\n h {{count:3 sum:4 buckets:[1 2 0]}}\n",
        "eval instant at 0 failing\n expect fail msg:it failed\n",
        "eval_fail instant at 0 failing\n expected_fail_regexp fai.*d\n",
        "eval instant at 0 warning\n expect warn regex:be\n",
        "eval instant at 0 nothing\n",
        "clear\neval instant at 1m a\n",
    ] {
        let report = outcome(case);
        if case.contains("# ends") {
            // What stands behind the comment is a command of its own.
            assert_eq!((report.passed, report.failed), (0, 2), "{case}: {:?}", report.failures);
        } else {
            assert_eq!(report.failed, 0, "{case}: {:?}", report.failures);
            assert!(report.passed > 0);
        }
    }
}

#[test]
fn what_is_not_as_expected_fails() {
    for case in [
        "eval instant at 2m a\n a{x=\"1\"} 3\n a{x=\"2\"} 31\n",
        "eval instant at 2m a\n a{x=\"1\"} 3\n",
        "eval instant at 2m a\n a{x=\"1\"} 3\n a{x=\"2\"} 30\n a{x=\"3\"} 30\n",
        "eval instant at 2m a\n expect ordered\n a{x=\"2\"} 30\n a{x=\"1\"} 3\n",
        "eval instant at 2m a\n 3\n",
        "eval instant at 2m 3\n a 3\n",
        "eval instant at 2m 3\n 4\n",
        "eval range from 0 to 2m step 1m a{x=\"2\"}\n a{x=\"2\"} 10 _ 30\n",
        "eval range from 0 to 1m step 1m a{x=\"2\"}\n a{x=\"2\"} 10 10 30\n",
        "eval range from 0 to 2m step 1m a{x=\"2\"}\n a{x=\"2\"} 10 10\n",
        "eval instant at 0 \"a\"\n expect string \"b\"\n",
        "eval instant at 2m h\n h {{count:3 sum:4 buckets:[1 3]}}\n",
        "eval instant at 2m h\n h {{count:3 sum:4 buckets:[1 2] counter_reset_hint:gauge}}\n",
        "eval instant at 2m h\n h 3\n",
        "eval instant at 0 failing\n",
        "eval instant at 0 failing\n expect fail msg:it succeeded\n",
        "eval instant at 0 nothing\n expect fail\n",
        "eval instant at 0 warning\n expect no_warn\n",
        "eval instant at 0 nothing\n expect warn\n",
        "eval instant at 0 nothing\n expect info\n",
        "eval instant at 0 warning\n expect warn msg:other\n",
        "eval instant at 0 a b\n",
        "eval instant now a\n",
        "load 1m\n a 1x\n",
        "load 0\n a 1 2\n",
        "nonsense\n",
    ] {
        let report = outcome(case);
        assert_eq!((report.passed, report.failed), (0, 1), "{case}: {:?}", report.failures);
        assert_eq!(report.failures[0].line, 6, "{case}");
    }
}

#[test]
fn pinned_queries_keep_their_meaning() {
    let pinned = |text: &str| {
        let expr = parse(text, &ParseOptions::all()).expect("valid");
        pin::pinned(&expr, 1500).map(|e| e.to_string())
    };
    for (text, expected) in [
        ("a + rate(b[5m] offset 1m)", Some("a @ 1.500 + rate(b[5m] @ 1.500 offset 1m)")),
        ("a @ 7", Some("a @ 7.000")),
        ("a @ end()", Some("a @ 1.500")),
        ("sum_over_time(a[5m:1m])", Some("sum_over_time(a[5m:1m] @ 1.500)")),
        (
            "sum_over_time(vector(time())[5m:1m])",
            Some("sum_over_time(vector(time())[5m:1m] @ 1.500)"),
        ),
        ("a + time()", None),
        ("1", Some("1")),
    ] {
        assert_eq!(pinned(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn custom_buckets_are_made_of_classic_ones() {
    let script = "load_with_nhcb 1m\n  h_bucket{le=\"0.5\"} 1\n  h_bucket{le=\"+Inf\"} 3\n  \
                  h_bucket{le=\"5e-1\"} 1\n  h_bucket{le=\"x\"} 7\n  h_sum 4\n\n\
                  eval instant at 0 h\n  h {{schema:-53 count:3 sum:4 custom_values:[0.5] buckets:[1 2]}}\n";
    assert_eq!(run(script, "test", &Newest).failures, []);
}
