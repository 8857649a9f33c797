//! What does the cluster run? Kubernetes objects to target groups.
//!
//! `object` holds what is kept of each object, `cache` all objects of a scope,
//! `groups` turns them into target groups; each role has a file of its own.
//! Nothing in these talks to a server: `connect` reaches one, `reflector`
//! speaks its protocol, `watch` shares what comes, `cluster` holds all watches
//! of a server, and `provider` puts them together.

pub mod backoff;
pub mod cache;
pub mod cluster;
pub mod connect;
pub mod groups;
pub mod health;
pub mod object;
pub mod provider;
pub mod raw;
pub mod reflector;
pub mod scope;
pub mod watch;

mod endpoints;
mod endpointslice;
mod ingress;
mod kubeconfig;
mod lines;
mod meta;
mod node;
mod pod;
mod service;

pub use cache::Cache;
pub use groups::{Attach, Groups, groups};

#[cfg(test)]
#[path = "../../../tests/common/kubernetes.rs"]
pub(crate) mod fake;
#[cfg(test)]
mod provider_tests;
#[cfg(test)]
mod reflector_tests;
#[cfg(test)]
pub(super) mod tests;
