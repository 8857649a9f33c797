//! What one sample is: a timestamp and a float or a native histogram.

use std::sync::Arc;

use crate::histogram::Histogram;

/// The NaN that marks a series as ended: Prometheus' staleness marker.
///
/// It is an ordinary sample to the storage; only queries give it a meaning.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The NaN that Prometheus writes for "not a number" (Go's quiet NaN).
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The staleness marker as a value.
#[must_use]
pub const fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the staleness marker; any other NaN is not.
#[must_use]
pub const fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The value of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A float, any of the 2^64 bit patterns.
    Float(f64),
    /// A native histogram. Shared, as histograms are large and often repeated.
    Histogram(Arc<Histogram>),
}

/// One sample of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When the counter behind this sample started, in milliseconds since the
    /// Unix epoch; 0 means unknown.
    pub start_ms: i64,
    /// The value at that time.
    pub value: Value,
}

/// An exemplar: a trace (or other labels) that stands for one observation.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Labels of the exemplar itself, such as `trace_id`.
    pub labels: crate::labels::Labels,
    /// The observed value.
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What is known of a metric beyond its samples.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metadata {
    /// The declared type.
    pub kind: MetricKind,
    /// The help text, as exposed.
    pub help: String,
    /// The unit, as exposed (OpenMetrics); empty if none.
    pub unit: String,
}

/// Types of metrics in the exposition formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MetricKind {
    /// Cumulative, rises or resets.
    Counter,
    /// May go up and down.
    Gauge,
    /// Buckets, sum and count, cumulative.
    Histogram,
    /// Buckets that may go up and down.
    GaugeHistogram,
    /// Quantiles, sum and count.
    Summary,
    /// Constant 1 with labels that inform.
    Info,
    /// One series per state, 0 or 1.
    StateSet,
    /// Not declared, or untyped.
    #[default]
    Unknown,
}

impl MetricKind {
    /// The name in Prometheus' metadata API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }
}
