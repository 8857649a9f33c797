//! Running sums and means of histograms, with what rounding loses.

use narthex_storage::histogram::{
    Compensation, CounterResetHint, Histogram, IncompatibleSchemas, Reconciled,
};

use crate::ast::Span;

use super::notes::{Notes, quoted};

/// Which contradicting hints were among the summands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints {
    reset: bool,
    not_reset: bool,
}

impl Hints {
    pub(super) fn see(&mut self, h: &Histogram) {
        match h.counter_reset_hint {
            CounterResetHint::Reset => self.reset = true,
            CounterResetHint::NotReset => self.not_reset = true,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
    }

    pub(super) fn collide(self) -> bool {
        self.reset && self.not_reset
    }
}

/// A compensated sum.
#[derive(Debug, Clone)]
pub(super) struct Sum {
    value: Histogram,
    lost: Compensation,
    any_lost: bool,
}

impl Sum {
    pub(super) fn new(first: &Histogram) -> Self {
        Self { value: first.clone(), lost: Compensation::default(), any_lost: false }
    }

    pub(super) fn add(&mut self, h: &Histogram) -> Result<Reconciled, IncompatibleSchemas> {
        let reconciled = self.value.add_compensated(h, &mut self.lost)?;
        self.any_lost = true;
        Ok(reconciled)
    }

    pub(super) fn finish(mut self) -> Histogram {
        if self.any_lost {
            self.value.settle(&self.lost);
        }
        self.value
    }
}

/// A mean from a compensated sum; incremental once the sum overflows.
#[derive(Debug, Clone)]
pub(super) struct Mean {
    sum: Sum,
    /// The running mean, if the sum has overflowed; `sum.value` is it then.
    incremental: bool,
    count: f64,
}

impl Mean {
    pub(super) fn new(first: &Histogram) -> Self {
        Self { sum: Sum::new(first), incremental: false, count: 1.0 }
    }

    pub(super) fn add(&mut self, h: &Histogram) -> Result<Reconciled, IncompatibleSchemas> {
        self.count += 1.0;
        let count = self.count;
        if !self.incremental {
            let mut sum = self.sum.clone();
            let reconciled = sum.add(h)?;
            if !sum.value.has_overflow() {
                self.sum = sum;
                return Ok(reconciled);
            }
            self.incremental = true;
            self.sum.value.div(count - 1.0);
            self.sum.lost.div(count - 1.0);
        }
        let q = (count - 1.0) / count;
        self.sum.lost.mul(q);
        self.sum.value.mul(q);
        let mut part = h.clone();
        part.div(count);
        self.sum.add(&part)
    }

    pub(super) fn finish(mut self) -> Histogram {
        if !self.incremental {
            self.sum.value.div(self.count);
            self.sum.lost.div(self.count);
        }
        self.sum.finish()
    }
}

pub(super) fn note_mixed(notes: &mut Notes, span: Span, name: &str) {
    notes.warn(
        span,
        format!("encountered a mix of histograms and floats for metric name {}", quoted(name)),
    );
}

pub(super) fn note_mixed_schemas(notes: &mut Notes, span: Span, name: &str) {
    notes.warn(
        span,
        format!(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
            quoted(name)
        ),
    );
}

pub(super) fn note_not_counter(notes: &mut Notes, span: Span, name: &str) {
    notes.warn(span, format!("this native histogram metric is not a counter: {}", quoted(name)));
}

pub(super) fn note_not_gauge(notes: &mut Notes, span: Span, name: &str) {
    notes.warn(span, format!("this native histogram metric is not a gauge: {}", quoted(name)));
}

/// Notes that custom bounds had to be brought together.
pub(super) fn note_bounds(notes: &mut Notes, span: Span, operation: &str) {
    notes.info(span, format!("mismatched custom buckets were reconciled during {operation}"));
}

pub(super) fn note_collision(notes: &mut Notes, span: Span, operation: &str) {
    notes.warn(span, format!("conflicting counter resets during histogram {operation}"));
}

pub(super) fn note_ignored_in_range(notes: &mut Notes, span: Span, name: &str) {
    notes.info(
        span,
        format!(
            "ignored histograms in a range containing both floats and histograms for metric name {}",
            quoted(name)
        ),
    );
}
