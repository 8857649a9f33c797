//! `crate::config` as far as the room of scrapes needs it.

#[path = "../../../src/config/relabel.rs"]
mod relabel;
#[path = "../../../src/config/secret.rs"]
mod secret;
#[path = "../../../src/config/types.rs"]
mod types;

pub use secret::Secret;
pub use types::*;
