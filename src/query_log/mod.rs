//! Which queries were asked, and what did they cost?
//!
//! [`QueryLog`] hears of every query of the API and of rules when it has
//! ended: it writes `query_log_file`, a line of JSON each with the fields that
//! Prometheus writes, and logs what was slow. [`ActiveQueries`] knows those
//! that run, also after the process was killed.

mod active;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use narthex_query::value::QueryStats;
use serde_json::{Map, Value, json};

use crate::metrics::{Counter, Gauge, Registry};

pub use active::{ActiveQueries, ActiveQuery};

/// Hears of queries. Cheap where neither a file is set nor a query is slow.
#[derive(Debug)]
pub struct QueryLog {
    file: Mutex<Option<(PathBuf, File)>>,
    slower_than: Option<Duration>,
    enabled: Gauge,
    failures: Counter,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A request.
    Request {
        /// Address of the client, without its port.
        client_ip: String,
        /// `GET` or `POST`.
        method: String,
        /// Of the URL.
        path: String,
    },
    /// A rule.
    RuleGroup {
        /// The group's file.
        file: String,
        /// The group's name.
        name: String,
    },
}

/// A query that has ended. Times are in milliseconds since the Unix epoch; a
/// `step_ms` of 0 is an instant query.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'q> {
    /// What was asked.
    pub text: &'q str,
    /// The first step.
    pub start_ms: i64,
    /// The end of the range.
    pub end_ms: i64,
    /// Between steps.
    pub step_ms: i64,
    /// Who asked.
    pub origin: &'q Origin,
    /// How long it waited for its turn.
    pub queued: Duration,
    /// How long it ran.
    pub took: Duration,
    /// What it cost, or why it failed.
    pub outcome: Result<&'q QueryStats, &'q str>,
}

impl QueryLog {
    /// A log without a file; queries that take longer than `slower_than` are
    /// logged in any case.
    ///
    /// # Panics
    ///
    /// If its metrics are in `registry` already.
    #[must_use]
    pub fn new(slower_than: Option<Duration>, registry: &Registry) -> Self {
        Self {
            file: Mutex::default(),
            slower_than,
            enabled: registry
                .gauge("prometheus_engine_query_log_enabled", "State of the query log."),
            failures: registry.register(
                "prometheus_engine_query_log_failures_total",
                "The number of query log failures.",
                Counter::default(),
            ),
        }
    }

    /// Writes to this file from now on, or to none. The same file is opened
    /// again, as it may have been moved away.
    ///
    /// # Errors
    ///
    /// What the system says; the file before stays in use.
    pub fn set_file(&self, path: Option<&Path>) -> io::Result<()> {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).open(path)?;
            Ok::<_, io::Error>((path.to_owned(), file))
        };
        let next = path.map(open).transpose()?;
        self.enabled.set(if next.is_some() { 1.0 } else { 0.0 });
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Notes a query.
    pub fn note(&self, query: &Ended<'_>) {
        if self.slower_than.is_some_and(|limit| query.took > limit) {
            let samples = query.outcome.map_or(0, |stats| stats.total_samples);
            tracing::warn!(
                query = query.text,
                took_s = query.took.as_secs_f64(),
                queued_s = query.queued.as_secs_f64(),
                samples,
                start_ms = query.start_ms,
                end_ms = query.end_ms,
                step_ms = query.step_ms,
                error = query.outcome.err().unwrap_or(""),
                "slow query"
            );
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((path, file)) = &mut *file else { return };
        let mut line = line_of(query, Utc::now()).to_string();
        line.push('\n');
        if let Err(error) = file.write_all(line.as_bytes()) {
            self.failures.inc();
            tracing::debug!(%error, path = %path.display(), "query log not written");
        }
    }
}

/// The line of a query.
fn line_of(query: &Ended<'_>, now: DateTime<Utc>) -> Value {
    let time = |ms: i64| {
        DateTime::from_timestamp_millis(ms)
            .map_or_else(String::new, |t| t.to_rfc3339_opts(SecondsFormat::Millis, true))
    };
    let mut line = Map::new();
    line.insert("time".into(), now.to_rfc3339_opts(SecondsFormat::Nanos, true).into());
    line.insert("level".into(), "INFO".into());
    line.insert("msg".into(), "promql query logged".into());
    // Seconds; Prometheus cuts fractions off.
    let params = json!({
        "end": time(query.end_ms), "query": query.text,
        "start": time(query.start_ms), "step": query.step_ms / 1000,
    });
    line.insert("params".into(), params);
    if let Err(error) = query.outcome {
        line.insert("error".into(), error.into());
    }
    let stats = query.outcome.copied().unwrap_or_default();
    let took_s = query.took.as_secs_f64();
    let timings = json!({
        "evalTotalTime": took_s, "resultSortTime": 0.0,
        "queryPreparationTime": stats.prepare_s, "innerEvalTime": stats.eval_s,
        "execQueueTime": query.queued.as_secs_f64(), "execTotalTime": took_s,
    });
    let samples = json!({
        "totalQueryableSamples": stats.total_samples, "peakSamples": stats.peak_samples,
    });
    line.insert("stats".into(), json!({"timings": timings, "samples": samples}));
    let (name, origin) = match query.origin {
        Origin::Request { client_ip, method, path } => {
            ("httpRequest", json!({"clientIP": client_ip, "method": method, "path": path}))
        }
        Origin::RuleGroup { file, name } => ("ruleGroup", json!({"file": file, "name": name})),
    };
    line.insert(name.into(), origin);
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended<'q>(origin: &'q Origin, outcome: Result<&'q QueryStats, &'q str>) -> Ended<'q> {
        Ended {
            text: "sum(\"x\")",
            start_ms: 1_700_000_000_000,
            end_ms: 1_700_000_060_500,
            step_ms: 15_000,
            origin,
            queued: Duration::from_millis(1),
            took: Duration::from_millis(20),
            outcome,
        }
    }

    #[test]
    fn a_line_has_what_was_asked_by_whom_and_what_it_cost() {
        let origin = Origin::Request {
            client_ip: "127.0.0.1".into(),
            method: "GET".into(),
            path: "/api/v1/query_range".into(),
        };
        let stats = QueryStats { total_samples: 7, ..QueryStats::default() };
        let line = line_of(&ended(&origin, Ok(&stats)), DateTime::UNIX_EPOCH);
        assert_eq!(
            line["params"],
            json!({
                "query": "sum(\"x\")", "start": "2023-11-14T22:13:20.000Z",
                "end": "2023-11-14T22:14:20.500Z", "step": 15,
            })
        );
        assert_eq!(line["stats"]["samples"]["totalQueryableSamples"], 7);
        assert_eq!(line["httpRequest"]["clientIP"], "127.0.0.1");
        let origin = Origin::RuleGroup { file: "r.yml".into(), name: "g".into() };
        let line = line_of(&ended(&origin, Err("no")), DateTime::UNIX_EPOCH);
        assert_eq!((&line["error"], &line["ruleGroup"]["name"]), (&json!("no"), &json!("g")));
    }

    #[test]
    fn a_file_is_appended_to_until_there_is_none() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("queries.log");
        let log = QueryLog::new(None, &Registry::default());
        let origin = Origin::RuleGroup { file: "r.yml".into(), name: "g".into() };
        let note = || log.note(&ended(&origin, Err("no")));
        note();
        for lines in [1, 2] {
            log.set_file(Some(&path)).expect("opens");
            note();
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            assert_eq!(text.lines().count(), lines);
        }
        log.set_file(None).expect("closes");
        note();
        assert_eq!(std::fs::read_to_string(&path).expect("UTF-8").lines().count(), 2);
        assert!(log.set_file(Some(directory.path())).is_err());
    }
}
