//! What is known of the cluster: all objects of one scope, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::object::{EndpointSlice, Endpoints, Ingress, Node, Object, Owner, Pod, Service};

/// Namespace and name; the namespace is empty for objects of the cluster.
pub type Key = (String, String);

/// Objects of one kind.
#[derive(Debug, Clone)]
pub struct Kind<T>(BTreeMap<Key, Arc<T>>);

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Object> Kind<T> {
    /// Stores an object in place of the one of that name.
    pub fn apply(&mut self, object: T) {
        let meta = object.meta();
        let key = (meta.namespace.clone(), meta.name.clone());
        self.0.insert(key, Arc::new(object));
    }

    /// Removes an object.
    pub fn remove(&mut self, namespace: &str, name: &str) -> bool {
        self.0.remove(&(namespace.to_owned(), name.to_owned())).is_some()
    }

    /// Replaces all objects by those of a complete list.
    pub fn replace(&mut self, objects: impl IntoIterator<Item = T>) {
        self.0.clear();
        for object in objects {
            self.apply(object);
        }
    }

    /// Adds all objects of another set.
    pub fn merge(&mut self, other: Self) {
        if self.0.is_empty() {
            self.0 = other.0;
        } else {
            self.0.extend(other.0);
        }
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.0.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All objects, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values()
    }
}

/// All objects that the discoveries of one scope need.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// Nodes.
    pub nodes: Kind<Node>,
    /// Pods.
    pub pods: Kind<Pod>,
    /// Services.
    pub services: Kind<Service>,
    /// Endpoints.
    pub endpoints: Kind<Endpoints>,
    /// Endpoint slices.
    pub slices: Kind<EndpointSlice>,
    /// Ingresses.
    pub ingresses: Kind<Ingress>,
    /// Namespaces.
    pub namespaces: Kind<Owner>,
    /// ReplicaSets, for the names of deployments.
    pub replica_sets: Kind<Owner>,
    /// Jobs, for the names of cron jobs.
    pub jobs: Kind<Owner>,
}
