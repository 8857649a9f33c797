//! Who wants to know? Objects of a scope, followed once however many
//! discoveries need them.
//!
//! A relist is compared, not cleared; while the API server is away, what was
//! known stays. Nothing is shown before the first complete list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cache::{Applied, Kind};
use super::health::Health;
use super::object::Object;
use super::reflector::{Change, Reflector, Server, Sink, WatchError};
use super::scope::Scope;
use crate::metrics::{Counter, Family, Gauge};
use crate::notices::Notices;

/// What watches say of themselves. Cloning shares it.
#[derive(Clone)]
pub struct WatchMetrics {
    /// Lists and watches that failed.
    pub failures: Counter,
    /// By role and event.
    pub events: Family<Counter>,
    /// Watches that fail now.
    pub failing: Gauge,
    /// Watches that are followed now.
    pub watches: Gauge,
    /// Where an outage is shown.
    pub notices: Notices,
}

impl WatchMetrics {
    /// Metrics that nobody exposes.
    #[must_use]
    pub fn unregistered() -> Self {
        Self {
            failures: Counter::default(),
            events: Family::new(&["role", "event"], Counter::default),
            failing: Gauge::default(),
            watches: Gauge::default(),
            notices: Notices::default(),
        }
    }
}

/// A server as watches know it.
pub struct Watched {
    /// How it is reached.
    pub server: Server,
    /// How it is.
    pub health: Health,
}

/// All objects of one scope, kept up to date while anybody holds this.
pub struct Store<T> {
    objects: RwLock<Kind<T>>,
    /// Raised with each change; 0 until the first complete list.
    version: watch::Sender<u64>,
    _stop: DropGuard,
}

impl<T: Object> Store<T> {
    /// The objects now; shares them.
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
    pub fn follow(watched: Arc<Watched>, scope: Scope, metrics: WatchMetrics) -> Arc<Self> {
        let stop = CancellationToken::new();
        let store = Arc::new(Self {
            objects: RwLock::default(),
            version: watch::Sender::new(0),
            _stop: stop.clone().drop_guard(),
        });
        let weak = Arc::downgrade(&store);
        tokio::spawn(async move {
            let what = scope.to_string();
            let role = scope.resource.role();
            metrics.watches.add(1.0);
            let mut sink = Following { store: weak, watched: &watched, what: &what, role, metrics };
            tokio::select! {
                () = stop.cancelled() => {}
                () = Reflector::new(&watched.server, &scope).run(&mut sink) => {}
            }
            sink.metrics.watches.add(-1.0);
            watched.health.answered(&what, &sink.metrics);
        });
        store
    }

    /// Changes the objects; followers hear of it if anything differs, and of
    /// the first complete list in any case.
    fn change(&self, change: impl FnOnce(&mut Kind<T>) -> bool, is_first: bool) {
        let differs = change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_if_modified(|version| {
            let tells = differs || (is_first && *version == 0);
            *version += u64::from(tells);
            tells
        });
    }
}

/// Where the changes of one scope go.
struct Following<'a, T> {
    store: Weak<Store<T>>,
    watched: &'a Watched,
    what: &'a str,
    role: String,
    metrics: WatchMetrics,
}

impl<T: Object> Sink<T> for Following<'_, T> {
    fn change(&mut self, change: Change<T>) {
        let Some(store) = self.store.upgrade() else { return };
        let count = |event: &str| self.metrics.events.with(&[&self.role, event]).inc();
        match change {
            Change::Replace(list) => store.change(|objects| objects.replace(list), true),
            Change::Apply(object) => store.change(
                |objects| {
                    let applied = objects.apply(object);
                    count(if applied == Applied::Added { "add" } else { "update" });
                    applied != Applied::Same
                },
                false,
            ),
            Change::Remove(meta) => {
                count("delete");
                store.change(|objects| objects.remove(&meta.namespace, &meta.name), false);
            }
        }
    }

    fn answered(&mut self) {
        self.watched.health.answered(self.what, &self.metrics);
    }

    fn failed(&mut self, error: &WatchError) {
        self.watched.health.failed(self.what, error, &self.metrics);
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
        watched: &Arc<Watched>,
        scope: Scope,
        metrics: &WatchMetrics,
    ) -> Arc<Store<T>> {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, store| store.strong_count() > 0);
        if let Some(store) = stores.get(&scope).and_then(Weak::upgrade) {
            return store;
        }
        let store = Store::follow(Arc::clone(watched), scope.clone(), metrics.clone());
        stores.insert(scope, Arc::downgrade(&store));
        store
    }
}
