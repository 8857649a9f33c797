//! What do the targets say? Pools of targets, one loop each, and the way of a
//! page into the storage.

mod cache;
mod labels;
pub mod page;
pub mod scanner;

pub use cache::Cache;
pub use labels::LabelRules;
