//! PromQL: text to typed expression, plan, and evaluation over column batches.

pub mod ast;
pub mod memory;
pub mod value;
