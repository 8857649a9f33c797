//! Which expressions have, at each step, a value that depends on this step
//! alone?
//!
//! Most do, and then steps that were evaluated for one range are those of
//! another. Not so where the range itself is looked at (`start()`, `@ end()`),
//! where a time outside of it is (`@ 1600000000`), where series of different
//! steps meet (equal labels behind dropped names are refused even if they
//! never overlap), and where the order of series shows, as in the last bits of
//! a sum: the order in which groups come depends on all steps, that of a
//! selector's series does not.

use narthex_storage::labels::{METRIC_NAME, MatchOp};

use crate::ast::AggregateOp;
use crate::eval::{drops_name, has_reserved};

use super::{Node, Plan, RangeVector, Rollup, Selector, Source, time_range};

/// How far before and behind a step the samples lie that it looks at, in
/// milliseconds, both included; `None` if the value at a step may depend on
/// other steps of the query, or on no sample.
pub(crate) fn reach(plan: &Plan, lookback_ms: i64) -> Option<(i64, i64)> {
    if plan.looks_at_range || !is_local(&plan.root, false) {
        return None;
    }
    let (first, last) = time_range(&plan.root, 0, 0, lookback_ms)?;
    Some((first.saturating_neg(), last))
}

/// Whether the node's values are those of one step. `ordered` says that the
/// order of its series shows.
fn is_local(node: &Node, ordered: bool) -> bool {
    match node {
        Node::Number(_) | Node::String(_) | Node::Time => true,
        Node::Select(selector) => selector.at_ms.is_none(),
        Node::Samples(_) => false,
        Node::Rollup(rollup) => is_local_rollup(rollup, ordered),
        Node::Call(call) => {
            let (keeps_order, apart) = match call.function {
                "info" => return false,
                name if drops_name(name) => (true, call.args.iter().all(is_apart)),
                _ => (false, true),
            };
            (!ordered || (keeps_order && apart)) && call.args.iter().all(|a| is_local(a, ordered))
        }
        Node::Aggregate(a) => {
            let counts = matches!(a.op, AggregateOp::Count | AggregateOp::Group);
            !ordered
                && is_local(&a.node, !counts)
                && a.param.as_ref().is_none_or(|param| is_local(param, false))
        }
        Node::Binary(b) => {
            let keeps_order = !b.is_between_vectors() && (is_apart(&b.lhs) && is_apart(&b.rhs));
            (!ordered || keeps_order) && is_local(&b.lhs, ordered) && is_local(&b.rhs, ordered)
        }
        Node::Negate(inner, _) => is_apart(inner) && is_local(inner, ordered),
        Node::Invariant(inner) => is_local(inner, ordered),
        Node::Shared(_, inner) => is_local(inner, ordered),
    }
}

fn is_local_rollup(rollup: &Rollup, ordered: bool) -> bool {
    let params = rollup.params.iter().all(|param| is_local(param, false));
    let apart = keeps_name(rollup.function) || is_source_apart(&rollup.range);
    let source = match &rollup.range.source {
        Source::Storage(selector) => selector.at_ms.is_none(),
        Source::Subquery(s) => s.at_ms.is_none() && is_local(&s.node, ordered),
    };
    params && apart && source
}

fn keeps_name(function: &str) -> bool {
    matches!(function, "last_over_time" | "first_over_time")
}

/// Whether series of the node stay different without their names.
fn is_apart(node: &Node) -> bool {
    match node {
        Node::Select(selector) => is_named(selector),
        Node::Rollup(r) => !keeps_name(r.function) || is_source_apart(&r.range),
        Node::Negate(..) => true,
        Node::Call(call) => drops_name(call.function),
        Node::Aggregate(a) => {
            a.op.is_plain() && !a.grouping.without && !has_reserved(&a.grouping.labels)
        }
        Node::Invariant(inner) => is_apart(inner),
        Node::Shared(_, inner) => is_apart(inner),
        node => node.is_scalar(),
    }
}

fn is_source_apart(range: &RangeVector) -> bool {
    match &range.source {
        Source::Storage(selector) => is_named(selector),
        Source::Subquery(subquery) => is_apart(&subquery.node),
    }
}

/// Whether all series of a selector have the same name.
fn is_named(selector: &Selector) -> bool {
    selector.matchers.iter().any(|m| m.op == MatchOp::Equal && m.name == METRIC_NAME)
}
