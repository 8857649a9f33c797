//! Which rules of a group may run at the same time?
//!
//! Those that read nothing another rule writes, and write nothing another
//! rule reads. A rule that selects without a metric name, or reads `ALERTS`,
//! may read anything: then all run in order.

use std::sync::atomic::{AtomicUsize, Ordering};

use narthex_query::ast::{Expr, ExprKind, VectorSelector};
use narthex_storage::labels::{METRIC_NAME, Matcher};

use super::rule::Rule;

/// How many rules may run beside the ones that run anyway, in all groups.
#[derive(Debug)]
pub struct Permits(AtomicUsize);

impl Permits {
    /// So many permits.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    /// Takes one, if there is one.
    pub(super) fn try_take(&self) -> bool {
        let take = |left: usize| left.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives one back.
    pub(super) fn give_back(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls `visit` for each selector in an expression.
pub(super) fn visit_selectors<'e>(expr: &'e Expr, visit: &mut dyn FnMut(&'e VectorSelector)) {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Vector(selector) => visit(selector),
        ExprKind::Matrix(matrix) => visit(&matrix.selector),
        ExprKind::Subquery(subquery) => visit_selectors(&subquery.expr, visit),
        ExprKind::Call(call) => call.args.iter().for_each(|arg| visit_selectors(arg, visit)),
        ExprKind::Aggregate(aggregate) => {
            visit_selectors(&aggregate.expr, visit);
            if let Some(param) = &aggregate.param {
                visit_selectors(param, visit);
            }
        }
        ExprKind::Binary(binary) => {
            visit_selectors(&binary.lhs, visit);
            visit_selectors(&binary.rhs, visit);
        }
        ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => visit_selectors(inner, visit),
    }
}

/// Positions of the rules, in batches: those of a batch may run at the same
/// time, the batches one after the other. `None`: in order.
pub(super) fn batches(rules: &[Rule]) -> Option<Vec<Vec<usize>>> {
    if rules.len() < 2 {
        return None;
    }
    let mut reads = vec![false; rules.len()];
    let mut is_read = vec![false; rules.len()];
    for (i, rule) in rules.iter().enumerate() {
        let mut anything = false;
        visit_selectors(&rule.expr, &mut |selector| {
            let name = selector.matchers.iter().find(|m| m.name == METRIC_NAME);
            let matches = |metric: &str| name.is_none_or(|m: &Matcher| m.matches(metric));
            if name.is_none() || matches("ALERTS") || matches("ALERTS_FOR_STATE") {
                anything = true;
                return;
            }
            for (k, other) in rules.iter().enumerate() {
                if k != i && matches(&other.name) {
                    reads[i] = true;
                    is_read[k] = true;
                }
            }
        });
        if anything {
            return None;
        }
    }
    let of = |wanted: &dyn Fn(usize) -> bool| (0..rules.len()).filter(|&i| wanted(i)).collect();
    let first: Vec<usize> = of(&|i| !reads[i]);
    let middle: Vec<usize> = of(&|i| reads[i] && is_read[i]);
    let last: Vec<usize> = of(&|i| reads[i] && !is_read[i]);
    let mut batches = vec![first];
    batches.extend(middle.into_iter().map(|i| vec![i]));
    batches.push(last);
    batches.retain(|batch| !batch.is_empty());
    Some(batches)
}
