//! What do clients ask? The HTTP API: requests in, JSON out.
//!
//! Only this room knows the wire format. Handlers read parameters, hand the
//! work to a blocking thread, and write the answer; `grafana/CONTRACT` of the
//! users is Prometheus' API, byte for byte where readers look.

mod admin;
mod envelope;
mod federate;
mod json;
mod metadata;
mod middleware;
pub mod number;
mod objects;
mod params;
mod query;
mod quick;
mod remote_write;
mod rules;
mod series;
mod status;
mod targets;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{MethodRouter, get, post};
use narthex_query::engine::Engine;
use narthex_query::parse::ParseOptions;
use narthex_storage::append::Appendable;
use narthex_storage::db::Db;
use narthex_storage::read::Queryable;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use self::envelope::{Answer, ApiError, ErrorType};
pub use self::objects::ObjectsStatus;
pub use self::params::{parse_duration_ms, parse_time_ms};
pub use self::quick::QuickQueries;
pub use self::status::PROMETHEUS_VERSION;
use crate::cli::Options;
use crate::config::Config;
use crate::metrics::{Counter, Family, Gauge, Histogram, Registry, Summary};
use crate::query_log::{ActiveQueries, QueryLog};

/// The warning of an answer that a limit cut.
const TRUNCATED: &str = "results truncated due to limit";

/// Largest form of a query, in bytes.
const MAX_FORM_BYTES: usize = 16 << 20;

/// Largest compressed remote write request, in bytes.
const MAX_WRITE_BYTES: usize = 32 << 20;

/// A wish to read the configuration again, and where the outcome goes.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

/// How the newest load of the configuration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadState {
    /// Whether it is in force.
    pub success: bool,
    /// When the configuration in force was loaded, in milliseconds since the
    /// epoch.
    pub time_ms: i64,
}

/// What handlers need.
pub struct Api {
    /// Where queries read.
    pub queryable: Arc<dyn Queryable>,
    /// Where remote writes go.
    pub appendable: Arc<dyn Appendable>,
    /// What senders of remote writes have sent of late.
    pub known_series: std::sync::RwLock<remote_write::KnownSeries>,
    /// For administration and figures.
    pub db: Arc<Db>,
    /// Evaluates queries.
    pub engine: Arc<Engine>,
    /// What the parser allows.
    pub parse_options: ParseOptions,
    /// Hears of queries that ended.
    pub query_log: Arc<QueryLog>,
    /// Knows the queries that run.
    pub active_queries: ActiveQueries,
    /// Knows the queries that need no thread of their own.
    pub quick_queries: QuickQueries,
    /// At most `--query.max-concurrency` queries at a time.
    pub query_slots: Arc<Semaphore>,
    /// The resolved flags.
    pub options: Arc<Options>,
    /// Origins of other pages that may ask, fully anchored.
    pub cors_origin: regex::Regex,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Targets and their states.
    pub scrape: Arc<crate::scrape::Manager>,
    /// Rule groups and alerts.
    pub rules: Arc<crate::rules::Manager>,
    /// Alertmanagers.
    pub notifier: Arc<crate::notify::Manager>,
    /// Own metrics.
    pub registry: Registry,
    /// Metrics of this room.
    pub metrics: ApiMetrics,
    /// What became of the operator's objects.
    pub objects: watch::Receiver<Arc<ObjectsStatus>>,
    /// What an operator should know now.
    pub notices: crate::notices::Notices,
    /// How the last reload went.
    pub reload_state: watch::Receiver<ReloadState>,
    /// Takes reload requests.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// Asks the server to stop.
    pub stop: tokio_util::sync::CancellationToken,
    /// The wall clock.
    pub clock: Clock,
    /// When the process started, in milliseconds since the epoch.
    pub started_ms: i64,
}

/// The wall clock as a value, so that tests replace it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
        }))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

/// Metrics of requests and queries.
#[derive(Clone)]
pub struct ApiMetrics {
    /// By handler and code.
    pub requests: Family<Counter>,
    /// By handler.
    pub request_duration: Family<Histogram>,
    /// By slice.
    pub query_duration: Family<Summary>,
    /// Queries that run now or wait.
    pub queries: Gauge,
    /// Samples that queries looked at.
    pub samples: Counter,
}

impl ApiMetrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let duration = || Histogram::new(&[0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0]);
        let metrics = Self {
            requests: registry.register(
                "prometheus_http_requests_total",
                "Counter of HTTP requests.",
                Family::new(&["handler", "code"], Counter::default),
            ),
            request_duration: registry.register(
                "prometheus_http_request_duration_seconds",
                "Histogram of latencies for HTTP requests.",
                Family::new(&["handler"], duration),
            ),
            query_duration: registry.register(
                "prometheus_engine_query_duration_seconds",
                "Query timings",
                Family::new(&["slice"], || Summary::new(&[0.5, 0.9, 0.99])),
            ),
            queries: registry.gauge(
                "prometheus_engine_queries",
                "The current number of queries being executed or waiting.",
            ),
            samples: registry.counter(
                "prometheus_engine_query_samples_total",
                "The total number of samples loaded by all queries.",
            ),
        };
        for slice in ["inner_eval", "prepare_time", "queue_time", "result_sort"] {
            let _ = metrics.query_duration.with(&[slice]);
        }
        metrics
    }
}

impl Api {
    /// Runs reading or writing work on a thread that may block.
    async fn blocking(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<Answer, ApiError> + Send + 'static,
    ) -> Result<Answer, ApiError> {
        let api = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&api))
            .await
            .map_err(|e| ApiError::new(ErrorType::Internal, format!("request ended: {e}")))?
    }
}

/// All routes: the API, own metrics, health, the page.
pub fn router(api: Arc<Api>) -> Router {
    fn both<H, T>(handler: H) -> MethodRouter<Arc<Api>>
    where
        H: axum::handler::Handler<T, Arc<Api>> + Clone,
        T: 'static,
    {
        get(handler.clone()).post(handler)
    }
    let v1 = Router::new()
        .route("/query", both(query::instant))
        .route("/query_range", both(query::range))
        .route("/query_exemplars", both(query::exemplars))
        .route("/format_query", both(query::format))
        .route("/parse_query", both(query::syntax_tree))
        .route("/series", both(series::series))
        .route("/labels", both(series::label_names))
        .route("/label/{name}/values", get(series::label_values))
        .route("/metadata", get(metadata::metadata))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(targets::metadata))
        .route("/targets/relabel_steps", get(targets::relabel_steps))
        .route("/scrape_pools", get(targets::pools))
        .route("/alertmanagers", get(rules::alertmanagers))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/status/config", get(status::config))
        .route("/status/runtimeinfo", get(status::runtime))
        .route("/status/buildinfo", both(status::build))
        .route("/status/flags", get(status::flags))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/operator", get(objects::status))
        .route("/notifications", get(objects::notifications))
        .route("/status/walreplay", get(status::wal_replay))
        .route("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route(
            "/admin/tsdb/clean_tombstones",
            post(admin::clean_tombstones).put(admin::clean_tombstones),
        )
        .route("/write", post(remote_write::receive).layer(DefaultBodyLimit::max(MAX_WRITE_BYTES)));
    let routes = Router::new()
        .nest("/api/v1", v1)
        .route("/metrics", get(status::metrics))
        .route("/federate", get(federate::federate))
        .route("/-/healthy", get(|| async { "narthex is healthy.\n" }))
        .route("/-/ready", get(|| async { "narthex is ready.\n" }))
        .route("/-/reload", post(admin::reload).put(admin::reload))
        .route("/-/quit", post(admin::quit).put(admin::quit))
        .merge(crate::web::router())
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n").into_response() })
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES));
    let prefix = api.options.web.route_prefix.trim_end_matches('/').to_owned();
    let routes = if prefix.is_empty() { routes } else { Router::new().nest(&prefix, routes) };
    middleware::wrap(routes, &api).with_state(api)
}
