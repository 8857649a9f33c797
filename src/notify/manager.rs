//! Who are the receivers? Follows the configuration and its discovery.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use narthex_storage::labels::Labels;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use super::metrics::NotifyMetrics;
use super::sender::Sender;
use super::target::{Found, find};
use super::webhook::Webhook;
use super::{Alert, Notify};
use crate::client::HttpClient;
use crate::config::{AlertmanagerConfig, Config};
use crate::discovery::TargetGroups;
use crate::metrics::Registry;
use crate::relabel::Rules;

/// What does not change with the configuration.
#[derive(Debug, Clone)]
pub struct ManagerOptions {
    /// `--alertmanager.notification-queue-capacity`: alerts per receiver.
    pub queue_capacity: usize,
    /// `--alertmanager.drain-notification-queue-on-shutdown`
    pub drain: bool,
    /// Shown to webhooks as `externalURL`.
    pub external_url: String,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self { queue_capacity: 10_000, drain: true, external_url: String::new() }
    }
}

/// A configuration of receivers that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotifyError(pub(super) String);

/// Hands alerts to all receivers. Share it in an [`Arc`]; call
/// [`Manager::stop`] before dropping it.
pub struct Manager {
    options: ManagerOptions,
    metrics: NotifyMetrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    external_labels: Labels,
    relabel: Option<Arc<Rules>>,
    sets: Vec<Set>,
    webhooks: Vec<Webhook>,
}

/// The Alertmanagers of one of `alertmanagers`.
struct Set {
    config: AlertmanagerConfig,
    relabel: Rules,
    members: Arc<Members>,
    follow: JoinHandle<()>,
}

/// Who is there now.
struct Members {
    config: AlertmanagerConfig,
    relabel: Rules,
    client: HttpClient,
    capacity: usize,
    metrics: NotifyMetrics,
    now: Mutex<Present>,
}

#[derive(Default)]
struct Present {
    senders: BTreeMap<Url, Sender>,
    dropped: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    /// A manager without receivers.
    ///
    /// # Panics
    ///
    /// If the metrics of notifications are in `registry` already.
    #[must_use]
    pub fn new(registry: &Registry, options: ManagerOptions) -> Self {
        let metrics = NotifyMetrics::register(registry, options.queue_capacity);
        Self { options, metrics, state: Mutex::default() }
    }

    /// Takes over a configuration. `groups` gives the discovery of each of
    /// `alerting.alertmanagers`, named by its position; static ones are among
    /// its groups. Receivers whose configuration did not change keep their
    /// queues. Must be called within the runtime.
    ///
    /// # Errors
    ///
    /// What cannot be used; the configuration before then stays.
    pub async fn apply(
        &self,
        config: &Config,
        mut groups: impl FnMut(usize, &AlertmanagerConfig) -> watch::Receiver<TargetGroups>,
    ) -> Result<(), NotifyError> {
        let compile = |configs| Rules::compile(configs).map_err(|e| NotifyError(e.to_string()));
        let relabel = Arc::new(compile(&config.alerting.alert_relabel_configs)?);
        let mut prepared = Vec::new();
        for config in &config.alerting.alertmanagers {
            let client = HttpClient::new(&config.http).map_err(|e| NotifyError(e.to_string()))?;
            let alerts = compile(&config.alert_relabel_configs)?;
            prepared.push((config, client, compile(&config.relabel_configs)?, alerts));
        }
        for config in &config.webhooks.receivers {
            Webhook::check(config)?;
        }
        let (mut sets_before, mut webhooks_before) = {
            let mut state = lock(&self.state);
            (std::mem::take(&mut state.sets), std::mem::take(&mut state.webhooks))
        };
        let mut sets = Vec::new();
        for (i, (config, client, relabel, alert_relabel)) in prepared.into_iter().enumerate() {
            let members = match sets_before.iter().position(|set| set.config == *config) {
                Some(at) => {
                    let before = sets_before.swap_remove(at);
                    before.follow.abort();
                    before.members
                }
                None => Arc::new(Members {
                    config: config.clone(),
                    relabel,
                    client,
                    capacity: self.options.queue_capacity,
                    metrics: self.metrics.clone(),
                    now: Mutex::default(),
                }),
            };
            let mut receiver = groups(i, config);
            let first = receiver.borrow_and_update().clone();
            members.sync(&first, self.options.drain).await;
            let follow = tokio::spawn(members.clone().follow(receiver, self.options.drain));
            sets.push(Set { config: config.clone(), relabel: alert_relabel, members, follow });
        }
        let mut webhooks = Vec::new();
        let mut wrong = None;
        for config in &config.webhooks.receivers {
            let before = webhooks_before.iter().position(|webhook| webhook.config == *config);
            let started = match before {
                Some(at) => Ok(webhooks_before.swap_remove(at)),
                None => {
                    let metrics = self.metrics.clone();
                    Webhook::start(config, &self.options.external_url, metrics)
                }
            };
            match started {
                Ok(webhook) => webhooks.push(webhook),
                Err(error) => wrong = Some(error),
            }
        }
        {
            let mut state = lock(&self.state);
            state.external_labels = config.global.external_labels.clone();
            state.relabel = Some(relabel);
            state.sets = sets;
            state.webhooks = webhooks;
        }
        for set in sets_before {
            set.stop(self.options.drain).await;
        }
        for webhook in webhooks_before {
            webhook.stop(self.options.drain).await;
        }
        self.count();
        wrong.map_or(Ok(()), Err)
    }

    fn count(&self) {
        let state = lock(&self.state);
        let counts = state.sets.iter().map(|set| lock(&set.members.now).senders.len());
        self.metrics.set_discovered(counts.sum());
    }

    /// URLs of the Alertmanagers that get alerts, and of those that relabeling
    /// dropped.
    #[must_use]
    pub fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        let state = lock(&self.state);
        let (mut active, mut dropped) = (Vec::new(), Vec::new());
        for set in &state.sets {
            let now = lock(&set.members.now);
            active.extend(now.senders.keys().map(ToString::to_string));
            dropped.extend(now.dropped.iter().cloned());
        }
        (active, dropped)
    }

    /// Stops all receivers; what waits is sent first, if it can be.
    pub async fn stop(&self) {
        let (sets, webhooks) = {
            let mut state = lock(&self.state);
            (std::mem::take(&mut state.sets), std::mem::take(&mut state.webhooks))
        };
        for set in sets {
            set.stop(self.options.drain).await;
        }
        for webhook in webhooks {
            webhook.stop(self.options.drain).await;
        }
    }
}

impl Notify for Manager {
    fn send(&self, alerts: Vec<Alert>) {
        let state = lock(&self.state);
        let alerts = relabeled(alerts, &state.external_labels, state.relabel.as_deref());
        if alerts.is_empty() {
            return;
        }
        for webhook in &state.webhooks {
            webhook.push(&alerts);
        }
        let mut longest = 0;
        for set in &state.sets {
            let own;
            let alerts = if set.relabel.is_empty() {
                &alerts
            } else {
                own = relabeled(alerts.clone(), &Labels::empty(), Some(&set.relabel));
                &own
            };
            for sender in lock(&set.members.now).senders.values() {
                sender.push(alerts);
                longest = longest.max(sender.queued());
            }
        }
        self.metrics.set_queued(longest);
        let counts = state.sets.iter().map(|set| lock(&set.members.now).senders.len());
        self.metrics.set_discovered(counts.sum());
    }
}

/// Adds external labels that an alert does not have, and relabels.
fn relabeled(alerts: Vec<Alert>, external: &Labels, rules: Option<&Rules>) -> Vec<Alert> {
    let relabel = |mut alert: Alert| {
        let mut labels = alert.labels.to_builder();
        for (name, value) in external {
            if labels.get(name).is_empty() {
                labels.set(name, value);
            }
        }
        if let Some(rules) = rules
            && !rules.apply(&mut labels)
        {
            return None;
        }
        alert.labels = labels.build();
        Some(alert)
    };
    alerts.into_iter().filter_map(relabel).collect()
}

impl Set {
    async fn stop(self, drain: bool) {
        self.follow.abort();
        let senders = std::mem::take(&mut lock(&self.members.now).senders);
        for sender in senders.into_values() {
            sender.stop(drain).await;
        }
    }
}

impl Members {
    async fn follow(self: Arc<Self>, mut groups: watch::Receiver<TargetGroups>, drain: bool) {
        while groups.changed().await.is_ok() {
            let now = groups.borrow_and_update().clone();
            self.sync(&now, drain).await;
        }
    }

    /// Starts and stops senders as the groups say.
    async fn sync(&self, groups: &TargetGroups, drain: bool) {
        let Found { active, dropped } = find(&self.config, &self.relabel, groups);
        let gone: Vec<Sender> = {
            let mut now = lock(&self.now);
            now.dropped = dropped;
            let all = std::mem::take(&mut now.senders);
            let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
                all.into_iter().partition(|(url, _)| active.contains(url));
            now.senders = kept;
            for url in active {
                now.senders.entry(url.clone()).or_insert_with(|| {
                    let (client, metrics) = (self.client.clone(), self.metrics.clone());
                    Sender::start(url, client, self.config.timeout, self.capacity, metrics)
                });
            }
            gone.into_values().collect()
        };
        for sender in gone {
            sender.stop(drain).await;
        }
    }
}
