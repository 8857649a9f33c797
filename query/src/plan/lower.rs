//! From the syntax tree to the plan.

use std::cell::Cell;
use std::sync::Arc;

use crate::ast::{
    AtModifier, BinaryOp, DurationExpr, DurationNode, Expr, ExprKind, MatrixSelector, Span,
    UnaryOp, ValueType, VectorSelector,
};
use crate::eval::{QueryError, arith};

use super::{
    Aggregate, Binary, Call, Node, Plan, RangeVector, Rollup, Selector, Source, Subquery, share,
};

/// What lowering knows of the query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// 0 for instant queries.
    pub(crate) step_ms: i64,
    pub(crate) default_subquery_step_ms: i64,
    /// Whether series carry their type as a label.
    pub(crate) type_labels: bool,
}

/// Deepest nesting that is planned and evaluated; the parser's limit is lower
/// or equal.
const MAX_DEPTH: usize = 1_000;

/// Longest duration, in seconds, that Prometheus can express.
const MAX_DURATION_S: f64 = 9_223_372_036.854_776;

/// Functions whose value changes with the evaluation time even if their
/// arguments do not.
const TIME_DEPENDENT: [&str; 11] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
];

/// Makes the plan of an expression.
///
/// # Errors
///
/// [`QueryError::Invalid`] if a duration expression has no sensible value.
pub(crate) fn lower(expr: &Expr, context: &Context) -> Result<Plan, QueryError> {
    let kind = value_type(expr);
    let lowering = Lowering {
        context,
        stats: Cell::new(0),
        whole: Cell::new(0),
        looks_at_range: Cell::new(false),
    };
    let mut root = lowering.node(expr, 0)?.wrapped();
    share::share(&mut root);
    Ok(Plan { root, kind, looks_at_range: lowering.looks_at_range.get() })
}

fn value_type(expr: &Expr) -> ValueType {
    expr.value_type()
}

/// A lowered node and whether it depends on the step.
struct Lowered {
    node: Node,
    invariant: bool,
    /// Whether wrapping makes sense: constants and range vectors never need it.
    wrap: bool,
}

impl Lowered {
    fn constant(node: Node) -> Self {
        Self { node, invariant: true, wrap: false }
    }

    fn wrapped(self) -> Node {
        if self.invariant && self.wrap { Node::Invariant(Box::new(self.node)) } else { self.node }
    }
}

struct Lowering<'a> {
    context: &'a Context,
    /// How many functions above need only count and sum of histograms.
    stats: Cell<usize>,
    /// How many nodes above need whole histograms nevertheless.
    whole: Cell<usize>,
    /// Whether a value was taken from the query's range.
    looks_at_range: Cell<bool>,
}

/// Counts something above for as long as it lives.
struct Above<'c>(&'c Cell<usize>);

impl<'c> Above<'c> {
    fn enter(cell: &'c Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Above<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Lowering<'_> {
    fn node(&self, expr: &Expr, depth: usize) -> Result<Lowered, QueryError> {
        if depth > MAX_DEPTH {
            return Err(QueryError::Invalid("expression is nested too deeply".to_owned()));
        }
        let depth = depth + 1;
        Ok(match &expr.kind {
            ExprKind::Number(number) => Lowered::constant(Node::Number(number.value)),
            ExprKind::String(text) => Lowered::constant(Node::String(text.clone())),
            ExprKind::Paren(inner) | ExprKind::Unary(UnaryOp::Plus, inner) => {
                self.node(inner, depth)?
            }
            ExprKind::Unary(UnaryOp::Minus, inner) => self.negate(inner, depth)?,
            ExprKind::Vector(selector) => {
                let selector = self.selector(selector, expr.span)?;
                let invariant = selector.at_ms.is_some();
                Lowered { node: Node::Select(Arc::new(selector)), invariant, wrap: true }
            }
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => {
                let range = self.range_vector(expr, depth)?;
                let invariant = range.at_ms().is_some();
                Lowered { node: Node::Samples(Box::new(range)), invariant, wrap: false }
            }
            ExprKind::Call(call) => self.call(call, expr.span, depth)?,
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, expr.span, depth)?,
            ExprKind::Binary(binary) => self.binary(binary, expr.span, depth)?,
        })
    }

    fn negate(&self, inner: &Expr, depth: usize) -> Result<Lowered, QueryError> {
        let scalar = value_type(inner) == ValueType::Scalar;
        let inner = self.node(inner, depth)?;
        Ok(match inner.node {
            Node::Number(value) => Lowered::constant(Node::Number(-value)),
            node => Lowered { node: Node::Negate(Box::new(node), scalar), ..inner },
        })
    }

    fn selector(&self, s: &VectorSelector, span: Span) -> Result<Selector, QueryError> {
        Ok(Selector {
            matchers: s.matchers.clone(),
            at_ms: s.at.map(|at| self.at(at)),
            offset_ms: self.offset(s.offset.as_ref())?,
            extension: s.extension,
            stats_only: self.stats.get() > 0 && self.whole.get() == 0,
            span,
        })
    }

    fn at(&self, at: AtModifier) -> i64 {
        self.looks_at_range.set(true);
        match at {
            AtModifier::At(time_ms) => time_ms,
            AtModifier::Start => self.context.start_ms,
            AtModifier::End => self.context.end_ms,
        }
    }

    fn offset(&self, offset: Option<&DurationExpr>) -> Result<i64, QueryError> {
        offset.map_or(Ok(0), |d| self.duration(d, true))
    }

    fn range_vector(&self, expr: &Expr, depth: usize) -> Result<RangeVector, QueryError> {
        match &expr.kind {
            ExprKind::Matrix(MatrixSelector { selector, selector_span, range }) => {
                let selector = Arc::new(self.selector(selector, *selector_span)?);
                let range_ms = self.duration(range, false)?;
                Ok(RangeVector { source: Source::Storage(selector), range_ms, span: expr.span })
            }
            ExprKind::Subquery(subquery) => {
                let _whole = Above::enter(&self.whole);
                let node = self.node(&subquery.expr, depth)?.wrapped();
                let offset_ms = self.offset(subquery.offset.as_ref())?;
                let step_ms = match &subquery.step {
                    Some(step) => self.duration(step, false)?,
                    None => self.context.default_subquery_step_ms,
                };
                let range_ms = self.duration(&subquery.range, false)?;
                let at_ms = subquery.at.map(|at| self.at(at));
                let step_ms = step_ms.max(1);
                let subquery = Box::new(Subquery { node, step_ms, at_ms, offset_ms });
                Ok(RangeVector { source: Source::Subquery(subquery), range_ms, span: expr.span })
            }
            ExprKind::Paren(inner) => self.range_vector(inner, depth),
            _ => Err(QueryError::Invalid("expected a range vector".to_owned())),
        }
    }

    fn call(
        &self,
        call: &crate::ast::Call,
        span: Span,
        depth: usize,
    ) -> Result<Lowered, QueryError> {
        #[allow(clippy::cast_precision_loss, reason = "times are below 2^53 ms")]
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let Context { start_ms, end_ms, step_ms, .. } = *self.context;
        if matches!(call.function, "start" | "end" | "range" | "step") {
            self.looks_at_range.set(true);
        }
        match call.function {
            "start" => return Ok(Lowered::constant(Node::Number(seconds(start_ms)))),
            "end" => return Ok(Lowered::constant(Node::Number(seconds(end_ms)))),
            "range" => return Ok(Lowered::constant(Node::Number(seconds(end_ms - start_ms)))),
            "step" => {
                let step = if start_ms == end_ms { 0.0 } else { seconds(step_ms) };
                return Ok(Lowered::constant(Node::Number(step)));
            }
            "pi" => return Ok(Lowered::constant(Node::Number(std::f64::consts::PI))),
            "time" => return Ok(Lowered { node: Node::Time, invariant: false, wrap: false }),
            _ => {}
        }
        let args: Vec<&Expr> = call.args.iter().map(unwrapped).collect();
        match args.iter().position(|a| value_type(a) == ValueType::Matrix) {
            Some(place) => self.rollup(call.function, &args, place, depth),
            None => self.plain_call(call.function, &args, span, depth),
        }
    }

    fn rollup(
        &self,
        function: &'static str,
        args: &[&Expr],
        place: usize,
        depth: usize,
    ) -> Result<Lowered, QueryError> {
        let range = self.range_vector(args[place], depth)?;
        let mut invariant = range.at_ms().is_some() && !TIME_DEPENDENT.contains(&function);
        let mut params = Vec::new();
        for (_, arg) in args.iter().enumerate().filter(|(i, _)| *i != place) {
            let arg = self.node(arg, depth)?;
            invariant &= arg.invariant;
            params.push(arg);
        }
        let wrap_params = !invariant;
        let params =
            params.into_iter().map(|p| if wrap_params { p.wrapped() } else { p.node }).collect();
        let absent = match &args[place].kind {
            ExprKind::Matrix(m) => m.selector.matchers.clone(),
            _ => Vec::new(),
        };
        let rollup = Rollup {
            function,
            range,
            params,
            first_span: args[0].span,
            absent,
            type_labels: self.context.type_labels,
        };
        Ok(Lowered { node: Node::Rollup(Box::new(rollup)), invariant, wrap: true })
    }

    fn plain_call(
        &self,
        function: &'static str,
        args: &[&Expr],
        span: Span,
        depth: usize,
    ) -> Result<Lowered, QueryError> {
        let _above = match function {
            "histogram_count" | "histogram_sum" | "histogram_avg" => {
                Some(Above::enter(&self.stats))
            }
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                Some(Above::enter(&self.whole))
            }
            _ => None,
        };
        let mut invariant = !TIME_DEPENDENT.contains(&function);
        // timestamp() of a selector takes the sample's time, not the step's.
        let mut selectors_only = function == "timestamp";
        let mut lowered = Vec::with_capacity(args.len());
        for (i, arg) in args.iter().enumerate() {
            let arg = if function == "info" && i == 1 {
                // Only its matchers count.
                Lowered { invariant: true, ..self.node(arg, depth)? }
            } else {
                self.node(arg, depth)?
            };
            invariant &= arg.invariant;
            selectors_only &= arg.invariant && matches!(arg.node, Node::Select(_));
            lowered.push(arg);
        }
        let invariant = invariant || (selectors_only && !args.is_empty());
        let arg_spans = args.iter().map(|a| a.span).collect();
        let absent = match args.first().map(|a| &a.kind) {
            Some(ExprKind::Vector(v)) if function == "absent" => v.matchers.clone(),
            _ => Vec::new(),
        };
        let keep = |i: usize| invariant || (function == "info" && i == 1);
        let args: Vec<Node> = lowered
            .into_iter()
            .enumerate()
            .map(|(i, a)| if keep(i) { a.node } else { a.wrapped() })
            .collect();
        if let (true, Some(value)) = (invariant, fold_call(function, &args)) {
            return Ok(Lowered::constant(Node::Number(value)));
        }
        let call = Call { function, args, arg_spans, span, absent };
        Ok(Lowered { node: Node::Call(Box::new(call)), invariant, wrap: true })
    }

    fn aggregate(
        &self,
        a: &crate::ast::Aggregate,
        span: Span,
        depth: usize,
    ) -> Result<Lowered, QueryError> {
        let inner = unwrapped(&a.expr);
        let lowered = self.node(inner, depth)?;
        let param_expr = a.param.as_deref().map(unwrapped);
        let param = match param_expr {
            Some(p) => {
                let p = self.node(p, depth)?;
                Some(if lowered.invariant { p.node } else { p.wrapped() })
            }
            None => None,
        };
        let node = Aggregate {
            op: a.op,
            node: lowered.node,
            param,
            grouping: a.grouping.clone(),
            span,
            inner_span: inner.span,
            param_span: param_expr.map_or(span, |p| p.span),
        };
        Ok(Lowered {
            node: Node::Aggregate(Box::new(node)),
            invariant: lowered.invariant,
            wrap: true,
        })
    }

    fn binary(
        &self,
        b: &crate::ast::Binary,
        span: Span,
        depth: usize,
    ) -> Result<Lowered, QueryError> {
        let _whole = arith::is_trim(b.op).then(|| Above::enter(&self.whole));
        let (lhs_type, rhs_type) = (value_type(&b.lhs), value_type(&b.rhs));
        let (lhs, rhs) = (self.node(&b.lhs, depth)?, self.node(&b.rhs, depth)?);
        if let (Node::Number(x), Node::Number(y)) = (&lhs.node, &rhs.node) {
            return Ok(Lowered::constant(Node::Number(arith::scalar(b.op, *x, *y))));
        }
        let invariant = lhs.invariant && rhs.invariant;
        let wrap = |side: Lowered| if invariant { side.node } else { side.wrapped() };
        let node = Binary {
            op: b.op,
            lhs: wrap(lhs),
            rhs: wrap(rhs),
            lhs_type,
            rhs_type,
            return_bool: b.return_bool,
            matching: b.matching.clone(),
            span,
        };
        Ok(Lowered { node: Node::Binary(Box::new(node)), invariant, wrap: true })
    }

    /// A duration in milliseconds.
    fn duration(&self, d: &DurationExpr, may_be_negative: bool) -> Result<i64, QueryError> {
        let (node, span) = match d {
            DurationExpr::Literal(ms) => return Ok(*ms),
            DurationExpr::Expr(node, span) => (node, *span),
        };
        let fail =
            |what: &str| Err(QueryError::Invalid(format!("{}:{}: {what}", span.start, span.end)));
        let seconds = self.duration_node(node, 0)?;
        if !seconds.is_finite() {
            return fail("duration is NaN or infinite");
        }
        if seconds <= 0.0 && !may_be_negative {
            return fail("duration must be greater than 0");
        }
        if seconds.abs() > MAX_DURATION_S {
            return fail("duration is out of range");
        }
        #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
        let ms = (seconds * 1000.0) as i64;
        Ok(ms)
    }

    fn duration_node(&self, node: &DurationNode, depth: usize) -> Result<f64, QueryError> {
        if depth > MAX_DEPTH {
            return Err(QueryError::Invalid("expression is nested too deeply".to_owned()));
        }
        let depth = depth + 1;
        #[allow(clippy::cast_precision_loss, reason = "times are below 2^53 ms")]
        let seconds = |ms: i64| ms as f64 / 1000.0;
        Ok(match node {
            DurationNode::Number(literal, _) => literal.value,
            DurationNode::Step => seconds(self.context.step_ms),
            DurationNode::Range => {
                self.looks_at_range.set(true);
                seconds(self.context.end_ms - self.context.start_ms)
            }
            DurationNode::Unary(UnaryOp::Plus, x) | DurationNode::Paren(x) => {
                self.duration_node(x, depth)?
            }
            DurationNode::Unary(UnaryOp::Minus, x) => -self.duration_node(x, depth)?,
            DurationNode::MinOf(x, y) => {
                arith::go_min(self.duration_node(x, depth)?, self.duration_node(y, depth)?)
            }
            DurationNode::MaxOf(x, y) => {
                arith::go_max(self.duration_node(x, depth)?, self.duration_node(y, depth)?)
            }
            DurationNode::Binary(op, x, y, span) => {
                let (x, y) = (self.duration_node(x, depth)?, self.duration_node(y, depth)?);
                let problem = match op {
                    BinaryOp::Div if y == 0.0 => "division by zero",
                    BinaryOp::Mod if y == 0.0 => "modulo by zero",
                    _ => return Ok(arith::scalar(*op, x, y)),
                };
                return Err(QueryError::Invalid(format!("{}:{}: {problem}", span.start, span.end)));
            }
        })
    }
}

/// Functions of constants that give constants.
fn fold_call(function: &str, args: &[Node]) -> Option<f64> {
    match (function, args) {
        ("max_of", [Node::Number(x), Node::Number(y)]) => Some(arith::go_max(*x, *y)),
        ("min_of", [Node::Number(x), Node::Number(y)]) => Some(arith::go_min(*x, *y)),
        _ => None,
    }
}

/// The expression within parentheses.
fn unwrapped(mut expr: &Expr) -> &Expr {
    while let ExprKind::Paren(inner) = &expr.kind {
        expr = inner;
    }
    expr
}
