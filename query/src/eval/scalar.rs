//! Scalars: one float per step, never absent.

use crate::ast::ValueType;
use crate::plan::Node;

use super::lanes::{Frame, is_present};
use super::{Eval, QueryError, arith};

/// A scalar over the steps.
#[derive(Debug, Clone)]
pub(crate) enum Scalar {
    Constant(f64),
    Steps(Vec<f64>),
}

impl Scalar {
    #[inline]
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Steps(values) => values[step],
        }
    }

    pub(crate) fn into_lane(self, count: usize) -> Vec<f64> {
        match self {
            Self::Constant(value) => vec![value; count],
            Self::Steps(values) => values,
        }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(f(value)),
            Self::Steps(mut values) => {
                values.iter_mut().for_each(|v| *v = f(*v));
                Self::Steps(values)
            }
        }
    }

    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Constant(x), Self::Constant(y)) => Self::Constant(f(x, y)),
            (Self::Steps(x), Self::Constant(y)) => Self::Steps(x).map(|x| f(x, y)),
            (Self::Constant(x), Self::Steps(y)) => Self::Steps(y).map(|y| f(x, y)),
            (Self::Steps(mut x), Self::Steps(y)) => {
                x.iter_mut().zip(y).for_each(|(x, y)| *x = f(*x, y));
                Self::Steps(x)
            }
        }
    }
}

impl Node {
    /// Whether the node is a scalar.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Number(_) | Self::Time | Self::Negate(_, true) => true,
            Self::Binary(b) => b.lhs_type == ValueType::Scalar && b.rhs_type == ValueType::Scalar,
            Self::Call(c) => matches!(c.function, "scalar" | "max_of" | "min_of"),
            Self::Invariant(inner) => inner.is_scalar(),
            Self::Shared(_, inner) => inner.is_scalar(),
            _ => false,
        }
    }
}

impl Eval<'_> {
    /// The value of a scalar node over the frame.
    pub(crate) fn scalar(&mut self, node: &Node, frame: Frame) -> Result<Scalar, QueryError> {
        Ok(match node {
            Node::Number(value) => Scalar::Constant(*value),
            #[allow(clippy::cast_precision_loss, reason = "times are below 2^53 ms")]
            Node::Time => Scalar::Steps(frame.times().map(|t| t as f64 / 1000.0).collect()),
            Node::Negate(inner, _) => self.scalar(inner, frame)?.map(|v| -v),
            Node::Binary(b) => {
                let (lhs, rhs) = (self.scalar(&b.lhs, frame)?, self.scalar(&b.rhs, frame)?);
                lhs.zip(rhs, |x, y| arith::scalar(b.op, x, y))
            }
            Node::Call(c) if c.function == "scalar" => self.scalar_of_vector(&c.args[0], frame)?,
            Node::Call(c) if c.function == "max_of" => {
                let (x, y) = (self.scalar(&c.args[0], frame)?, self.scalar(&c.args[1], frame)?);
                x.zip(y, arith::go_max)
            }
            Node::Call(c) if c.function == "min_of" => {
                let (x, y) = (self.scalar(&c.args[0], frame)?, self.scalar(&c.args[1], frame)?);
                x.zip(y, arith::go_min)
            }
            Node::Invariant(inner) => {
                let frame = Frame { count: frame.count.min(1), ..frame };
                Scalar::Constant(match self.scalar(inner, frame)? {
                    Scalar::Constant(value) => value,
                    Scalar::Steps(values) => values.first().copied().unwrap_or(f64::NAN),
                })
            }
            Node::Shared(_, inner) => self.scalar(inner, frame)?,
            node => {
                debug_assert!(false, "BUG: {node:?} is no scalar");
                self.scalar_of_vector(node, frame)?
            }
        })
    }

    /// `scalar(v)`: the float of the only series that has one, else NaN.
    fn scalar_of_vector(&mut self, node: &Node, frame: Frame) -> Result<Scalar, QueryError> {
        let mut values = vec![f64::NAN; frame.count];
        let mut seen = vec![0u8; frame.count];
        self.stream(node, frame, &mut |_, series| {
            for (step, value) in series.floats.iter().enumerate() {
                if is_present(*value) {
                    seen[step] = seen[step].saturating_add(1);
                    values[step] = if seen[step] == 1 { *value } else { f64::NAN };
                }
            }
            Ok(())
        })?;
        Ok(Scalar::Steps(values))
    }
}
