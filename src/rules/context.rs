//! What do groups stand on? Queries, storage, notifications, settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use narthex_query::ast::Expr;
use narthex_query::engine::{Engine, QueryOptions};
use narthex_query::parse::{ParseOptions, parse};
use narthex_query::value::{QueryStats, QueryValue, VectorSample};
use narthex_storage::append::Appendable;
use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Column, Queryable};
use narthex_storage::sample::Value;

use super::metrics::RuleMetrics;
use crate::notify::Notify;
use crate::query_log::{Ended, Origin, QueryLog};

/// Answers the queries of rules and templates.
pub trait Query: Send + Sync {
    /// The vector that `expr` gives at `time_ms`; a scalar as one series
    /// without labels. `text` is the canonical text of `expr`.
    ///
    /// # Errors
    ///
    /// Why there is none, in Prometheus' words.
    fn instant(&self, expr: &Expr, text: &str, time_ms: i64) -> Result<Vec<VectorSample>, String>;

    /// The same for a text, as templates pass it.
    ///
    /// # Errors
    ///
    /// As [`Query::instant`], or that the text is no expression.
    fn text(&self, text: &str, time_ms: i64) -> Result<Vec<VectorSample>, String>;

    /// Time and value of the newest float sample in `start_ms..=end_ms` of
    /// each series that has all of `labels`, with the series' labels.
    ///
    /// # Errors
    ///
    /// Why the storage could not be read.
    fn newest(
        &self,
        labels: &Labels,
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<(Labels, i64, f64)>, String>;
}

/// What all groups share.
#[derive(Clone)]
pub struct Context {
    /// Answers queries.
    pub query: Arc<dyn Query>,
    /// Takes what rules record.
    pub appendable: Arc<dyn Appendable>,
    /// Takes alerts.
    pub notify: Arc<dyn Notify>,
    /// `global.external_labels`
    pub external_labels: Labels,
    /// `$externalURL`, and what links to expressions begin with.
    pub external_url: String,
    /// What the template functions `externalURL` and `pathPrefix` see; `None`
    /// makes them an error, as in unit tests.
    pub template_url: Option<String>,
    /// `global.rule_query_offset`, in milliseconds.
    pub query_offset_ms: i64,
    /// `--rules.alert.resend-delay`, in milliseconds.
    pub resend_delay_ms: i64,
    /// `--rules.alert.for-outage-tolerance`, in milliseconds.
    pub outage_tolerance_ms: i64,
    /// `--rules.alert.for-grace-period`, in milliseconds.
    pub for_grace_ms: i64,
    /// Rules of one group that may run beside each other; `None`: one after
    /// the other.
    pub concurrent_rules: Option<Arc<super::batch::Permits>>,
    /// Where things are counted.
    pub metrics: RuleMetrics,
}

/// The engine over the storage.
#[derive(Clone)]
pub struct EngineQuery {
    /// Evaluates.
    pub engine: Arc<Engine>,
    /// Holds the data.
    pub queryable: Arc<dyn Queryable>,
    /// Which experimental parts of PromQL templates may use.
    pub parse: ParseOptions,
    /// Hears of the queries of a group.
    pub log: Option<(Arc<QueryLog>, Origin)>,
}

impl EngineQuery {
    /// The same for the rules of a group.
    #[must_use]
    pub fn of_group(&self, file: &str, name: &str) -> Self {
        let origin = Origin::RuleGroup { file: file.to_owned(), name: name.to_owned() };
        let log = self.log.as_ref().map(|(log, _)| (Arc::clone(log), origin));
        Self { log, ..self.clone() }
    }

    fn note(&self, text: &str, time_ms: i64, began: Instant, result: Result<&QueryStats, &str>) {
        if let Some((log, origin)) = &self.log {
            log.note(&Ended {
                text,
                start_ms: time_ms,
                end_ms: time_ms,
                step_ms: 0,
                origin,
                queued: Duration::ZERO,
                took: began.elapsed(),
                outcome: result,
            });
        }
    }
}

impl Query for EngineQuery {
    fn instant(&self, expr: &Expr, text: &str, time_ms: i64) -> Result<Vec<VectorSample>, String> {
        let options = QueryOptions::default();
        let began = Instant::now();
        let result = self
            .engine
            .instant(&*self.queryable, expr, text, time_ms, &options)
            .map_err(|error| error.to_string());
        let outcome = result.as_ref().map(|r| &r.stats).map_err(String::as_str);
        self.note(text, time_ms, began, outcome);
        let result = result?;
        match result.value {
            QueryValue::Vector(vector) => Ok(vector),
            QueryValue::Scalar(timestamp_ms, value) => {
                let value = Value::Float(value);
                Ok(vec![VectorSample { labels: Labels::empty(), timestamp_ms, value }])
            }
            QueryValue::String(..) | QueryValue::Matrix(_) => {
                Err("rule result is not a vector or scalar".to_owned())
            }
        }
    }

    fn text(&self, text: &str, time_ms: i64) -> Result<Vec<VectorSample>, String> {
        let expr = parse(text, &self.parse).map_err(|error| error.to_string())?;
        self.instant(&expr, text, time_ms)
    }

    fn newest(
        &self,
        labels: &Labels,
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<(Labels, i64, f64)>, String> {
        let matchers: Vec<Matcher> =
            labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
        let querier = self.queryable.querier(start_ms, end_ms).map_err(|e| e.to_string())?;
        let mut column = Column::new();
        let mut found = Vec::new();
        for series in querier.select(&matchers, false).map_err(|e| e.to_string())? {
            querier.read(series, start_ms, end_ms, &mut column).map_err(|e| e.to_string())?;
            if let (Some(&time_ms), Some(&value)) =
                (column.timestamps().last(), column.floats.last())
            {
                let labels = querier.labels(series).map_err(|e| e.to_string())?;
                found.push((labels, time_ms, value));
            }
        }
        Ok(found)
    }
}
