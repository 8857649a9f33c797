//! PromQL: text to typed expression, plan, and evaluation over column batches.
//!
//! Anything that implements [`Queryable`](narthex_storage::read::Queryable)
//! can be asked; here it is the storage in memory.
//!
//! ```
//! use narthex_query::engine::{Engine, EngineOptions, QueryOptions};
//! use narthex_query::memory::MemoryStorage;
//! use narthex_query::parse::{ParseOptions, parse};
//! use narthex_query::value::QueryValue;
//! use narthex_storage::append::{Appendable, SourceId, SyncClass};
//! use narthex_storage::labels::Labels;
//! use narthex_storage::sample::Value;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = MemoryStorage::default();
//! let mut appender = storage.appender(SourceId(1), SyncClass::Scrape);
//! for (instance, value) in [("a", 1.0), ("b", 2.0)] {
//!     let labels = Labels::from_pairs([("__name__", "load"), ("instance", instance)]);
//!     let series = appender.series(&labels)?;
//!     appender.append(series, 60_000, 0, value)?;
//! }
//! appender.commit()?;
//!
//! let text = "sum(load) * 10";
//! let expr = parse(text, &ParseOptions::default())?;
//! let engine = Engine::new(EngineOptions::default());
//! let answer = engine.instant(&storage, &expr, text, 60_000, &QueryOptions::default())?;
//! let QueryValue::Vector(vector) = answer.value else { panic!("a vector") };
//! assert_eq!(vector[0].value, Value::Float(30.0));
//! # Ok(())
//! # }
//! ```

pub mod ast;
pub mod check;
pub mod duration;
pub mod engine;
mod eval;
pub mod functions;
pub mod histogram;
pub mod lex;
pub mod memory;
mod memory_pool;
pub mod parse;
mod plan;
pub mod print;
pub mod promqltest;
pub mod quote;
mod steps;
pub mod value;
