//! `absent` and `absent_over_time`: 1 where there is nothing.

use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};

use crate::plan::{Call, Node, Rollup};

use super::lanes::{ABSENT, Batch, Frame, Series, is_present};
use super::{Eval, QueryError};

impl Eval<'_> {
    pub(super) fn absent(&mut self, call: &Call, frame: Frame) -> Result<Batch, QueryError> {
        let mut floats = vec![1.0; frame.count];
        let mut clear = |_: &mut Eval<'_>, series: &mut Series| {
            clear(&mut floats, series);
            Ok(())
        };
        match &call.args[0] {
            Node::Select(selector) => self.stream_presence(selector, frame, &mut clear)?,
            node => self.stream(node, frame, &mut clear)?,
        }
        Ok(result(floats, &call.absent, false))
    }

    pub(super) fn absent_over_time(
        &mut self,
        rollup: &Rollup,
        frame: Frame,
    ) -> Result<Batch, QueryError> {
        let mut floats = vec![1.0; frame.count];
        let present = Rollup { function: "last_over_time", ..rollup.clone() };
        self.stream_rollup(&present, frame, &mut |_, series| {
            clear(&mut floats, series);
            Ok(())
        })?;
        Ok(result(floats, &rollup.absent, true))
    }
}

fn clear(floats: &mut [f64], series: &Series) {
    for (out, v) in floats.iter_mut().zip(&series.floats) {
        if is_present(*v) {
            *out = ABSENT;
        }
    }
    for (step, _) in &series.histograms {
        floats[*step as usize] = ABSENT;
    }
}

fn result(floats: Vec<f64>, matchers: &[Matcher], drop_name: bool) -> Batch {
    let series = Series { floats, drop_name, ..Series::new(absent_labels(matchers)) };
    if series.is_vacant() { Batch::new() } else { vec![series] }
}

/// The labels that what is absent would surely have: those that are asked for
/// with `=`, once.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let mut builder = LabelsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name != METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !seen.contains(&matcher.name.as_str()) {
            builder.set(&matcher.name, &matcher.value);
            seen.push(&matcher.name);
        } else {
            builder.remove(&matcher.name);
        }
    }
    builder.build()
}
