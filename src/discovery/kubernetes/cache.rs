//! What is known of the cluster: all objects of one scope, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::object::{EndpointSlice, Endpoints, Ingress, Node, Object, Owner, Pod, Service};

/// Objects of one namespace, by name.
type Named<T> = BTreeMap<Box<str>, Arc<T>>;

/// Objects of one kind, by namespace (empty for objects of the cluster) and
/// name.
///
/// A clone shares everything: it copies one reference per namespace, and a
/// change after it copies the references of the one namespace.
#[derive(Debug, Clone)]
pub struct Kind<T>(BTreeMap<Arc<str>, Arc<Named<T>>>);

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// What an object changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// There was none of that name.
    Added,
    /// It differs from the one before.
    Updated,
    /// Nothing that is kept differs.
    Same,
}

impl<T: Object> Kind<T> {
    /// Stores an object in place of the one of that name.
    pub fn apply(&mut self, object: T) -> Applied {
        let meta = object.meta();
        let applied = match self.get(&meta.namespace, &meta.name) {
            Some(known) if **known == object => return Applied::Same,
            Some(_) => Applied::Updated,
            None => Applied::Added,
        };
        let namespace: Arc<str> = meta.namespace.as_str().into();
        let name: Box<str> = meta.name.as_str().into();
        Arc::make_mut(self.0.entry(namespace).or_default()).insert(name, Arc::new(object));
        applied
    }

    /// Removes an object; `false` if there is none.
    pub fn remove(&mut self, namespace: &str, name: &str) -> bool {
        let Some(named) = self.0.get_mut(namespace) else { return false };
        if !named.contains_key(name) {
            return false;
        }
        Arc::make_mut(named).remove(name);
        if named.is_empty() {
            self.0.remove(namespace);
        }
        true
    }

    /// Makes these all objects there are; those that did not change keep
    /// their identity. `false` if nothing differs.
    pub fn replace(&mut self, objects: impl IntoIterator<Item = T>) -> bool {
        let mut listed: BTreeMap<Arc<str>, Named<T>> = BTreeMap::new();
        let mut differs = false;
        for object in objects {
            let meta = object.meta();
            let known = self.get(&meta.namespace, &meta.name).filter(|known| ***known == object);
            differs |= known.is_none();
            let kept = known.cloned();
            let name: Box<str> = meta.name.as_str().into();
            let namespace: Arc<str> = meta.namespace.as_str().into();
            let kept = kept.unwrap_or_else(|| Arc::new(object));
            listed.entry(namespace).or_default().insert(name, kept);
        }
        differs |= listed.values().map(BTreeMap::len).sum::<usize>() != self.len();
        if differs {
            self.0 = listed.into_iter().map(|(n, named)| (n, Arc::new(named))).collect();
        }
        differs
    }

    /// Adds all objects of another set, of other namespaces or these.
    pub fn merge(&mut self, other: Self) {
        for (namespace, named) in other.0 {
            match self.0.get_mut(&namespace) {
                Some(known) => {
                    let both = named.iter().map(|(n, o)| (n.clone(), Arc::clone(o)));
                    Arc::make_mut(known).extend(both);
                }
                None => {
                    self.0.insert(namespace, named);
                }
            }
        }
    }

    /// Leaves only these namespaces.
    pub fn narrow(&mut self, namespaces: &BTreeSet<String>) {
        self.0.retain(|namespace, _| namespaces.contains(&**namespace));
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.0.get(namespace)?.get(name)
    }

    /// All objects, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values().flat_map(|named| named.values())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(|named| named.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(namespace: &str, name: &str, label: &str) -> Owner {
        let mut owner = Owner::default();
        owner.metadata.namespace = namespace.to_owned();
        owner.metadata.name = name.to_owned();
        owner.metadata.labels.insert("l".to_owned(), label.to_owned());
        owner
    }

    #[test]
    fn a_list_is_compared_and_a_clone_keeps_what_it_saw() {
        let mut kind = Kind::default();
        assert_eq!(kind.apply(owner("a", "x", "1")), Applied::Added);
        assert_eq!(kind.apply(owner("a", "x", "1")), Applied::Same);
        assert_eq!(kind.apply(owner("b", "y", "1")), Applied::Added);
        let before = kind.clone();
        assert_eq!(kind.apply(owner("a", "x", "2")), Applied::Updated);
        assert_eq!(before.get("a", "x").map(|o| o.metadata.labels["l"].as_str()), Some("1"));
        assert!(!kind.replace([owner("b", "y", "1"), owner("a", "x", "2")]));
        let y = Arc::clone(kind.get("b", "y").expect("there"));
        assert!(kind.replace([owner("b", "y", "1"), owner("c", "z", "1")]));
        assert!(Arc::ptr_eq(&y, kind.get("b", "y").expect("there")));
        assert_eq!((kind.len(), kind.get("a", "x").is_none()), (2, true));
        assert!(kind.replace([owner("b", "y", "1")]));
        assert!(kind.remove("b", "y") && !kind.remove("b", "y"));
        assert!(kind.is_empty());
    }

    #[test]
    fn scopes_are_put_together_and_narrowed() {
        let mut all = Kind::default();
        all.apply(owner("a", "x", "1"));
        let mut other = Kind::default();
        other.apply(owner("a", "w", "1"));
        other.apply(owner("b", "y", "1"));
        all.merge(other);
        let names = |k: &Kind<Owner>| k.iter().map(|o| o.metadata.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&all), ["w", "x", "y"]);
        all.narrow(&BTreeSet::from(["b".to_owned()]));
        assert_eq!(names(&all), ["y"]);
    }
}
