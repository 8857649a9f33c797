//! Who may change things? Reload, quit and the storage's administration, each
//! behind its flag.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::oneshot;

use super::Api;
use super::envelope::{Answer, ApiError, ErrorType};
use super::json::push_string;
use super::params::Params;

/// `POST /-/reload`.
pub async fn reload(State(api): State<Arc<Api>>) -> Response {
    if !api.options.web.enable_lifecycle {
        return lifecycle_is_off();
    }
    let (sender, outcome) = oneshot::channel();
    if api.reload.send(sender).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "narthex is stopping\n").into_response();
    }
    match outcome.await {
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(reason)) => {
            let text = format!("failed to reload config: {reason}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "narthex is stopping\n").into_response(),
    }
}

/// `POST /-/quit`.
pub async fn quit(State(api): State<Arc<Api>>) -> Response {
    if !api.options.web.enable_lifecycle {
        return lifecycle_is_off();
    }
    api.stop.cancel();
    "Requesting termination... Goodbye!".into_response()
}

fn lifecycle_is_off() -> Response {
    (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.\n").into_response()
}

fn needs_admin(api: &Api) -> Result<(), ApiError> {
    if api.options.web.enable_admin_api {
        return Ok(());
    }
    Err(ApiError::new(ErrorType::Unavailable, "admin APIs disabled"))
}

/// `POST /api/v1/admin/tsdb/delete_series`.
pub async fn delete_series(
    State(api): State<Arc<Api>>,
    params: Params,
) -> Result<Response, ApiError> {
    needs_admin(&api)?;
    let selectors = params.matchers()?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start_ms = params.time_ms("start")?.unwrap_or(i64::MIN);
    let end_ms = params.time_ms("end")?.unwrap_or(i64::MAX);
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    api.blocking(move |api| {
        api.db.delete(&selectors, start_ms, end_ms)?;
        Ok(Answer::new())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/admin/tsdb/snapshot`.
pub async fn snapshot(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    needs_admin(&api)?;
    api.blocking(move |api| {
        let time = chrono::DateTime::from_timestamp_millis(api.clock.now_ms());
        let name = time.unwrap_or_default().format("%Y%m%dT%H%M%S%3fZ").to_string();
        let target = api.options.storage.path.join("snapshots").join(&name);
        api.db.snapshot(&target).map_err(internal)?;
        Ok(Answer::with(|out| {
            out.extend_from_slice(b"{\"name\":");
            push_string(out, &name);
            out.push(b'}');
        }))
    })
    .await
}

/// `POST /api/v1/admin/tsdb/clean_tombstones`.
pub async fn clean_tombstones(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    needs_admin(&api)?;
    api.blocking(move |api| {
        api.db.clean_tombstones().map_err(internal)?;
        Ok(Answer::new())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorType::Internal, error.to_string())
}
