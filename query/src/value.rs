//! What a query answers.

use std::sync::Arc;

use narthex_storage::histogram::Histogram;
use narthex_storage::labels::Labels;
use narthex_storage::sample::Value;

pub use crate::memory_pool::Lease;

/// The answer of a query, with what the reader should know about it.
#[derive(Debug, PartialEq)]
pub struct QueryResult {
    /// The value itself.
    pub value: QueryValue,
    /// `PromQL warning: ...`, sorted, each once.
    pub warnings: Vec<String>,
    /// `PromQL info: ...`, sorted, each once.
    pub infos: Vec<String>,
    /// What it cost.
    pub stats: QueryStats,
    /// Samples that each step looked at, by time in milliseconds; empty unless
    /// [asked for](crate::engine::QueryOptions::per_step).
    pub samples_per_step: Vec<(i64, u64)>,
    /// The memory that it holds, counted against that of all queries until
    /// this is dropped.
    pub lease: Lease,
}

/// The value of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    /// A float at a time in milliseconds.
    Scalar(i64, f64),
    /// A text at a time in milliseconds.
    String(i64, String),
    /// Series with one sample each, all at the evaluation time. The order is
    /// that of `sort` and the like; otherwise stable.
    Vector(Vec<VectorSample>),
    /// Series with many samples each, sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

/// One series of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSample {
    /// Its labels.
    pub labels: Labels,
    /// The evaluation time, in milliseconds.
    pub timestamp_ms: i64,
    /// The value.
    pub value: Value,
}

/// One series of a matrix: two lanes, each ascending in time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// Floats with their timestamps in milliseconds.
    pub floats: Vec<(i64, f64)>,
    /// Histograms with their timestamps in milliseconds.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

/// What a query cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct QueryStats {
    /// Samples read, counted at each step they were used in, as Prometheus
    /// counts (`totalQueryableSamples`).
    pub total_samples: u64,
    /// Most samples held at one time.
    pub peak_samples: u64,
    /// Series selected from the storage.
    pub series: u64,
    /// Seconds for parsing, planning and selecting.
    pub prepare_s: f64,
    /// Seconds of evaluation.
    pub eval_s: f64,
}
