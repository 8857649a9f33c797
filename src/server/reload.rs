//! What if the configuration changes? Reads it again, puts it in force, or
//! keeps the one before and says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use narthex_query::engine::Engine;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::objects::{Objects, ObjectsStatus};
use crate::api::{Clock, ReloadState};
use crate::cli::{ConfigSource, Options};
use crate::config::{self, Config};
use crate::discovery::Discovery;
use crate::metrics::{Gauge, Registry};
use crate::notices::Notices;
use crate::query_log::QueryLog;
use crate::{notify, rules, scrape};

/// Where a node exporter listens by default.
const NODE_EXPORTER: &str = "localhost:9100";

/// How long a node exporter may take to accept.
const KNOCK_TIMEOUT: Duration = Duration::from_millis(300);

/// How often to look when nothing is to be looked for.
const NEVER: Duration = Duration::from_secs(3600);

/// Who takes over a configuration.
pub struct Rooms {
    /// Targets.
    pub scrape: Arc<scrape::Manager>,
    /// Rules.
    pub rules: Arc<rules::Manager>,
    /// Alertmanagers.
    pub notifier: Arc<notify::Manager>,
    /// Queries.
    pub engine: Arc<Engine>,
    /// Where queries are written to.
    pub query_log: Arc<QueryLog>,
}

/// Puts configurations in force, one at a time.
pub struct Reloader {
    options: Arc<Options>,
    config: watch::Sender<Arc<Config>>,
    state: watch::Sender<ReloadState>,
    success: Gauge,
    success_time: Gauge,
    clock: Clock,
    rooms: Rooms,
    discovery: Discovery,
    objects: Objects,
    seen: Mutex<Vec<Option<SystemTime>>>,
}

impl Reloader {
    /// A reloader that knows the configuration in `config` as in force, once
    /// it is applied.
    pub fn new(
        options: Arc<Options>,
        config: watch::Sender<Arc<Config>>,
        registry: &Registry,
        clock: Clock,
        rooms: Rooms,
        notices: Notices,
        stop: CancellationToken,
    ) -> Self {
        let seen = Mutex::new(stamps(&options, &config.borrow()));
        let success = registry.gauge(
            "prometheus_config_last_reload_successful",
            "Whether the last configuration reload attempt was successful.",
        );
        let success_time = registry.gauge(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "Timestamp of the last successful configuration reload.",
        );
        let state = watch::Sender::new(ReloadState { success: false, time_ms: 0 });
        let discovery = Discovery::new(registry, stop.clone()).with_notices(notices.clone());
        let objects = Objects::new(registry, super::parse_options(&options), notices, stop);
        Self {
            options,
            config,
            state,
            success,
            success_time,
            clock,
            rooms,
            discovery,
            objects,
            seen,
        }
    }

    /// Follows the outcome of reloads.
    pub fn state(&self) -> watch::Receiver<ReloadState> {
        self.state.subscribe()
    }

    /// Follows what came of the operator's objects.
    pub fn objects(&self) -> watch::Receiver<Arc<ObjectsStatus>> {
        self.objects.status()
    }

    /// Puts the configuration of the start in force.
    ///
    /// # Errors
    ///
    /// [`StartError::Config`]: a start is refused where a reload would be.
    pub async fn apply_first(&self) -> Result<(), StartError> {
        let config = Arc::clone(&self.config.borrow());
        self.apply(&config).await.map_err(StartError::Config)
    }

    /// Reads the configuration and puts it in force.
    ///
    /// # Errors
    ///
    /// The reason; the configuration before stays in force.
    pub async fn reload(&self) -> Result<(), String> {
        let loaded = match &self.options.config {
            ConfigSource::File(_) => load(&self.options),
            ConfigSource::Builtin => Ok(builtin(&self.options).await),
        };
        let outcome = match loaded {
            Ok(config) => self.replace(Arc::new(config)).await,
            Err(reason) => Err(reason),
        };
        match &outcome {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(reason) => {
                self.success.set(0.0);
                self.state.send_modify(|state| state.success = false);
                tracing::error!("configuration not reloaded: {reason}");
            }
        }
        *self.seen.lock().await = stamps(&self.options, &self.config.borrow());
        outcome
    }

    /// Puts a configuration in force; if part of it cannot be, the one before
    /// is put back.
    async fn replace(&self, config: Arc<Config>) -> Result<(), String> {
        let before = Arc::clone(&self.config.borrow());
        match self.apply(&config).await {
            Ok(()) => {
                self.config.send_replace(config);
                Ok(())
            }
            Err(reason) => {
                if let Err(error) = self.apply(&before).await {
                    tracing::error!(error, "the configuration before is not in force as a whole");
                }
                Err(reason)
            }
        }
    }

    async fn apply(&self, config: &Config) -> Result<(), String> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let wanted = self.objects.wanted(config, &self.discovery);
        // Rules first: of all parts they are most often wrong, and a wrong
        // one changes nothing.
        let Rooms { scrape, rules, notifier, engine, query_log } = &self.rooms;
        let interval = config.global.evaluation_interval;
        engine.set_default_subquery_step(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
        rules.apply(config).await.map_err(|e| e.to_string())?;
        rules.apply_objects(wanted.rules).await.map_err(|e| e.to_string())?;
        let mut config = config.clone();
        config.scrape_configs.extend(wanted.pools);
        let config = &config;
        let alertmanagers = |i: usize, config: &config::AlertmanagerConfig| {
            self.discovery.follow_as("notify", &format!("config-{i}"), &config.discovery)
        };
        notifier.apply(config, alertmanagers).await.map_err(|e| e.to_string())?;
        let scraped = scrape
            .apply(config, |scrape| self.discovery.follow(&scrape.job_name, &scrape.discovery));
        self.objects.tell(wanted.status);
        scraped.map_err(|e| e.to_string())?;
        let log_file = config.global.query_log_file.as_deref();
        query_log.set_file(log_file).map_err(|e| format!("query_log_file: {e}"))?;
        let now_ms = self.clock.now_ms();
        self.success.set(1.0);
        #[allow(clippy::cast_precision_loss, reason = "exact for a million years")]
        self.success_time.set(now_ms as f64 / 1000.0);
        self.state.send_replace(ReloadState { success: true, time_ms: now_ms });
        Ok(())
    }

    /// Waits until the operator's objects ask for something else.
    pub async fn objects_changed(&self) {
        self.objects.changed().await;
    }

    /// Puts what the objects ask for in force beside the configuration.
    pub async fn apply_objects(&self) {
        let config = Arc::clone(&self.config.borrow());
        match self.apply(&config).await {
            Ok(()) => tracing::info!("the operator's objects are in force"),
            Err(reason) => tracing::error!("the operator's objects are not in force: {reason}"),
        }
    }

    /// Whether changed files are to be noticed without being told.
    pub fn looks_by_itself(&self) -> bool {
        self.options.auto_reload.is_some()
    }

    /// How often to look.
    pub fn look_interval(&self) -> Duration {
        self.options.auto_reload.unwrap_or(NEVER)
    }

    /// Reloads if a file of the configuration has changed.
    pub async fn reload_if_changed(&self) {
        let now = stamps(&self.options, &self.config.borrow());
        if *self.seen.lock().await != now {
            // The outcome is logged.
            let _ = self.reload().await;
        }
    }
}

/// Reads the configuration file.
///
/// # Errors
///
/// The place and the reason.
pub fn load(options: &Options) -> Result<Config, String> {
    let ConfigSource::File(path) = &options.config else {
        return Err("there is no configuration file".to_owned());
    };
    config::load(path, &options.config_defaults()).map_err(|e| e.to_string())
}

/// The built-in configuration: narthex itself, and a node exporter if one
/// answers.
pub async fn builtin(options: &Options) -> Config {
    let listen = options.web.listen_addresses.first().map_or("127.0.0.1:9090", String::as_str);
    let own =
        if listen.starts_with(':') { format!("127.0.0.1{listen}") } else { listen.to_owned() };
    let knock = tokio::net::TcpStream::connect(NODE_EXPORTER);
    let answers = tokio::time::timeout(KNOCK_TIMEOUT, knock).await.is_ok_and(|c| c.is_ok());
    config::builtin(&own, answers.then_some(NODE_EXPORTER))
}

/// Times of change of the files that make up the configuration.
fn stamps(options: &Options, config: &Config) -> Vec<Option<SystemTime>> {
    let ConfigSource::File(path) = &options.config else { return Vec::new() };
    let mut files: Vec<PathBuf> = vec![path.clone()];
    for pattern in &config.rule_files {
        files.extend(config::glob::glob(pattern));
    }
    let changed = |file: &Path| std::fs::metadata(file).and_then(|m| m.modified()).ok();
    files.iter().map(|file| changed(file)).collect()
}
