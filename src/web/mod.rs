//! What do people see? One page, drawn from the HTTP API by its script.
//!
//! The files are part of the binary; nothing is built or fetched to serve
//! them.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

const INDEX: &str = include_str!("assets/index.html");
const SCRIPT: &str = include_str!("assets/app.js");
const STYLE: &str = include_str!("assets/style.css");
const PLOT_SCRIPT: &str = include_str!("assets/uPlot.iife.min.js");
const PLOT_STYLE: &str = include_str!("assets/uPlot.min.css");

/// The addresses that show the page; its script draws what the address names.
const PAGES: [&str; 10] = [
    "/",
    "/graph",
    "/query",
    "/alerts",
    "/rules",
    "/targets",
    "/service-discovery",
    "/config",
    "/status",
    "/flags",
];

/// What the page may do: run its own files and ask its own server.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
);

/// The routes of the page and its files.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new();
    for path in PAGES {
        router = router.route(path, get(page));
    }
    for (path, kind, text) in [
        ("/assets/app.js", "text/javascript", SCRIPT),
        ("/assets/style.css", "text/css", STYLE),
        ("/assets/uPlot.iife.min.js", "text/javascript", PLOT_SCRIPT),
        ("/assets/uPlot.min.css", "text/css", PLOT_STYLE),
    ] {
        router = router.route(path, get(move || async move { asset(kind, text) }));
    }
    router
}

async fn page() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(INDEX)).into_response()
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=3600")], text).into_response()
}
