//! From objects to groups: one group per object of the role, and what is
//! attached to it from others.

use crate::config::{KubernetesRole, KubernetesSdConfig};
use crate::discovery::TargetGroup;

use super::cache::Cache;
use super::meta::{LabelMap, set_labels_and_annotations, set_metadata};
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
pub fn groups(role: KubernetesRole, cache: &Cache, attach: Attach) -> Vec<TargetGroup> {
    let context = Context { cache, attach };
    let groups: Vec<TargetGroup> = match role {
        KubernetesRole::Node => cache.nodes.iter().filter_map(|n| node::group(n)).collect(),
        KubernetesRole::Pod => cache.pods.iter().map(|p| pod::group(p, &context)).collect(),
        KubernetesRole::Service => {
            cache.services.iter().map(|s| service::group(s, &context)).collect()
        }
        KubernetesRole::Endpoints => {
            cache.endpoints.iter().map(|e| endpoints::group(e, &context)).collect()
        }
        KubernetesRole::EndpointSlice => {
            cache.slices.iter().map(|s| endpointslice::group(s, &context)).collect()
        }
        KubernetesRole::Ingress => {
            cache.ingresses.iter().map(|i| ingress::group(i, &context)).collect()
        }
    };
    groups.into_iter().filter(|g| !g.targets.is_empty()).collect()
}

/// What the roles look things up in.
pub struct Context<'a> {
    /// The other objects.
    pub cache: &'a Cache,
    /// What is attached.
    pub attach: Attach,
}

impl Context<'_> {
    /// Adds the metadata of a node, if that is wanted and the node is known.
    pub fn attach_node(&self, labels: &mut LabelMap, name: Option<&str>) {
        if !self.attach.node {
            return;
        }
        if let Some(node) = name.and_then(|name| self.cache.nodes.get("", name)) {
            set_metadata(labels, "node", &node.metadata);
        }
    }

    /// Adds labels and annotations of a namespace, if that is wanted and it is
    /// known.
    pub fn attach_namespace(&self, labels: &mut LabelMap, name: &str) {
        if !self.attach.namespace {
            return;
        }
        if let Some(namespace) = self.cache.namespaces.get("", name) {
            set_labels_and_annotations(labels, "namespace", &namespace.metadata);
        }
    }
}
