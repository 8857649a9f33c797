//! Queries: `query`, `query_range`, `query_exemplars`, `format_query`,
//! `parse_query`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, State};
use axum::http::request::Parts;
use narthex_query::ast::Expr;
use narthex_query::engine::{CancelToken, QueryError, QueryOptions};
use narthex_query::parse;
use narthex_query::print;
use narthex_query::value::{QueryResult, QueryValue};
use narthex_storage::sample::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::envelope::{Answer, ApiError, ErrorType};
use super::json::{
    SampleWriter, push_array, push_histogram_sample, push_labels, push_sample, push_string,
};
use super::number::{push_float, push_timestamp, push_timestamp_float};
use super::params::Params;
use super::quick::{self, Key};
use super::{Api, TRUNCATED};
use crate::metrics::Gauge;
use crate::query_log::{Ended, Origin};

/// The most steps a range query may have.
const MAX_STEPS: i64 = 11_000;

/// `GET, POST /api/v1/query`.
pub async fn instant(
    State(api): State<Arc<Api>>,
    Asker(origin): Asker,
    params: Params,
) -> Result<Answer, ApiError> {
    let time_ms = params.time_ms("time")?.unwrap_or_else(|| api.clock.now_ms());
    let form = Form::of(&params)?;
    let options = query_options(&api, &params)?;
    let (text, expr) = parse_query(&api, &params)?;
    let asked = Asked { text, start_ms: time_ms, end_ms: time_ms, step_ms: 0, origin, form };
    run(&api, options, asked, move |api, asked, options| {
        api.engine.instant(&*api.queryable, &expr, &asked.text, time_ms, options)
    })
    .await
}

/// `GET, POST /api/v1/query_range`.
pub async fn range(
    State(api): State<Arc<Api>>,
    Asker(origin): Asker,
    params: Params,
) -> Result<Answer, ApiError> {
    let start_ms = params.required_time_ms("start")?;
    let end_ms = params.required_time_ms("end")?;
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ms = params.required_duration_ms("step")?;
    if step_ms <= 0 {
        return Err(ApiError::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if (end_ms.saturating_sub(start_ms)) / step_ms > MAX_STEPS {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ));
    }
    let form = Form::of(&params)?;
    let options = query_options(&api, &params)?;
    let (text, expr) = parse_query(&api, &params)?;
    let asked = Asked { text, start_ms, end_ms, step_ms, origin, form };
    run(&api, options, asked, move |api, asked, options| {
        let (text, queryable) = (&asked.text, &*api.queryable);
        api.engine.range(queryable, &expr, text, start_ms, end_ms, step_ms, options)
    })
    .await
}

/// `GET, POST /api/v1/query_exemplars`.
pub async fn exemplars(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let start_ms = params.time_ms("start")?.unwrap_or(i64::MIN);
    let end_ms = params.time_ms("end")?.unwrap_or(i64::MAX);
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start timestamp"));
    }
    let (_, expr) = parse_query(&api, &params)?;
    let options = query_options(&api, &params)?;
    let slot = slot(&api, &options).await?;
    api.blocking(move |api| {
        let _slot = slot;
        let selectors = expr.selectors();
        if selectors.is_empty() {
            return Ok(Answer::with(|out| out.extend_from_slice(b"[]")));
        }
        let querier = api.queryable.querier(start_ms, end_ms)?;
        let found = querier.exemplars(&selectors, start_ms, end_ms)?;
        Ok(Answer::with(|out| {
            push_array(out, &found, |out, (labels, exemplars)| {
                out.extend_from_slice(b"{\"seriesLabels\":");
                push_labels(out, labels);
                out.extend_from_slice(b",\"exemplars\":");
                push_array(out, exemplars, |out, exemplar| {
                    out.extend_from_slice(b"{\"labels\":");
                    push_labels(out, &exemplar.labels);
                    out.extend_from_slice(b",\"value\":\"");
                    push_float(out, exemplar.value);
                    out.extend_from_slice(b"\",\"timestamp\":");
                    push_timestamp(out, exemplar.timestamp_ms);
                    out.push(b'}');
                });
                out.push(b'}');
            });
        }))
    })
    .await
}

/// `GET, POST /api/v1/format_query`.
pub async fn format(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let (_, expr) = parse_query(&api, &params)?;
    Ok(Answer::with(|out| push_string(out, &print::pretty(&expr))))
}

/// `GET, POST /api/v1/parse_query`.
pub async fn syntax_tree(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let (_, expr) = parse_query(&api, &params)?;
    Ok(Answer::with(|out| out.extend_from_slice(print::to_json(&expr).as_bytes())))
}

fn parse_query(api: &Api, params: &Params) -> Result<(String, Expr), ApiError> {
    let text = params.get("query").unwrap_or("").to_owned();
    let expr =
        parse::parse(&text, &api.parse_options).map_err(|e| ApiError::parameter("query", e))?;
    Ok((text, expr))
}

fn query_options(api: &Api, params: &Params) -> Result<QueryOptions, ApiError> {
    let timeout = match params.duration_ms("timeout")? {
        Some(ms) => {
            Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(api.options.query.timeout)
        }
        None => api.options.query.timeout,
    };
    Ok(QueryOptions {
        lookback_ms: params.duration_ms("lookback_delta")?,
        per_step: api.options.features.per_step_stats && params.get("stats") == Some("all"),
        timeout: Some(timeout),
        fresh: params.get("stats").is_some(),
        ..QueryOptions::default()
    })
}

/// How the client wants the answer.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// Most series; 0: all.
    limit: usize,
    /// With statistics.
    stats: bool,
}

impl Form {
    fn of(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { limit: params.limit("limit")?, stats: params.get("stats").is_some() })
    }
}

/// A query, who asked it, and how the answer shall look.
struct Asked {
    text: String,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
    origin: Origin,
    form: Form,
}

/// Who sent the request.
pub struct Asker(Origin);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let path = parts.extensions.get::<MatchedPath>();
        Ok(Self(Origin::Request {
            client_ip: peer.map_or_else(String::new, |peer| peer.0.ip().to_string()),
            method: parts.method.as_str().to_owned(),
            path: path.map_or_else(String::new, |path| path.as_str().to_owned()),
        }))
    }
}

/// Cancels the evaluation when the request's future is dropped: the client
/// went away.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Counts a query from when it is asked until it has ended.
struct Counted(Gauge);

impl Counted {
    fn new(queries: &Gauge) -> Self {
        queries.add(1.0);
        Self(queries.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// Waits until fewer than `--query.max-concurrency` queries run.
async fn slot(api: &Api, options: &QueryOptions) -> Result<OwnedSemaphorePermit, ApiError> {
    let timeout = options.timeout.unwrap_or(api.options.query.timeout);
    tokio::time::timeout(timeout, Arc::clone(&api.query_slots).acquire_owned())
        .await
        .map_err(|_| ApiError::new(ErrorType::Timeout, "query timed out in query queue"))?
        .map_err(|_| ApiError::new(ErrorType::Unavailable, "narthex is stopping"))
}

/// Waits for a query slot, then evaluates: here if that took little the last
/// time, else off the runtime.
async fn run(
    api: &Arc<Api>,
    options: QueryOptions,
    asked: Asked,
    evaluate: impl Fn(&Api, &Asked, &QueryOptions) -> Result<QueryResult, QueryError> + Send + 'static,
) -> Result<Answer, ApiError> {
    let counted = Counted::new(&api.metrics.queries);
    let arrived = Instant::now();
    let slot = slot(api, &options).await?;
    let queued = arrived.elapsed();
    let key = Key::of(&asked.text, asked.end_ms.saturating_sub(asked.start_ms), asked.step_ms);
    if api.quick_queries.knows(key) {
        let timeout = options.timeout.map_or(quick::LIMIT, |t| t.min(quick::LIMIT));
        let limited = QueryOptions { timeout: Some(timeout), ..options.clone() };
        let (result, took) = timed(api, &asked, &limited, &evaluate);
        api.quick_queries.note(key, took);
        if !matches!(result, Err(QueryError::Timeout)) {
            note(api, &asked, queued, took, &result);
            return Ok(answer(result?, asked.form, queued));
        }
    }
    let _cancel = CancelOnDrop(options.cancel.clone());
    api.blocking(move |api| {
        let _held = (slot, counted);
        let (result, took) = timed(api, &asked, &options, &evaluate);
        api.quick_queries.note(key, took);
        note(api, &asked, queued, took, &result);
        Ok(answer(result?, asked.form, queued))
    })
    .await
}

/// Evaluates, seen among the queries that run.
fn timed(
    api: &Api,
    asked: &Asked,
    options: &QueryOptions,
    evaluate: impl Fn(&Api, &Asked, &QueryOptions) -> Result<QueryResult, QueryError>,
) -> (Result<QueryResult, QueryError>, Duration) {
    let _active = api.active_queries.insert(&asked.text);
    let began = Instant::now();
    let result = evaluate(api, asked, options);
    (result, began.elapsed())
}

/// Counts a query that has ended, and tells the log of it.
fn note(
    api: &Api,
    asked: &Asked,
    queued: Duration,
    took: Duration,
    result: &Result<QueryResult, QueryError>,
) {
    let observe = |slice, seconds| api.metrics.query_duration.with(&[slice]).observe(seconds);
    observe("queue_time", queued.as_secs_f64());
    if let Ok(result) = result {
        observe("prepare_time", result.stats.prepare_s);
        observe("inner_eval", result.stats.eval_s);
        api.metrics.samples.add(result.stats.total_samples);
    }
    let error = result.as_ref().err().map(ToString::to_string);
    api.query_log.note(&Ended {
        text: &asked.text,
        start_ms: asked.start_ms,
        end_ms: asked.end_ms,
        step_ms: asked.step_ms,
        origin: &asked.origin,
        queued,
        took,
        outcome: match (result, &error) {
            (Ok(result), _) => Ok(&result.stats),
            (Err(_), error) => Err(error.as_deref().unwrap_or_default()),
        },
    });
}

fn answer(result: QueryResult, form: Form, queued: Duration) -> Answer {
    let mut answer = Answer::new();
    let truncated = push_value(answer.data(), &result.value, form.limit);
    if form.stats {
        push_stats(answer.data(), &result, queued);
    }
    let answer = answer.notes(result.warnings, result.infos);
    if truncated { answer.warning(TRUNCATED) } else { answer }
}

/// Adds the statistics to the data, an object.
fn push_stats(out: &mut Vec<u8>, result: &QueryResult, queued: Duration) {
    let stats = &result.stats;
    let took_s = stats.prepare_s + stats.eval_s;
    let timings = [
        ("evalTotalTime", took_s),
        ("resultSortTime", 0.0),
        ("queryPreparationTime", stats.prepare_s),
        ("innerEvalTime", stats.eval_s),
        ("execQueueTime", queued.as_secs_f64()),
        ("execTotalTime", took_s),
    ];
    let closed = out.pop();
    debug_assert_eq!(closed, Some(b'}'), "BUG: the data are no object");
    out.extend_from_slice(b",\"stats\":{\"timings\":{");
    for (i, (name, seconds)) in timings.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, name);
        out.push(b':');
        push_float(out, seconds);
    }
    out.extend_from_slice(b"},\"samples\":{");
    if !result.samples_per_step.is_empty() {
        out.extend_from_slice(b"\"totalQueryableSamplesPerStep\":");
        push_array(out, &result.samples_per_step, |out, (time_ms, samples)| {
            out.push(b'[');
            push_timestamp_float(out, *time_ms);
            out.extend_from_slice(format!(",{samples}]").as_bytes());
        });
        out.push(b',');
    }
    let (total, peak) = (stats.total_samples, stats.peak_samples);
    let samples = format!("\"totalQueryableSamples\":{total},\"peakSamples\":{peak}}}}}}}");
    out.extend_from_slice(samples.as_bytes());
}

/// Writes `{"resultType":...,"result":...}`; says whether `limit` (0: none)
/// cut series off.
fn push_value(out: &mut Vec<u8>, value: &QueryValue, limit: usize) -> bool {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let (kind, count) = match value {
        QueryValue::Scalar(..) => ("scalar", 0),
        QueryValue::String(..) => ("string", 0),
        QueryValue::Vector(series) => ("vector", series.len()),
        QueryValue::Matrix(series) => ("matrix", series.len()),
    };
    out.extend_from_slice(b"{\"resultType\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"result\":");
    let mut samples = SampleWriter::default();
    match value {
        QueryValue::Scalar(time_ms, value) => {
            out.push(b'[');
            push_timestamp_float(out, *time_ms);
            out.extend_from_slice(b",\"");
            push_float(out, *value);
            out.extend_from_slice(b"\"]");
        }
        QueryValue::String(time_ms, text) => {
            out.push(b'[');
            push_timestamp_float(out, *time_ms);
            out.push(b',');
            push_string(out, text);
            out.push(b']');
        }
        QueryValue::Vector(series) => push_array(out, series.iter().take(limit), |out, s| {
            out.extend_from_slice(b"{\"metric\":");
            push_labels(out, &s.labels);
            match &s.value {
                Value::Float(value) => {
                    out.extend_from_slice(b",\"value\":");
                    push_sample(out, s.timestamp_ms, *value);
                }
                Value::Histogram(histogram) => {
                    out.extend_from_slice(b",\"histogram\":");
                    push_histogram_sample(out, s.timestamp_ms, histogram);
                }
            }
            out.push(b'}');
        }),
        QueryValue::Matrix(series) => push_array(out, series.iter().take(limit), |out, s| {
            out.extend_from_slice(b"{\"metric\":");
            push_labels(out, &s.labels);
            if !s.floats.is_empty() {
                out.extend_from_slice(b",\"values\":");
                samples.push_samples(out, &s.floats);
            }
            if !s.histograms.is_empty() {
                out.extend_from_slice(b",\"histograms\":");
                push_array(out, &s.histograms, |out, (t, h)| push_histogram_sample(out, *t, h));
            }
            out.push(b'}');
        }),
    }
    out.push(b'}');
    count > limit
}
