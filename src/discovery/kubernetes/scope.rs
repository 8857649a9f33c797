//! What is watched? A kind of objects, in one namespace or all, narrowed by
//! selectors; and the paths under which a server has it.

use std::fmt;

use url::form_urlencoded;

/// What is watched: equal scopes share one watch.
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
    /// The label `role` of metrics: `pod`, `endpointslice`, ...
    #[must_use]
    pub fn role(self) -> String {
        self.kind.to_lowercase()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource.plural)?;
        if let Some(namespace) = &self.namespace {
            write!(f, " in {namespace}")?;
        }
        for selector in [&self.label, &self.field].into_iter().flatten() {
            write!(f, " with {selector}")?;
        }
        Ok(())
    }
}

impl Scope {
    /// All objects of a kind.
    #[must_use]
    pub const fn all(resource: Resource) -> Self {
        Self { resource, namespace: None, label: None, field: None }
    }

    /// Path and query of a request with these parameters and the selectors.
    #[must_use]
    pub fn uri(&self, parameters: &[(&str, &str)]) -> String {
        let Resource { group, version, plural, .. } = self.resource;
        let mut uri = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        if let Some(namespace) = &self.namespace {
            uri.push_str("/namespaces/");
            // Names come from objects, too: one must not become a path.
            uri.extend(form_urlencoded::byte_serialize(namespace.as_bytes()));
        }
        uri.push('/');
        uri.push_str(plural);
        uri.push('?');
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, selector) in [("labelSelector", &self.label), ("fieldSelector", &self.field)] {
            if let Some(selector) = selector {
                query.append_pair(name, selector);
            }
        }
        query.extend_pairs(parameters);
        uri.push_str(&query.finish());
        uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_from_outside_stays_one_segment() {
        let resource =
            Resource { group: "discovery.k8s.io", version: "v1", kind: "K", plural: "slices" };
        let mut scope = Scope::all(resource);
        scope.namespace = Some("a/../b?c".to_owned());
        scope.label = Some("x in (a,b)".to_owned());
        assert_eq!(
            scope.uri(&[("watch", "true")]),
            "/apis/discovery.k8s.io/v1/namespaces/a%2F..%2Fb%3Fc/slices?labelSelector=x+in+%28a%2Cb%29&watch=true"
        );
        let core = Resource { group: "", version: "v1", kind: "Pod", plural: "pods" };
        assert_eq!(Scope::all(core).uri(&[("limit", "5")]), "/api/v1/pods?limit=5");
    }
}
