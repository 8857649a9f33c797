//! What follows from the data? Recording and alerting groups.
//!
//! [`Group`] is the heart: [`Group::evaluate`] runs its rules once, for a time
//! that is passed in, over whatever answers queries, and is what tests and
//! `narthex test rules` call, too. [`Manager`] owns the groups of the
//! configuration and is the only part that knows clocks and tasks.
//!
//! Invariants: the rules of a group see what the rules before them wrote; two
//! evaluations of one group never run at the same time; an alert's state
//! leaves the process only through [`status`](Group::status), notifications
//! and the state files, and those agree.

mod alert;
mod backfill;
mod batch;
mod catch_up;
mod context;
pub mod file;
mod group;
mod manager;
mod metrics;
mod restore;
mod rule;
mod schedule;
mod slot;
mod state_file;
pub mod status;

#[cfg(test)]
mod tests;

pub use alert::{Alert, AlertState};
pub use backfill::{Backfill, Filled};
pub use batch::Permits;
pub use context::{Context, EngineQuery, Query};
pub use group::{Evaluated, Group, GroupOptions};
pub use manager::{Manager, ManagerOptions, RulesError};
pub use metrics::RuleMetrics;
pub use rule::{Rule, RuleKind};
pub use state_file::StateStore;
