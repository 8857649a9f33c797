//! What changes in the cluster? Lists and watches, one per resource and scope
//! however many discoveries need it.
//!
//! A relist is compared, not cleared; while the API server is away, what was
//! known stays. Nothing is shown before the first complete list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures::TryStreamExt as _;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cache::Kind;
use super::object::Object;
use crate::metrics::{Counter, Family};

/// Seconds that one watch request lasts at most.
const WATCH_TIMEOUT_S: u32 = 290;

/// Objects per page of a list.
const PAGE_SIZE: u32 = 500;

/// How often a failing watch is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What is watched: a resource, in one namespace or all, narrowed by
/// selectors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Group, version, kind and plural.
    pub resource: Resource,
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    /// labelSelector.
    pub label: Option<String>,
    /// fieldSelector.
    pub field: Option<String>,
}

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The plural in URLs.
    pub plural: &'static str,
}

impl Resource {
    fn api(self) -> ApiResource {
        let api_version = if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        };
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// Counters of watches.
#[derive(Clone)]
pub struct WatchMetrics {
    /// Lists and watches that failed.
    pub failures: Counter,
    /// By role and event.
    pub events: Family<Counter>,
}

/// All objects of one scope, kept up to date while anybody holds this.
pub struct Store<T> {
    objects: RwLock<Kind<T>>,
    /// Raised with each change; 0 until the first complete list.
    version: watch::Sender<u64>,
    _stop: DropGuard,
}

impl<T: Object> Store<T> {
    /// The objects now.
    #[must_use]
    pub fn snapshot(&self) -> Kind<T> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees a new number with each change; 0 means that nothing is known yet.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Follows one scope until the returned store is dropped.
    pub fn follow(client: kube::Client, scope: Scope, metrics: WatchMetrics) -> Arc<Self> {
        let stop = CancellationToken::new();
        let store = Arc::new(Self {
            objects: RwLock::default(),
            version: watch::Sender::new(0),
            _stop: stop.clone().drop_guard(),
        });
        let weak = Arc::downgrade(&store);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = run(client, scope, weak, metrics) => {}
            }
        });
        store
    }

    fn change(&self, change: impl FnOnce(&mut Kind<T>)) {
        change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version += 1);
    }
}

async fn run<T: Object>(
    client: kube::Client,
    scope: Scope,
    store: Weak<Store<T>>,
    metrics: WatchMetrics,
) {
    let resource = scope.resource.api();
    let api: kube::Api<DynamicObject> = match &scope.namespace {
        Some(namespace) => kube::Api::namespaced_with(client, namespace, &resource),
        None => kube::Api::all_with(client, &resource),
    };
    let config = watcher::Config {
        label_selector: scope.label.clone(),
        field_selector: scope.field.clone(),
        timeout: Some(WATCH_TIMEOUT_S),
        page_size: Some(PAGE_SIZE),
        ..watcher::Config::default().any_semantic()
    };
    let mut events = std::pin::pin!(start_watcher(api, config).default_backoff());
    let mut listed: Option<Vec<T>> = None;
    let mut logged: Option<tokio::time::Instant> = None;
    loop {
        let event = events.try_next().await;
        let Some(store) = store.upgrade() else { return };
        let count = |event: &str| metrics.events.with(&[scope.resource.plural, event]).inc();
        match event {
            Ok(None) => return,
            Ok(Some(event)) => match event {
                Event::Init => listed = Some(Vec::new()),
                Event::InitApply(object) => {
                    if let (Some(list), Some(object)) = (&mut listed, trim(object)) {
                        list.push(object);
                    }
                }
                Event::InitDone => {
                    if let Some(list) = listed.take() {
                        store.change(|objects| objects.replace(list));
                    }
                }
                Event::Apply(object) => {
                    count("update");
                    if let Some(object) = trim(object) {
                        store.change(|objects| objects.apply(object));
                    }
                }
                Event::Delete(object) => {
                    count("delete");
                    let namespace = object.metadata.namespace.unwrap_or_default();
                    let name = object.metadata.name.unwrap_or_default();
                    store.change(|objects| {
                        objects.remove(&namespace, &name);
                    });
                }
            },
            Err(error) => {
                metrics.failures.inc();
                if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                    logged = Some(tokio::time::Instant::now());
                    let what = scope.resource.plural;
                    tracing::warn!(%error, what, "Kubernetes watch; what is known stays");
                }
            }
        }
    }
}

/// Keeps the fields that discovery reads.
fn trim<T: Object>(object: DynamicObject) -> Option<T> {
    let mut value = object.data;
    let metadata = serde_json::to_value(&object.metadata).ok()?;
    value.as_object_mut()?.insert("metadata".to_owned(), metadata);
    match serde_json::from_value(value) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::warn!(%error, "Kubernetes object not understood");
            None
        }
    }
}

/// Watches of one API server that are shared by scope.
pub struct Stores<T>(Mutex<HashMap<Scope, Weak<Store<T>>>>);

impl<T> Default for Stores<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Object> Stores<T> {
    /// The store of a scope; follows it from now on if nobody did.
    pub fn get(
        &self,
        client: &kube::Client,
        scope: Scope,
        metrics: &WatchMetrics,
    ) -> Arc<Store<T>> {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, store| store.strong_count() > 0);
        if let Some(store) = stores.get(&scope).and_then(Weak::upgrade) {
            return store;
        }
        let store = Store::follow(client.clone(), scope.clone(), metrics.clone());
        stores.insert(scope, Arc::downgrade(&store));
        store
    }
}
