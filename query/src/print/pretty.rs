//! A query broken into lines: what fits into a line stays on it, what does
//! not is opened, with its parts one level deeper.

use super::{brackets, operator};
use crate::ast::{Expr, ExprKind};

/// Longest text that stays on one line, in bytes, without its indentation.
const MAX_LINE_BYTES: usize = 100;

/// The query in lines, as `promtool promql format` and `/api/v1/format_query`
/// write it.
///
/// Prints each part once per level above it: up to [`crate::parse::MAX_DEPTH`]
/// times the length of the text.
#[must_use]
pub fn pretty(expr: &Expr) -> String {
    at_level(expr, 0)
}

fn at_level(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let text = expr.to_string();
    let fits = text.len() <= MAX_LINE_BYTES;
    match &expr.kind {
        // Not indented there either.
        ExprKind::Subquery(_) if fits => text,
        ExprKind::Subquery(subquery) => {
            format!("{}{}", at_level(&subquery.expr, level), brackets(subquery))
        }
        ExprKind::Unary(op, inner) => format!("{indent}{op}{}", at_level(inner, level).trim()),
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => {
            format!("{indent}{text}")
        }
        _ if fits => format!("{indent}{text}"),
        ExprKind::Call(call) => {
            let args: Vec<String> = call.args.iter().map(|arg| at_level(arg, level + 1)).collect();
            format!("{indent}{}(\n{}\n{indent})", call.function, args.join(",\n"))
        }
        ExprKind::Aggregate(aggregate) => {
            let param = match &aggregate.param {
                Some(param) => at_level(param, level + 1) + ",\n",
                None => String::new(),
            };
            let inner = at_level(&aggregate.expr, level + 1);
            let (op, grouping) = (aggregate.op, &aggregate.grouping);
            format!("{indent}{op}{grouping}(\n{param}{inner}\n{indent})")
        }
        ExprKind::Binary(binary) => {
            let left = at_level(&binary.lhs, level + 1);
            let right = at_level(&binary.rhs, level + 1);
            format!("{left}\n{indent}{}\n{right}", operator(binary))
        }
        ExprKind::Paren(inner) => format!("{indent}(\n{}\n{indent})", at_level(inner, level + 1)),
    }
}
