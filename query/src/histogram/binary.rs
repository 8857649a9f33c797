//! Operators between histograms, and between a histogram and a float.

use narthex_storage::histogram::{CounterResetHint, Histogram, Keep, Reconciled};

/// What an operator gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A value.
    Histogram(Histogram, Reconciled),
    /// The operator has no meaning for these types.
    Undefined,
    /// Exponential and custom buckets met.
    IncompatibleLayouts,
}

/// `left op right` for the arithmetic operators, as written in PromQL.
///
/// The difference is a gauge. Comparisons are [`equal`]; all else is
/// undefined.
#[must_use]
pub fn histograms(op: &str, left: &Histogram, right: &Histogram) -> Outcome {
    let mut result = left.clone();
    let combined = match op {
        "+" => result.add(right),
        "-" => result.sub(right),
        _ => return Outcome::Undefined,
    };
    let Ok(reconciled) = combined else { return Outcome::IncompatibleLayouts };
    if op == "-" {
        result.counter_reset_hint = CounterResetHint::Gauge;
    }
    result.compact(0);
    Outcome::Histogram(result, reconciled)
}

/// Whether two histograms are equal, for `==` and `!=`: the same data, however
/// the spans are cut, whatever the hints say.
#[must_use]
pub fn equal(left: &Histogram, right: &Histogram) -> bool {
    left.same_data(right)
}

/// `histogram op float`, or with `float_first` `float op histogram`.
#[must_use]
pub fn histogram_by_float(op: &str, h: &Histogram, float: f64, float_first: bool) -> Outcome {
    let mut result = h.clone();
    match (op, float_first) {
        ("*", _) => {
            result.mul(float);
            result.compact(0);
        }
        ("/", false) => {
            result.div(float);
            result.compact(0);
        }
        ("</", false) => result.trim(float, Keep::Below),
        (">/", false) => result.trim(float, Keep::Above),
        _ => return Outcome::Undefined,
    }
    Outcome::Histogram(result, Reconciled::default())
}
