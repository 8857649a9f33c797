//! Role ingress: one target per host and path.

use crate::discovery::TargetGroup;

use super::groups::Context;
use super::meta::{LabelMap, set, set_metadata, set_some, target};
use super::object::{Ingress, IngressRule};

/// The group of an ingress.
pub fn group(ingress: &Ingress, context: &Context<'_>) -> TargetGroup {
    let meta = &ingress.metadata;
    let mut labels = LabelMap::new();
    set(&mut labels, "namespace", &meta.namespace);
    set_metadata(&mut labels, "ingress", meta);
    set_some(&mut labels, "ingress_class_name", ingress.spec.ingress_class_name.as_deref());
    context.attach_namespace(&mut labels, &meta.namespace);
    let mut targets = Vec::new();
    for rule in &ingress.spec.rules {
        let scheme = if is_secure(ingress, &rule.host) { "https" } else { "http" };
        for path in paths(rule) {
            let mut labels = target(rule.host.clone());
            set(&mut labels, "ingress_scheme", scheme);
            set(&mut labels, "ingress_host", &rule.host);
            set(&mut labels, "ingress_path", path);
            targets.push(labels);
        }
    }
    TargetGroup { source: format!("ingress/{}/{}", meta.namespace, meta.name), labels, targets }
}

/// The paths of a rule; a rule without http has the path `/`.
fn paths(rule: &IngressRule) -> Vec<&str> {
    let Some(http) = &rule.http else { return vec!["/"] };
    http.paths.iter().map(|p| if p.path.is_empty() { "/" } else { p.path.as_str() }).collect()
}

/// Whether a host has a certificate: its own, or a wildcard of one label.
fn is_secure(ingress: &Ingress, host: &str) -> bool {
    ingress.spec.tls.iter().flat_map(|tls| &tls.hosts).any(|covered| {
        covered == host
            || covered.strip_prefix("*.").is_some_and(|domain| {
                host.split_once('.')
                    .is_some_and(|(first, rest)| !first.is_empty() && rest == domain)
            })
    })
}
