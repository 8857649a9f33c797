//! Binary operations between two values, and how series of two vectors find
//! each other.

use std::collections::HashMap;
use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram, Keep};
use narthex_storage::labels::{Labels, METRIC_NAME};

use crate::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::histogram::Findings;
use crate::plan::Binary;

use super::arith;
use super::hist::note_findings;
use super::lanes::{Point, RESERVED, Series};
use super::notes::Notes;

/// Combines two values; `None` if they cannot be combined, else the value and
/// whether a comparison holds.
pub(super) fn combine(b: &Binary, x: Point, y: Point, notes: &mut Notes) -> Option<(Point, bool)> {
    match (x, y) {
        (Point::Float(x), Point::Float(y)) => {
            if arith::is_trim(b.op) {
                note_types(notes, b, "float", "float");
                None
            } else if arith::is_comparison(b.op) {
                Some((Point::Float(x), arith::compare(b.op, x, y)))
            } else {
                Some((Point::Float(arith::compute(b.op, x, y)), true))
            }
        }
        (Point::Float(x), Point::Histogram(h)) => {
            if b.op == BinaryOp::Mul {
                return changed(&h, |h| h.mul(x));
            }
            note_types(notes, b, "float", "histogram");
            None
        }
        (Point::Histogram(h), Point::Float(y)) => match b.op {
            BinaryOp::Mul => changed(&h, |h| h.mul(y)),
            BinaryOp::Div => changed(&h, |h| h.div(y)),
            BinaryOp::TrimUpper | BinaryOp::TrimLower => {
                let keep = if b.op == BinaryOp::TrimUpper { Keep::Below } else { Keep::Above };
                let mut trimmed = h.as_ref().clone();
                trimmed.trim(y, keep);
                Some((Point::Histogram(Arc::new(trimmed)), true))
            }
            _ => {
                note_types(notes, b, "histogram", "float");
                None
            }
        },
        (Point::Histogram(x), Point::Histogram(y)) => histograms(b, &x, &y, notes),
    }
}

fn changed(h: &Arc<Histogram>, f: impl FnOnce(&mut Histogram)) -> Option<(Point, bool)> {
    let mut h = h.as_ref().clone();
    f(&mut h);
    h.compact(0);
    Some((Point::Histogram(Arc::new(h)), true))
}

fn histograms(
    b: &Binary,
    x: &Arc<Histogram>,
    y: &Arc<Histogram>,
    notes: &mut Notes,
) -> Option<(Point, bool)> {
    let result = match b.op {
        BinaryOp::Eq => return Some((Point::Histogram(Arc::clone(x)), x.same_data(y))),
        BinaryOp::Ne => return Some((Point::Histogram(Arc::clone(x)), !x.same_data(y))),
        BinaryOp::Add => {
            let mut sum = x.as_ref().clone();
            sum.add(y).map(|r| (sum, r))
        }
        BinaryOp::Sub => {
            let mut rest = x.as_ref().clone();
            let reconciled = rest.sub(y);
            rest.counter_reset_hint = CounterResetHint::Gauge;
            reconciled.map(|r| (rest, r))
        }
        _ => {
            note_types(notes, b, "histogram", "histogram");
            return None;
        }
    };
    match result {
        Ok((mut h, reconciled)) => {
            let findings = Findings::of(reconciled, b.op == BinaryOp::Sub);
            note_findings(notes, b.span, "", &findings);
            h.compact(0);
            Some((Point::Histogram(Arc::new(h)), true))
        }
        Err(_) => {
            notes.warn(
                b.span,
                format!(
                    "incompatible bucket layout encountered for binary operator {}",
                    arith::symbol(b.op)
                ),
            );
            None
        }
    }
}

/// Notes that an operator cannot combine such values.
pub(super) fn note_types(notes: &mut Notes, b: &Binary, left: &str, right: &str) {
    let op = arith::symbol(b.op);
    notes.info(
        b.span,
        format!(
            "incompatible sample types encountered for binary operator \"{op}\": {left} {op} {right}"
        ),
    );
}

/// Numbers for the groups that series match in.
#[derive(Debug, Default)]
pub(super) struct Groups {
    numbers: HashMap<Labels, usize>,
}

impl Groups {
    /// The number of the group of each series.
    pub(super) fn of(&mut self, batch: &[Series], matching: &VectorMatching) -> Vec<usize> {
        batch
            .iter()
            .map(|series| {
                let key = signature(&series.labels, matching);
                let next = self.numbers.len();
                *self.numbers.entry(key).or_insert(next)
            })
            .collect()
    }

    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }
}

/// The labels by which series match.
fn signature(labels: &Labels, matching: &VectorMatching) -> Labels {
    if matching.on {
        return labels.keep(&matching.labels);
    }
    let mut ignored: Vec<&str> = matching.labels.iter().map(String::as_str).collect();
    ignored.push(METRIC_NAME);
    labels.drop(&ignored)
}

/// The labels that error messages and filled-in values carry.
pub(super) fn match_labels(labels: &Labels, matching: &VectorMatching) -> Labels {
    signature(labels, matching)
}

/// The labels of a result of `many` (the left side, or the side with many
/// series) and `one`.
pub(super) fn result_labels(
    many: &Labels,
    one: &Labels,
    matching: &VectorMatching,
    drop_name: bool,
) -> Labels {
    let one_to_one = matching.cardinality == Cardinality::OneToOne;
    let keep = |n: &str| {
        if drop_name && RESERVED.contains(&n) {
            return false;
        }
        !one_to_one || matching.labels.iter().any(|l| l == n) == matching.on
    };
    if matching.include.is_empty() {
        if many.iter().all(|(n, _)| keep(n)) {
            return many.clone();
        }
        return Labels::from_sorted(many.iter().filter(|(n, _)| keep(n)));
    }
    let mut builder = narthex_storage::labels::LabelsBuilder::new();
    for (name, value) in many.iter().filter(|(n, _)| keep(n)) {
        builder.set(name, value);
    }
    for name in &matching.include {
        builder.set(name, one.get(name).unwrap_or(""));
    }
    builder.build()
}
