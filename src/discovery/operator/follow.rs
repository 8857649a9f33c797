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
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Mapping, Rejected, SecretKind, SecretSource, describe, rule_file, scrape_configs, selects,
};
use crate::config::{
    self, GlobalConfig, LabelSelector, ObjectSelector, OperatorConfig, ScrapeConfig,
};
use crate::discovery::kubernetes::cache::Kind;
use crate::discovery::kubernetes::connect::connect;
use crate::discovery::kubernetes::object::{Meta, Object, Owner};
use crate::discovery::kubernetes::watch::{Resource, Scope, Store, WatchMetrics};

const GROUP: &str = "monitoring.coreos.com";

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

const NAMESPACES: Resource =
    Resource { group: "", version: "v1", kind: "Namespace", plural: "namespaces" };

/// The namespace of the service account, where one is mounted.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// How long things take; tests hurry.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Changes are gathered this long.
    pub gather: Duration,
    /// Secrets are read again, and kinds that were missing looked for.
    pub look_again: Duration,
    /// Between attempts to connect.
    pub connect_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            gather: Duration::from_secs(1),
            look_again: Duration::from_secs(60),
            connect_pause: Duration::from_secs(10),
        }
    }
}

/// What the objects ask for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wanted {
    /// By kind, namespace and name of the object; `origin` says which.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Name and content, by namespace and name of the object.
    pub rule_files: Vec<(String, String)>,
    /// What cannot be used, and why.
    pub rejected: Vec<Rejected>,
}

/// An object as it is.
#[derive(Debug, Clone, PartialEq)]
struct Raw {
    metadata: Meta,
    value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let metadata = Meta::deserialize(&value["metadata"]).map_err(serde::de::Error::custom)?;
        // What changes by itself must not make an object look changed.
        if let Some(members) = value.as_object_mut() {
            members.remove("status");
        }
        if let Some(meta) = value["metadata"].as_object_mut() {
            meta.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "uid" | "labels"));
        }
        Ok(Self { metadata, value })
    }
}

impl Object for Raw {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// Follows the objects until `cancel`; `None` until all lists are complete.
#[must_use]
pub fn follow(
    config: OperatorConfig,
    global: GlobalConfig,
    metrics: WatchMetrics,
    timing: Timing,
    cancel: CancellationToken,
) -> watch::Receiver<Option<Arc<Wanted>>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = sender.closed() => {}
            () = run(&config, &global, &metrics, timing, &sender) => {}
        }
    });
    receiver
}

async fn run(
    config: &OperatorConfig,
    global: &GlobalConfig,
    metrics: &WatchMetrics,
    timing: Timing,
    sender: &watch::Sender<Option<Arc<Wanted>>>,
) {
    let client = client(config, metrics, timing.connect_pause).await;
    let own_namespace = tokio::fs::read_to_string(OWN_NAMESPACE).await.unwrap_or_default();
    let mut following = Following {
        config,
        global,
        own_namespace: own_namespace.trim().to_owned(),
        stores: BTreeMap::new(),
        namespaces: needs_namespaces(config)
            .then(|| Store::follow(client.clone(), scope(NAMESPACES), metrics.clone())),
        texts: BTreeMap::new(),
        left_out: BTreeSet::new(),
    };
    let mut look_again = tokio::time::interval(timing.look_again);
    look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut changes: Vec<watch::Receiver<u64>> = Vec::new();
    loop {
        tokio::select! {
            _ = look_again.tick() => {
                following.texts.clear();
                if !following.follow_kinds(&client, metrics).await {
                    continue;
                }
                changes = following.changes(timing.look_again).await;
            }
            () = any_change(&mut changes) => {
                tokio::time::sleep(timing.gather).await;
            }
        }
        changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let wanted = Some(Arc::new(following.wanted(&client).await));
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

async fn client(config: &OperatorConfig, metrics: &WatchMetrics, pause: Duration) -> kube::Client {
    loop {
        let attempt =
            connect(config.api_server.as_deref(), config.kubeconfig_file.as_deref(), &config.http);
        match attempt.await {
            Ok(client) => return client,
            Err(error) => {
                metrics.failures.inc();
                tracing::warn!(%error, "operator: Kubernetes API server not reached");
            }
        }
        tokio::time::sleep(pause).await;
    }
}

const fn scope(resource: Resource) -> Scope {
    Scope { resource, namespace: None, label: None, field: None }
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
    own_namespace: String,
    /// By position in [`KINDS`].
    stores: BTreeMap<usize, Arc<Store<Raw>>>,
    namespaces: Option<Arc<Store<Owner>>>,
    texts: BTreeMap<TextKey, Result<BTreeMap<String, String>, String>>,
    /// Objects whose absence was logged.
    left_out: BTreeSet<String>,
}

impl Following<'_> {
    /// Follows the kinds that the server has by now; `false` if it could not
    /// be asked. A kind that is missing is no error: it may come.
    async fn follow_kinds(&mut self, client: &kube::Client, metrics: &WatchMetrics) -> bool {
        if self.stores.len() == KINDS.len() {
            return true;
        }
        let mut known = BTreeSet::new();
        for version in ["v1", "v1alpha1"] {
            match client.list_api_group_resources(&format!("{GROUP}/{version}")).await {
                Ok(list) => {
                    known.extend(list.resources.into_iter().map(|r| (version, r.name)));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    metrics.failures.inc();
                    tracing::warn!(%error, "operator: what the server has is not known");
                    return !self.stores.is_empty();
                }
            }
        }
        for (i, kind) in KINDS.into_iter().enumerate() {
            if known.contains(&(kind.version, kind.plural.to_owned())) {
                self.stores
                    .entry(i)
                    .or_insert_with(|| Store::follow(client.clone(), scope(kind), metrics.clone()));
            }
        }
        true
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

    /// Maps all objects; reads the Secrets and ConfigMaps that they name and
    /// maps again until nothing is missing.
    async fn wanted(&mut self, client: &kube::Client) -> Wanted {
        let selected = self.selected();
        loop {
            let texts = Texts { known: &self.texts, missing: RefCell::default() };
            let wanted = map(&selected, self.config, self.global, &texts);
            let missing = texts.missing.take();
            if missing.is_empty() {
                return wanted;
            }
            for key in missing {
                let text = read_texts(client, &key).await;
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
                let counts =
                    selector.objects.as_ref().is_some_and(|s| selects(s, &object.metadata.labels))
                        && self.counts_namespace(
                            selector,
                            &object.metadata.namespace,
                            namespaces.as_ref(),
                        );
                if counts {
                    selected.push((*i, Arc::clone(object)));
                } else {
                    let meta = &object.metadata;
                    left_out.insert(format!("{} {}/{}", KINDS[*i].kind, meta.namespace, meta.name));
                }
            }
        }
        for object in left_out.difference(&self.left_out) {
            tracing::info!("operator: {object} is not selected");
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
            rule_file(&object).map(|file| wanted.rule_files.push(file))
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
    let parsed = config::parse(&text, Path::new(""), &name, global)
        .map_err(|e| Rejected { object: name, reason: format!("{}: {}", e.path, e.message) })?;
    let mut pools = parsed.scrape_configs;
    for pool in &mut pools {
        pool.origin = Some(pool.job_name.clone());
        let entries = pool.discovery.kubernetes.iter_mut();
        // What the object does not say is reached as we reach the server.
        for entry in entries.filter(|e| e.api_server.is_none() && e.kubeconfig_file.is_none()) {
            entry.api_server.clone_from(&config.api_server);
            entry.kubeconfig_file.clone_from(&config.kubeconfig_file);
            entry.http.clone_from(&config.http);
        }
    }
    Ok(pools)
}

/// Texts that were read; notes which others are asked for.
struct Texts<'a> {
    known: &'a BTreeMap<TextKey, Result<BTreeMap<String, String>, String>>,
    missing: RefCell<BTreeSet<TextKey>>,
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
        let texts = read.as_ref().map_err(Clone::clone)?;
        let text = texts.get(key).cloned();
        text.ok_or_else(|| format!("{kind:?} {namespace}/{name} has no key {key}"))
    }
}

/// Reads all texts of one Secret or ConfigMap.
async fn read_texts(
    client: &kube::Client,
    (kind, namespace, name): &TextKey,
) -> Result<BTreeMap<String, String>, String> {
    let plural = match kind {
        SecretKind::Secret => "secrets",
        SecretKind::ConfigMap => "configmaps",
    };
    let is_name = |t: &str| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if !is_name(namespace) || !is_name(name) {
        return Err(format!("{kind:?} {namespace}/{name} is not a name"));
    }
    let path = format!("/api/v1/namespaces/{namespace}/{plural}/{name}");
    let request = http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string())?;
    let object: Value = client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => {
            format!("{kind:?} {namespace}/{name} does not exist")
        }
        kube::Error::Api(status) if status.code == 403 => {
            format!("{kind:?} {namespace}/{name}: the right to get {plural} is missing")
        }
        other => format!("{kind:?} {namespace}/{name}: {other}"),
    })?;
    let data = object["data"].as_object().into_iter().flatten();
    let text = |value: &Value| -> Option<String> {
        let text = value.as_str()?;
        if *kind == SecretKind::ConfigMap {
            return Some(text.to_owned());
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        String::from_utf8(bytes).ok()
    };
    Ok(data.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect())
}

#[cfg(test)]
mod tests;
