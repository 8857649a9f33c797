//! How is a query written down? Its canonical text (`Display`), broken into
//! lines ([`pretty`]), and as a tree in JSON ([`to_json`]), each as
//! Prometheus does it, to the character.

mod json;
mod pretty;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter, Write as _};

use narthex_storage::labels::{METRIC_NAME, MatchOp, Matcher, is_legacy_label_name};

pub use json::to_json;
pub use pretty::pretty;

use crate::ast::{
    Aggregate, AtModifier, Binary, Call, Cardinality, DurationExpr, DurationNode, Expr, ExprKind,
    Extension, Grouping, MatrixSelector, NumberLiteral, Subquery, UnaryOp, VectorMatching,
    VectorSelector,
};
use crate::duration;
use crate::quote::{plain_float, quoted, short_float};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(literal) => literal.fmt(f),
            ExprKind::String(text) => f.write_str(&quoted(text)),
            ExprKind::Vector(selector) => selector.fmt(f),
            ExprKind::Matrix(matrix) => matrix.fmt(f),
            ExprKind::Subquery(subquery) => {
                subquery.expr.fmt(f)?;
                f.write_str(&brackets(subquery))
            }
            ExprKind::Call(call) => call.fmt(f),
            ExprKind::Aggregate(aggregate) => aggregate.fmt(f),
            ExprKind::Binary(binary) => {
                write!(f, "{} {} {}", binary.lhs, operator(binary), binary.rhs)
            }
            ExprKind::Unary(op, inner) => write!(f, "{op}{inner}"),
            ExprKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.duration {
            return f.write_str(&plain_float(self.value));
        }
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        let nanoseconds = (self.value.abs() * 1e9) as i64;
        if self.value < 0.0 {
            f.write_str("-")?;
        }
        f.write_str(&duration::format(nanoseconds / 1_000_000))
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_series(f, self)?;
        write_at(f, self.at)?;
        write_extension(f, self.extension)?;
        write_offset(f, self.offset.as_ref())
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_series(f, &self.selector)?;
        write!(f, "[{}]", self.range)?;
        write_extension(f, self.selector.extension)?;
        write_at(f, self.selector.at)?;
        write_offset(f, self.selector.offset.as_ref())
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function)?;
        for (i, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str(")")
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}(", self.op, self.grouping)?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

impl Display for Grouping {
    /// ` by (a) ` with blanks around, or nothing.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let word = match (self.without, self.labels.is_empty()) {
            (true, _) => "without",
            (false, false) => "by",
            (false, true) => return Ok(()),
        };
        write!(f, " {word} ({}) ", labels(&self.labels))
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(milliseconds) => f.write_str(&duration::format(*milliseconds)),
            Self::Expr(node, _) => node.fmt(f),
        }
    }
}

impl Display for DurationNode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(literal, _) => literal.fmt(f),
            Self::Step => f.write_str("step()"),
            Self::Range => f.write_str("range()"),
            Self::Unary(UnaryOp::Minus, inner) => write!(f, "-{inner}"),
            Self::Unary(UnaryOp::Plus, inner) => inner.fmt(f),
            Self::Binary(op, left, right, _) => write!(f, "{left} {op} {right}"),
            Self::MinOf(left, right) => write!(f, "min_of({left}, {right})"),
            Self::MaxOf(left, right) => write!(f, "max_of({left}, {right})"),
            Self::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

/// Name and conditions.
fn write_series(f: &mut Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    let name = selector.name.as_deref().unwrap_or("");
    f.write_str(name)?;
    let mut conditions: Vec<String> = selector
        .matchers
        .iter()
        .filter(|m| {
            let says_name = m.name == METRIC_NAME && m.op == MatchOp::Equal && m.value == name;
            !says_name || m.value.is_empty()
        })
        .map(matcher)
        .collect();
    // Prometheus prints nothing for a selector without conditions, as `info`
    // takes it; that could not be read again.
    if conditions.is_empty() && !name.is_empty() {
        return Ok(());
    }
    conditions.sort_unstable();
    write!(f, "{{{}}}", conditions.join(","))
}

fn matcher(matcher: &Matcher) -> String {
    let value = quoted(&matcher.value);
    if is_legacy_label_name(&matcher.name) {
        format!("{}{}{value}", matcher.name, matcher.op.as_str())
    } else {
        format!("{}{}{value}", quoted(&matcher.name), matcher.op.as_str())
    }
}

fn write_at(f: &mut impl fmt::Write, at: Option<AtModifier>) -> fmt::Result {
    match at {
        #[expect(clippy::cast_precision_loss, reason = "printed as Prometheus does")]
        Some(AtModifier::At(milliseconds)) => write!(f, " @ {:.3}", milliseconds as f64 / 1000.0),
        Some(AtModifier::Start) => f.write_str(" @ start()"),
        Some(AtModifier::End) => f.write_str(" @ end()"),
        None => Ok(()),
    }
}

fn write_extension(f: &mut impl fmt::Write, extension: Extension) -> fmt::Result {
    f.write_str(match extension {
        Extension::None => "",
        Extension::Anchored => " anchored",
        Extension::Smoothed => " smoothed",
    })
}

fn write_offset(f: &mut impl fmt::Write, offset: Option<&DurationExpr>) -> fmt::Result {
    match offset {
        None | Some(DurationExpr::Literal(0)) => Ok(()),
        Some(offset) => write!(f, " offset {offset}"),
    }
}

/// What stands behind the expression of a subquery.
fn brackets(subquery: &Subquery) -> String {
    let mut out = format!("[{}:", subquery.range);
    if let Some(step) = &subquery.step {
        let _ = write!(out, "{step}");
    }
    out.push(']');
    let _ = write_at(&mut out, subquery.at);
    let _ = write_offset(&mut out, subquery.offset.as_ref());
    out
}

/// The operator of a binary operation with its modifiers.
fn operator(binary: &Binary) -> String {
    let mut out = binary.op.to_string();
    if binary.return_bool {
        out.push_str(" bool");
    }
    if let Some(matching) = &binary.matching {
        push_matching(&mut out, matching);
    }
    out
}

fn push_matching(out: &mut String, matching: &VectorMatching) {
    let group = match matching.cardinality {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        let word = if matching.on { "on" } else { "ignoring" };
        let _ = write!(out, " {word} ({})", labels(&matching.labels));
    }
    if let Some(group) = group {
        let _ = write!(out, " {group} ({})", labels(&matching.include));
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => {
            let _ = write!(out, " fill ({})", short_float(left));
        }
        (left, right) => {
            for (word, value) in [("fill_left", left), ("fill_right", right)] {
                if let Some(value) = value {
                    let _ = write!(out, " {word} ({})", short_float(value));
                }
            }
        }
    }
}

fn labels(names: &[String]) -> String {
    let written: Vec<String> = names
        .iter()
        .map(|name| if is_legacy_label_name(name) { name.clone() } else { quoted(name) })
        .collect();
    written.join(", ")
}
