//! Who starts whom? Wires the rooms, starts and stops them in order.
//!
//! Start: log, configuration, sockets, storage, then everything that needs it.
//! Stop: no more requests, scrapes and rules end, notifications drain, the
//! storage closes. What was acknowledged before is on disk.

mod listen;
mod log;
mod machine;
mod metrics;
mod objects;
mod process_metrics;
mod reload;
mod web_config;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use narthex_query::engine::{Engine, EngineOptions};
use narthex_query::parse::ParseOptions;
use narthex_storage::append::Appendable;
use narthex_storage::db::{Db, DbOptions, MemoryState};
use narthex_storage::read::Queryable;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::reload::{Reloader, Rooms};
use self::web_config::WebConfigSource;
use crate::api::{Api, ApiMetrics, Clock, QuickQueries, ReloadRequest};
use crate::cli::{ConfigSource, Options};
use crate::config::Config;
use crate::metrics::Registry;
use crate::notices::Notices;
use crate::query_log::{ActiveQueries, QueryLog};

/// Least worker threads of the runtime: a request must not wait for the quick
/// query of another.
const MIN_WORKERS: usize = 2;

/// Most threads that block at a time, in queries and disk writes.
const MAX_BLOCKING_THREADS: usize = 128;

/// A thread that blocked ends after so long without work: an idle box keeps
/// none of their stacks.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Scrape timestamps and remote writes may be this far in the future.
const FUTURE_LIMIT_MS: i64 = 600_000;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The runtime cannot start.
    #[error("starting threads: {0}")]
    Runtime(#[source] std::io::Error),
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The web configuration cannot be used.
    #[error("{0}")]
    Web(#[from] web_config::WebConfigError),
    /// An address cannot be bound.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address, as given.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The storage cannot be opened.
    #[error("{0}")]
    Storage(#[from] narthex_storage::db::OpenError),
    /// The state of alerts cannot be kept.
    #[error("the state of alerts: {0}")]
    RuleState(#[source] std::io::Error),
    /// The queries that run cannot be noted.
    #[error("queries.active in the data directory: {0}")]
    ActiveQueries(#[source] std::io::Error),
    /// A flag asks for what this binary does not have.
    #[error("{0}")]
    Flag(String),
}

/// Serves until a signal or `/-/quit`.
pub fn run(options: Options) -> ExitCode {
    log::start(options.log.level.as_str(), options.log.json);
    for warning in &options.warnings {
        tracing::warn!("{warning}");
    }
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.max(MIN_WORKERS))
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .enable_all()
        .build();
    // One thread is enough for millions of samples a second, and with more each
    // scrape would wake a second one. Nor do scrapes wait for queries there.
    let scraping = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("scrape")
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .enable_all()
        .build();
    let outcome = match (runtime, scraping) {
        (Ok(runtime), Ok(scraping)) => runtime.block_on(serve(options, scraping.handle().clone())),
        (Err(e), _) | (_, Err(e)) => Err(StartError::Runtime(e)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `scraping` is where the loops of targets run.
async fn serve(options: Options, scraping: Handle) -> Result<(), StartError> {
    let clock = Clock::system();
    let started_ms = clock.now_ms();
    let options = Arc::new(options);
    let config = initial_config(&options).await?;
    let web = Arc::new(WebConfigSource::open(options.web.config_file.clone())?);
    let listeners = bind(&options).await?;
    let notice_clock = clock.clone();
    let notices = Notices::with_clock(move || notice_clock.now_ms());
    let engine = Arc::new(Engine::new(engine_options(&options)));
    let db = Arc::new(open_storage(&options, &config, &notices, &engine)?);
    let registry = Registry::default();
    #[allow(clippy::cast_precision_loss, reason = "exact for a million years")]
    process_metrics::register(&registry, started_ms as f64 / 1000.0);
    metrics::register(&registry, &db, &options);

    let queryable: Arc<dyn Queryable> = Arc::clone(&db) as _;
    let appendable: Arc<dyn Appendable> = Arc::clone(&db) as _;
    metrics::register_steps(&registry, &engine);
    let parse_options = parse_options(&options);
    let scrape = Arc::new(crate::scrape::Manager::new(
        Arc::clone(&appendable),
        &registry,
        crate::scrape::Options {
            extra_scrape_metrics: options.features.extra_scrape_metrics,
            type_and_unit_labels: options.features.type_and_unit_labels,
            start_timestamps: options.features.st_storage,
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            runtime: Some(scraping),
        },
    ));

    let slower_than = Some(options.query.log_slower_than).filter(|d| !d.is_zero());
    let query_log = Arc::new(QueryLog::new(slower_than, &registry));
    let active_queries = active_queries(&options)?;

    let notifier = Arc::new(crate::notify::Manager::new(
        &registry,
        crate::notify::ManagerOptions {
            queue_capacity: options.notify.queue_capacity,
            drain: options.notify.drain_on_shutdown,
            external_url: options.web.external_url.clone(),
        },
    ));
    let rules = crate::rules::Manager::new(
        Arc::clone(&queryable),
        Arc::clone(&appendable),
        Arc::clone(&engine),
        Arc::clone(&notifier) as _,
        &registry,
        crate::rules::ManagerOptions {
            query_log: Some(Arc::clone(&query_log)),
            ..rule_options(&options, parse_options)
        },
    );
    let rules = Arc::new(rules.map_err(StartError::RuleState)?);

    let stop = CancellationToken::new();
    let (reload_sender, reload_requests) = mpsc::channel::<ReloadRequest>(4);
    let (config_sender, config_receiver) = watch::channel(Arc::new(config));
    let rooms = Rooms {
        scrape: Arc::clone(&scrape),
        rules: Arc::clone(&rules),
        notifier: Arc::clone(&notifier),
        engine: Arc::clone(&engine),
        query_log: Arc::clone(&query_log),
    };
    let reloader = Reloader::new(
        Arc::clone(&options),
        config_sender,
        &registry,
        clock.clone(),
        rooms,
        notices.clone(),
        stop.clone(),
    );
    let api = Arc::new(Api {
        queryable,
        appendable,
        db: Arc::clone(&db),
        engine,
        parse_options,
        query_log,
        active_queries,
        quick_queries: QuickQueries::default(),
        query_slots: Arc::new(Semaphore::new(options.query.max_concurrency)),
        cors_origin: cors_origin(&options)?,
        options: Arc::clone(&options),
        config: config_receiver,
        scrape: Arc::clone(&scrape),
        rules: Arc::clone(&rules),
        notifier: Arc::clone(&notifier),
        metrics: ApiMetrics::register(&registry),
        registry,
        reload_state: reloader.state(),
        objects: reloader.objects(),
        notices,
        reload: reload_sender,
        stop: stop.clone(),
        clock,
        started_ms,
        known_series: std::sync::RwLock::default(),
    });
    reloader.apply_first().await?;
    tell_address(&listeners, &options, &web);
    let web_server = tokio::spawn(listen::serve(
        listeners,
        crate::api::router(api),
        web,
        options.web.max_connections,
        stop.clone(),
    ));
    signals(&reloader, reload_requests, &stop).await;
    stop.cancel();
    if let Err(error) = web_server.await {
        tracing::error!(%error, "web server ended");
    }
    scrape.stop().await;
    rules.stop().await;
    notifier.stop().await;
    let closed = tokio::task::spawn_blocking(move || db.close()).await;
    match closed {
        Ok(Ok(())) => tracing::info!("stopped; everything is on disk"),
        Ok(Err(error)) => tracing::error!(%error, "closing the storage"),
        Err(error) => tracing::error!(%error, "closing the storage"),
    }
    Ok(())
}

/// Waits for signals and reload requests until it is time to stop.
async fn signals(
    reloader: &Reloader,
    mut requests: mpsc::Receiver<ReloadRequest>,
    stop: &CancellationToken,
) {
    let listen = |kind| signal(kind).map_err(|error| tracing::error!(%error, "signal handler"));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)) = (
        listen(SignalKind::terminate()),
        listen(SignalKind::interrupt()),
        listen(SignalKind::hangup()),
    ) else {
        return;
    };
    let mut look = tokio::time::interval(reloader.look_interval());
    look.tick().await;
    loop {
        tokio::select! {
            _ = terminate.recv() => return tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => return tracing::info!("SIGINT: stopping"),
            () = stop.cancelled() => return,
            _ = hang_up.recv() => {
                // The outcome is logged.
                let _ = reloader.reload().await;
            }
            Some(answer) = requests.recv() => {
                let _ = answer.send(reloader.reload().await);
            }
            () = reloader.objects_changed() => reloader.apply_objects().await,
            _ = look.tick(), if reloader.looks_by_itself() => reloader.reload_if_changed().await,
        }
    }
}

async fn initial_config(options: &Options) -> Result<Config, StartError> {
    match &options.config {
        ConfigSource::File(_) => reload::load(options).map_err(StartError::Config),
        ConfigSource::Builtin => Ok(reload::builtin(options).await),
    }
}

async fn bind(options: &Options) -> Result<Vec<TcpListener>, StartError> {
    listen::bind(&options.web.listen_addresses)
        .await
        .map_err(|(address, source)| StartError::Listen { address, source })
}

fn open_storage(
    options: &Options,
    config: &Config,
    notices: &Notices,
    engine: &Arc<Engine>,
) -> Result<Db, StartError> {
    let engine = Arc::clone(engine);
    let anonymous = machine::anonymous_memory();
    let defaults = DbOptions::new(&options.storage.path);
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    let retention_time = config.storage.retention_time.or(options.storage.retention_time);
    let retention_size =
        config.storage.retention_size_bytes.or(options.storage.retention_size_bytes);
    let db = Db::open(DbOptions {
        engine: Some(options.storage.engine),
        retention_time_ms: retention_time.map_or(0, ms),
        retention_size_bytes: retention_size.unwrap_or(0),
        out_of_order_window_ms: ms(config.storage.out_of_order_window),
        wal_sync_interval_ms: ms(options.storage.wal_sync_interval),
        future_limit_ms: FUTURE_LIMIT_MS,
        retention_percentage: config.storage.retention_percentage.unwrap_or(0.0),
        head_limit_bytes: memory_limit_bytes(options) / 2,
        cache_limit_bytes: (memory_limit_bytes(options) / 8).min(MAX_CACHE_BYTES),
        process_memory: Arc::new(move || {
            // Queries have a share of their own.
            let queries = engine.held_bytes() as u64;
            anonymous().map(|bytes| bytes.saturating_sub(queries))
        }),
        disk_capacity: machine::disk_capacity(&options.storage.path),
        on_memory: {
            let notices = notices.clone();
            Arc::new(move |state| show_memory(&notices, state))
        },
        max_exemplars: config
            .storage
            .max_exemplars
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(defaults.max_exemplars),
        on_damage: Arc::new(|damage| {
            tracing::warn!(
                file = damage.file,
                offset = damage.offset,
                bytes = damage.bytes,
                "damaged data is left out: {}",
                damage.what
            );
        }),
        ..defaults
    })?;
    let replay = db.stats().replay;
    tracing::info!(
        path = %options.storage.path.display(),
        took_us = replay.micros,
        samples = replay.samples,
        "storage is open"
    );
    if replay.damaged_bytes > 0 || replay.dropped_items > 0 {
        tracing::warn!(
            damaged_bytes = replay.damaged_bytes,
            dropped = replay.dropped_items,
            "the log was damaged; what could be read was kept"
        );
    }
    Ok(db)
}

/// Caches are no larger, however much memory there is.
const MAX_CACHE_BYTES: usize = 128 << 20;
const MAX_STEP_CACHE_BYTES: usize = 64 << 20;

fn show_memory(notices: &Notices, state: MemoryState) {
    const KEY: &str = "storage/memory";
    tracing::warn!("{state}");
    match state {
        MemoryState::Enough => notices.clear(KEY),
        short => notices.raise(KEY, short.to_string()),
    }
}

/// The memory budget. The head has half of it, queries a quarter, what is kept
/// of the days an eighth, and steps of queries a 64th.
fn memory_limit_bytes(options: &Options) -> usize {
    const MIN_BYTES: u64 = 64 << 20;
    let limit = options.memory_limit_bytes.unwrap_or_else(|| machine::available_memory() / 10 * 8);
    usize::try_from(limit.max(MIN_BYTES)).unwrap_or(usize::MAX)
}

/// The queries that run; those that did when the process before was killed are
/// logged: one of them may be why.
fn active_queries(options: &Options) -> Result<ActiveQueries, StartError> {
    let opened = ActiveQueries::open(&options.storage.path, options.query.max_concurrency);
    let (queries, unfinished) = opened.map_err(StartError::ActiveQueries)?;
    for query in unfinished {
        tracing::warn!(query, "this query did not finish in the last run");
    }
    Ok(queries)
}

/// Most threads of one query: on larger machines others want some, too.
const MAX_QUERY_THREADS: usize = 4;

fn engine_options(options: &Options) -> EngineOptions {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    EngineOptions {
        threads: cores.min(MAX_QUERY_THREADS),
        lookback_ms: i64::try_from(options.query.lookback_delta.as_millis()).unwrap_or(300_000),
        max_samples: options.query.max_samples as u64,
        max_bytes: memory_limit_bytes(options) / 4,
        step_cache_bytes: (memory_limit_bytes(options) / 64).min(MAX_STEP_CACHE_BYTES),
        timeout: Some(options.query.timeout),
        delayed_name_removal: options.features.delayed_name_removal,
        type_and_unit_labels: options.features.type_and_unit_labels,
        use_start_timestamps: options.features.use_start_timestamps,
        ..EngineOptions::default()
    }
}

fn parse_options(options: &Options) -> ParseOptions {
    ParseOptions {
        experimental_functions: options.features.experimental_functions,
        duration_expressions: options.features.experimental_functions,
        extended_range_selectors: options.features.extended_range_selectors,
        fill_modifiers: options.features.binop_fill_modifiers,
    }
}

fn rule_options(options: &Options, parse: ParseOptions) -> crate::rules::ManagerOptions {
    let concurrent = options.features.concurrent_rule_eval;
    crate::rules::ManagerOptions {
        external_url: options.web.external_url.clone(),
        resend_delay: options.rules.resend_delay,
        outage_tolerance: options.rules.for_outage_tolerance,
        for_grace: options.rules.for_grace_period,
        concurrent_evaluations: concurrent.then_some(options.rules.max_concurrent_evals),
        parse,
        data: Some(options.storage.path.clone()),
        ..crate::rules::ManagerOptions::default()
    }
}

fn cors_origin(options: &Options) -> Result<regex::Regex, StartError> {
    regex::Regex::new(&format!("^(?:{})$", options.web.cors_origin))
        .map_err(|e| StartError::Flag(format!("--web.cors.origin: {e}")))
}

/// The one line that tells a newcomer where to look.
fn tell_address(listeners: &[TcpListener], options: &Options, web: &WebConfigSource) {
    let scheme = if web.current().tls.is_some() { "https" } else { "http" };
    if let Some(address) = listen::first_address(listeners) {
        let prefix = options.web.route_prefix.trim_end_matches('/');
        tracing::info!("narthex is ready: {scheme}://{address}{prefix}/");
    }
}
