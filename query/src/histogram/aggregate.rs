//! Sums and means of histograms: `sum`, `avg` and their `_over_time` kin.

use std::sync::Arc;

use narthex_storage::histogram::{
    Compensation, CounterResetHint, Histogram, IncompatibleSchemas, Reconciled,
};

use super::Findings;

/// What is worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregationKind {
    /// The sum.
    Sum,
    /// The arithmetic mean.
    Average,
}

/// A running sum or mean, compensated for rounding.
///
/// A mean is the sum by the count as long as the sum stays finite; from then
/// on it is updated with each histogram.
#[derive(Debug, Clone)]
pub struct Aggregation {
    kind: AggregationKind,
    /// The sum, or the mean once `incremental`.
    value: Histogram,
    compensation: Compensation,
    count: f64,
    incremental: bool,
    reset_seen: bool,
    no_reset_seen: bool,
    reconciled: bool,
}

impl Aggregation {
    /// Begins with a first histogram.
    #[must_use]
    pub fn new(kind: AggregationKind, first: &Histogram) -> Self {
        let mut new = Self {
            kind,
            value: first.clone(),
            compensation: Compensation::default(),
            count: 1.0,
            incremental: false,
            reset_seen: false,
            no_reset_seen: false,
            reconciled: false,
        };
        new.track(first);
        new
    }

    /// Adds a histogram.
    ///
    /// # Errors
    ///
    /// [`IncompatibleSchemas`] if exponential and custom buckets meet; there
    /// is no result then.
    pub fn add(&mut self, h: &Histogram) -> Result<(), IncompatibleSchemas> {
        self.track(h);
        self.count += 1.0;
        match self.kind {
            AggregationKind::Sum => {
                let reconciled = self.value.add_compensated(h, &mut self.compensation)?;
                self.note(reconciled);
            }
            AggregationKind::Average => self.add_to_mean(h)?,
        }
        Ok(())
    }

    fn add_to_mean(&mut self, h: &Histogram) -> Result<(), IncompatibleSchemas> {
        if !self.incremental {
            // Large values are rare: look before copying.
            let near_overflow = exceeds(&self.value) || exceeds(h);
            let before = near_overflow.then(|| (self.value.clone(), self.compensation.clone()));
            let reconciled = self.value.add_compensated(h, &mut self.compensation)?;
            self.note(reconciled);
            match before {
                Some((value, compensation)) if self.value.has_overflow() => {
                    self.incremental = true;
                    (self.value, self.compensation) = (value, compensation);
                    self.value.div(self.count - 1.0);
                    self.compensation.div(self.count - 1.0);
                }
                _ => return Ok(()),
            }
        }
        let weight = (self.count - 1.0) / self.count;
        self.compensation.mul(weight);
        self.value.mul(weight);
        let mut part = h.clone();
        part.div(self.count);
        let reconciled = self.value.add_compensated(&part, &mut self.compensation)?;
        self.note(reconciled);
        Ok(())
    }

    fn track(&mut self, h: &Histogram) {
        self.reset_seen |= h.counter_reset_hint == CounterResetHint::Reset;
        self.no_reset_seen |= h.counter_reset_hint == CounterResetHint::NotReset;
    }

    fn note(&mut self, reconciled: Reconciled) {
        self.reconciled |= reconciled.bounds;
    }

    /// What was noticed so far; also of use after an error.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let mut findings = Findings::default();
        findings.reconciled.aggregation = self.reconciled;
        findings.collided.aggregation = self.reset_seen && self.no_reset_seen;
        findings
    }

    /// The result. Empty buckets are left in: aggregations over series remove
    /// them, those over time do not.
    #[must_use]
    pub fn finish(mut self) -> Histogram {
        if self.kind == AggregationKind::Average && !self.incremental {
            self.value.div(self.count);
            self.compensation.div(self.count);
        }
        self.value.settle(&self.compensation);
        self.value
    }
}

/// Whether adding to this could overflow.
fn exceeds(h: &Histogram) -> bool {
    const SAFE: f64 = f64::MAX / 4.0;
    let large = |v: &f64| v.abs() > SAFE;
    [h.zero_count, h.count, h.sum].iter().any(large)
        || h.positive_buckets.iter().chain(&h.negative_buckets).any(large)
        || h.custom_values.iter().any(large)
}

/// `sum_over_time` and `avg_over_time` of the histograms of a window; `None`
/// if there are none or they cannot be combined.
pub fn over_time(
    kind: AggregationKind,
    histograms: &[Arc<Histogram>],
    findings: &mut Findings,
) -> Option<Histogram> {
    let (first, others) = histograms.split_first()?;
    let mut aggregation = Aggregation::new(kind, first);
    for h in others {
        if aggregation.add(h).is_err() {
            findings.merge(Findings::mixed());
            return None;
        }
    }
    findings.merge(aggregation.findings());
    Some(aggregation.finish())
}
