//! Arithmetic on floats as Go and Prometheus do it.

use crate::ast::BinaryOp;

/// `math.Max`: NaN wins unless the other is +Inf; +0 is more than -0.
pub(crate) fn go_max(x: f64, y: f64) -> f64 {
    if x == f64::INFINITY || y == f64::INFINITY {
        f64::INFINITY
    } else if x.is_nan() || y.is_nan() {
        f64::NAN
    } else if x == 0.0 && x == y {
        if x.is_sign_negative() { y } else { x }
    } else if x > y {
        x
    } else {
        y
    }
}

/// `math.Min`: NaN wins unless the other is -Inf; -0 is less than +0.
pub(crate) fn go_min(x: f64, y: f64) -> f64 {
    if x == f64::NEG_INFINITY || y == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if x.is_nan() || y.is_nan() {
        f64::NAN
    } else if x == 0.0 && x == y {
        if x.is_sign_negative() { x } else { y }
    } else if x < y {
        x
    } else {
        y
    }
}

/// One step of Neumaier's variant of Kahan's summation: adds `inc` to the sum
/// `sum` with the compensation `c`. The true sum is `sum + c`.
#[inline]
pub(crate) fn kahan(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    if t.is_infinite() {
        (t, 0.0)
    } else if sum.abs() >= inc.abs() {
        (t, c + ((sum - t) + inc))
    } else {
        (t, c + ((inc - t) + sum))
    }
}

/// A binary operation between scalars; comparisons give 0 or 1.
pub(crate) fn scalar(op: BinaryOp, x: f64, y: f64) -> f64 {
    if is_comparison(op) { f64::from(u8::from(compare(op, x, y))) } else { compute(op, x, y) }
}

/// An arithmetic operation.
#[inline]
pub(crate) fn compute(op: BinaryOp, x: f64, y: f64) -> f64 {
    match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Mod => x % y,
        BinaryOp::Pow => go_pow(x, y),
        BinaryOp::Atan2 => x.atan2(y),
        op => unreachable!("BUG: {op:?} is not arithmetic"),
    }
}

/// `math.Pow`, whose special cases are those of C's.
fn go_pow(x: f64, y: f64) -> f64 {
    x.powf(y)
}

/// A comparison.
#[inline]
pub(crate) fn compare(op: BinaryOp, x: f64, y: f64) -> bool {
    match op {
        BinaryOp::Eq => x == y,
        BinaryOp::Ne => x != y,
        BinaryOp::Gt => x > y,
        BinaryOp::Lt => x < y,
        BinaryOp::Ge => x >= y,
        BinaryOp::Le => x <= y,
        op => unreachable!("BUG: {op:?} is not a comparison"),
    }
}

/// Whether the operator filters by comparing.
pub(crate) fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(op, Eq | Ne | Gt | Lt | Ge | Le)
}

/// Whether the operator is `and`, `or`, `unless`.
pub(crate) fn is_set(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
}

/// Whether the operator trims histograms.
pub(crate) fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

/// Whether the result is something else than the operands, so that the metric
/// name no longer fits.
pub(crate) fn changes_schema(op: BinaryOp) -> bool {
    !(is_comparison(op) || is_set(op) || is_trim(op))
}

/// The operator as written.
pub(crate) fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Mod => "%",
        BinaryOp::Pow => "^",
        BinaryOp::Atan2 => "atan2",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Gt => ">",
        BinaryOp::Lt => "<",
        BinaryOp::Ge => ">=",
        BinaryOp::Le => "<=",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
        BinaryOp::Unless => "unless",
        BinaryOp::TrimUpper => "</",
        BinaryOp::TrimLower => ">/",
    }
}

/// The quantile `q` of `values`, which get sorted: NaN first, then ascending,
/// interpolated between neighbours.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| nan_first(*a, *b));
    quantile_of_sorted(q, values)
}

/// The quantile `q` in `0..=1` of values that are sorted and not empty.
pub(crate) fn quantile_of_sorted(q: f64, values: &[f64]) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "no vector has 2^53 values")]
    let n = values.len() as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= index < n")]
    let at = |i: f64| values[i as usize];
    at(lower) * (1.0 - weight) + at(upper) * weight
}

/// Ascending with NaN before everything.
pub(crate) fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kahan_keeps_what_a_plain_sum_loses() {
        let (mut sum, mut c) = (0.0, 0.0);
        for v in [5.0, 1e100, -1e100, 3.0] {
            (sum, c) = kahan(v, sum, c);
        }
        assert_eq!(sum + c, 8.0);
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0, 4.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [3.0, f64::NAN]), 3.0);
        assert!(quantile(0.5, &mut []).is_nan());
        assert_eq!(quantile(2.0, &mut [1.0]), f64::INFINITY);
    }
}
