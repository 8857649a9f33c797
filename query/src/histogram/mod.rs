//! What do queries compute from histograms, native and classic?
//!
//! Pure functions over histograms and slices of them; the evaluation decides
//! which series, windows and steps. Whatever the reader of an answer should
//! know is gathered in [`Findings`] and put into words once per series.
//!
//! The order of additions and every rule is that of Prometheus 3.14.

use narthex_storage::histogram::Reconciled;
use narthex_storage::labels::write_quoted;

mod aggregate;
mod classic;
mod extended;
mod interpolate;
mod moments;
mod quantile;
mod range;
mod rate;
mod stats;
#[cfg(test)]
mod tests;

pub use aggregate::{Aggregation, AggregationKind, over_time};
pub use classic::{ClassicBucket, Correction, bucket_fraction, bucket_quantile};
pub use extended::extended_rate;
pub use interpolate::{interpolate, smoothed_at};
pub use moments::{average, standard_deviation, variance};
pub use quantile::{NanEffect, fraction, quantile};
pub use range::{Sample, Samples, changes, resets};
pub use rate::{Rate, Window, extrapolated_rate, instant_rate, is_start_reset, overlaps_previous};
pub use stats::StatsReader;

/// What was noticed while histograms were combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    /// Exponential and custom buckets met; there is no result.
    pub mixed_schemas: bool,
    /// A function for counters met a gauge.
    pub not_counter: bool,
    /// A function for gauges met a counter.
    pub not_gauge: bool,
    /// Custom bounds differed and were reconciled, while ...
    pub reconciled: Operations,
    /// One histogram was marked as reset, the other as not, while ...
    pub collided: Operations,
    /// In how many windows a start timestamp lay before the sample before.
    pub start_overlaps: usize,
}

/// A set of operations between histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operations {
    /// ... one was added to another.
    pub addition: bool,
    /// ... one was subtracted from another.
    pub subtraction: bool,
    /// ... many were aggregated.
    pub aggregation: bool,
}

/// How serious an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `PromQL warning: ...`
    Warning,
    /// `PromQL info: ...`
    Info,
}

impl Operations {
    fn union(self, other: Self) -> Self {
        Self {
            addition: self.addition || other.addition,
            subtraction: self.subtraction || other.subtraction,
            aggregation: self.aggregation || other.aggregation,
        }
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.addition, "addition"),
            (self.subtraction, "subtraction"),
            (self.aggregation, "aggregation"),
        ]
        .into_iter()
        .filter_map(|(seen, name)| seen.then_some(name))
    }
}

impl Findings {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds those of another window or series.
    pub fn merge(&mut self, other: Self) {
        self.mixed_schemas |= other.mixed_schemas;
        self.not_counter |= other.not_counter;
        self.not_gauge |= other.not_gauge;
        self.reconciled = self.reconciled.union(other.reconciled);
        self.collided = self.collided.union(other.collided);
        self.start_overlaps += other.start_overlaps;
    }

    /// What one addition or subtraction, as an operator, came upon.
    pub(crate) fn of(reconciled: Reconciled, subtraction: bool) -> Self {
        let of = |seen| Operations {
            addition: seen && !subtraction,
            subtraction: seen && subtraction,
            aggregation: false,
        };
        Self {
            reconciled: of(reconciled.bounds),
            collided: of(reconciled.counter_reset_collision),
            ..Self::default()
        }
    }

    /// Nothing but that exponential and custom buckets were mixed.
    pub(crate) fn mixed() -> Self {
        Self { mixed_schemas: true, ..Self::default() }
    }

    /// The annotations, without kind and position. `name` is the metric's,
    /// empty if it has none.
    ///
    /// Start overlaps are left out: their number belongs into the text, see
    /// [`Self::start_overlap_text`].
    pub fn texts(&self, name: &str) -> impl Iterator<Item = (Level, String)> {
        use Level::{Info, Warning};
        let named = |text: &str| format!("{text} {}", quoted(name));
        let mut out = Vec::new();
        if self.mixed_schemas {
            let text = "vector contains a mix of histograms with exponential and custom buckets \
                        schemas for metric name";
            out.push((Warning, named(text)));
        }
        if self.not_counter {
            out.push((Warning, named("this native histogram metric is not a counter:")));
        }
        if self.not_gauge {
            out.push((Warning, named("this native histogram metric is not a gauge:")));
        }
        for operation in self.collided.names() {
            let text = format!("conflicting counter resets during histogram {operation}");
            out.push((Warning, text));
        }
        for operation in self.reconciled.names() {
            let text = format!("mismatched custom buckets were reconciled during {operation}");
            out.push((Info, text));
        }
        out.into_iter()
    }

    /// The warning about start timestamps before the sample before.
    #[must_use]
    pub fn start_overlap_text(name: &str) -> String {
        let text = "sample has start time that overlaps with previous sample timestamp";
        format!("{text} for metric {}", quoted(name))
    }

    fn note_addition(&mut self, reconciled: Reconciled) {
        self.reconciled.addition |= reconciled.bounds;
    }

    fn note_subtraction(&mut self, reconciled: Reconciled) {
        self.reconciled.subtraction |= reconciled.bounds;
    }
}

/// `text`, with the metric name if there is one.
pub(crate) fn with_name(text: &str, name: &str) -> String {
    if name.is_empty() {
        text.to_owned()
    } else {
        format!("{text} for metric name {}", quoted(name))
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_quoted(&mut out, text).expect("writing to a string succeeds");
    out
}
