//! PromQL: text to typed expression, plan, and evaluation over column batches.

pub mod ast;
pub mod check;
pub mod duration;
pub mod engine;
mod eval;
pub mod functions;
pub mod histogram;
pub mod lex;
pub mod memory;
pub mod parse;
mod plan;
pub mod print;
pub mod promqltest;
pub mod quote;
pub mod value;
