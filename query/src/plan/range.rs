//! Which samples a plan touches.

use crate::ast::Extension;

use super::{Node, RangeVector, Selector, Source};

/// The first and last time, in milliseconds and both included, of the samples
/// that evaluating `node` over `start_ms..=end_ms` may read; `None` if it
/// reads none.
pub(crate) fn time_range(
    node: &Node,
    start_ms: i64,
    end_ms: i64,
    lookback_ms: i64,
) -> Option<(i64, i64)> {
    let walk = |n: &Node| time_range(n, start_ms, end_ms, lookback_ms);
    match node {
        Node::Number(_) | Node::String(_) | Node::Time => None,
        Node::Select(selector) => Some(selector_range(selector, start_ms, end_ms, 0, lookback_ms)),
        Node::Samples(range) => vector_range(range, start_ms, end_ms, lookback_ms),
        Node::Rollup(rollup) => rollup
            .params
            .iter()
            .map(walk)
            .fold(vector_range(&rollup.range, start_ms, end_ms, lookback_ms), union),
        Node::Call(call) => call.args.iter().map(walk).fold(None, union),
        Node::Aggregate(a) => union(walk(&a.node), a.param.as_ref().and_then(walk)),
        Node::Binary(b) => union(walk(&b.lhs), walk(&b.rhs)),
        Node::Negate(inner, _) | Node::Invariant(inner) => walk(inner),
        Node::Shared(_, inner) => walk(inner),
    }
}

/// Where the samples of a selector lie; `range_ms` is 0 for instants.
pub(crate) fn selector_range(
    selector: &Selector,
    start_ms: i64,
    end_ms: i64,
    range_ms: i64,
    lookback_ms: i64,
) -> (i64, i64) {
    let (start, mut end) = (selector.reference(start_ms), selector.reference(end_ms));
    // Left-open: a sample exactly `reach` old is not seen.
    let mut reach = if range_ms == 0 { lookback_ms } else { range_ms };
    match selector.extension {
        Extension::None => {}
        Extension::Anchored => reach = range_ms.saturating_add(lookback_ms),
        Extension::Smoothed => {
            reach = range_ms.saturating_add(lookback_ms);
            end = end.saturating_add(lookback_ms);
        }
    }
    (start.saturating_sub(reach).saturating_add(1), end)
}

fn vector_range(
    range: &RangeVector,
    start_ms: i64,
    end_ms: i64,
    lookback_ms: i64,
) -> Option<(i64, i64)> {
    match &range.source {
        Source::Storage(selector) => {
            Some(selector_range(selector, start_ms, end_ms, range.range_ms, lookback_ms))
        }
        Source::Subquery(subquery) => {
            let start = range.reference(start_ms).saturating_sub(range.range_ms);
            time_range(&subquery.node, start, range.reference(end_ms), lookback_ms)
        }
    }
}

fn union(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (one, other) => one.or(other),
    }
}
