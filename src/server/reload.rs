//! What if the configuration changes? Reads it again, puts it in force, or
//! keeps the one before and says why.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::StartError;
use crate::api::{Clock, ReloadState};
use crate::cli::{ConfigSource, Options};
use crate::config::{self, Config, GlobalConfig, OperatorConfig};
use crate::discovery::Discovery;
use crate::discovery::operator::{Timing, Wanted, follow};
use crate::metrics::{Gauge, Registry};
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
}

/// The operator's objects, as long as the configuration asks for them.
struct Followed {
    config: OperatorConfig,
    global: GlobalConfig,
    wanted: watch::Receiver<Option<Arc<Wanted>>>,
    _end: DropGuard,
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
    operator: std::sync::Mutex<Option<Followed>>,
    stop: CancellationToken,
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
        let discovery = Discovery::new(registry, stop.clone());
        let operator = std::sync::Mutex::default();
        Self {
            options,
            config,
            state,
            success,
            success_time,
            clock,
            rooms,
            discovery,
            operator,
            stop,
            seen,
        }
    }

    /// Follows the outcome of reloads.
    pub fn state(&self) -> watch::Receiver<ReloadState> {
        self.state.subscribe()
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
        let wanted = self.wanted(config);
        // Rules first: of all parts they are most often wrong, and a wrong
        // one changes nothing.
        let Rooms { scrape, rules, notifier } = &self.rooms;
        rules.apply(config).await.map_err(|e| e.to_string())?;
        rules.apply_objects(self.rule_objects(&wanted)).await.map_err(|e| e.to_string())?;
        let mut config = config.clone();
        config.scrape_configs.extend(wanted.scrape_configs.iter().cloned());
        let config = &config;
        let alertmanagers = |i: usize, config: &config::AlertmanagerConfig| {
            self.discovery.follow_as("notify", &format!("config-{i}"), &config.discovery)
        };
        notifier.apply(config, alertmanagers).await.map_err(|e| e.to_string())?;
        scrape
            .apply(config, |scrape| self.discovery.follow(&scrape.job_name, &scrape.discovery))
            .map_err(|e| e.to_string())?;
        let now_ms = self.clock.now_ms();
        self.success.set(1.0);
        #[allow(clippy::cast_precision_loss, reason = "exact for a million years")]
        self.success_time.set(now_ms as f64 / 1000.0);
        self.state.send_replace(ReloadState { success: true, time_ms: now_ms });
        Ok(())
    }

    /// What the operator's objects ask for now; follows them if the
    /// configuration wants that, and stops when it does not.
    fn wanted(&self, config: &Config) -> Arc<Wanted> {
        let mut operator = self.operator.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(section) = &config.operator else {
            *operator = None;
            return Arc::default();
        };
        let is_followed = |f: &Followed| f.config == *section && f.global == config.global;
        if !operator.as_ref().is_some_and(is_followed) {
            let end = self.stop.child_token();
            let (section, global) = (section.clone(), config.global.clone());
            let metrics = self.discovery.metrics().kubernetes.clone();
            let timing = Timing::default();
            let wanted = follow(section.clone(), global.clone(), metrics, timing, end.clone());
            *operator = Some(Followed { config: section, global, wanted, _end: end.drop_guard() });
        }
        let followed = operator.as_mut().map(|f| f.wanted.borrow_and_update().clone());
        followed.flatten().unwrap_or_default()
    }

    /// The rule files of the objects; one that does not parse is left out and
    /// named.
    fn rule_objects(&self, wanted: &Wanted) -> Vec<rules::file::RuleFile> {
        let options = rules::file::FileOptions {
            parse: super::parse_options(&self.options),
            ignore_unknown_fields: false,
        };
        for rejected in &wanted.rejected {
            tracing::warn!("object not used: {rejected}");
        }
        let mut files = Vec::new();
        for (name, text) in &wanted.rule_files {
            match rules::file::parse_rules(name, text, &options) {
                Ok(file) => files.push(file),
                Err(errors) => {
                    for error in errors {
                        tracing::warn!("PrometheusRule not used: {error}");
                    }
                }
            }
        }
        files
    }

    /// Waits until the operator's objects ask for something else.
    pub async fn objects_changed(&self) {
        let wanted = {
            let operator = self.operator.lock().unwrap_or_else(PoisonError::into_inner);
            operator.as_ref().map(|followed| followed.wanted.clone())
        };
        let Some(mut wanted) = wanted else { return std::future::pending().await };
        if wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
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
