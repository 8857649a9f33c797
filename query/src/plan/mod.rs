//! What does a query do, and when? The plan of an expression.
//!
//! Lowering resolves everything that is known once the query's range is:
//! durations, `@`, offsets, parentheses, `start()` and the like; folds
//! constants, marks what does not depend on the step, so that it is evaluated
//! once, and finds what occurs more than once, so that it is shared. The time
//! range of the samples that a plan touches is known before any is read.

use std::sync::Arc;

use narthex_storage::labels::Matcher;

use crate::ast::{AggregateOp, BinaryOp, Extension, Grouping, Span, ValueType, VectorMatching};

mod local;
mod lower;
mod range;
mod share;

pub(crate) use local::reach;
pub(crate) use lower::{Context, lower};
pub(crate) use range::{selector_range, time_range};

/// A node of the plan.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// A constant scalar.
    Number(f64),
    /// A text.
    String(String),
    /// `time()`.
    Time,
    /// An instant vector from the storage.
    Select(Arc<Selector>),
    /// A range vector as the answer itself.
    Samples(Box<RangeVector>),
    /// A function over a range vector.
    Rollup(Box<Rollup>),
    /// Any other function.
    Call(Box<Call>),
    /// An aggregation.
    Aggregate(Box<Aggregate>),
    /// A binary operation.
    Binary(Box<Binary>),
    /// `-x`.
    Negate(Box<Node>, bool),
    /// Does not depend on the step: evaluated at the first step only.
    Invariant(Box<Node>),
    /// Occurs more than once: the first evaluation is kept under this number.
    Shared(usize, Arc<Node>),
}

/// A selector of series.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) matchers: Vec<Matcher>,
    /// `@`, in milliseconds.
    pub(crate) at_ms: Option<i64>,
    /// Positive looks back.
    pub(crate) offset_ms: i64,
    pub(crate) extension: Extension,
    /// Of histograms only count and sum are needed.
    pub(crate) stats_only: bool,
    pub(crate) span: Span,
}

impl Selector {
    /// The time that is looked at for an evaluation at `time_ms`.
    pub(crate) fn reference(&self, time_ms: i64) -> i64 {
        self.at_ms.unwrap_or(time_ms).saturating_sub(self.offset_ms)
    }
}

/// A range vector: `range_ms` long, left-open.
#[derive(Debug, Clone)]
pub(crate) struct RangeVector {
    pub(crate) source: Source,
    pub(crate) range_ms: i64,
    pub(crate) span: Span,
}

/// Where a range vector's samples come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Storage(Arc<Selector>),
    Subquery(Box<Subquery>),
}

/// An expression evaluated at multiples of a step.
#[derive(Debug, Clone)]
pub(crate) struct Subquery {
    pub(crate) node: Node,
    pub(crate) step_ms: i64,
    pub(crate) at_ms: Option<i64>,
    pub(crate) offset_ms: i64,
}

impl RangeVector {
    /// The right end of the window for an evaluation at `time_ms`.
    pub(crate) fn reference(&self, time_ms: i64) -> i64 {
        match &self.source {
            Source::Storage(selector) => selector.reference(time_ms),
            Source::Subquery(s) => s.at_ms.unwrap_or(time_ms).saturating_sub(s.offset_ms),
        }
    }

    pub(crate) fn at_ms(&self) -> Option<i64> {
        match &self.source {
            Source::Storage(selector) => selector.at_ms,
            Source::Subquery(s) => s.at_ms,
        }
    }

    pub(crate) fn extension(&self) -> Extension {
        match &self.source {
            Source::Storage(selector) => selector.extension,
            Source::Subquery(_) => Extension::None,
        }
    }
}

/// A function over a range vector.
#[derive(Debug, Clone)]
pub(crate) struct Rollup {
    pub(crate) function: &'static str,
    pub(crate) range: RangeVector,
    /// The scalar arguments.
    pub(crate) params: Vec<Node>,
    /// Span of the first argument, where annotations point.
    pub(crate) first_span: Span,
    /// Labels of `absent_over_time`.
    pub(crate) absent: Vec<Matcher>,
    /// Whether the label `__type__` tells counters from others.
    pub(crate) type_labels: bool,
}

/// A function.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: &'static str,
    pub(crate) args: Vec<Node>,
    pub(crate) arg_spans: Vec<Span>,
    pub(crate) span: Span,
    /// The matchers from which `absent` makes its labels.
    pub(crate) absent: Vec<Matcher>,
}

/// An aggregation.
#[derive(Debug, Clone)]
pub(crate) struct Aggregate {
    pub(crate) op: AggregateOp,
    pub(crate) node: Node,
    pub(crate) param: Option<Node>,
    pub(crate) grouping: Grouping,
    pub(crate) span: Span,
    pub(crate) inner_span: Span,
    pub(crate) param_span: Span,
}

/// A binary operation.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub(crate) op: BinaryOp,
    pub(crate) lhs: Node,
    pub(crate) rhs: Node,
    pub(crate) lhs_type: ValueType,
    pub(crate) rhs_type: ValueType,
    pub(crate) return_bool: bool,
    pub(crate) matching: Option<VectorMatching>,
    pub(crate) span: Span,
}

/// A plan with the type of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) root: Node,
    pub(crate) kind: ValueType,
    /// Whether the query's range was looked at: `start()`, `@ end()`, `step()`.
    pub(crate) looks_at_range: bool,
}
