//! The targets of one scrape configuration and their loops.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use narthex_storage::append::{Appendable, SourceId};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exposed::ExposedRules;
use super::failure_log::FailureLog;
use super::fetch::{Buffers, Fetcher};
use super::labels::LabelRules;
use super::metadata::Interner;
use super::metrics::ScrapeMetrics;
use super::negotiation::accept;
use super::page::PageRules;
use super::run::{Control, Loop};
use super::scanner::protobuf::HistogramRules;
use super::target::Target;
use super::write::{Memory, Writer};
use super::{ApplyError, PoolStatus};
use crate::client::{HttpClient, parse_url};
use crate::config::ScrapeConfig;
use crate::config::units::format_duration;
use crate::discovery::TargetGroups;
use crate::discovery::targets::{Builder, Built, Discovered, Found, TargetSpec};
use crate::relabel::Rules;

/// What all pools share.
pub(super) struct Common {
    pub(super) appendable: Arc<dyn Appendable>,
    pub(super) metrics: ScrapeMetrics,
    pub(super) interner: Arc<Interner>,
    pub(super) buffers: Buffers,
    pub(super) tasks: TaskTracker,
    pub(super) runtime: Option<Handle>,
    pub(super) extra_scrape_metrics: bool,
    pub(super) type_and_unit_labels: bool,
    pub(super) start_timestamps: bool,
    /// Keys the hashes of caches; differs from process to process.
    pub(super) hash_key: u64,
}

/// The loops of one scrape configuration.
pub(super) struct Pool {
    common: Arc<Common>,
    shutdown: CancellationToken,
    forced_error: Arc<Mutex<Option<String>>>,
    state: Mutex<State>,
}

struct State {
    settings: Settings,
    groups: TargetGroups,
    builder: Builder,
    running: BTreeMap<u64, Running>,
    dropped: Vec<Discovered>,
    dropped_count: usize,
}

/// A configuration, compiled.
struct Settings {
    config: Arc<ScrapeConfig>,
    target_rules: Rules,
    sample_rules: Arc<Rules>,
    client: HttpClient,
    accept: HeaderValue,
    failure_log: Option<Arc<FailureLog>>,
    /// Moves all targets' offsets, so that several servers ask at other times.
    offset_seed: u64,
}

struct Running {
    target: Arc<Target>,
    control: Control,
    memory: Arc<tokio::sync::Mutex<Memory>>,
}

impl Settings {
    fn compile(config: &ScrapeConfig, offset_seed: u64) -> Result<Self, ApplyError> {
        let fail = |reason: String| ApplyError { job: config.job_name.clone(), reason };
        let names = config.metric_name_validation;
        let rules = |configs| Rules::compile_for(configs, names).map_err(|e| fail(e.to_string()));
        let client = HttpClient::new_lazy(&config.http).map_err(|e| fail(e.to_string()))?;
        let accept = HeaderValue::from_str(&accept(config)).map_err(|e| fail(e.to_string()))?;
        let failure_log = match &config.scrape_failure_log_file {
            None => None,
            Some(path) => Some(Arc::new(
                FailureLog::open(path).map_err(|e| fail(format!("{}: {e}", path.display())))?,
            )),
        };
        Ok(Self {
            failure_log,
            target_rules: rules(&config.relabel_configs)?,
            sample_rules: Arc::new(rules(&config.metric_relabel_configs)?),
            config: Arc::new(config.clone()),
            client,
            accept,
            offset_seed,
        })
    }

    /// Whether series keep their names under another configuration, so that
    /// caches stay valid and series go on.
    fn same_series(&self, other: &Self) -> bool {
        let limits = |s: &Self| {
            let l = s.config.limits;
            (l.labels, l.label_name_bytes, l.label_value_bytes)
        };
        let key = |s: &Self| {
            let c = &s.config;
            (c.honor_labels, c.honor_timestamps, c.metric_name_validation)
        };
        limits(self) == limits(other)
            && key(self) == key(other)
            && self.config.metric_relabel_configs == other.config.metric_relabel_configs
    }
}

/// Whether a pool can be made of a configuration.
pub(super) fn check(config: &ScrapeConfig) -> Result<(), ApplyError> {
    Settings::compile(config, 0).map(|_| ())
}

impl Pool {
    pub(super) fn new(
        common: Arc<Common>,
        config: &ScrapeConfig,
        offset_seed: u64,
    ) -> Result<Self, ApplyError> {
        let settings = Settings::compile(config, offset_seed)?;
        let job = config.job_name.as_str();
        #[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
        common.metrics.pool_target_limit.with(&[job]).set(config.limits.targets as f64);
        Ok(Self {
            common,
            shutdown: CancellationToken::new(),
            forced_error: Arc::default(),
            state: Mutex::new(State {
                settings,
                groups: TargetGroups::default(),
                builder: Builder::default(),
                running: BTreeMap::new(),
                dropped: Vec::new(),
                dropped_count: 0,
            }),
        })
    }

    /// Follows the groups until the sender is gone or the task is aborted.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut groups: tokio::sync::watch::Receiver<TargetGroups>,
    ) {
        loop {
            let now = groups.borrow_and_update().clone();
            self.sync(now);
            if groups.changed().await.is_err() {
                return;
            }
        }
    }

    /// Replaces the configuration. Loops are restarted; series go on where
    /// they keep their names.
    pub(super) fn reload(&self, config: &ScrapeConfig, offset_seed: u64) -> Result<(), ApplyError> {
        let mut state = self.lock();
        if *state.settings.config == *config {
            return Ok(());
        }
        let started = tokio::time::Instant::now();
        let metrics = &self.common.metrics;
        metrics.pool_reloads.inc();
        let settings = Settings::compile(config, offset_seed)
            .inspect_err(|_| metrics.pool_reloads_failed.inc())?;
        let keep_memory = state.settings.same_series(&settings);
        #[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
        metrics.pool_target_limit.with(&[&config.job_name]).set(config.limits.targets as f64);
        state.settings = settings;
        state.builder = Builder::default();
        let old = std::mem::take(&mut state.running);
        let groups = Arc::clone(&state.groups);
        self.sync_locked(&mut state, groups, old, keep_memory);
        let interval = format_duration(config.scrape_interval);
        metrics.reload_length.with(&[&interval]).observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn sync(&self, groups: TargetGroups) {
        let started = tokio::time::Instant::now();
        let mut state = self.lock();
        let job = state.settings.config.job_name.clone();
        self.sync_locked(&mut state, groups, BTreeMap::new(), true);
        drop(state);
        let metrics = &self.common.metrics;
        metrics.pool_syncs.with(&[&job]).inc();
        metrics.sync_length.with(&[&job]).observe(started.elapsed().as_secs_f64());
    }

    /// Starts and stops loops, so that `groups` are scraped. Loops in `old`
    /// are replaced: with their memory, or without and then they end.
    fn sync_locked(
        &self,
        state: &mut State,
        groups: TargetGroups,
        mut old: BTreeMap<u64, Running>,
        keep_memory: bool,
    ) {
        if self.shutdown.is_cancelled() {
            return;
        }
        let config = Arc::clone(&state.settings.config);
        let job = config.job_name.as_str();
        let metrics = &self.common.metrics;
        let Built { active, mut dropped, mut dropped_count, errors } =
            state.builder.build(&config, &state.settings.target_rules, &groups);
        metrics.sync_failed.with(&[job]).add(errors.len() as u64);
        for error in errors {
            tracing::error!(scrape_pool = job, %error, "creating target failed");
        }
        let mut gone = std::mem::take(&mut state.running);
        for Found { spec, discovered } in active {
            if !spec.has_public_labels() {
                dropped_count += 1;
                dropped.push(discovered);
                continue;
            }
            let id = spec.identity;
            if let Some(running) = gone.remove(&id) {
                running.target.rediscover(discovered);
                state.running.insert(id, running);
                continue;
            }
            let Entry::Vacant(slot) = state.running.entry(id) else { continue };
            let replaced = old.remove(&id);
            let memory = match &replaced {
                Some(before) if keep_memory => {
                    before.control.replaced.store(true, Ordering::Release);
                    Arc::clone(&before.memory)
                }
                _ => Arc::default(),
            };
            match self.start(&state.settings, spec, discovered, memory) {
                Ok(running) => {
                    if let Some(before) = replaced {
                        running.target.take_state(&before.target);
                        before.control.stop.cancel();
                    }
                    slot.insert(running);
                }
                Err(reason) => {
                    metrics.sync_failed.with(&[job]).inc();
                    tracing::error!(scrape_pool = job, reason, "creating target failed");
                }
            }
        }
        for running in gone.into_values().chain(old.into_values()) {
            running.control.stop.cancel();
        }
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        metrics.pool_targets.with(&[job]).set(state.running.len() as f64);
        let (count, limit) = (state.running.len() as u64, config.limits.targets);
        let over = limit > 0 && count > limit;
        if over {
            metrics.exceeded_target_limit.inc();
        }
        *self.forced_error.lock().unwrap_or_else(PoisonError::into_inner) = over
            .then(|| format!("target_limit exceeded (number of targets: {count}, limit: {limit})"));
        state.dropped = dropped;
        state.dropped_count = dropped_count;
        state.groups = groups;
        self.common.interner.sweep();
    }

    fn start(
        &self,
        settings: &Settings,
        spec: Arc<TargetSpec>,
        discovered: Discovered,
        memory: Arc<tokio::sync::Mutex<Memory>>,
    ) -> Result<Running, String> {
        let (config, common) = (&settings.config, &self.common);
        let url = parse_url(&spec.url).map_err(|e| e.to_string())?;
        let labels = LabelRules {
            target: spec.public_labels(),
            honor_labels: config.honor_labels,
            relabel: Arc::clone(&settings.sample_rules),
            limits: config.limits,
            validation: config.metric_name_validation,
        };
        let job_hash = xxhash_rust::xxh3::xxh3_64(config.job_name.as_bytes());
        let writer = Writer {
            appendable: Arc::clone(&common.appendable),
            source: SourceId(spec.identity ^ job_hash),
            rules: PageRules {
                labels,
                honor_timestamps: config.honor_timestamps,
                track_timestamps_staleness: config.track_timestamps_staleness,
                sample_limit: config.limits.samples,
                hash_key: common.hash_key,
            },
            metrics: common.metrics.clone(),
            interner: Arc::clone(&common.interner),
            extra: config.extra_scrape_metrics || common.extra_scrape_metrics,
            timeout: spec.timeout,
            exposed: ExposedRules {
                read: HistogramRules {
                    native: spec.scrape_native_histograms,
                    always_classic: spec.always_scrape_classic_histograms,
                },
                convert_classic: spec.convert_classic_histograms_to_nhcb,
                bucket_limit: config.native_histogram_bucket_limit,
                min_bucket_factor: config.native_histogram_min_bucket_factor,
                type_and_unit_labels: common.type_and_unit_labels,
                start_timestamps: common.start_timestamps,
            },
        };
        let fetcher = Fetcher::new(
            settings.client.clone(),
            url,
            spec.unix_socket.as_deref().map(|path| Path::new(path).into()),
            &settings.accept,
            config.enable_compression,
            spec.timeout,
            config.limits.body_size_bytes,
        );
        let control = Control { shutdown: self.shutdown.clone(), ..Control::default() };
        let interval = format_duration(spec.interval);
        let offset_hash = spec.identity ^ settings.offset_seed;
        let target = Arc::new(Target::new(spec, discovered));
        let running = Loop {
            target: Arc::clone(&target),
            fetcher,
            writer,
            buffers: common.buffers.clone(),
            fallback: config.fallback_scrape_protocol,
            failure_log: settings.failure_log.clone(),
            job: config.job_name.as_str().into(),
            interval_length: common.metrics.interval_length.with(&[&interval]),
            offset_hash,
            forced_error: Arc::clone(&self.forced_error),
            control: control.clone(),
            memory: Arc::clone(&memory),
        };
        match &common.runtime {
            Some(runtime) => common.tasks.spawn_on(running.run(), runtime),
            None => common.tasks.spawn(running.run()),
        };
        Ok(Running { target, control, memory })
    }

    /// Ends all loops at once, without staleness markers.
    pub(super) fn stop(&self) {
        self.shutdown.cancel();
        let state = self.lock();
        for running in state.running.values() {
            running.control.stop.cancel();
        }
        self.common.metrics.forget_pool(&state.settings.config.job_name);
    }

    pub(super) fn status(&self) -> PoolStatus {
        let state = self.lock();
        PoolStatus {
            config: Arc::clone(&state.settings.config),
            active: state.running.values().map(|r| Arc::clone(&r.target)).collect(),
            dropped: state.dropped.clone(),
            dropped_count: state.dropped_count,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
