//! Queries: `query`, `query_range`, `query_exemplars`, `format_query`,
//! `parse_query`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use narthex_query::ast::Expr;
use narthex_query::engine::{CancelToken, QueryOptions};
use narthex_query::parse;
use narthex_query::print;
use narthex_query::value::{QueryResult, QueryValue};
use narthex_storage::sample::Value;

use super::envelope::{Answer, ApiError, ErrorType};
use super::json::{push_array, push_histogram_sample, push_labels, push_sample, push_string};
use super::number::{push_float, push_timestamp, push_timestamp_float};
use super::params::Params;
use super::{Api, TRUNCATED};

/// The most steps a range query may have.
const MAX_STEPS: i64 = 11_000;

/// `GET, POST /api/v1/query`.
pub async fn instant(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let time_ms = params.time_ms("time")?.unwrap_or_else(|| api.clock.now_ms());
    let limit = params.limit("limit")?;
    let options = query_options(&api, &params)?;
    let (text, expr) = parse_query(&api, &params)?;
    let stats = stats_of(&params);
    run(&api, options, move |api, options| {
        let result = api.engine.instant(&*api.queryable, &expr, &text, time_ms, options)?;
        Ok(answer(result, limit, stats))
    })
    .await
}

/// `GET, POST /api/v1/query_range`.
pub async fn range(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
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
    let limit = params.limit("limit")?;
    let options = query_options(&api, &params)?;
    let (text, expr) = parse_query(&api, &params)?;
    let stats = stats_of(&params);
    run(&api, options, move |api, options| {
        let result =
            api.engine.range(&*api.queryable, &expr, &text, start_ms, end_ms, step_ms, options)?;
        Ok(answer(result, limit, stats))
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
    run(&api, options, move |api, _| {
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
        timeout: Some(timeout),
        ..QueryOptions::default()
    })
}

/// Which statistics the client wants: none, the totals, or all.
fn stats_of(params: &Params) -> bool {
    params.get("stats").is_some()
}

/// Cancels the evaluation when the request's future is dropped: the client
/// went away.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Waits for a query slot, then evaluates off the runtime.
async fn run(
    api: &Arc<Api>,
    options: QueryOptions,
    work: impl FnOnce(&Api, &QueryOptions) -> Result<Answer, ApiError> + Send + 'static,
) -> Result<Answer, ApiError> {
    let timeout = options.timeout.unwrap_or(api.options.query.timeout);
    let slot = tokio::time::timeout(timeout, Arc::clone(&api.query_slots).acquire_owned())
        .await
        .map_err(|_| ApiError::new(ErrorType::Timeout, "query timed out in query queue"))?
        .map_err(|_| ApiError::new(ErrorType::Unavailable, "narthex is stopping"))?;
    let _cancel = CancelOnDrop(options.cancel.clone());
    let api = Arc::clone(api);
    tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let started = std::time::Instant::now();
        let answer = work(&api, &options);
        api.metrics.query_duration.with(&["inner_eval"]).observe(started.elapsed().as_secs_f64());
        answer
    })
    .await
    .map_err(|e| ApiError::new(ErrorType::Internal, format!("query evaluation ended: {e}")))?
}

fn answer(result: QueryResult, limit: usize, with_stats: bool) -> Answer {
    let mut answer = Answer::new();
    let truncated = push_value(answer.data(), &result.value, limit);
    if with_stats {
        let out = answer.data();
        let s = &result.stats;
        out.pop();
        out.extend_from_slice(
            format!(
                ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{},\"resultSortTime\":0,\
                 \"queryPreparationTime\":{},\"innerEvalTime\":{},\"execQueueTime\":0,\
                 \"execTotalTime\":{}}},\"samples\":{{\"totalQueryableSamples\":{},\
                 \"peakSamples\":{}}}}}}}",
                s.prepare_s + s.eval_s,
                s.prepare_s,
                s.eval_s,
                s.prepare_s + s.eval_s,
                s.total_samples,
                s.peak_samples
            )
            .as_bytes(),
        );
    }
    let answer = answer.notes(result.warnings, result.infos);
    if truncated { answer.warning(TRUNCATED) } else { answer }
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
                push_array(out, &s.floats, |out, (t, v)| push_sample(out, *t, *v));
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
