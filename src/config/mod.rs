//! What does the operator want? `prometheus.yml` as validated values.
//!
//! Parsing refuses what is wrong or not supported, with file, line and column;
//! what comes out needs no further checks but those that touch the outside
//! (files that secrets are read from, regular expressions of other rooms).
//! Nothing here imports another room, and nothing reads more than the
//! configuration files themselves.

mod relabel;
mod secret;
mod types;

pub use relabel::RelabelFieldError;
pub use secret::Secret;
pub use types::*;
