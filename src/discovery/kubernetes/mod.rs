//! What does the cluster run? Kubernetes objects to target groups.
//!
//! `object` holds what is kept of each object, `cache` all objects of a scope,
//! `groups` turns them into target groups; each role has a file of its own.
//! Nothing in these talks to a server: `connect` and `watch` do, and
//! `provider` puts them together.

pub mod cache;
pub mod connect;
pub mod groups;
pub mod object;
pub mod provider;
pub mod watch;

mod endpoints;
mod endpointslice;
mod ingress;
mod meta;
mod node;
mod pod;
mod service;

pub use cache::Cache;
pub use groups::{Attach, groups};

#[cfg(test)]
mod provider_tests;
#[cfg(test)]
pub(super) mod tests;
