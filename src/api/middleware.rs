//! What happens to every request: compression, cross-origin headers, counting.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

use super::Api;

/// Answers below this many bytes are not worth compressing.
const COMPRESS_ABOVE: u16 = 1024;

/// Puts the layers around all routes.
pub fn wrap(routes: Router<Arc<Api>>, api: &Arc<Api>) -> Router<Arc<Api>> {
    routes
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Fastest)
                .compress_when(SizeAbove::new(COMPRESS_ABOVE)),
        )
        .layer(from_fn_with_state(Arc::clone(api), around))
}

async fn around(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(|p| p.as_str().to_owned());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin {
        allow_origin(&api, &origin, &mut response);
    }
    let handler = path.unwrap_or_else(|| "not found".to_owned());
    api.metrics.requests.with(&[&handler, response.status().as_str()]).inc();
    api.metrics.request_duration.with(&[&handler]).observe(started.elapsed().as_secs_f64());
    response
}

/// Echoes an origin that `--web.cors.origin` permits.
fn allow_origin(api: &Api, origin: &HeaderValue, response: &mut Response) {
    let permitted = origin.to_str().is_ok_and(|text| api.cors_origin.is_match(text));
    if !permitted {
        return;
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Accept, Authorization, Content-Type, Origin"),
    );
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
}
