//! narthex: one small binary that does Prometheus' whole job.
//!
//! This crate is the server: it wires storage and query engine to the outside.
//! Each module is a room; ARCHITECTURE.md says who may enter which.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod discovery;
pub mod metrics;
pub mod notices;
pub mod notify;
pub mod query_log;
pub mod relabel;
pub mod rules;
pub mod scrape;
pub mod server;
pub mod template;
pub mod web;
