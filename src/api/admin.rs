//! Who may change things? Reload, quit and the storage's administration, each
//! behind its flag.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::oneshot;

use super::Api;

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
