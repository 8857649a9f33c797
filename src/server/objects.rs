//! What of the operator's objects can be used? Follows them as long as the
//! configuration asks for it, checks what they ask for as the rooms would, and
//! says what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use narthex_query::parse::ParseOptions;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use crate::api::ObjectsStatus;
use crate::config::{Config, GlobalConfig, OperatorConfig, ScrapeConfig};
use crate::discovery::Discovery;
use crate::discovery::operator::{ObjectName, Rejected, Timing, Wanted, follow};
use crate::metrics::{Family, Gauge, Registry};
use crate::notices::Notices;
use crate::{rules, scrape};

/// The beginning of keys of notices about objects.
const NOTICES: &str = "operator/";

type Receiver = watch::Receiver<Option<Arc<Wanted>>>;

/// Objects that are followed.
struct Followed {
    config: OperatorConfig,
    global: GlobalConfig,
    wanted: Receiver,
    /// What was asked for before the settings changed: holds until the new
    /// lists are complete, so that no target is missed meanwhile.
    before: Option<Before>,
    end: DropGuard,
}

struct Before {
    wanted: Arc<Wanted>,
    /// Following goes on, and with it the watches that the new one shares.
    _following: (Receiver, DropGuard),
}

/// What can be used.
#[derive(Default)]
pub struct Usable {
    /// Scrape configurations.
    pub pools: Vec<ScrapeConfig>,
    /// Rule files.
    pub rules: Vec<rules::file::RuleFile>,
    /// What becomes of the objects once this is in force.
    pub status: ObjectsStatus,
}

/// The operator's objects and what became of them.
pub struct Objects {
    parse: ParseOptions,
    notices: Notices,
    stop: CancellationToken,
    followed: Mutex<Option<Followed>>,
    /// Pools that were found usable, by name: each is checked once.
    checked: Mutex<BTreeMap<String, ScrapeConfig>>,
    status: watch::Sender<Arc<ObjectsStatus>>,
    figures: Family<Gauge>,
}

impl Objects {
    /// Nothing is followed yet; all ends with `stop`.
    pub fn new(
        registry: &Registry,
        parse: ParseOptions,
        notices: Notices,
        stop: CancellationToken,
    ) -> Self {
        let figures = registry.register(
            "narthex_operator_objects",
            "Objects of the Prometheus Operator, by what became of them.",
            Family::new(&["state"], Gauge::default),
        );
        let status = watch::Sender::default();
        let (followed, checked) = (Mutex::default(), Mutex::default());
        Self { parse, notices, stop, followed, checked, status, figures }
    }

    /// Follows what became of the objects.
    pub fn status(&self) -> watch::Receiver<Arc<ObjectsStatus>> {
        self.status.subscribe()
    }

    /// Waits until the objects ask for something else.
    pub async fn changed(&self) {
        let wanted = {
            let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            followed.as_ref().map(|followed| followed.wanted.clone())
        };
        let Some(mut wanted) = wanted else { return std::future::pending().await };
        if wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What can be used of what the objects ask for now; follows them if the
    /// configuration wants that, and stops when it does not.
    pub fn wanted(&self, config: &Config, discovery: &Discovery) -> Usable {
        let Some(wanted) = self.follow(config, discovery) else {
            return Usable::default();
        };
        let mut rejected = wanted.rejected.clone();
        let mut usable = Usable::default();
        let pools = self.usable_pools(config, &wanted, &mut rejected);
        usable.pools = pools;
        let options = rules::file::FileOptions { parse: self.parse, ignore_unknown_fields: false };
        for object in &wanted.rule_files {
            match rules::file::parse_rules(&object.file, &object.text, &options) {
                Ok(file) => usable.rules.push(file),
                Err(errors) => {
                    let reasons: Vec<String> = errors.iter().map(|e| e.message.clone()).collect();
                    let reason = reasons.join("; ");
                    rejected.push(Rejected { object: object.object.clone(), reason });
                }
            }
        }
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_complete = followed.as_ref().is_some_and(|f| f.wanted.borrow().is_some());
        drop(followed);
        rejected.sort_by(|a, b| a.object.cmp(&b.object));
        usable.status = ObjectsStatus {
            is_followed: true,
            is_complete,
            pools: usable.pools.iter().map(|p| p.job_name.clone()).collect(),
            rule_files: usable.rules.iter().map(|f| f.name.clone()).collect(),
            rejected,
            not_selected: wanted.not_selected.clone(),
        };
        usable
    }

    /// What the objects ask for; `None` if nobody wants to know.
    fn follow(&self, config: &Config, discovery: &Discovery) -> Option<Arc<Wanted>> {
        let mut slot = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(section) = &config.operator else {
            *slot = None;
            return None;
        };
        let is_followed = |f: &Followed| f.config == *section && f.global == config.global;
        if !slot.as_ref().is_some_and(is_followed) {
            let before = slot.take().and_then(|mut old| {
                let newest = old.wanted.borrow_and_update().clone();
                let kept = old.before.map(|before| before.wanted);
                let wanted = newest.or(kept)?;
                Some(Before { wanted, _following: (old.wanted, old.end) })
            });
            let end = self.stop.child_token();
            let wanted = follow(
                section.clone(),
                config.global.clone(),
                discovery.clusters(),
                discovery.metrics().kubernetes.clone(),
                Timing::default(),
                end.clone(),
            );
            *slot = Some(Followed {
                config: section.clone(),
                global: config.global.clone(),
                wanted,
                before,
                end: end.drop_guard(),
            });
        }
        let followed = slot.as_mut()?;
        match followed.wanted.borrow_and_update().clone() {
            Some(wanted) => {
                followed.before = None;
                Some(wanted)
            }
            None => {
                Some(followed.before.as_ref().map(|b| Arc::clone(&b.wanted)).unwrap_or_default())
            }
        }
    }

    /// The pools that the scrape room can run. An object counts as a whole:
    /// one bad endpoint rejects the others, too.
    fn usable_pools(
        &self,
        config: &Config,
        wanted: &Wanted,
        rejected: &mut Vec<Rejected>,
    ) -> Vec<ScrapeConfig> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bad: BTreeMap<&str, String> = BTreeMap::new();
        let in_file: BTreeSet<&str> =
            config.scrape_configs.iter().map(|c| c.job_name.as_str()).collect();
        let mut good: BTreeMap<String, ScrapeConfig> = BTreeMap::new();
        for pool in &wanted.scrape_configs {
            let origin = pool.origin.as_deref().unwrap_or("");
            if in_file.contains(pool.job_name.as_str()) {
                let reason = format!("the configuration file has a job {:?}, too", pool.job_name);
                bad.insert(origin, reason);
            } else if checked.get(&pool.job_name).is_some_and(|known| known == pool) {
                good.insert(pool.job_name.clone(), pool.clone());
            } else if let Err(error) = scrape::check(pool) {
                bad.insert(origin, error.reason);
            } else {
                good.insert(pool.job_name.clone(), pool.clone());
            }
        }
        *checked = good;
        for (origin, reason) in &bad {
            if let Some(object) = parse_name(origin) {
                rejected.push(Rejected { object, reason: reason.clone() });
            }
        }
        let usable = |pool: &&ScrapeConfig| {
            pool.origin.as_deref().is_none_or(|origin| !bad.contains_key(origin))
        };
        wanted.scrape_configs.iter().filter(usable).cloned().collect()
    }

    /// Log, metric, notices and API, once it is in force: what is new is
    /// logged once.
    pub fn tell(&self, status: ObjectsStatus) {
        let before = Arc::clone(&self.status.borrow());
        for rejected in status.rejected.iter().filter(|r| !before.rejected.contains(r)) {
            tracing::warn!("object not used: {rejected}");
        }
        for object in status.not_selected.iter().filter(|o| !before.not_selected.contains(o)) {
            tracing::info!("object not selected: {object}");
        }
        let notices = status.rejected.iter().map(|r| (r.object.to_string(), format!("{r}")));
        self.notices.replace(NOTICES, notices);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        let set = |state: &str, n: usize| self.figures.with(&[state]).set(n as f64);
        if status.is_followed {
            set("rejected", status.rejected.len());
            set("not_selected", status.not_selected.len());
            set("scrape_pools", status.pools.len());
            set("rule_files", status.rule_files.len());
        }
        self.status.send_replace(Arc::new(status));
    }
}

/// The object of an origin.
fn parse_name(origin: &str) -> Option<ObjectName> {
    let (kind, rest) = origin.split_once(' ')?;
    let (namespace, name) = rest.split_once('/')?;
    let [kind, namespace, name] = [kind, namespace, name].map(str::to_owned);
    Some(ObjectName { kind, namespace, name })
}
