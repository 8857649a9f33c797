//! What is this server? Build, run time, flags, configuration, storage, and
//! its own metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::Api;
use super::envelope::{Answer, ApiError};
use super::params::Params;

/// The Prometheus whose API this is. Clients compare it.
pub const PROMETHEUS_VERSION: &str = "3.5.3";

/// The content type of own metrics.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8";

/// `GET, POST /api/v1/status/buildinfo`: members are texts, nothing else, or
/// Grafana takes this for another product.
pub async fn build() -> Result<Answer, ApiError> {
    Answer::of(&json!({
        "version": PROMETHEUS_VERSION,
        "revision": option_env!("NARTHEX_REVISION").unwrap_or("unknown"),
        "branch": concat!("narthex-", env!("CARGO_PKG_VERSION")),
        "buildUser": "narthex",
        "buildDate": option_env!("NARTHEX_BUILD_DATE").unwrap_or(""),
        "goVersion": "",
    }))
}

/// `GET /api/v1/status/runtimeinfo`.
pub async fn runtime(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let reload = *api.reload_state.borrow();
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let stats = api.db.stats();
    Answer::of(&json!({
        "startTime": rfc3339(api.started_ms),
        "CWD": std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default(),
        "hostname": rustix::system::uname().nodename().to_string_lossy(),
        "serverTime": rfc3339(api.clock.now_ms()),
        "reloadConfigSuccess": reload.success,
        "lastConfigTime": rfc3339(reload.time_ms),
        "corruptionCount": stats.quarantined,
        "goroutineCount": 0,
        "GOMAXPROCS": workers,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention(&api),
    }))
}

fn retention(api: &Api) -> String {
    let flag = |name: &str| {
        api.options.flags.get(name).filter(|v| !v.is_empty() && *v != "0" && *v != "0s").cloned()
    };
    let parts = [flag("storage.tsdb.retention.time"), flag("storage.tsdb.retention.size")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" or ")
}

/// A time in RFC 3339.
#[must_use]
pub fn rfc3339(time_ms: i64) -> String {
    let format = chrono::SecondsFormat::AutoSi;
    chrono::DateTime::from_timestamp_millis(time_ms)
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |t| t.to_rfc3339_opts(format, true))
}

/// `GET /api/v1/status/flags`.
pub async fn flags(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    Answer::of(&api.options.flags)
}

/// `GET /api/v1/status/config`.
pub async fn config(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let yaml = api.config.borrow().to_yaml();
    Answer::of(&json!({ "yaml": yaml }))
}

/// `GET /api/v1/status/tsdb`.
pub async fn tsdb(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let limit = match params.get("limit") {
        None => 10,
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| ApiError::bad_data("limit must be a positive number"))?,
    };
    api.blocking(move |api| {
        let stats = api.db.stats();
        let cardinality = api.db.cardinality(limit);
        let list = |entries: &[(String, u64)]| -> Vec<Value> {
            entries.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
        };
        Answer::of(&json!({
            "headStats": {
                "numSeries": stats.head_series,
                "numLabelPairs": cardinality.pairs,
                "chunkCount": stats.head_chunks,
                "minTime": stats.head_min_time_ms.unwrap_or(i64::MAX),
                "maxTime": stats.max_time_ms.unwrap_or(i64::MIN),
            },
            "seriesCountByMetricName": list(&cardinality.series_by_metric),
            "labelValueCountByLabelName": list(&cardinality.values_by_name),
            "memoryInBytesByLabelName": list(&cardinality.bytes_by_name),
            "seriesCountByLabelValuePair": list(&cardinality.series_by_pair),
        }))
    })
    .await
}

/// `GET /api/v1/status/walreplay`: the log is replayed before this answers.
pub async fn wal_replay(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let replay = api.db.stats().replay;
    let last = replay.segments.saturating_sub(1);
    Answer::of(&json!({"min": 0, "max": last, "current": last, "state": "done"}))
}

/// `GET /metrics`.
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], api.registry.expose()).into_response()
}
