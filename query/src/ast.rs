//! The syntax tree of PromQL, every node with its span.
//!
//! The tree is what was written, after the parser has checked its types; it
//! knows nothing of evaluation. Printing it (`Display`) gives Prometheus'
//! canonical text.

use std::fmt;

use narthex_storage::labels::Matcher;

/// Where a node stands in the query: byte offsets `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

/// A typed expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of expressions.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// A number or duration literal.
    Number(NumberLiteral),
    /// A string literal, unquoted.
    String(String),
    /// `metric{...}` with modifiers: an instant vector.
    Vector(VectorSelector),
    /// `selector[range]`: a range vector. The inner selector carries offset
    /// and @; the range is here.
    Matrix(MatrixSelector),
    /// `expr[range:step]` with modifiers: a range vector.
    Subquery(Subquery),
    /// `f(args)`.
    Call(Call),
    /// `sum by (a) (expr)`.
    Aggregate(Aggregate),
    /// `lhs op rhs`.
    Binary(Binary),
    /// `-expr`, `+expr`.
    Unary(UnaryOp, Box<Expr>),
    /// `(expr)`.
    Paren(Box<Expr>),
}

/// Types of expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A float.
    Scalar,
    /// A text.
    String,
    /// Series with one sample each.
    Vector,
    /// Series with many samples each.
    Matrix,
}

/// A number; written as duration (`5m`) it is in seconds and prints as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NumberLiteral {
    /// The value.
    pub value: f64,
    /// Whether it was written as a duration.
    pub duration: bool,
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtModifier {
    /// `@ 1609746000`: milliseconds since the Unix epoch.
    At(i64),
    /// `@ start()`: the start of the query's range.
    Start,
    /// `@ end()`: the end of the query's range.
    End,
}

/// A duration that may be an expression (`[5m * 2]`, `offset step()`).
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    /// A literal, in milliseconds.
    Literal(i64),
    /// An expression over durations and numbers.
    Expr(DurationNode, Span),
}

/// A node of a duration expression; numbers are seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationNode {
    /// A number literal in seconds.
    Number(NumberLiteral, Span),
    /// `step()`: the step of the query.
    Step,
    /// `range()`: the range of the query.
    Range,
    /// `-x`, `+x`.
    Unary(UnaryOp, Box<DurationNode>),
    /// `x + y` and the like.
    Binary(BinaryOp, Box<DurationNode>, Box<DurationNode>, Span),
    /// `min_of(x, y)`.
    MinOf(Box<DurationNode>, Box<DurationNode>),
    /// `max_of(x, y)`.
    MaxOf(Box<DurationNode>, Box<DurationNode>),
    /// `(x)`.
    Paren(Box<DurationNode>),
}

/// How samples at the edges of a range or instant are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Extension {
    /// Left-open ranges, look-back instants: the classic way.
    #[default]
    None,
    /// `anchored`: the last sample before the range counts as its edge.
    Anchored,
    /// `smoothed`: edges are interpolated.
    Smoothed,
}

/// A selector of series, as an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The metric name written before the braces; it is also the last of
    /// `matchers`. A name in the braces is only there.
    pub name: Option<String>,
    /// All conditions, the name's included, as written.
    pub matchers: Vec<Matcher>,
    /// `offset`, if written; a positive one looks back.
    pub offset: Option<DurationExpr>,
    /// `@`, if written.
    pub at: Option<AtModifier>,
    /// `anchored` or `smoothed`.
    pub extension: Extension,
}

/// A selector with a range.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// The selector; its modifiers apply to the range.
    pub selector: VectorSelector,
    /// Span of the selector alone.
    pub selector_span: Span,
    /// The length of the range.
    pub range: DurationExpr,
}

/// A query within a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// Evaluated at each step.
    pub expr: Box<Expr>,
    /// The length of the range.
    pub range: DurationExpr,
    /// The step; `None` is the server's default.
    pub step: Option<DurationExpr>,
    /// `offset`, if written.
    pub offset: Option<DurationExpr>,
    /// `@`, if written.
    pub at: Option<AtModifier>,
}

/// A function call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The function's name, one of those the parser knows.
    pub function: &'static str,
    /// Arguments, as many and of such types as the function takes.
    pub args: Vec<Expr>,
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Box<Expr>,
    /// The parameter of `topk`, `quantile`, `count_values` and the like.
    pub param: Option<Box<Expr>>,
    /// `by` or `without`, and the labels.
    pub grouping: Grouping,
}

/// How an aggregation groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grouping {
    /// `without` instead of `by`.
    pub without: bool,
    /// The labels, as written. Empty without `without`: one group.
    pub labels: Vec<String>,
}

/// Aggregation operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is named as in PromQL")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Box<Expr>,
    /// Right side.
    pub rhs: Box<Expr>,
    /// `bool`: comparisons give 0 or 1.
    pub return_bool: bool,
    /// How series of both sides find each other; `None` unless both are
    /// vectors.
    pub matching: Option<VectorMatching>,
}

/// Binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is named as in PromQL")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    And,
    Or,
    Unless,
    /// `</`: keep the part of a histogram below a scalar.
    TrimUpper,
    /// `>/`: keep the part of a histogram above a scalar.
    TrimLower,
}

/// Unary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// How series of two vectors find each other.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorMatching {
    /// One to one, many to one, ...
    pub cardinality: Cardinality,
    /// `on` instead of `ignoring`.
    pub on: bool,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Labels of `group_left(...)` or `group_right(...)`.
    pub include: Vec<String>,
    /// `fill`, `fill_left`: value for what is missing on the left side.
    pub fill_left: Option<f64>,
    /// `fill`, `fill_right`: value for what is missing on the right side.
    pub fill_right: Option<f64>,
}

/// Which side may have several series per match group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One on each side.
    OneToOne,
    /// `group_left`: many on the left.
    ManyToOne,
    /// `group_right`: many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Expr {
    /// The type of the value it gives.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Vector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call(call) => crate::functions::find(call.function)
                .map_or(ValueType::Vector, |function| function.returns),
            ExprKind::Binary(binary) => {
                let sides = (binary.lhs.value_type(), binary.rhs.value_type());
                if sides == (ValueType::Scalar, ValueType::Scalar) {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => inner.value_type(),
        }
    }
}

impl Expr {
    /// The matchers of all selectors in it, in the order they are written.
    #[must_use]
    pub fn selectors(&self) -> Vec<Vec<Matcher>> {
        let mut found = Vec::new();
        self.collect_selectors(&mut found);
        found
    }

    fn collect_selectors(&self, found: &mut Vec<Vec<Matcher>>) {
        match &self.kind {
            ExprKind::Number(_) | ExprKind::String(_) => {}
            ExprKind::Vector(selector) => found.push(selector.matchers.clone()),
            ExprKind::Matrix(matrix) => found.push(matrix.selector.matchers.clone()),
            ExprKind::Subquery(subquery) => subquery.expr.collect_selectors(found),
            ExprKind::Call(call) => {
                call.args.iter().for_each(|arg| arg.collect_selectors(found));
            }
            ExprKind::Aggregate(aggregate) => {
                if let Some(param) = &aggregate.param {
                    param.collect_selectors(found);
                }
                aggregate.expr.collect_selectors(found);
            }
            ExprKind::Binary(binary) => {
                binary.lhs.collect_selectors(found);
                binary.rhs.collect_selectors(found);
            }
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => inner.collect_selectors(found),
        }
    }
}

impl ValueType {
    /// What the documentation and messages call it.
    #[must_use]
    pub const fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }
}

impl AggregateOp {
    /// Whether it takes a parameter before the vector.
    #[must_use]
    pub const fn takes_param(self) -> bool {
        matches!(
            self,
            Self::Topk
                | Self::Bottomk
                | Self::CountValues
                | Self::Quantile
                | Self::Limitk
                | Self::LimitRatio
        )
    }

    /// The operator as written in PromQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }
}

impl BinaryOp {
    /// Whether it compares two values.
    #[must_use]
    pub const fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le)
    }

    /// Whether it is `and`, `or` or `unless`.
    #[must_use]
    pub const fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// The operator as written in PromQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }
}

impl fmt::Display for AggregateOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for UnaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plus => "+",
            Self::Minus => "-",
        })
    }
}
