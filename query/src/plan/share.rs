//! What occurs more than once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Node, Source};

/// Largest text of a node that is compared; larger ones are not shared.
const MAX_TEXT: usize = 16 << 10;

/// Replaces nodes that occur more than once by [`Node::Shared`].
pub(crate) fn share(root: &mut Node) {
    let mut counts = HashMap::new();
    count(root, &mut counts);
    counts.retain(|_, n| *n > 1);
    if !counts.is_empty() {
        replace(root, &counts, &mut HashMap::new());
    }
}

/// Whether evaluating the node costs more than comparing it.
fn is_worth_it(node: &Node) -> bool {
    matches!(
        node,
        Node::Select(_) | Node::Rollup(_) | Node::Aggregate(_) | Node::Binary(_) | Node::Call(_)
    )
}

fn count(node: &Node, counts: &mut HashMap<String, usize>) {
    if is_worth_it(node)
        && let Some(text) = text(node)
    {
        let seen = counts.entry(text).or_insert(0);
        *seen += 1;
        if *seen > 1 {
            // Its parts are shared with it.
            return;
        }
    }
    for child in children(node) {
        count(child, counts);
    }
}

fn replace(
    node: &mut Node,
    counts: &HashMap<String, usize>,
    shared: &mut HashMap<String, (usize, Arc<Node>)>,
) {
    if is_worth_it(node)
        && let Some(text) = text(node)
        && counts.contains_key(&text)
    {
        if let Some((number, inner)) = shared.get(&text) {
            *node = Node::Shared(*number, Arc::clone(inner));
            return;
        }
        for child in children_mut(node) {
            replace(child, counts, shared);
        }
        let number = shared.len();
        let inner = Arc::new(std::mem::replace(node, Node::Time));
        shared.insert(text, (number, Arc::clone(&inner)));
        *node = Node::Shared(number, inner);
        return;
    }
    for child in children_mut(node) {
        replace(child, counts, shared);
    }
}

fn children(node: &Node) -> Vec<&Node> {
    match node {
        Node::Number(_) | Node::String(_) | Node::Time | Node::Select(_) | Node::Shared(..) => {
            Vec::new()
        }
        Node::Samples(range) => subquery(&range.source),
        Node::Rollup(r) => r.params.iter().chain(subquery(&r.range.source)).collect(),
        Node::Call(c) => c.args.iter().take(shareable_args(c)).collect(),
        Node::Aggregate(a) => std::iter::once(&a.node).chain(&a.param).collect(),
        Node::Binary(b) => vec![&b.lhs, &b.rhs],
        Node::Negate(inner, _) | Node::Invariant(inner) => vec![inner],
    }
}

/// How many arguments are ordinary: the second of `info()` is no vector, and
/// `timestamp()` looks at its argument's form.
fn shareable_args(call: &super::Call) -> usize {
    match call.function {
        "info" => 1,
        "timestamp" | "start_timestamp" => 0,
        _ => call.args.len(),
    }
}

fn subquery(source: &Source) -> Vec<&Node> {
    match source {
        Source::Storage(_) => Vec::new(),
        Source::Subquery(s) => vec![&s.node],
    }
}

fn children_mut(node: &mut Node) -> Vec<&mut Node> {
    match node {
        Node::Number(_) | Node::String(_) | Node::Time | Node::Select(_) | Node::Shared(..) => {
            Vec::new()
        }
        Node::Samples(range) => subquery_mut(&mut range.source),
        Node::Rollup(r) => r.params.iter_mut().chain(subquery_mut(&mut r.range.source)).collect(),
        Node::Call(c) => {
            let shareable = shareable_args(c);
            c.args.iter_mut().take(shareable).collect()
        }
        Node::Aggregate(a) => std::iter::once(&mut a.node).chain(&mut a.param).collect(),
        Node::Binary(b) => vec![&mut b.lhs, &mut b.rhs],
        Node::Negate(inner, _) | Node::Invariant(inner) => vec![inner],
    }
}

fn subquery_mut(source: &mut Source) -> Vec<&mut Node> {
    match source {
        Source::Storage(_) => Vec::new(),
        Source::Subquery(s) => vec![&mut s.node],
    }
}

/// The node as a text without places; `None` if it is too long.
fn text(node: &Node) -> Option<String> {
    let mut out = String::new();
    write_node(&mut out, node);
    (out.len() <= MAX_TEXT).then_some(out)
}

fn write_node(out: &mut String, node: &Node) {
    if out.len() > MAX_TEXT {
        return;
    }
    let result = match node {
        Node::Number(v) => write!(out, "{:x}", v.to_bits()),
        Node::String(s) => write!(out, "{s:?}"),
        Node::Time => write!(out, "time"),
        Node::Select(s) => {
            write!(
                out,
                "{:?}@{:?}-{}{:?}{}",
                Names(s),
                s.at_ms,
                s.offset_ms,
                s.extension,
                s.stats_only
            )
        }
        Node::Samples(r) => {
            write_source(out, &r.source);
            write!(out, "[{}]", r.range_ms)
        }
        Node::Rollup(r) => {
            out.push_str(r.function);
            out.push('<');
            write_source(out, &r.range.source);
            write!(out, "[{}]>", r.range.range_ms)
        }
        Node::Call(c) => write!(out, "{}", c.function),
        Node::Aggregate(a) => write!(out, "{:?}{:?}", a.op, a.grouping),
        Node::Binary(b) => write!(out, "{:?}{}{:?}", b.op, b.return_bool, b.matching),
        Node::Negate(..) => write!(out, "-"),
        Node::Invariant(_) => write!(out, "!"),
        Node::Shared(n, _) => write!(out, "#{n}"),
    };
    debug_assert!(result.is_ok(), "writing to a string succeeds");
    out.push('(');
    match node {
        Node::Rollup(r) => r.params.iter().for_each(|p| write_node(out, p)),
        Node::Samples(_) => {}
        Node::Call(c) => c.args.iter().for_each(|a| {
            write_node(out, a);
            out.push(',');
        }),
        _ => {
            for child in children(node) {
                write_node(out, child);
                out.push(',');
            }
        }
    }
    out.push(')');
}

fn write_source(out: &mut String, source: &Source) {
    let result = match source {
        Source::Storage(s) => {
            write!(
                out,
                "{:?}@{:?}-{}{:?}{}",
                Names(s),
                s.at_ms,
                s.offset_ms,
                s.extension,
                s.stats_only
            )
        }
        Source::Subquery(s) => {
            write_node(out, &s.node);
            write!(out, ":{}@{:?}-{}", s.step_ms, s.at_ms, s.offset_ms)
        }
    };
    debug_assert!(result.is_ok(), "writing to a string succeeds");
}

/// The matchers of a selector, as text.
struct Names<'a>(&'a super::Selector);

impl std::fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.matchers.iter().map(ToString::to_string)).finish()
    }
}
