//! Is what came out what was expected?

use std::fmt::Write as _;
use std::sync::Arc;

use narthex_storage::histogram::{Histogram, Span};
use narthex_storage::sample::{Value, is_stale};

use super::expect::Expected;
use crate::parse::series::SequenceValue;
use crate::quote::short_float;
use crate::value::{MatrixSeries, QueryValue, VectorSample};

/// Largest relative difference between floats that count as equal.
const EPSILON: f64 = 1e-6;

type Compared = Result<(), String>;

/// Compares the result of an instant query.
pub(super) fn instant(expected: &Expected, got: &QueryValue) -> Compared {
    match got {
        QueryValue::Scalar(_, got) => match expected.scalar {
            Some(value) if floats_equal(value, *got) => Ok(()),
            Some(value) => Err(differs(&short_float(value), &short_float(*got))),
            None => Err(differs("series", &format!("the scalar {}", short_float(*got)))),
        },
        QueryValue::String(_, got) => match &expected.string {
            Some(text) if text == got => Ok(()),
            text => Err(differs(&format!("{text:?}"), &format!("{got:?}"))),
        },
        QueryValue::Matrix(got) => {
            let Some((start_ms, end_ms, step_ms)) = expected.range_vector else {
                return Err(differs("no range vector", &describe_matrix(got)));
            };
            matrix(expected, got, start_ms, end_ms, step_ms)
        }
        QueryValue::Vector(got) => vector(expected, got),
    }
}

fn vector(expected: &Expected, got: &[VectorSample]) -> Compared {
    let fail = |what: String| {
        let got: Vec<String> =
            got.iter().map(|s| format!("{} {}", s.labels, describe(&s.value))).collect();
        Err(format!("{what}\ngot:\n  {}", got.join("\n  ")))
    };
    if let Some(scalar) = expected.scalar {
        return fail(format!("expected the scalar {}, got a vector", short_float(scalar)));
    }
    for (place, sample) in got.iter().enumerate() {
        let Some((expected_place, values)) = expected.series.get(&sample.labels) else {
            return fail(format!("unexpected series {}", sample.labels));
        };
        if expected.ordered && *expected_place != place {
            let labels = &sample.labels;
            return fail(format!("expected {labels} at place {expected_place}, got it at {place}"));
        }
        if got[..place].iter().any(|other| other.labels == sample.labels) {
            return fail(format!("series {} twice", sample.labels));
        }
        let Some(value) = values.first() else {
            return fail(format!("no value is expected of {}", sample.labels));
        };
        if !value_equal(value, &sample.value) {
            let (labels, value) = (&sample.labels, describe_expected(value));
            return fail(format!("expected {labels} {value}"));
        }
    }
    for (labels, (_, values)) in &expected.series {
        if !got.iter().any(|sample| sample.labels == *labels) {
            let value = values.first().map_or_else(String::new, describe_expected);
            return fail(format!("expected {labels} {value}, got no such series"));
        }
    }
    Ok(())
}

/// Compares the result of a range query.
pub(super) fn matrix(
    expected: &Expected,
    got: &[MatrixSeries],
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
) -> Compared {
    let fail = |what: String| Err(format!("{what}\ngot:\n{}", describe_matrix(got)));
    if expected.ordered || expected.scalar.is_some() {
        return fail("expected an ordered or scalar result, got a matrix".to_owned());
    }
    sorted(got)?;
    for series in got {
        let Some((_, values)) = expected.series.get(&series.labels) else {
            return fail(format!("unexpected series {}", series.labels));
        };
        let labels = &series.labels;
        let (mut floats, mut histograms) = (series.floats.iter(), series.histograms.iter());
        for (i, value) in values.iter().enumerate() {
            let step = i64::try_from(i).unwrap_or(i64::MAX);
            let time_ms = step_ms.saturating_mul(step).saturating_add(start_ms);
            if time_ms > end_ms {
                return fail(format!("more values are expected of {labels} than there are steps"));
            }
            let got = match value {
                SequenceValue::Omitted => continue,
                SequenceValue::Float(_) => floats.next().map(|(t, v)| (*t, Value::Float(*v))),
                SequenceValue::Histogram { .. } => {
                    histograms.next().map(|(t, h)| (*t, Value::Histogram(Arc::clone(h))))
                }
            };
            if !got.is_some_and(|(t, got)| t == time_ms && value_equal(value, &got)) {
                let value = describe_expected(value);
                return fail(format!("expected {labels} {value} at {time_ms} ms"));
            }
        }
        if floats.next().is_some() || histograms.next().is_some() {
            return fail(format!("expected less values of {labels}"));
        }
    }
    match expected.series.keys().find(|labels| !got.iter().any(|s| s.labels == **labels)) {
        Some(labels) => fail(format!("expected series {labels}, got no such series")),
        None => Ok(()),
    }
}

/// Checks that series are sorted by labels.
pub(super) fn sorted(got: &[MatrixSeries]) -> Compared {
    match got.windows(2).find(|pair| pair[0].labels > pair[1].labels) {
        Some(pair) => Err(format!(
            "expected series sorted by labels, got {} before {}",
            pair[0].labels, pair[1].labels
        )),
        None => Ok(()),
    }
}

fn value_equal(expected: &SequenceValue, got: &Value) -> bool {
    match (expected, got) {
        (SequenceValue::Float(expected), Value::Float(got)) => floats_equal(*expected, *got),
        (SequenceValue::Histogram { value, hint_written }, Value::Histogram(got)) => {
            histograms_equal(value, got)
                && (!hint_written || value.counter_reset_hint == got.counter_reset_hint)
        }
        // Upstream's runner takes an omitted value for 0.
        (SequenceValue::Omitted, Value::Float(got)) => floats_equal(0.0, *got),
        _ => false,
    }
}

/// Whether two floats are equal but for rounding.
fn floats_equal(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let difference = (a - b).abs();
    let sum = a.abs() + b.abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

fn histograms_equal(expected: &Histogram, got: &Histogram) -> bool {
    let (mut a, mut b) = (expected.clone(), got.clone());
    a.compact(0);
    b.compact(0);
    let buckets_equal = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| floats_equal(*a, *b))
    };
    a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && (!a.uses_custom_buckets() || a.custom_values == b.custom_values)
        && floats_equal(a.count, b.count)
        && floats_equal(a.sum, b.sum)
        && floats_equal(a.zero_count, b.zero_count)
        && spans_equal(&a.positive_spans, &b.positive_spans)
        && spans_equal(&a.negative_spans, &b.negative_spans)
        && buckets_equal(&a.positive_buckets, &b.positive_buckets)
        && buckets_equal(&a.negative_buckets, &b.negative_buckets)
}

/// Whether the same buckets are covered, however the spans are cut.
fn spans_equal(a: &[Span], b: &[Span]) -> bool {
    let covered = |spans: &[Span]| {
        let mut covered: Vec<(i64, i64)> = Vec::new();
        let mut index = 0_i64;
        for span in spans {
            let first = index + i64::from(span.offset);
            index = first + i64::from(span.length);
            match covered.last_mut() {
                _ if first == index => {}
                Some(last) if last.1 == first => last.1 = index,
                _ => covered.push((first, index)),
            }
        }
        covered
    };
    covered(a) == covered(b)
}

fn differs(expected: &str, got: &str) -> String {
    format!("expected {expected}\ngot {got}")
}

fn describe(value: &Value) -> String {
    match value {
        Value::Float(v) if is_stale(*v) => "stale".to_owned(),
        Value::Float(v) => short_float(*v),
        Value::Histogram(h) => h.to_literal(),
    }
}

fn describe_expected(value: &SequenceValue) -> String {
    match value {
        SequenceValue::Omitted => "_".to_owned(),
        SequenceValue::Float(v) => describe(&Value::Float(*v)),
        SequenceValue::Histogram { value, .. } => value.to_literal(),
    }
}

fn describe_matrix(got: &[MatrixSeries]) -> String {
    let mut out = String::new();
    for series in got {
        let _ = write!(out, "  {}", series.labels);
        for (t, v) in &series.floats {
            let _ = write!(out, " {}@{t}", describe(&Value::Float(*v)));
        }
        for (t, h) in &series.histograms {
            let _ = write!(out, " {}@{t}", h.to_literal());
        }
        out.push('\n');
    }
    out
}
