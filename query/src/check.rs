//! Do the types fit? Walks the tree that the parser built, reports the first
//! fault in Prometheus' words, and settles what depends on types: whether an
//! operator matches vectors, and how.

use crate::ast::{
    AggregateOp, Binary, Call, Cardinality, Expr, ExprKind, Span, ValueType, VectorSelector,
};
use crate::functions;
use crate::parse::ParseError;
use crate::quote::quoted;
use narthex_storage::labels::METRIC_NAME;

type Checked = Result<ValueType, ParseError>;

/// Checks a tree made from `query`; gives its type.
///
/// # Errors
///
/// [`ParseError`], the first one.
pub fn check(expr: &mut Expr, query: &str) -> Result<ValueType, ParseError> {
    Checker { query }.expr(expr)
}

struct Checker<'a> {
    query: &'a str,
}

impl Checker<'_> {
    fn fail<T>(&self, message: impl Into<String>, span: Span) -> Result<T, ParseError> {
        Err(ParseError::new(message, span, self.query))
    }

    fn expr(&self, expr: &mut Expr) -> Checked {
        let span = expr.span;
        Ok(match &mut expr.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Vector(selector) => {
                self.selector(selector, span, false)?;
                ValueType::Vector
            }
            ExprKind::Matrix(matrix) => {
                self.selector(&matrix.selector, matrix.selector_span, false)?;
                ValueType::Matrix
            }
            ExprKind::Subquery(subquery) => {
                let found = self.expr(&mut subquery.expr)?;
                if found != ValueType::Vector {
                    let found = raw_name(found);
                    let message =
                        format!("subquery is only allowed on instant vector, got {found} instead");
                    return self.fail(message, span);
                }
                ValueType::Matrix
            }
            ExprKind::Call(call) => self.call(call, span)?,
            ExprKind::Aggregate(aggregate) => {
                self.expect(&mut aggregate.expr, ValueType::Vector, "aggregation expression")?;
                if let Some(param) = &mut aggregate.param {
                    let wanted = if aggregate.op == AggregateOp::CountValues {
                        ValueType::String
                    } else {
                        ValueType::Scalar
                    };
                    self.expect(param, wanted, "aggregation parameter")?;
                }
                ValueType::Vector
            }
            ExprKind::Binary(binary) => self.binary(binary, span)?,
            ExprKind::Unary(_, inner) => {
                let found = self.expr(inner)?;
                if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                    let found = quoted(found.documented());
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant \
                         vector, got {found}"
                    );
                    return self.fail(message, span);
                }
                found
            }
            ExprKind::Paren(inner) => self.expr(inner)?,
        })
    }

    fn expect(&self, expr: &mut Expr, wanted: ValueType, context: &str) -> Result<(), ParseError> {
        let found = self.expr(expr)?;
        if found == wanted {
            return Ok(());
        }
        let (wanted, found) = (wanted.documented(), found.documented());
        self.fail(format!("expected type {wanted} in {context}, got {found}"), expr.span)
    }

    /// `any`: a selector that may select everything, as `info` takes it.
    fn selector(&self, selector: &VectorSelector, span: Span, any: bool) -> Result<(), ParseError> {
        if let Some(name) = &selector.name {
            // The name before the braces is the last matcher.
            let (_, others) = selector.matchers.split_last().unwrap_or_else(|| {
                unreachable!("BUG: selector {name} lacks the matcher of its name")
            });
            if let Some(twice) = others.iter().find(|m| m.name == METRIC_NAME) {
                let (name, other) = (quoted(name), quoted(&twice.value));
                let message = format!("metric name must not be set twice: {name} or {other}");
                return self.fail(message, span);
            }
            return Ok(());
        }
        if !any && selector.matchers.iter().all(narthex_storage::labels::Matcher::matches_empty) {
            let message = "vector selector must contain at least one non-empty matcher";
            return self.fail(message, span);
        }
        Ok(())
    }

    fn call(&self, call: &mut Call, span: Span) -> Checked {
        let Some(function) = functions::find(call.function) else {
            let name = quoted(call.function);
            return self.fail(format!("unknown function with name {name}"), span);
        };
        let (name, given) = (quoted(function.name), call.args.len());
        let count = |bound: &str, wanted: usize| {
            format!("expected {bound}{wanted} argument(s) in call to {name}, got {given}")
        };
        let named = function.args.len();
        if function.variadic == 0 {
            if named != given {
                return self.fail(count("", named), span);
            }
        } else {
            let least = named - 1;
            if given < least {
                return self.fail(count("at least ", least), span);
            }
            let more = usize::try_from(function.variadic).ok();
            if let Some(most) = more.map(|more| least + more).filter(|most| given > *most) {
                return self.fail(count("at most ", most), span);
            }
        }
        if function.name == "info" && given > 1 {
            self.info_labels(&call.args[1], span)?;
        }
        for (i, arg) in call.args.iter_mut().enumerate() {
            let Some(wanted) = function.args.get(i).or(function.args.last()) else { break };
            let found = match &arg.kind {
                ExprKind::Vector(selector) if function.name == "info" && i == 1 => {
                    self.selector(selector, arg.span, true)?;
                    ValueType::Vector
                }
                _ => self.expr(arg)?,
            };
            if found != *wanted {
                let (wanted, found) = (wanted.documented(), found.documented());
                let message =
                    format!("expected type {wanted} in call to function {name}, got {found}");
                return self.fail(message, arg.span);
            }
        }
        Ok(function.returns)
    }

    /// The second argument of `info`: conditions without a metric name.
    fn info_labels(&self, arg: &Expr, call: Span) -> Result<(), ParseError> {
        let found = arg.value_type();
        if found != ValueType::Vector {
            let found = found.documented();
            let message =
                format!("expected type instant vector in call to function \"info\", got {found}");
            return self.fail(message, call);
        }
        match &arg.kind {
            ExprKind::Vector(VectorSelector { name: None, .. }) => Ok(()),
            ExprKind::Vector(_) => {
                let message = "expected label selectors only, got vector selector instead";
                self.fail(message, arg.span)
            }
            _ => self.fail("expected label selectors only", arg.span),
        }
    }

    fn binary(&self, binary: &mut Binary, span: Span) -> Checked {
        let left = self.expr(&mut binary.lhs)?;
        let right = self.expr(&mut binary.rhs)?;
        let op = binary.op;
        let operator = self.between(binary.lhs.span, binary.rhs.span);
        if binary.return_bool && !op.is_comparison() {
            let message = "bool modifier can only be used on comparison operators";
            return self.fail(message, operator);
        }
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if op.is_comparison() && !binary.return_bool && scalars {
            let message = "comparisons between scalars must use BOOL modifier";
            return self.fail(message, operator);
        }
        let vectors = left == ValueType::Vector && right == ValueType::Vector;
        if let Some(matching) = &mut binary.matching {
            if op.is_set() && matching.cardinality == Cardinality::OneToOne {
                matching.cardinality = Cardinality::ManyToMany;
            }
            let both = matching.labels.iter().find(|l| matching.on && matching.include.contains(l));
            if let Some(label) = both {
                let label = quoted(label);
                let message =
                    format!("label {label} must not occur in ON and GROUP clause at once");
                return self.fail(message, operator);
            }
        }
        for (side, found) in [(&binary.lhs, left), (&binary.rhs, right)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return self.fail(message, side.span);
            }
        }
        if let Some(matching) = &binary.matching {
            let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
            if !vectors && !matching.labels.is_empty() {
                return self.fail("vector matching only allowed between instant vectors", span);
            }
            if !vectors && fills {
                let message = "filling in missing series only allowed between instant vectors";
                return self.fail(message, span);
            }
            if vectors && op.is_set() {
                if matching.cardinality != Cardinality::ManyToMany {
                    let op = quoted(&op.to_string());
                    return self.fail(format!("no grouping allowed for {op} operation"), span);
                }
                if fills {
                    let message = "filling in missing series not allowed for set operators";
                    return self.fail(message, span);
                }
            }
        }
        if !vectors {
            binary.matching = None;
            if op.is_set() {
                let op = quoted(&op.to_string());
                let message = format!("set operator {op} not allowed in binary scalar expression");
                return self.fail(message, span);
            }
        }
        Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
    }

    /// What stands between two operands, without the blanks around it.
    fn between(&self, left: Span, right: Span) -> Span {
        let bytes = self.query.as_bytes();
        let is_space = |i: usize| bytes.get(i).is_some_and(|b| b" \t\n\r".contains(b));
        let mut start = left.end;
        while is_space(start) {
            start += 1;
        }
        let mut end = right.start;
        while end > start && is_space(end - 1) {
            end -= 1;
        }
        Span { start, end }
    }
}

/// The name of a type in the code of Prometheus, which one message uses.
const fn raw_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}
