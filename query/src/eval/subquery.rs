//! Subqueries: an expression at multiples of a step.

use crate::plan::{RangeVector, Subquery};

use super::lanes::{Batch, Frame};
use super::{Eval, QueryError};

/// Most steps a subquery may have.
const MAX_STEPS: usize = 50_000_000;

impl Eval<'_> {
    /// Evaluates the inner expression at all steps that the windows of the
    /// outer frame can see.
    pub(super) fn subquery_steps(
        &mut self,
        subquery: &Subquery,
        range: &RangeVector,
        outer: Frame,
    ) -> Result<(Frame, Batch), QueryError> {
        let step = subquery.step_ms;
        let open = range.reference(outer.start_ms).saturating_sub(range.range_ms);
        let mut start = open.div_euclid(step).saturating_mul(step);
        if start <= open {
            start = start.saturating_add(step);
        }
        let inner = Frame::new(start, range.reference(outer.end_ms()), step);
        if inner.count > MAX_STEPS {
            return Err(QueryError::TooManySamples);
        }
        // What the inner steps look at does not count: the outer ones see their
        // results.
        let before = self.budget.total_samples;
        let per_step = self.budget.per_step.take();
        let batch = self.eval(&subquery.node, inner)?;
        self.budget.total_samples = before;
        self.budget.per_step = per_step;
        Ok((inner, batch))
    }
}
