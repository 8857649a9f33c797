//! What does the operator want? `prometheus.yml` as validated values.
//!
//! Parsing refuses what is wrong or not supported, with file, line and column;
//! what comes out needs no further checks but those that touch the outside
//! (files that secrets are read from, regular expressions of other rooms).
//! Nothing here imports another room, and nothing reads more than the
//! configuration files themselves.

mod builtin;
mod discovery;
mod emit;
mod error;
pub mod glob;
mod http;
mod load;
mod relabel;
mod scrape;
mod secret;
mod section;
mod sections;
mod show;
mod types;
pub mod units;
pub(crate) mod yaml;

pub use builtin::builtin;
pub use discovery::parse_target_groups;
pub use error::ConfigError;
pub use load::{load, parse};
pub use relabel::RelabelFieldError;
pub use secret::Secret;
pub use types::*;

#[cfg(test)]
mod tests;
