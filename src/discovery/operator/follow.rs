//! What do the operator's objects ask for now? Watches in, scrape
//! configurations and rule files out.
//!
//! Objects are watched cluster-wide, one watch per kind, as kinds appear.
//! Secrets and ConfigMaps are read one by one, only those that are named, and
//! again every minute; they are never listed. Nothing is published before
//! every list is complete; while the API server is away, nothing changes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures::FutureExt as _;
use futures::future::select_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Mapping, ObjectName, Rejected, SecretKind, SecretSource, describe, rule_file, scrape_configs,
    selects,
};
use crate::config::{
    self, GlobalConfig, LabelSelector, ObjectSelector, OperatorConfig, ScrapeConfig,
};
use crate::discovery::kubernetes::backoff::{Backoff, Clock};
use crate::discovery::kubernetes::cache::Kind;
use crate::discovery::kubernetes::cluster::{Access, Cluster, Clusters};
use crate::discovery::kubernetes::connect::SERVICE_ACCOUNT;
use crate::discovery::kubernetes::object::{Object as _, Owner};
use crate::discovery::kubernetes::provider::NAMESPACES;
use crate::discovery::kubernetes::raw::Raw;
use crate::discovery::kubernetes::reflector::WatchError;
use crate::discovery::kubernetes::scope::{Resource, Scope};
use crate::discovery::kubernetes::watch::{Store, WatchMetrics, Watched};

const GROUP: &str = "monitoring.coreos.com";

/// How the question which kinds there are is called where it fails.
const KINDS_ASKED: &str = "the kinds of monitoring.coreos.com";

/// The longest wait for an answer to a single question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const fn resource(version: &'static str, kind: &'static str, plural: &'static str) -> Resource {
    Resource { group: GROUP, version, kind, plural }
}

/// Scrape kinds in the order of their pools, then rules.
const KINDS: [Resource; 5] = [
    resource("v1", "ServiceMonitor", "servicemonitors"),
    resource("v1", "PodMonitor", "podmonitors"),
    resource("v1", "Probe", "probes"),
    resource("v1alpha1", "ScrapeConfig", "scrapeconfigs"),
    resource("v1", "PrometheusRule", "prometheusrules"),
];

/// How long things take; tests hurry.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Changes are gathered this long.
    pub gather: Duration,
    /// Secrets are read again, and kinds that were missing looked for.
    pub look_again: Duration,
    /// What can be listed waits this long for what cannot.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            gather: Duration::from_secs(1),
            look_again: Duration::from_secs(60),
            patience: Duration::from_secs(15),
        }
    }
}

/// What the objects ask for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wanted {
    /// By kind, namespace and name of the object; `origin` says which.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// By namespace and name of the object.
    pub rule_files: Vec<Rules>,
    /// What cannot be used, and why.
    pub rejected: Vec<Rejected>,
    /// What the selectors leave out.
    pub not_selected: Vec<ObjectName>,
}

/// The rule file that an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The object.
    pub object: ObjectName,
    /// The file's name.
    pub file: String,
    /// Its content.
    pub text: String,
}

/// Follows the objects until `cancel`; `None` until all lists are complete.
#[must_use]
pub fn follow(
    config: OperatorConfig,
    global: GlobalConfig,
    clusters: &Clusters,
    metrics: WatchMetrics,
    timing: Timing,
    cancel: CancellationToken,
) -> watch::Receiver<Option<Arc<Wanted>>> {
    let (sender, receiver) = watch::channel(None);
    let cluster = clusters.get(Access::from(&config));
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = sender.closed() => {}
            () = run(&config, &global, &cluster, &metrics, timing, &sender) => {}
        }
    });
    receiver
}

async fn run(
    config: &OperatorConfig,
    global: &GlobalConfig,
    cluster: &Cluster,
    metrics: &WatchMetrics,
    timing: Timing,
    sender: &watch::Sender<Option<Arc<Wanted>>>,
) {
    let watched = cluster.watched(metrics).await;
    let own_namespace = tokio::fs::read_to_string(format!("{SERVICE_ACCOUNT}/namespace")).await;
    let mut following = Following {
        config,
        global,
        cluster,
        watched: &watched,
        metrics,
        own_namespace: own_namespace.unwrap_or_default().trim().to_owned(),
        stores: BTreeMap::new(),
        namespaces: needs_namespaces(config)
            .then(|| cluster.owners.get(&watched, Scope::all(NAMESPACES), metrics)),
        texts: BTreeMap::new(),
        left_out: BTreeSet::new(),
    };
    let (mut backoff, clock) = (Backoff::default(), Clock::real());
    let mut look_again = tokio::time::interval(timing.look_again);
    look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut changes: Vec<watch::Receiver<u64>> = Vec::new();
    loop {
        tokio::select! {
            _ = look_again.tick() => {
                let known = following.stores.len();
                let asked = following.follow_kinds().await;
                match asked {
                    Ok(()) => watched.health.answered(KINDS_ASKED, metrics),
                    Err(error) => {
                        watched.health.failed(KINDS_ASKED, &error, metrics);
                        let pause = backoff.pause((clock.now)(), None);
                        look_again.reset_after(pause.min(timing.look_again));
                        if following.stores.is_empty() {
                            continue;
                        }
                    }
                }
                if following.stores.len() > known || changes.is_empty() {
                    changes = following.changes(timing.patience).await;
                }
                following.read_texts_again().await;
            }
            () = any_change(&mut changes) => {
                tokio::time::sleep(timing.gather).await;
            }
        }
        changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let wanted = Some(Arc::new(following.wanted().await));
        sender.send_if_modified(|known| {
            let differs = *known != wanted;
            if differs {
                known.clone_from(&wanted);
            }
            differs
        });
    }
}

/// Waits for a change of any store; for ever if there is none.
async fn any_change(changes: &mut [watch::Receiver<u64>]) {
    if changes.is_empty() {
        return std::future::pending().await;
    }
    let _ = select_all(changes.iter_mut().map(|change| change.changed().boxed())).await;
}

fn selectors(config: &OperatorConfig) -> [&ObjectSelector; 5] {
    [
        &config.service_monitors,
        &config.pod_monitors,
        &config.probes,
        &config.scrape_configs,
        &config.rules,
    ]
}

/// Whether any namespace selector has terms, so that labels of namespaces
/// must be known.
fn needs_namespaces(config: &OperatorConfig) -> bool {
    let has_terms = |s: &LabelSelector| *s != LabelSelector::default();
    selectors(config).iter().any(|s| s.namespaces.as_ref().is_some_and(has_terms))
}

/// A text of a Secret or ConfigMap: kind, namespace and name of the object.
type TextKey = (SecretKind, String, String);

struct Following<'a> {
    config: &'a OperatorConfig,
    global: &'a GlobalConfig,
    cluster: &'a Cluster,
    watched: &'a Arc<Watched>,
    metrics: &'a WatchMetrics,
    own_namespace: String,
    /// By position in [`KINDS`].
    stores: BTreeMap<usize, Arc<Store<Raw>>>,
    namespaces: Option<Arc<Store<Owner>>>,
    texts: BTreeMap<TextKey, Result<BTreeMap<String, String>, String>>,
    /// What the selectors leave out.
    left_out: BTreeSet<ObjectName>,
}

impl Following<'_> {
    /// Follows the kinds that the server has by now. A kind that is missing is
    /// no error: it may come.
    async fn follow_kinds(&mut self) -> Result<(), WatchError> {
        if self.stores.len() == KINDS.len() {
            return Ok(());
        }
        let mut known = BTreeSet::new();
        for version in ["v1", "v1alpha1"] {
            let listed = format!("{GROUP}/{version}");
            let client = self.watched.server.client();
            let asked = client.list_api_group_resources(&listed);
            match tokio::time::timeout(ANSWER_TIMEOUT, asked)
                .await
                .map_err(|_| WatchError::Silence)?
            {
                Ok(list) => {
                    known.extend(list.resources.into_iter().map(|r| (version, r.name)));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(WatchError::from(error)),
            }
        }
        for (i, kind) in KINDS.into_iter().enumerate() {
            if known.contains(&(kind.version, kind.plural.to_owned())) {
                let scope = Scope::all(kind);
                let follow = || self.cluster.raws.get(self.watched, scope, self.metrics);
                self.stores.entry(i).or_insert_with(follow);
            }
        }
        Ok(())
    }

    /// The changes of all stores, once each has its first complete list. One
    /// that has none after `patience` (a right is missing, perhaps) does not
    /// stop the others.
    async fn changes(&self, patience: Duration) -> Vec<watch::Receiver<u64>> {
        let objects = self.stores.values().map(|store| store.changes());
        let namespaces = self.namespaces.iter().map(|store| store.changes());
        let mut changes: Vec<_> = objects.chain(namespaces).collect();
        let complete = async {
            for change in &mut changes {
                // A store lives as long as this holds it.
                let _ = change.wait_for(|version| *version > 0).await;
            }
        };
        if tokio::time::timeout(patience, complete).await.is_err() {
            tracing::warn!("operator: not all kinds can be listed; the others count");
        }
        changes
    }

    /// Reads the Secrets and ConfigMaps again that are known. While the server
    /// cannot be asked, what it said before holds.
    async fn read_texts_again(&mut self) {
        let known: Vec<TextKey> = self.texts.keys().cloned().collect();
        for key in known {
            match read_texts(self.watched.server.client(), &key).await {
                Read::Texts(texts) => self.texts.insert(key, Ok(texts)),
                Read::Refused(reason) => self.texts.insert(key, Err(reason)),
                Read::NoAnswer(_) => None,
            };
        }
    }

    /// Maps all objects; reads the Secrets and ConfigMaps that they name and
    /// maps again until nothing is missing.
    async fn wanted(&mut self) -> Wanted {
        let selected = self.selected();
        loop {
            let texts =
                Texts { known: &self.texts, missing: RefCell::default(), used: RefCell::default() };
            let mut wanted = map(&selected, self.config, self.global, &texts);
            let (missing, used) = (texts.missing.take(), texts.used.take());
            if missing.is_empty() {
                // What no object names any more is not kept.
                self.texts.retain(|key, _| used.contains(key));
                wanted.not_selected = self.left_out.iter().cloned().collect();
                return wanted;
            }
            for key in missing {
                let text = match read_texts(self.watched.server.client(), &key).await {
                    Read::Texts(texts) => Ok(texts),
                    Read::Refused(reason) | Read::NoAnswer(reason) => Err(reason),
                };
                self.texts.insert(key, text);
            }
        }
    }

    /// The objects that count, with their position in [`KINDS`].
    fn selected(&mut self) -> Vec<(usize, Arc<Raw>)> {
        let namespaces = self.namespaces.as_ref().map(|store| store.snapshot());
        let mut selected = Vec::new();
        let mut left_out = BTreeSet::new();
        for (i, store) in &self.stores {
            let selector = selectors(self.config)[*i];
            for object in store.snapshot().iter() {
                let meta = object.meta();
                let counts = selector.objects.as_ref().is_some_and(|s| selects(s, &meta.labels))
                    && self.counts_namespace(selector, &meta.namespace, namespaces.as_ref());
                if counts {
                    selected.push((*i, Arc::clone(object)));
                } else {
                    left_out.insert(ObjectName {
                        kind: KINDS[*i].kind.to_owned(),
                        namespace: meta.namespace.clone(),
                        name: meta.name.clone(),
                    });
                }
            }
        }
        self.left_out = left_out;
        selected
    }

    fn counts_namespace(
        &self,
        selector: &ObjectSelector,
        name: &str,
        known: Option<&Kind<Owner>>,
    ) -> bool {
        match &selector.namespaces {
            None => name == self.own_namespace,
            Some(all) if *all == LabelSelector::default() => true,
            Some(terms) => known
                .and_then(|namespaces| namespaces.get("", name))
                .is_some_and(|namespace| selects(terms, &namespace.metadata.labels)),
        }
    }
}

/// Maps objects; one that cannot be used harms no other.
fn map(
    objects: &[(usize, Arc<Raw>)],
    config: &OperatorConfig,
    global: &GlobalConfig,
    secrets: &dyn SecretSource,
) -> Wanted {
    let mut wanted = Wanted::default();
    for (i, raw) in objects {
        let mut object = raw.value.clone();
        object["kind"] = json!(KINDS[*i].kind);
        let outcome = if KINDS[*i].kind == "PrometheusRule" {
            rule_file(&object).map(|(file, text)| {
                wanted.rule_files.push(Rules { object: describe(&object), file, text });
            })
        } else {
            pools(&object, config, global, secrets).map(|pools| wanted.scrape_configs.extend(pools))
        };
        if let Err(rejected) = outcome {
            wanted.rejected.push(rejected);
        }
    }
    wanted
}

/// The pools of one object.
fn pools(
    object: &Value,
    config: &OperatorConfig,
    global: &GlobalConfig,
    secrets: &dyn SecretSource,
) -> Result<Vec<ScrapeConfig>, Rejected> {
    let in_cluster = json!({});
    let mapping = Mapping { role: config.service_discovery_role, secrets, api_access: &in_cluster };
    let made = scrape_configs(object, &mapping)?;
    let name = describe(object);
    // JSON is YAML.
    let text = json!({"scrape_configs": made}).to_string();
    let parsed = config::parse(&text, Path::new(""), &name.to_string(), global).map_err(|e| {
        let reason = format!("{}: {}", e.path, e.message);
        Rejected { object: name.clone(), reason }
    })?;
    let mut pools = parsed.scrape_configs;
    for pool in &mut pools {
        pool.origin = Some(name.to_string());
        let entries = pool.discovery.kubernetes.iter_mut();
        // What the object does not say is reached as we reach the server.
        for entry in entries.filter(|e| e.api_server.is_none() && e.kubeconfig_file.is_none()) {
            entry.api_server.clone_from(&config.api_server);
            entry.kubeconfig_file.clone_from(&config.kubeconfig_file);
            entry.http.clone_from(&config.http);
            // The objects are watched everywhere, so their targets may be.
            entry.shares_watches = true;
        }
    }
    Ok(pools)
}

/// Texts that were read; notes which others are asked for.
struct Texts<'a> {
    known: &'a BTreeMap<TextKey, Result<BTreeMap<String, String>, String>>,
    missing: RefCell<BTreeSet<TextKey>>,
    used: RefCell<BTreeSet<TextKey>>,
}

impl SecretSource for Texts<'_> {
    fn text(
        &self,
        kind: SecretKind,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<String, String> {
        let object = (kind, namespace.to_owned(), name.to_owned());
        let Some(read) = self.known.get(&object) else {
            self.missing.borrow_mut().insert(object);
            return Err("not read yet".to_owned());
        };
        self.used.borrow_mut().insert(object);
        let texts = read.as_ref().map_err(Clone::clone)?;
        let text = texts.get(key).cloned();
        text.ok_or_else(|| format!("{kind:?} {namespace}/{name} has no key {key}"))
    }
}

/// What came of reading a Secret or ConfigMap.
enum Read {
    /// Its texts.
    Texts(BTreeMap<String, String>),
    /// The server says why there are none.
    Refused(String),
    /// The server says nothing.
    NoAnswer(String),
}

/// Reads all texts of one Secret or ConfigMap.
async fn read_texts(client: &kube::Client, (kind, namespace, name): &TextKey) -> Read {
    let plural = match kind {
        SecretKind::Secret => "secrets",
        SecretKind::ConfigMap => "configmaps",
    };
    let is_name = |t: &str| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let described = format!("{kind:?} {namespace}/{name}");
    let path = format!("/api/v1/namespaces/{namespace}/{plural}/{name}");
    let request = http::Request::get(path).body(Vec::new());
    let (true, true, Ok(request)) = (is_name(namespace), is_name(name), request) else {
        return Read::Refused(format!("{described} is not a name"));
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.request(request));
    let Ok(answer) = answer.await else {
        return Read::NoAnswer(format!("{described}: no answer in time"));
    };
    let object: Value = match answer {
        Ok(object) => object,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Read::Refused(format!("{described} does not exist"));
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Read::Refused(format!("{described}: the right to get {plural} is missing"));
        }
        Err(other) => return Read::NoAnswer(format!("{described}: {other}")),
    };
    let data = object["data"].as_object().into_iter().flatten();
    let text = |value: &Value| -> Option<String> {
        let text = value.as_str()?;
        if *kind == SecretKind::ConfigMap {
            return Some(text.to_owned());
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        String::from_utf8(bytes).ok()
    };
    Read::Texts(data.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect())
}

#[cfg(test)]
mod tests;
