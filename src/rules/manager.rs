//! Who runs the groups? Loads them, wakes them, keeps their state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use narthex_query::engine::Engine;
use narthex_query::parse::ParseOptions;
use narthex_storage::append::Appendable;
use narthex_storage::labels::Labels;
use narthex_storage::read::Queryable;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batch::Permits;
use super::context::{Context, EngineQuery};
use super::file::{FileOptions, RuleFile, RuleFileError, read_rules};
use super::group::{Group, GroupOptions};
use super::metrics::RuleMetrics;
use super::schedule::{Schedule, Wake};
use super::state_file::StateStore;
use super::status::GroupStatus;
use crate::config::{Config, glob::glob};
use crate::metrics::Registry;
use crate::notify::Notify;
use crate::query_log::{Origin, QueryLog};

/// Alerts that stay as they are are still written so often, so that a restart
/// knows how long the process was away.
const SAVE_EVERY_MS: i64 = 300_000;

/// What does not change with the configuration.
#[derive(Debug, Clone)]
pub struct ManagerOptions {
    /// `--web.external-url`, without a slash at the end.
    pub external_url: String,
    /// `--rules.alert.resend-delay`
    pub resend_delay: Duration,
    /// `--rules.alert.for-outage-tolerance`
    pub outage_tolerance: Duration,
    /// `--rules.alert.for-grace-period`
    pub for_grace: Duration,
    /// `--rules.max-concurrent-evals`, with the feature `concurrent-rule-eval`;
    /// `None` without.
    pub concurrent_evaluations: Option<usize>,
    /// Groups that are evaluated at the same time.
    pub concurrent_groups: usize,
    /// Which experimental parts of PromQL rules may use.
    pub parse: ParseOptions,
    /// The data directory; alerts are kept in `state/` below it. `None` keeps
    /// them in memory only.
    pub data: Option<PathBuf>,
    /// Hears of all queries of rules.
    pub query_log: Option<Arc<QueryLog>>,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            external_url: String::new(),
            resend_delay: Duration::from_secs(60),
            outage_tolerance: Duration::from_secs(3600),
            for_grace: Duration::from_secs(600),
            concurrent_evaluations: None,
            concurrent_groups: (2 * cores).clamp(4, 20),
            parse: ParseOptions::default(),
            data: None,
            query_log: None,
        }
    }
}

/// Rules that cannot be used: everything that is wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RulesError(pub Vec<RuleFileError>);

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// Owns all groups.
///
/// Dropping it stops nothing: call [`Manager::stop`].
pub struct Manager {
    base: Context,
    queries: EngineQuery,
    options: ManagerOptions,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// One `apply` at a time.
    applying: tokio::sync::Mutex<()>,
}

/// What the tasks of all groups share.
struct Shared {
    turns: Semaphore,
    store: Option<StateStore>,
    /// The data directory has no state files yet: alerts are restored from
    /// their series.
    from_series: bool,
    started: Instant,
}

#[derive(Default)]
struct State {
    running: BTreeMap<String, Running>,
    /// From the newest configuration that was applied.
    settings: Option<Settings>,
    /// Rules that come from elsewhere than files.
    objects: Vec<RuleFile>,
    /// Groups that ran in this process: they need nothing from before it.
    known: BTreeSet<String>,
    /// The first configuration, and the first objects, were applied: what is
    /// new from then on was not there before the process.
    has_files: bool,
    has_objects: bool,
    is_stopped: bool,
}

/// The part of the configuration that rules need.
#[derive(Debug, Clone)]
struct Settings {
    patterns: Vec<PathBuf>,
    interval_ms: i64,
    grace_ms: i64,
    query_offset_ms: i64,
    external_labels: Labels,
}

/// A group that is being run.
struct Running {
    group: Arc<Group>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    external_labels: Labels,
    query_offset_ms: i64,
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

impl Manager {
    /// A manager without groups. Opens the state files.
    ///
    /// # Errors
    ///
    /// If the directory of the state files cannot be made.
    ///
    /// # Panics
    ///
    /// If the rule metrics are in `registry` already.
    pub fn new(
        queryable: Arc<dyn Queryable>,
        appendable: Arc<dyn Appendable>,
        engine: Arc<Engine>,
        notify: Arc<dyn Notify>,
        registry: &Registry,
        options: ManagerOptions,
    ) -> std::io::Result<Self> {
        let (store, existed) = match &options.data {
            Some(data) => {
                let (store, existed) = StateStore::open(data)?;
                (Some(store), existed)
            }
            None => (None, false),
        };
        let log = options
            .query_log
            .clone()
            .map(|log| (log, Origin::RuleGroup { file: String::new(), name: String::new() }));
        let queries = EngineQuery { engine, queryable, parse: options.parse, log };
        let base = Context {
            query: Arc::new(queries.clone()),
            appendable,
            notify,
            external_labels: Labels::empty(),
            external_url: options.external_url.clone(),
            template_url: Some(options.external_url.clone()),
            query_offset_ms: 0,
            resend_delay_ms: milliseconds(options.resend_delay),
            outage_tolerance_ms: milliseconds(options.outage_tolerance),
            for_grace_ms: milliseconds(options.for_grace),
            concurrent_rules: options.concurrent_evaluations.map(|n| Arc::new(Permits::new(n))),
            metrics: RuleMetrics::register(registry),
        };
        let shared = Shared {
            turns: Semaphore::new(options.concurrent_groups.max(1)),
            store,
            from_series: !existed,
            started: Instant::now(),
        };
        Ok(Self {
            base,
            queries,
            options,
            shared: Arc::new(shared),
            state: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the rule files of a configuration and runs what is in them.
    /// Groups that did not change go on undisturbed, rules that stay in a
    /// group that did keep their alerts. Must be called within the runtime.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files; the rules before go on.
    pub async fn apply(&self, config: &Config) -> Result<(), RulesError> {
        let global = &config.global;
        let grace = global.scrape_interval.max(global.evaluation_interval) * 2;
        let settings = Settings {
            patterns: config.rule_files.clone(),
            interval_ms: milliseconds(global.evaluation_interval).max(1),
            grace_ms: milliseconds(grace),
            query_offset_ms: milliseconds(global.rule_query_offset),
            external_labels: global.external_labels.clone(),
        };
        let turn = self.applying.lock().await;
        let objects = self.state().objects.clone();
        let result = self.replace(settings, objects).await;
        drop(turn);
        result
    }

    /// Replaces the rules that come from elsewhere than files, such as the
    /// operator's objects; their names are shown as file names. Without a
    /// configuration yet, they wait for it.
    ///
    /// # Errors
    ///
    /// As [`Manager::apply`].
    pub async fn apply_objects(&self, objects: Vec<RuleFile>) -> Result<(), RulesError> {
        let turn = self.applying.lock().await;
        let settings = self.state().settings.clone();
        let result = match settings {
            Some(settings) => self.replace(settings, objects).await,
            None => {
                self.state().objects = objects;
                Ok(())
            }
        };
        drop(turn);
        result
    }

    /// All groups of the files and objects.
    fn load(&self, settings: &Settings, objects: &[RuleFile]) -> Result<Vec<Group>, RulesError> {
        let options = FileOptions { parse: self.options.parse, ignore_unknown_fields: false };
        let paths: BTreeSet<PathBuf> = settings.patterns.iter().flat_map(|p| glob(p)).collect();
        let mut errors = Vec::new();
        let mut files = Vec::new();
        for path in paths {
            match read_rules(&path, &options) {
                Ok(file) => files.push(file),
                Err(wrong) => errors.extend(wrong),
            }
        }
        files.extend_from_slice(objects);
        let mut groups = Vec::new();
        for file in &files {
            let options =
                GroupOptions { file: file.name.clone(), default_interval_ms: settings.interval_ms };
            for spec in &file.groups {
                match Group::new(spec, &options) {
                    Ok(group) => groups.push(group),
                    Err(message) => errors.push(RuleFileError {
                        file: file.name.clone(),
                        line: 0,
                        column: 0,
                        message,
                    }),
                }
            }
        }
        if errors.is_empty() { Ok(groups) } else { Err(RulesError(errors)) }
    }

    async fn replace(&self, settings: Settings, objects: Vec<RuleFile>) -> Result<(), RulesError> {
        let groups = self.load(&settings, &objects)?;
        let context = Arc::new(Context {
            external_labels: settings.external_labels.clone(),
            query_offset_ms: settings.query_offset_ms,
            ..self.base.clone()
        });
        let (mut before, mut known, is_start) = {
            let mut state = self.state();
            if state.is_stopped {
                return Ok(());
            }
            let is_start = !state.has_files || (!state.has_objects && !objects.is_empty());
            state.has_files = true;
            state.has_objects |= !objects.is_empty();
            state.settings = Some(settings.clone());
            state.objects = objects;
            (std::mem::take(&mut state.running), std::mem::take(&mut state.known), is_start)
        };
        let mut running = BTreeMap::new();
        for group in groups {
            let key = group.key().to_owned();
            let is_first = known.insert(key.clone());
            let old = before.remove(&key);
            let unchanged = old.as_ref().is_some_and(|old| {
                old.group.is_same(&group)
                    && old.external_labels == settings.external_labels
                    && old.query_offset_ms == settings.query_offset_ms
            });
            match old {
                Some(old) if unchanged => {
                    running.insert(key, old);
                    continue;
                }
                Some(old) => {
                    old.stop.cancel();
                    let _ = old.task.await;
                    group.take_over(&old.group);
                }
                None if is_first => self.restore(&group, is_start, &settings),
                None => {}
            }
            context.metrics.add_group(&key, group.interval_ms(), group.rules().len());
            let context = Arc::new(Context {
                query: Arc::new(self.queries.of_group(group.file(), group.name())),
                ..Context::clone(&context)
            });
            let started = self.start(Arc::new(group), context, &settings, is_first);
            running.insert(key, started);
        }
        for (key, old) in before {
            old.stop.cancel();
            let _ = old.task.await;
            self.forget(&key, old.group, context.clone());
        }
        let mut state = self.state();
        state.running = running;
        state.known = known;
        Ok(())
    }

    /// Puts the alerts back that were there before the process started.
    fn restore(&self, group: &Group, is_start: bool, settings: &Settings) {
        let Some(store) = &self.shared.store else { return };
        let now_ms = now_ms();
        match store.load(group, now_ms, self.base.outage_tolerance_ms) {
            Ok(true) => group.hold_until(now_ms.saturating_add(settings.grace_ms)),
            Ok(false) if is_start && self.shared.from_series => group.await_series(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(group = group.key(), %error, "cannot read the state of alerts");
                group.await_series();
            }
        }
    }

    fn start(
        &self,
        group: Arc<Group>,
        context: Arc<Context>,
        settings: &Settings,
        is_first: bool,
    ) -> Running {
        let stop = CancellationToken::new();
        let (external_labels, query_offset_ms) =
            (settings.external_labels.clone(), settings.query_offset_ms);
        let runner = Runner {
            group: group.clone(),
            context,
            shared: self.shared.clone(),
            stop: stop.clone(),
            grace_ms: settings.grace_ms,
            is_first,
        };
        let task = tokio::spawn(runner.run());
        Running { group, stop, task, external_labels, query_offset_ms }
    }

    /// A group that is gone: its series are marked stale once a renamed one
    /// had time to take them over.
    fn forget(&self, key: &str, group: Arc<Group>, context: Arc<Context>) {
        context.metrics.remove_group(key);
        if let Some(store) = &self.shared.store
            && let Err(error) = store.remove(key)
        {
            tracing::warn!(group = key, %error, "cannot remove the state of alerts");
        }
        group.retire();
        let at_ms = now_ms();
        let wait = Duration::from_millis(group.interval_ms().unsigned_abs().saturating_mul(2));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = tokio::task::spawn_blocking(move || group.mark_gone(at_ms, &context)).await;
        });
    }

    /// All groups as they are now, by file, then by name.
    #[must_use]
    pub fn status(&self) -> Vec<GroupStatus> {
        let groups: Vec<Arc<Group>> =
            self.state().running.values().map(|running| running.group.clone()).collect();
        let mut status: Vec<GroupStatus> = groups.iter().map(|group| group.status()).collect();
        status.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
        status
    }

    /// Stops all groups, waits for evaluations that run, and writes the state
    /// of all alerts.
    pub async fn stop(&self) {
        let running = {
            let mut state = self.state();
            state.is_stopped = true;
            std::mem::take(&mut state.running)
        };
        for group in running.values() {
            group.stop.cancel();
        }
        for (_, group) in running {
            let _ = group.task.await;
            self.shared.save(&group.group, now_ms());
        }
    }
}

impl Shared {
    fn save(&self, group: &Group, at_ms: i64) {
        let Some(store) = &self.store else { return };
        if let Err(error) = store.save(group, at_ms) {
            tracing::error!(group = group.key(), %error, "cannot write the state of alerts");
        }
    }
}

/// Runs one group until it is stopped.
struct Runner {
    group: Arc<Group>,
    context: Arc<Context>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    grace_ms: i64,
    /// It runs for the first time in this process: look what was before.
    is_first: bool,
}

/// What is to be done in one turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at_ms: i64,
    /// The slot that was evaluated last, if one after it was missed.
    last_ms: Option<i64>,
    /// Nothing is known of what was before.
    looks_back: bool,
    restores: bool,
    saves: bool,
}

impl Runner {
    async fn run(self) {
        let (interval_ms, slot_ms) = (self.group.interval_ms(), self.group.slot_ms());
        let elapsed = || self.shared.started.elapsed();
        let mut schedule = Schedule::new(interval_ms, slot_ms, now_ms(), elapsed());
        let key = [self.group.key()];
        let (missed_total, iterations) =
            (self.context.metrics.missed.with(&key), self.context.metrics.iterations.with(&key));
        let mut evaluations = 0_u64;
        let mut last_ms = None;
        let mut saved_ms = 0_i64;
        let mut quiet_until_ms = i64::MIN;
        loop {
            let sleep_ms = schedule.sleep_ms(now_ms()).unsigned_abs();
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => {}
            }
            let (at_ms, missed) = match schedule.wake(now_ms(), elapsed()) {
                Wake::Wait(_) => continue,
                Wake::Jumped(delta_ms) => {
                    let group = self.group.key();
                    tracing::warn!(group, delta_ms, "the clock jumped");
                    self.context.metrics.clock_jumps.inc();
                    self.group.shift(delta_ms);
                    quiet_until_ms = now_ms().saturating_add(self.grace_ms);
                    self.group.hold_until(quiet_until_ms.saturating_add(self.grace_ms));
                    last_ms = None;
                    continue;
                }
                Wake::Run { at_ms, missed } => (at_ms, missed),
            };
            missed_total.add(missed.unsigned_abs());
            iterations.add(missed.unsigned_abs());
            if at_ms < quiet_until_ms && quiet_until_ms - at_ms <= self.grace_ms {
                continue;
            }
            evaluations += 1;
            let turn = Turn {
                at_ms,
                last_ms: last_ms.filter(|_| missed > 0),
                looks_back: evaluations == 1 && self.is_first,
                restores: evaluations == 2,
                saves: at_ms.saturating_sub(saved_ms) >= SAVE_EVERY_MS,
            };
            if turn.saves {
                saved_ms = at_ms;
            }
            last_ms = Some(at_ms);
            let Ok(permit) = self.shared.turns.acquire().await else { return };
            let (group, context, shared) =
                (self.group.clone(), self.context.clone(), self.shared.clone());
            let work = tokio::task::spawn_blocking(move || turn.take(&group, &context, &shared));
            if let Err(error) = work.await {
                tracing::error!(group = self.group.key(), %error, "an evaluation panicked");
            }
            drop(permit);
        }
    }
}

impl Turn {
    fn take(self, group: &Group, context: &Context, shared: &Shared) {
        let last_ms = if self.looks_back {
            group.last_recorded_ms(self.at_ms, context)
        } else {
            self.last_ms
        };
        if let Some(last_ms) = last_ms {
            group.catch_up(last_ms, self.at_ms, context);
        }
        let evaluated = group.evaluate(self.at_ms, context);
        if self.restores {
            group.restore_from_series(self.at_ms, context);
        }
        if evaluated.alerts_changed || self.saves || self.restores {
            shared.save(group, self.at_ms);
        }
    }
}
