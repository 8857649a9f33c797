//! Who runs the discoveries? Equal ones once, merged for each pool.
//!
//! A provider is one entry of a `*_sd_configs` list at work. Pools with equal
//! entries share it, and it goes on undisturbed over a reload that does not
//! change it. Providers and the tasks that merge them end when nobody follows
//! them any more.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::{pending, select_all};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::kubernetes::cluster::Clusters;
use super::kubernetes::provider as kubernetes;
use super::metrics::DiscoveryMetrics;
use super::{TargetGroup, TargetGroups, dns, file, http, static_group};
use crate::config::{
    DiscoveryConfigs, DnsSdConfig, FileSdConfig, HttpSdConfig, KubernetesSdConfig,
};
use crate::metrics::Registry;
use crate::notices::Notices;

/// Updates that follow each other this closely are passed on together.
const GATHER: Duration = Duration::from_millis(100);

/// Runs discoveries. Dropping it ends nothing: providers live as long as
/// their followers, or until the token is cancelled.
pub struct Discovery {
    metrics: DiscoveryMetrics,
    stop: CancellationToken,
    dns_server: Option<SocketAddr>,
    clusters: Clusters,
    providers: Mutex<Vec<(Entry, Weak<Provider>)>>,
}

/// One entry of a `*_sd_configs` list.
#[derive(Debug, Clone, PartialEq)]
enum Entry {
    File(FileSdConfig),
    Http(HttpSdConfig),
    Dns(DnsSdConfig),
    Kubernetes(KubernetesSdConfig),
}

/// An entry at work.
struct Provider {
    groups: watch::Receiver<Option<TargetGroups>>,
    _stop: DropGuard,
}

impl Discovery {
    /// Registers the metrics. All discoveries end when `stop` is cancelled.
    ///
    /// # Panics
    ///
    /// If the metrics are registered already.
    #[must_use]
    pub fn new(registry: &Registry, stop: CancellationToken) -> Self {
        Self::with_dns_server(registry, stop, None)
    }

    /// As [`Discovery::new`]; `dns_server` is asked instead of the system's.
    ///
    /// # Panics
    ///
    /// If the metrics are registered already.
    #[must_use]
    pub fn with_dns_server(
        registry: &Registry,
        stop: CancellationToken,
        dns_server: Option<SocketAddr>,
    ) -> Self {
        Self {
            metrics: DiscoveryMetrics::register(registry),
            stop,
            dns_server,
            clusters: Clusters::default(),
            providers: Mutex::default(),
        }
    }

    /// Shows outages among these notices.
    #[must_use]
    pub fn with_notices(mut self, notices: Notices) -> Self {
        self.metrics.kubernetes.notices = notices;
        self
    }

    /// The metrics, for those who watch the cluster for other things.
    #[must_use]
    pub const fn metrics(&self) -> &DiscoveryMetrics {
        &self.metrics
    }

    /// The clusters that are watched, for those who watch them for other
    /// things.
    #[must_use]
    pub const fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// The target groups of a scrape configuration, static ones at once, those
    /// of other discoveries as they arrive. Needs a runtime; starts tasks that
    /// end when the receiver and its clones are dropped.
    #[must_use]
    pub fn follow(
        &self,
        job_name: &str,
        configs: &DiscoveryConfigs,
    ) -> watch::Receiver<TargetGroups> {
        self.follow_as("scrape", job_name, configs)
    }

    /// As [`Discovery::follow`] for someone else than scraping: `manager` is
    /// the label `name` of the metrics.
    #[must_use]
    pub fn follow_as(
        &self,
        manager: &'static str,
        config_name: &str,
        configs: &DiscoveryConfigs,
    ) -> watch::Receiver<TargetGroups> {
        let providers: Vec<Arc<Provider>> =
            entries(configs).into_iter().map(|entry| self.provider(entry)).collect();
        let fixed = configs.static_configs.iter().enumerate();
        let fixed: Vec<Arc<TargetGroup>> =
            fixed.map(|(i, config)| Arc::new(static_group(i, config))).collect();
        let merging = Merging {
            receivers: providers.iter().map(|p| p.groups.clone()).collect(),
            fixed,
            manager,
            config_name: config_name.to_owned(),
            metrics: self.metrics.clone(),
        };
        let (sender, receiver) = watch::channel(TargetGroups::default());
        let merging = merging.publish(&sender);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sender.closed() => {}
                () = merging.run(&sender) => {}
            }
            drop(providers);
        });
        receiver
    }

    /// The provider of an entry; starts it if nobody follows an equal one.
    fn provider(&self, entry: Entry) -> Arc<Provider> {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        providers.retain(|(_, provider)| provider.strong_count() > 0);
        let known = providers.iter().find(|(known, _)| *known == entry);
        if let Some(provider) = known.and_then(|(_, provider)| provider.upgrade()) {
            return provider;
        }
        let provider = Arc::new(self.start(entry.clone()));
        providers.push((entry, Arc::downgrade(&provider)));
        provider
    }

    fn start(&self, entry: Entry) -> Provider {
        let stop = self.stop.child_token();
        let metrics = self.metrics.clone();
        if let Entry::Kubernetes(config) = entry {
            let watching = metrics.kubernetes;
            let groups = kubernetes::start(config, &self.clusters, watching, stop.clone());
            return Provider { groups, _stop: stop.drop_guard() };
        }
        let (sender, groups) = watch::channel(None);
        let dns_server = self.dns_server;
        let stopped = stop.clone();
        tokio::spawn(async move {
            let run = async {
                match &entry {
                    Entry::File(config) => file::run(config, &metrics, &sender).await,
                    Entry::Http(config) => http::run(config, &metrics, &sender).await,
                    Entry::Dns(config) => dns::run(config, dns_server, &metrics, &sender).await,
                    Entry::Kubernetes(_) => {}
                }
            };
            tokio::select! {
                () = stopped.cancelled() => {}
                () = run => {}
            }
        });
        Provider { groups, _stop: stop.drop_guard() }
    }
}

fn entries(configs: &DiscoveryConfigs) -> Vec<Entry> {
    let files = configs.file.iter().cloned().map(Entry::File);
    let http = configs.http.iter().cloned().map(Entry::Http);
    let dns = configs.dns.iter().cloned().map(Entry::Dns);
    let kubernetes = configs.kubernetes.iter().cloned().map(Entry::Kubernetes);
    files.chain(http).chain(dns).chain(kubernetes).collect()
}

/// Puts the groups of several providers together.
struct Merging {
    receivers: Vec<watch::Receiver<Option<TargetGroups>>>,
    fixed: Vec<Arc<TargetGroup>>,
    manager: &'static str,
    config_name: String,
    metrics: DiscoveryMetrics,
}

impl Merging {
    async fn run(mut self, sender: &watch::Sender<TargetGroups>) {
        loop {
            if !self.changed().await {
                // Nothing can change any more; the groups stay.
                pending::<()>().await;
            }
            self.metrics.received_updates.with(&[self.manager]).inc();
            tokio::time::sleep(GATHER).await;
            self = self.publish(sender);
        }
    }

    /// Waits for a provider; `false` if none is left.
    async fn changed(&mut self) -> bool {
        while !self.receivers.is_empty() {
            let any = select_all(self.receivers.iter_mut().map(|r| r.changed().boxed()));
            let (changed, i) = any.map(|(changed, i, _)| (changed.is_ok(), i)).await;
            if changed {
                return true;
            }
            // A provider that ended keeps its last groups among the fixed.
            let ended = self.receivers.remove(i);
            let last = ended.borrow().clone();
            self.fixed.extend(last.iter().flat_map(|groups| groups.iter().cloned()));
        }
        false
    }

    fn publish(mut self, sender: &watch::Sender<TargetGroups>) -> Self {
        let mut all = self.fixed.clone();
        for receiver in &mut self.receivers {
            if let Some(groups) = receiver.borrow_and_update().as_ref() {
                all.extend(groups.iter().cloned());
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "numbers of targets are far below 2^52")]
        let count = all.iter().map(|group| group.targets.len()).sum::<usize>() as f64;
        let labels = [self.manager, &self.config_name];
        self.metrics.discovered_targets.with(&labels).set(count);
        self.metrics.updates.with(&[self.manager]).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.last_update.with(&[self.manager]).set(now.as_secs_f64());
        sender.send_replace(Arc::new(all));
        self
    }
}
