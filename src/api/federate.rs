//! What may another server take over? `/federate`: the newest sample of each
//! selected series, in the text format.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use narthex_storage::labels::{
    Labels, METRIC_NAME, is_legacy_label_name, is_legacy_metric_name, write_quoted,
};
use narthex_storage::read::Column;
use narthex_storage::sample::is_stale;

use super::Api;
use super::envelope::{ApiError, ErrorType};
use super::number::push_float;
use super::params::Params;

/// The text format that is answered.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8";

/// `GET /federate`.
pub async fn federate(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let selectors = params.matchers()?;
    let external = api.config.borrow().global.external_labels.clone();
    let text = tokio::task::spawn_blocking(move || {
        let end_ms = api.clock.now_ms();
        let lookback_ms =
            i64::try_from(api.options.query.lookback_delta.as_millis()).unwrap_or(300_000);
        let querier = api.queryable.querier(end_ms - lookback_ms + 1, end_ms)?;
        let mut series = Vec::new();
        for matchers in &selectors {
            for id in querier.select(matchers, false)? {
                series.push((querier.labels(id)?, id));
            }
        }
        series.sort_unstable();
        series.dedup();
        let mut column = Column::new();
        let (mut out, mut family) = (String::new(), String::new());
        for (labels, id) in series {
            querier.read(id, end_ms - lookback_ms + 1, end_ms, &mut column)?;
            let Some(last) = column.len().checked_sub(1) else { continue };
            // Native histograms have no place in the text format.
            if column.histograms.iter().any(|(i, _)| *i as usize == last)
                || is_stale(column.floats[last])
            {
                continue;
            }
            let name = labels.metric_name().unwrap_or("");
            if name != family {
                let _ = writeln!(out, "# TYPE {name} untyped");
                name.clone_into(&mut family);
            }
            let timestamp_ms = column.timestamps()[last];
            write_line(&mut out, &labels, &external, column.floats[last], timestamp_ms);
        }
        Ok::<_, ApiError>(out)
    })
    .await
    .map_err(|e| ApiError::new(ErrorType::Internal, e.to_string()))??;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

fn write_line(out: &mut String, labels: &Labels, external: &Labels, value: f64, timestamp_ms: i64) {
    let name = labels.metric_name().unwrap_or("");
    let mut builder = labels.to_builder();
    builder.remove(METRIC_NAME);
    // The receiver must see which instance and server a series is of.
    for (n, v) in external {
        if builder.get(n).is_empty() {
            builder.set(n, v);
        }
    }
    let legacy = is_legacy_metric_name(name);
    if legacy {
        out.push_str(name);
    }
    out.push('{');
    let mut first = true;
    if !legacy {
        let _ = write_quoted(out, name);
        first = false;
    }
    let mut instance = false;
    for (n, v) in builder.iter() {
        instance |= n == "instance";
        write_label(out, &mut first, n, v);
    }
    if !instance {
        write_label(out, &mut first, "instance", "");
    }
    out.push_str("} ");
    let mut number = Vec::new();
    push_float(&mut number, value);
    out.push_str(&String::from_utf8_lossy(&number));
    let _ = writeln!(out, " {timestamp_ms}");
}

fn write_label(out: &mut String, first: &mut bool, name: &str, value: &str) {
    if !std::mem::take(first) {
        out.push(',');
    }
    if is_legacy_label_name(name) {
        out.push_str(name);
    } else {
        let _ = write_quoted(out, name);
    }
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}
