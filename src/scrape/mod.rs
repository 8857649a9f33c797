//! What do the targets say? Pools of targets, one loop each, and the way of a
//! page into the storage.
//!
//! [`Manager::apply`] makes one pool per scrape configuration; the pool
//! follows the target groups of its discovery. Each target has a task: it
//! waits for its tick, fetches the page (`fetch`), reads it ([`page`], with
//! the positional cache of `cache`), and writes one row (`write`). Loops
//! share nothing but buffers and counters, so a slow target delays nobody.
//!
//! What must hold: no sample of a failed page is written; `up` is written for
//! every scrape; a series that is gone gets one staleness marker, unless the
//! process or its whole job ends; what a reload does not change goes on.

mod cache;
mod exposed;
mod failure_log;
mod family;
mod fetch;
mod labels;
mod metadata;
mod metrics;
mod negotiation;
pub mod page;
mod pool;
mod run;
pub mod scanner;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod timing;
mod write;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError};

use narthex_storage::append::Appendable;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

pub use cache::Cache;
pub use labels::LabelRules;
pub use metadata::{FamilyMetadata, TargetMetadata};
pub use target::{Health, LastScrape, Target};

use crate::config::{Config, ScrapeConfig};
use crate::discovery::TargetGroups;
use crate::discovery::targets::Discovered;
use crate::metrics::Registry;
use metrics::ScrapeMetrics;
use pool::{Common, Pool};

/// What holds for all scrape configurations.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--enable-feature=extra-scrape-metrics`.
    pub extra_scrape_metrics: bool,
    /// `--enable-feature=type-and-unit-labels`.
    pub type_and_unit_labels: bool,
    /// `--enable-feature=st-storage`.
    pub start_timestamps: bool,
    /// The host's name: several servers with the same targets ask them at
    /// other times.
    pub host_name: String,
    /// Where the loops run; `None` is the runtime around.
    pub runtime: Option<Handle>,
}

/// A scrape configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scrape configuration {job:?}: {reason}")]
pub struct ApplyError {
    /// Its job name.
    pub job: String,
    /// What is wrong.
    pub reason: String,
}

/// Whether a scrape configuration can be used: compiles its rules and reads
/// what its client needs, as [`Manager::apply`] would.
///
/// # Errors
///
/// [`ApplyError`] with the reason.
pub fn check(config: &ScrapeConfig) -> Result<(), ApplyError> {
    pool::check(config)
}

/// One pool as seen from outside.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// Its configuration; the pool's name is the job name.
    pub config: Arc<ScrapeConfig>,
    /// What is scraped.
    pub active: Vec<Arc<Target>>,
    /// What relabeling dropped, at most `keep_dropped_targets` of it.
    pub dropped: Vec<Discovered>,
    /// How many relabeling dropped.
    pub dropped_count: usize,
}

/// Scrapes what the configuration says. Needs a tokio runtime around it.
pub struct Manager {
    common: Arc<Common>,
    host_name: String,
    pools: Mutex<BTreeMap<String, Followed>>,
}

/// A pool and the task that hands it its groups.
struct Followed {
    pool: Arc<Pool>,
    following: tokio::task::JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Manager {
    /// A manager without pools.
    ///
    /// # Panics
    ///
    /// If the registry has a manager's metrics already.
    #[must_use]
    pub fn new(appendable: Arc<dyn Appendable>, registry: &Registry, options: Options) -> Self {
        crate::client::install_provider();
        Self {
            common: Arc::new(Common {
                appendable,
                metrics: ScrapeMetrics::new(registry),
                interner: Arc::default(),
                buffers: fetch::Buffers::default(),
                tasks: TaskTracker::new(),
                runtime: options.runtime,
                extra_scrape_metrics: options.extra_scrape_metrics,
                type_and_unit_labels: options.type_and_unit_labels,
                start_timestamps: options.start_timestamps,
                hash_key: RandomState::new().hash_one("scrape"),
            }),
            host_name: options.host_name,
            pools: Mutex::default(),
        }
    }

    /// Makes the pools those of `config`: on start and on reload. What did
    /// not change goes on undisturbed. `groups` gives the target groups of a
    /// scrape configuration, which the pool follows from then on.
    ///
    /// # Errors
    ///
    /// The first [`ApplyError`]; the other pools are applied nevertheless.
    pub fn apply(
        &self,
        config: &Config,
        mut groups: impl FnMut(&ScrapeConfig) -> watch::Receiver<TargetGroups>,
    ) -> Result<(), ApplyError> {
        let seed_text = format!("{}{}", self.host_name, config.global.external_labels);
        let seed = xxhash_rust::xxh3::xxh3_64(seed_text.as_bytes());
        let mut pools = self.lock();
        pools.retain(|job, followed| {
            let stays = config.scrape_configs.iter().any(|c| c.job_name == *job);
            if !stays {
                followed.pool.stop();
            }
            stays
        });
        let mut result = Ok(());
        for scrape in &config.scrape_configs {
            let pool = match pools.get(&scrape.job_name) {
                Some(followed) => {
                    followed.pool.reload(scrape, seed).map(|()| Arc::clone(&followed.pool))
                }
                None => {
                    self.common.metrics.pools.inc();
                    Pool::new(Arc::clone(&self.common), scrape, seed)
                        .map(Arc::new)
                        .inspect_err(|_| self.common.metrics.pools_failed.inc())
                }
            };
            match pool {
                Ok(pool) => {
                    let following = tokio::spawn(Arc::clone(&pool).follow(groups(scrape)));
                    pools.insert(scrape.job_name.clone(), Followed { pool, following });
                }
                Err(e) => {
                    tracing::error!(error = %e, "scrape pool not applied");
                    result = result.and(Err(e));
                }
            }
        }
        result
    }

    /// All pools, by name. Cheap; takes each pool's lock for a moment.
    #[must_use]
    pub fn status(&self) -> Vec<PoolStatus> {
        self.lock().values().map(|f| f.pool.status()).collect()
    }

    /// Ends all scrapes, without staleness markers, and waits until no loop
    /// writes any more.
    pub async fn stop(&self) {
        for followed in std::mem::take(&mut *self.lock()).values() {
            followed.pool.stop();
        }
        self.common.tasks.close();
        self.common.tasks.wait().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Followed>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
