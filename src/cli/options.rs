//! What did the operator mean? Flags as checked values, defaults filled in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use narthex_storage::engine::Engine;

use super::features::Features;
use super::flags::{FLAGS, Meaning, RawFlags};
use crate::config::GlobalConfig;
use crate::config::units::{parse_duration, parse_size};

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file.
    File(PathBuf),
    /// None was given and `./prometheus.yml` does not exist.
    Builtin,
}

/// Everything that flags decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Where the configuration comes from.
    pub config: ConfigSource,
    /// How often to look for a changed configuration; `None`: never.
    pub auto_reload: Option<Duration>,
    /// The web server.
    pub web: WebOptions,
    /// The storage.
    pub storage: StorageOptions,
    /// The memory budget in bytes; `None`: 80 % of what there is.
    pub memory_limit_bytes: Option<u64>,
    /// Rules.
    pub rules: RuleOptions,
    /// Notifications.
    pub notify: NotifyOptions,
    /// Queries.
    pub query: QueryOptions,
    /// Scraping.
    pub scrape: ScrapeOptions,
    /// `--enable-feature`.
    pub features: Features,
    /// The log.
    pub log: LogOptions,
    /// All flags as texts, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// What was accepted although it has no meaning here, to be logged once.
    pub warnings: Vec<String>,
}

/// The web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOptions {
    /// `host:port`, host perhaps empty (all addresses); at least one.
    pub listen_addresses: Vec<String>,
    /// TLS and authentication.
    pub config_file: Option<PathBuf>,
    /// For a request to arrive and for a connection to idle.
    pub read_timeout: Duration,
    /// At a time.
    pub max_connections: usize,
    /// Of live notifications.
    pub max_notifications_subscribers: usize,
    /// Without `/` at its end.
    pub external_url: String,
    /// `/`, or `/prefix` without `/` at its end.
    pub route_prefix: String,
    /// `POST /-/reload`, `/-/quit`.
    pub enable_lifecycle: bool,
    /// Deleting, snapshots.
    pub enable_admin_api: bool,
    /// `/api/v1/write`.
    pub enable_remote_write_receiver: bool,
    /// Messages 1.0 and 2.0 that it takes.
    pub remote_write_v1: bool,
    /// See `remote_write_v1`.
    pub remote_write_v2: bool,
    /// Of the pages.
    pub page_title: String,
    /// Anchored by its user.
    pub cors_origin: String,
}

/// The storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageOptions {
    /// The data directory.
    pub path: PathBuf,
    /// `None`: by size only.
    pub retention_time: Option<Duration>,
    /// `None`: no limit.
    pub retention_size_bytes: Option<u64>,
    /// What keeps sealed data.
    pub engine: Engine,
    /// Until scraped samples are on the medium.
    pub wal_sync_interval: Duration,
}

/// Rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleOptions {
    /// `--rules.alert.for-outage-tolerance`
    pub for_outage_tolerance: Duration,
    /// `--rules.alert.for-grace-period`
    pub for_grace_period: Duration,
    /// `--rules.alert.resend-delay`
    pub resend_delay: Duration,
    /// `--rules.max-concurrent-evals`
    pub max_concurrent_evals: usize,
}

/// Notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyOptions {
    /// Most that wait.
    pub queue_capacity: usize,
    /// Most in one request.
    pub batch_size: usize,
    /// Send what waits before stopping.
    pub drain_on_shutdown: bool,
}

/// Queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryOptions {
    /// How far back the last sample of a series counts.
    pub lookback_delta: Duration,
    /// Longest time for one.
    pub timeout: Duration,
    /// At a time.
    pub max_concurrency: usize,
    /// That one may hold.
    pub max_samples: usize,
    /// Those that take longer are logged; zero: none.
    pub log_slower_than: Duration,
}

/// Scraping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrapeOptions {
    /// By how much timestamps may be moved to the schedule; zero: not at all.
    pub timestamp_tolerance: Duration,
    /// How often new targets are taken over.
    pub discovery_reload_interval: Duration,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// What is logged.
    pub level: LogLevel,
    /// As JSON, else as logfmt.
    pub json: bool,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is named as in the flag")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// The name in the flag.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Prometheus' default of the time retention.
const DEFAULT_RETENTION: Duration = Duration::from_secs(15 * 24 * 3600);
const MIN_MEMORY_BYTES: u64 = 64 << 20;

impl Options {
    /// Checks flags and fills in what depends on others.
    ///
    /// `host_name` is used for the external URL; `directory` is where
    /// `prometheus.yml` is looked for.
    ///
    /// # Errors
    ///
    /// The first flag that cannot be used, and why.
    pub fn resolve(raw: &RawFlags, host_name: &str, directory: &Path) -> Result<Self, String> {
        let mut warnings = Vec::new();
        for flag in FLAGS.iter().filter(|f| raw.is_given(f.name)) {
            match flag.meaning {
                Meaning::Used(_) => {}
                Meaning::Ignored(why) => {
                    warnings.push(format!("--{} has no effect here: {why}", flag.name));
                }
                Meaning::Refused(why) => return Err(format!("--{}: {why}", flag.name)),
            }
        }
        let features = Features::parse(raw.all("enable-feature"), &mut warnings)?;
        let config = config_source(raw, directory);
        let auto_reload = raw.one("config.auto-reload") == "true" || features.auto_reload;
        let interval = positive(raw, "config.auto-reload-interval")?;
        Ok(Self {
            auto_reload: auto_reload.then_some(interval),
            web: web(raw, host_name, config == ConfigSource::Builtin)?,
            storage: storage(raw)?,
            memory_limit_bytes: memory_limit(raw)?,
            rules: RuleOptions {
                for_outage_tolerance: duration(raw, "rules.alert.for-outage-tolerance")?,
                for_grace_period: duration(raw, "rules.alert.for-grace-period")?,
                resend_delay: duration(raw, "rules.alert.resend-delay")?,
                max_concurrent_evals: count(raw, "rules.max-concurrent-evals")?,
            },
            notify: NotifyOptions {
                queue_capacity: count(raw, "alertmanager.notification-queue-capacity")?,
                batch_size: count(raw, "alertmanager.notification-batch-size")?,
                drain_on_shutdown: raw.one("alertmanager.drain-notification-queue-on-shutdown")
                    == "true",
            },
            query: QueryOptions {
                lookback_delta: positive(raw, "query.lookback-delta")?,
                timeout: positive(raw, "query.timeout")?,
                max_concurrency: count(raw, "query.max-concurrency")?,
                max_samples: count(raw, "query.max-samples")?,
                log_slower_than: duration(raw, "query.log-slower-than")?,
            },
            scrape: scrape(raw)?,
            log: log(raw)?,
            flags: raw.shown(),
            config,
            features,
            warnings,
        })
    }

    /// What the configuration's `global` starts from, given the features.
    #[must_use]
    pub fn config_defaults(&self) -> GlobalConfig {
        GlobalConfig {
            scrape_native_histograms: self.features.native_histograms,
            extra_scrape_metrics: self.features.extra_scrape_metrics,
            ..GlobalConfig::default()
        }
    }
}

fn config_source(raw: &RawFlags, directory: &Path) -> ConfigSource {
    let name = raw.one("config.file");
    if raw.is_given("config.file") || directory.join(name).exists() {
        ConfigSource::File(PathBuf::from(name))
    } else {
        ConfigSource::Builtin
    }
}

fn web(raw: &RawFlags, host_name: &str, builtin: bool) -> Result<WebOptions, String> {
    let mut listen_addresses = raw.all("web.listen-address").to_vec();
    if builtin && !raw.is_given("web.listen-address") {
        listen_addresses = vec!["127.0.0.1:9090".to_owned()];
    }
    let mut ports = Vec::new();
    for address in &listen_addresses {
        ports.push(port(address).ok_or_else(|| {
            format!("--web.listen-address: {address:?} is not host:port (such as 0.0.0.0:9090)")
        })?);
    }
    let port = ports.first().copied().unwrap_or_default();
    let external_url = external_url(raw.one("web.external-url"), host_name, port)
        .map_err(|message| format!("--web.external-url: {message}"))?;
    let path =
        url::Url::parse(&external_url).map_or_else(|_| String::new(), |u| u.path().to_owned());
    let prefix = match raw.one("web.route-prefix") {
        "" => path,
        given => given.to_owned(),
    };
    let messages: Vec<&str> = raw
        .all("web.remote-write-receiver.accepted-protobuf-messages")
        .iter()
        .flat_map(|v| v.split(','))
        .collect();
    const V1: &str = "prometheus.WriteRequest";
    const V2: &str = "io.prometheus.write.v2.Request";
    if let Some(unknown) = messages.iter().find(|m| ![V1, V2].contains(m)) {
        return Err(format!(
            "--web.remote-write-receiver.accepted-protobuf-messages: {unknown:?} is neither {V1} \
             nor {V2}"
        ));
    }
    let cors_origin = raw.one("web.cors.origin").to_owned();
    regex::Regex::new(&format!("^(?:{cors_origin})$"))
        .map_err(|_| "--web.cors.origin: is not a regular expression".to_owned())?;
    Ok(WebOptions {
        listen_addresses,
        config_file: Some(raw.one("web.config.file")).filter(|f| !f.is_empty()).map(PathBuf::from),
        read_timeout: positive(raw, "web.read-timeout")?,
        max_connections: count(raw, "web.max-connections")?,
        max_notifications_subscribers: number(raw, "web.max-notifications-subscribers")?,
        external_url,
        route_prefix: format!("/{}", prefix.trim_matches('/')),
        enable_lifecycle: raw.one("web.enable-lifecycle") == "true",
        enable_admin_api: raw.one("web.enable-admin-api") == "true",
        enable_remote_write_receiver: raw.one("web.enable-remote-write-receiver") == "true",
        remote_write_v1: messages.contains(&V1),
        remote_write_v2: messages.contains(&V2),
        page_title: raw.one("web.page-title").to_owned(),
        cors_origin,
    })
}

/// The port of `host:port`, `:port` or `[address]:port`.
fn port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    (is_bracketed || !host.contains(':')).then_some(())?;
    port.parse().ok()
}

fn external_url(given: &str, host_name: &str, port: u16) -> Result<String, String> {
    if given.is_empty() {
        return Ok(format!("http://{host_name}:{port}"));
    }
    if given.starts_with(['"', '\'']) || given.ends_with(['"', '\'']) {
        return Err("must not begin or end with quotes".to_owned());
    }
    let url = url::Url::parse(given).map_err(|e| format!("is not a URL: {e}"))?;
    if url.host_str().is_none() {
        return Err("has no host".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn storage(raw: &RawFlags) -> Result<StorageOptions, String> {
    let time = duration(raw, "storage.tsdb.retention.time")?;
    let size = size(raw, "storage.tsdb.retention.size")?;
    let retention_time = match (time.is_zero(), size) {
        (false, _) => Some(time),
        (true, 0) => Some(DEFAULT_RETENTION),
        (true, _) => None,
    };
    Ok(StorageOptions {
        path: PathBuf::from(raw.one("storage.tsdb.path")),
        retention_time,
        retention_size_bytes: Some(size).filter(|s| *s > 0),
        engine: engine(raw.one("storage.engine"))?,
        wal_sync_interval: positive(raw, "storage.wal.sync-interval")?,
    })
}

fn engine(given: &str) -> Result<Engine, String> {
    Engine::named(given).ok_or_else(|| match given {
        "rocksdb" => "--storage.engine: this narthex was built without the cargo feature \
                      `rocksdb`, which that engine needs"
            .to_owned(),
        _ => format!("--storage.engine: {given:?} is none of files, rocksdb"),
    })
}

fn memory_limit(raw: &RawFlags) -> Result<Option<u64>, String> {
    let bytes = size(raw, "memory.limit")?;
    if bytes > 0 && bytes < MIN_MEMORY_BYTES {
        return Err("--memory.limit: must be at least 64MB".to_owned());
    }
    Ok(Some(bytes).filter(|b| *b > 0))
}

fn scrape(raw: &RawFlags) -> Result<ScrapeOptions, String> {
    let tolerance = duration(raw, "scrape.timestamp-tolerance")?;
    let adjust = raw.one("scrape.adjust-timestamps") == "true";
    Ok(ScrapeOptions {
        timestamp_tolerance: if adjust { tolerance } else { Duration::ZERO },
        discovery_reload_interval: positive(raw, "scrape.discovery-reload-interval")?,
    })
}

fn log(raw: &RawFlags) -> Result<LogOptions, String> {
    let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
    let given = raw.one("log.level");
    let level = levels
        .into_iter()
        .find(|l| l.as_str() == given)
        .ok_or_else(|| format!("--log.level: {given:?} is none of debug, info, warn, error"))?;
    match raw.one("log.format") {
        "logfmt" => Ok(LogOptions { level, json: false }),
        "json" => Ok(LogOptions { level, json: true }),
        other => Err(format!("--log.format: {other:?} is neither logfmt nor json")),
    }
}

fn duration(raw: &RawFlags, name: &str) -> Result<Duration, String> {
    parse_duration(raw.one(name)).map_err(|message| format!("--{name}: {message}"))
}

fn positive(raw: &RawFlags, name: &str) -> Result<Duration, String> {
    let duration = duration(raw, name)?;
    if duration.is_zero() { Err(format!("--{name}: must be above zero")) } else { Ok(duration) }
}

fn size(raw: &RawFlags, name: &str) -> Result<u64, String> {
    parse_size(raw.one(name)).map_err(|message| format!("--{name}: {message}"))
}

fn number(raw: &RawFlags, name: &str) -> Result<usize, String> {
    let text = raw.one(name);
    text.parse().map_err(|_| format!("--{name}: {text:?} is not a number"))
}

/// A number above zero.
fn count(raw: &RawFlags, name: &str) -> Result<usize, String> {
    let number = number(raw, name)?;
    if number == 0 { Err(format!("--{name}: must be above zero")) } else { Ok(number) }
}
