//! Does the engine answer as it should? Runs scripts that load samples, ask
//! queries, and say what must come out: the format of Prometheus' own test
//! scripts.
//!
//! [`run`] counts each `eval` block once and never stops at the first failure.
//! Instant cases are also asked as range queries, and with every selector
//! pinned to the time by `@`; all of these must agree. A block that cannot be
//! read fails alone.

mod compare;
mod engine;
mod expect;
mod load;
mod pin;
mod script;
#[cfg(test)]
mod tests;

use std::fmt;

pub use engine::script_engine;

use crate::ast::Expr;
use crate::memory::MemoryStorage;
use crate::parse::{ParseOptions, parse};
use crate::value::{QueryResult, QueryValue, VectorSample};
use narthex_storage::labels::Labels;
use narthex_storage::sample::Value;

use script::{Command, Eval, When};

/// Answers the queries of a script.
pub trait Evaluator {
    /// Evaluates `expr`, made from `text`, at one time.
    ///
    /// # Errors
    ///
    /// The engine's message, without what an API puts before it.
    fn instant(
        &self,
        storage: &MemoryStorage,
        expr: &Expr,
        text: &str,
        time_ms: i64,
    ) -> Result<QueryResult, String>;

    /// Evaluates `expr` at each step of `start_ms..=end_ms`.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::instant`].
    fn range(
        &self,
        storage: &MemoryStorage,
        expr: &Expr,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<QueryResult, String>;
}

/// What a script came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Name of the script, as given.
    pub name: String,
    /// Cases that came out as expected.
    pub passed: usize,
    /// Cases that did not; a load that fails counts as one.
    pub failed: usize,
    /// One for each failed case, in order.
    pub failures: Vec<Failure>,
}

/// A case that did not come out as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The line of the script, from 1.
    pub line: usize,
    /// The command as written.
    pub command: String,
    /// What is wrong: expected and got.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}\n  {}", self.line, self.command, self.reason.replace('\n', "\n  "))
    }
}

/// Runs a script over an empty storage.
///
/// `name` is only noted in the report.
#[must_use]
pub fn run(text: &str, name: &str, evaluator: &dyn Evaluator) -> Report {
    let mut report = Report { name: name.to_owned(), ..Report::default() };
    let storage = MemoryStorage::new();
    for (line, command, parsed) in script::parse(text) {
        let outcome = match parsed {
            Ok(Command::Clear) => {
                storage.clear();
                continue;
            }
            Ok(Command::Load(load)) => match load.append_to(&storage) {
                Ok(()) => continue,
                Err(reason) => Err(reason),
            },
            Ok(Command::Eval(eval)) => check(&eval, &storage, evaluator),
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(()) => report.passed += 1,
            Err(reason) => {
                report.failed += 1;
                report.failures.push(Failure { line, command, reason });
            }
        }
    }
    report
}

/// Asks the query in all the ways there are, until one answer is wrong.
fn check(eval: &Eval, storage: &MemoryStorage, evaluator: &dyn Evaluator) -> Result<(), String> {
    let expr = parse(&eval.query, &ParseOptions::all()).map_err(|e| e.to_string())?;
    match eval.when {
        When::Range { start_ms, end_ms, step_ms } => {
            let result = evaluator.range(storage, &expr, &eval.query, start_ms, end_ms, step_ms);
            let Some(result) = eval.expected.outcome(result)? else { return Ok(()) };
            eval.expected.annotations(&result)?;
            compare::matrix(&eval.expected, &as_matrix(result.value), start_ms, end_ms, step_ms)
        }
        When::Instant { time_ms } => {
            check_instant(eval, storage, evaluator, &expr, &eval.query, time_ms)?;
            let Some(pinned) = pin::pinned(&expr, time_ms) else { return Ok(()) };
            let text = pinned.to_string();
            let pinned = parse(&text, &ParseOptions::all())
                .map_err(|e| format!("pinned query {text}: {e}"))?;
            for time_ms in pin::times(time_ms) {
                check_instant(eval, storage, evaluator, &pinned, &text, time_ms)
                    .map_err(|reason| format!("as {text} at {time_ms} ms: {reason}"))?;
            }
            Ok(())
        }
    }
}

fn check_instant(
    eval: &Eval,
    storage: &MemoryStorage,
    evaluator: &dyn Evaluator,
    expr: &Expr,
    text: &str,
    time_ms: i64,
) -> Result<(), String> {
    let expected = &eval.expected;
    let result = evaluator.instant(storage, expr, text, time_ms);
    let Some(result) = expected.outcome(result)? else { return Ok(()) };
    expected.annotations(&result)?;
    let scalar = matches!(result.value, QueryValue::Scalar(..));
    compare::instant(expected, &result.value)?;
    if expected.only_instant() || pin::asks_for_range(text) {
        return Ok(());
    }
    let in_range_mode = |reason: String| format!("in range mode: {reason}");
    let (start_ms, end_ms) = (time_ms - MINUTE_MS, time_ms + MINUTE_MS);
    let result = evaluator
        .range(storage, expr, text, start_ms, end_ms, MINUTE_MS)
        .map_err(|e| in_range_mode(format!("error: {e}")))?;
    if expected.ordered {
        return Ok(());
    }
    let matrix = as_matrix(result.value);
    compare::sorted(&matrix).map_err(in_range_mode)?;
    let value = at_time(matrix, time_ms, scalar);
    compare::instant(expected, &value).map_err(in_range_mode)
}

const MINUTE_MS: i64 = 60_000;

/// What stands at one step of a matrix, as an instant query would give it.
fn at_time(matrix: Vec<crate::value::MatrixSeries>, time_ms: i64, scalar: bool) -> QueryValue {
    let samples = matrix.into_iter().flat_map(|series| {
        let floats = series.floats.into_iter().map(|(t, v)| (t, Value::Float(v)));
        let histograms = series.histograms.into_iter().map(|(t, h)| (t, Value::Histogram(h)));
        let labels = series.labels;
        floats
            .chain(histograms)
            .filter(move |(t, _)| *t == time_ms)
            .map(move |(t, value)| VectorSample { labels: labels.clone(), timestamp_ms: t, value })
    });
    let samples: Vec<VectorSample> = samples.collect();
    match samples.first() {
        Some(VectorSample { value: Value::Float(v), .. }) if scalar => {
            QueryValue::Scalar(time_ms, *v)
        }
        _ => QueryValue::Vector(samples),
    }
}

/// The series of a range query's result; a scalar is a series without labels.
fn as_matrix(value: QueryValue) -> Vec<crate::value::MatrixSeries> {
    match value {
        QueryValue::Matrix(series) => series,
        QueryValue::Scalar(timestamp_ms, v) => vec![crate::value::MatrixSeries {
            labels: Labels::empty(),
            floats: vec![(timestamp_ms, v)],
            histograms: Vec::new(),
        }],
        QueryValue::Vector(_) | QueryValue::String(..) => Vec::new(),
    }
}
