//! The same query, its selectors pinned to one time by `@`: it must give the
//! same whenever it is asked.

use crate::ast::{AtModifier, Expr, ExprKind};

/// Functions whose result depends on when they are asked, whatever `@` their
/// arguments have.
const UNSAFE: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
];

/// The query with `@ time_ms` on all selectors and subqueries that have none;
/// within a subquery nothing is changed. `None` if that would change what it
/// means.
pub(super) fn pinned(expr: &Expr, time_ms: i64) -> Option<Expr> {
    let mut pinned = expr.clone();
    pin(&mut pinned, time_ms).then_some(pinned)
}

/// When a pinned query is asked.
pub(super) fn times(time_ms: i64) -> Vec<i64> {
    if time_ms == 0 {
        return vec![-1000, 0, 1000];
    }
    vec![time_ms.saturating_mul(-10), 0, time_ms / 5, time_ms, time_ms.saturating_mul(10)]
}

/// Whether a query names its own range or step, so that it may not give the
/// same as a range query.
pub(super) fn asks_for_range(text: &str) -> bool {
    ["start()", "end()", "range()", "step()"].iter().any(|call| text.contains(call))
}

fn pin(expr: &mut Expr, time_ms: i64) -> bool {
    let at = match &mut expr.kind {
        ExprKind::Vector(selector) => &mut selector.at,
        ExprKind::Matrix(matrix) => &mut matrix.selector.at,
        ExprKind::Subquery(subquery) => &mut subquery.at,
        ExprKind::Number(_) | ExprKind::String(_) => return true,
        ExprKind::Call(call) => {
            return !UNSAFE.contains(&call.function)
                && call.args.iter_mut().all(|arg| pin(arg, time_ms));
        }
        ExprKind::Aggregate(aggregate) => {
            return pin(&mut aggregate.expr, time_ms)
                && aggregate.param.as_mut().is_none_or(|param| pin(param, time_ms));
        }
        ExprKind::Binary(binary) => {
            return pin(&mut binary.lhs, time_ms) && pin(&mut binary.rhs, time_ms);
        }
        ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => return pin(inner, time_ms),
    };
    if !matches!(at, Some(AtModifier::At(_))) {
        *at = Some(AtModifier::At(time_ms));
    }
    true
}
