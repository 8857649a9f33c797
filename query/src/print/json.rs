//! The syntax tree as JSON, for `/api/v1/parse_query`: members in the order of
//! their names, as Prometheus writes maps.

use std::fmt::Write as _;

use crate::ast::{
    AtModifier, Binary, Cardinality, DurationExpr, DurationNode, Expr, ExprKind, Extension,
    NumberLiteral, Subquery, UnaryOp, ValueType, VectorSelector,
};
use crate::functions;
use crate::quote::{plain_float, short_float};

/// The tree of a query.
#[must_use]
pub fn to_json(expr: &Expr) -> String {
    let mut out = String::new();
    push_expr(&mut out, expr);
    out
}

fn push_expr(out: &mut String, expr: &Expr) {
    match &expr.kind {
        ExprKind::Number(literal) => {
            let value = plain_float(literal.value);
            let _ = write!(out, r#"{{"type":"numberLiteral","val":"{value}"}}"#);
        }
        ExprKind::String(text) => {
            out.push_str(r#"{"type":"stringLiteral","val":"#);
            push_string(out, text);
            out.push('}');
        }
        ExprKind::Vector(selector) => {
            out.push('{');
            push_selector(out, selector, "");
            out.push_str(r#","type":"vectorSelector"}"#);
        }
        ExprKind::Matrix(matrix) => {
            let mut range =
                format!(r#","range":{},"rangeExpr":"#, milliseconds(Some(&matrix.range)));
            push_duration(&mut range, Some(&matrix.range));
            out.push('{');
            push_selector(out, &matrix.selector, &range);
            out.push_str(r#","type":"matrixSelector"}"#);
        }
        ExprKind::Subquery(subquery) => push_subquery(out, subquery),
        ExprKind::Call(call) => {
            out.push_str(r#"{"args":"#);
            push_list(out, &call.args, push_expr);
            out.push_str(r#","func":{"argTypes":"#);
            let function = functions::find(call.function);
            let (args, variadic, returns) = function
                .map_or((&[][..], 0, ValueType::Vector), |f| (f.args, f.variadic, f.returns));
            push_list(out, args, |out, arg| push_string(out, type_name(*arg)));
            out.push_str(r#","name":"#);
            push_string(out, call.function);
            let returns = type_name(returns);
            let _ =
                write!(out, r#","returnType":"{returns}","variadic":{variadic}}},"type":"call"}}"#);
        }
        ExprKind::Aggregate(aggregate) => {
            out.push_str(r#"{"expr":"#);
            push_expr(out, &aggregate.expr);
            out.push_str(r#","grouping":"#);
            push_list(out, &aggregate.grouping.labels, |out, label| push_string(out, label));
            let _ = write!(out, r#","op":"{}","param":"#, aggregate.op);
            match &aggregate.param {
                Some(param) => push_expr(out, param),
                None => out.push_str("null"),
            }
            let _ =
                write!(out, r#","type":"aggregation","without":{}}}"#, aggregate.grouping.without);
        }
        ExprKind::Binary(binary) => push_binary(out, binary),
        ExprKind::Unary(op, inner) => {
            out.push_str(r#"{"expr":"#);
            push_expr(out, inner);
            let _ = write!(out, r#","op":"{op}","type":"unaryExpr"}}"#);
        }
        ExprKind::Paren(inner) => {
            out.push_str(r#"{"expr":"#);
            push_expr(out, inner);
            out.push_str(r#","type":"parenExpr"}"#);
        }
    }
}

/// The members of a selector up to `type`; `range` stands between `offset`s
/// and `smoothed`.
fn push_selector(out: &mut String, selector: &VectorSelector, range: &str) {
    let anchored = selector.extension == Extension::Anchored;
    let smoothed = selector.extension == Extension::Smoothed;
    let _ = write!(out, r#""anchored":{anchored},"matchers":"#);
    push_list(out, &selector.matchers, |out, matcher| {
        out.push_str(r#"{"name":"#);
        push_string(out, &matcher.name);
        let _ = write!(out, r#","type":"{}","value":"#, matcher.op.as_str());
        push_string(out, &matcher.value);
        out.push('}');
    });
    out.push_str(r#","name":"#);
    push_string(out, selector.name.as_deref().unwrap_or(""));
    push_offset(out, selector.offset.as_ref());
    out.push_str(range);
    let _ = write!(out, r#","smoothed":{smoothed}"#);
    push_at(out, selector.at);
}

fn push_subquery(out: &mut String, subquery: &Subquery) {
    out.push_str(r#"{"expr":"#);
    push_expr(out, &subquery.expr);
    push_offset(out, subquery.offset.as_ref());
    let _ = write!(out, r#","range":{},"rangeExpr":"#, milliseconds(Some(&subquery.range)));
    push_duration(out, Some(&subquery.range));
    let start_or_end = edge(subquery.at);
    let _ = write!(
        out,
        r#","startOrEnd":{start_or_end},"step":{},"stepExpr":"#,
        milliseconds(subquery.step.as_ref())
    );
    push_duration(out, subquery.step.as_ref());
    let _ = write!(out, r#","timestamp":{},"type":"subquery"}}"#, timestamp(subquery.at));
}

fn push_binary(out: &mut String, binary: &Binary) {
    let _ = write!(out, r#"{{"bool":{},"lhs":"#, binary.return_bool);
    push_expr(out, &binary.lhs);
    out.push_str(r#","matching":"#);
    match &binary.matching {
        None => out.push_str("null"),
        Some(matching) => {
            let cardinality = match matching.cardinality {
                Cardinality::OneToOne => "one-to-one",
                Cardinality::ManyToOne => "many-to-one",
                Cardinality::OneToMany => "one-to-many",
                Cardinality::ManyToMany => "many-to-many",
            };
            let fill = |value: Option<f64>| {
                value.filter(|v| v.is_finite()).map_or_else(|| "null".to_owned(), short_float)
            };
            let (left, right) = (fill(matching.fill_left), fill(matching.fill_right));
            let _ = write!(
                out,
                r#"{{"card":"{cardinality}","fillValues":{{"lhs":{left},"rhs":{right}}},"include":"#
            );
            push_list(out, &matching.include, |out, label| push_string(out, label));
            out.push_str(r#","labels":"#);
            push_list(out, &matching.labels, |out, label| push_string(out, label));
            let _ = write!(out, r#","on":{}}}"#, matching.on);
        }
    }
    out.push_str(r#","op":"#);
    push_string(out, binary.op.as_str());
    out.push_str(r#","rhs":"#);
    push_expr(out, &binary.rhs);
    out.push_str(r#","type":"binaryExpr"}"#);
}

fn push_offset(out: &mut String, offset: Option<&DurationExpr>) {
    let _ = write!(out, r#","offset":{},"offsetExpr":"#, milliseconds(offset));
    push_duration(out, offset);
}

fn push_at(out: &mut String, at: Option<AtModifier>) {
    let _ = write!(out, r#","startOrEnd":{},"timestamp":{}"#, edge(at), timestamp(at));
}

const fn edge(at: Option<AtModifier>) -> &'static str {
    match at {
        Some(AtModifier::Start) => r#""start""#,
        Some(AtModifier::End) => r#""end""#,
        Some(AtModifier::At(_)) | None => "null",
    }
}

fn timestamp(at: Option<AtModifier>) -> String {
    match at {
        Some(AtModifier::At(milliseconds)) => milliseconds.to_string(),
        _ => "null".to_owned(),
    }
}

/// Of an expression, whose value is not known yet, 0.
fn milliseconds(duration: Option<&DurationExpr>) -> i64 {
    match duration {
        Some(DurationExpr::Literal(milliseconds)) => *milliseconds,
        Some(DurationExpr::Expr(..)) | None => 0,
    }
}

/// An expression as a tree; what is written as a literal is not one.
fn push_duration(out: &mut String, duration: Option<&DurationExpr>) {
    match duration {
        Some(DurationExpr::Expr(node, _)) => push_duration_node(out, node, false),
        Some(DurationExpr::Literal(_)) | None => out.push_str("null"),
    }
}

fn push_duration_node(out: &mut String, node: &DurationNode, wrapped: bool) {
    let (op, left, right) = match node {
        DurationNode::Number(literal, _) if wrapped => {
            out.push_str(r#"{"lhs":null,"op":"+","rhs":"#);
            push_duration_number(out, literal);
            out.push_str(r#","type":"durationExpr","wrapped":true}"#);
            return;
        }
        DurationNode::Number(literal, _) => return push_duration_number(out, literal),
        DurationNode::Paren(inner) => return push_duration_node(out, inner, true),
        DurationNode::Step => ("step", None, None),
        DurationNode::Range => ("range", None, None),
        DurationNode::Unary(UnaryOp::Minus, inner) => ("-", None, Some(inner)),
        DurationNode::Unary(UnaryOp::Plus, inner) => ("+", None, Some(inner)),
        DurationNode::Binary(op, left, right, _) => (op.as_str(), Some(left), Some(right)),
        DurationNode::MinOf(left, right) => ("min_of", Some(left), Some(right)),
        DurationNode::MaxOf(left, right) => ("max_of", Some(left), Some(right)),
    };
    let push_side = |out: &mut String, side: Option<&Box<DurationNode>>| match side {
        Some(side) => push_duration_node(out, side, false),
        None => out.push_str("null"),
    };
    out.push_str(r#"{"lhs":"#);
    push_side(out, left);
    let _ = write!(out, r#","op":"{op}","rhs":"#);
    push_side(out, right);
    let _ = write!(out, r#","type":"durationExpr","wrapped":{wrapped}}}"#);
}

fn push_duration_number(out: &mut String, literal: &NumberLiteral) {
    let (duration, value) = (literal.duration, plain_float(literal.value));
    let _ = write!(out, r#"{{"duration":{duration},"type":"numberLiteral","val":"{value}"}}"#);
}

fn push_list<T>(out: &mut String, items: &[T], mut push: impl FnMut(&mut String, &T)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The name of a type in the API.
const fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}
