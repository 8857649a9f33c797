//! From objects to groups: one group per object of the role, and what is
//! attached to it from others.
//!
//! A group is made again only if the object or one that it was made from
//! differs: in a cluster of thousands of pods, a few change at a time.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{KubernetesRole, KubernetesSdConfig};
use crate::discovery::TargetGroup;

use super::cache::{Cache, Kind};
use super::meta::{LabelMap, set_labels_and_annotations, set_metadata};
use super::object::{Node, Object, Owner, Pod, Service};
use super::{endpoints, endpointslice, ingress, node, pod, service};

/// `attach_metadata`: what is added from other objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Attach {
    /// The node's labels and annotations.
    pub node: bool,
    /// The namespace's labels and annotations.
    pub namespace: bool,
    /// The deployment's name.
    pub deployment: bool,
    /// The job's name.
    pub job: bool,
    /// The cron job's name.
    pub cronjob: bool,
}

impl From<&KubernetesSdConfig> for Attach {
    fn from(config: &KubernetesSdConfig) -> Self {
        Self {
            node: config.attach_node,
            namespace: config.attach_namespace,
            deployment: config.attach_deployment,
            job: config.attach_job,
            cronjob: config.attach_cronjob,
        }
    }
}

/// All groups of a role, by object name. Objects without targets have none.
#[must_use]
pub fn groups(role: KubernetesRole, cache: &Cache, attach: Attach) -> Vec<Arc<TargetGroup>> {
    Groups::new(role, attach).update(cache)
}

/// An object of any kind; which one it is, is all that is asked.
type Anything = Arc<dyn Any + Send + Sync>;

fn is_same<T: Send + Sync + 'static>(known: Option<&Anything>, now: Option<&Arc<T>>) -> bool {
    match (known, now) {
        (None, None) => true,
        (Some(known), Some(now)) => {
            std::ptr::eq(Arc::as_ptr(known).cast::<()>(), Arc::as_ptr(now).cast::<()>())
        }
        _ => false,
    }
}

/// The kinds in which roles look things up.
#[derive(Debug, Clone, Copy)]
enum Other {
    Node,
    Namespace,
    Pod,
    Service,
    ReplicaSet,
    Job,
}

/// What was found under a name, if anything.
struct Looked {
    other: Other,
    namespace: Box<str>,
    name: Box<str>,
    found: Option<Anything>,
}

impl Looked {
    fn is_current(&self, cache: &Cache) -> bool {
        fn same<T: Object>(looked: &Looked, kind: &Kind<T>) -> bool {
            is_same(looked.found.as_ref(), kind.get(&looked.namespace, &looked.name))
        }
        match self.other {
            Other::Node => same(self, &cache.nodes),
            Other::Namespace => same(self, &cache.namespaces),
            Other::Pod => same(self, &cache.pods),
            Other::Service => same(self, &cache.services),
            Other::ReplicaSet => same(self, &cache.replica_sets),
            Other::Job => same(self, &cache.jobs),
        }
    }
}

/// A group and what it was made from.
struct Made {
    object: Anything,
    others: Vec<Looked>,
    group: Option<Arc<TargetGroup>>,
}

/// The groups of one discovery, kept up to date.
pub struct Groups {
    role: KubernetesRole,
    attach: Attach,
    made: HashMap<(Box<str>, Box<str>), Made>,
}

impl Groups {
    /// No groups yet.
    #[must_use]
    pub fn new(role: KubernetesRole, attach: Attach) -> Self {
        Self { role, attach, made: HashMap::new() }
    }

    /// All groups that have targets, by object name; those that would come
    /// out the same are the same as before.
    pub fn update(&mut self, cache: &Cache) -> Vec<Arc<TargetGroup>> {
        match self.role {
            KubernetesRole::Node => self.of(cache, &cache.nodes, |n, _| node::group(n)),
            KubernetesRole::Pod => self.of(cache, &cache.pods, |p, c| Some(pod::group(p, c))),
            KubernetesRole::Service => {
                self.of(cache, &cache.services, |s, c| Some(service::group(s, c)))
            }
            KubernetesRole::Endpoints => {
                self.of(cache, &cache.endpoints, |e, c| Some(endpoints::group(e, c)))
            }
            KubernetesRole::EndpointSlice => {
                self.of(cache, &cache.slices, |s, c| Some(endpointslice::group(s, c)))
            }
            KubernetesRole::Ingress => {
                self.of(cache, &cache.ingresses, |i, c| Some(ingress::group(i, c)))
            }
        }
    }

    fn of<T: Object>(
        &mut self,
        cache: &Cache,
        kind: &Kind<T>,
        make: impl Fn(&T, &Context<'_>) -> Option<TargetGroup>,
    ) -> Vec<Arc<TargetGroup>> {
        let mut before = std::mem::take(&mut self.made);
        let mut all = Vec::with_capacity(kind.len());
        self.made.reserve(kind.len());
        for object in kind.iter() {
            let meta = object.meta();
            let key = (meta.namespace.as_str().into(), meta.name.as_str().into());
            let known = before.remove(&key);
            let made = match known {
                Some(made)
                    if is_same(Some(&made.object), Some(object))
                        && made.others.iter().all(|looked| looked.is_current(cache)) =>
                {
                    made
                }
                known => {
                    let context = Context::new(cache, self.attach);
                    let group = match make(object, &context) {
                        Some(group) => (!group.targets.is_empty()).then(|| Arc::new(group)),
                        // A node that lost its address stays as it was.
                        None => known.and_then(|made| made.group),
                    };
                    let others = context.looked.into_inner();
                    Made { object: Arc::clone(object) as Anything, others, group }
                }
            };
            all.extend(made.group.clone());
            self.made.insert(key, made);
        }
        all
    }
}

/// What the roles look things up in; remembers what they found.
pub struct Context<'a> {
    cache: &'a Cache,
    /// What is attached.
    pub attach: Attach,
    looked: RefCell<Vec<Looked>>,
}

impl<'a> Context<'a> {
    const fn new(cache: &'a Cache, attach: Attach) -> Self {
        Self { cache, attach, looked: RefCell::new(Vec::new()) }
    }

    fn look<T: Object>(
        &self,
        kind: &'a Kind<T>,
        other: Other,
        namespace: &str,
        name: &str,
    ) -> Option<&'a T> {
        let found = kind.get(namespace, name);
        self.looked.borrow_mut().push(Looked {
            other,
            namespace: namespace.into(),
            name: name.into(),
            found: found.map(|object| Arc::clone(object) as Anything),
        });
        found.map(AsRef::as_ref)
    }

    /// The pod of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&'a Pod> {
        self.look(&self.cache.pods, Other::Pod, namespace, name)
    }

    /// The service of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.look(&self.cache.services, Other::Service, namespace, name)
    }

    /// The ReplicaSet of that name.
    pub fn replica_set(&self, namespace: &str, name: &str) -> Option<&'a Owner> {
        self.look(&self.cache.replica_sets, Other::ReplicaSet, namespace, name)
    }

    /// The job of that name.
    pub fn job(&self, namespace: &str, name: &str) -> Option<&'a Owner> {
        self.look(&self.cache.jobs, Other::Job, namespace, name)
    }

    /// Adds the metadata of a node, if that is wanted and the node is known.
    pub fn attach_node(&self, labels: &mut LabelMap, name: Option<&str>) {
        if !self.attach.node {
            return;
        }
        let node: Option<&Node> =
            name.and_then(|name| self.look(&self.cache.nodes, Other::Node, "", name));
        if let Some(node) = node {
            set_metadata(labels, "node", &node.metadata);
        }
    }

    /// Adds labels and annotations of a namespace, if that is wanted and it is
    /// known.
    pub fn attach_namespace(&self, labels: &mut LabelMap, name: &str) {
        if !self.attach.namespace {
            return;
        }
        if let Some(namespace) = self.look(&self.cache.namespaces, Other::Namespace, "", name) {
            set_labels_and_annotations(labels, "namespace", &namespace.metadata);
        }
    }
}
