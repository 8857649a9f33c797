//! `label_replace` and `label_join`.

use narthex_storage::labels::{METRIC_NAME, anchored};

use crate::plan::{Call, Node};

use super::lanes::{Batch, Frame, merge_equal};
use super::ranked::is_label_name;
use super::{Eval, QueryError};

/// The text of a string argument.
pub(super) fn text(node: &Node) -> &str {
    match node {
        Node::String(text) => text,
        Node::Invariant(inner) => text(inner),
        Node::Shared(_, inner) => text(inner),
        _ => "",
    }
}

impl Eval<'_> {
    pub(super) fn label_replace(&mut self, call: &Call, frame: Frame) -> Result<Batch, QueryError> {
        let [vector, target, replacement, source, expression] = &call.args[..] else {
            return Err(QueryError::execution("label_replace needs 5 arguments"));
        };
        let (target, replacement) = (text(target), text(replacement));
        let (source, expression) = (text(source), text(expression));
        let regex = anchored(expression).map_err(|_| {
            QueryError::Execution(format!(
                "invalid regular expression in label_replace(): {expression}"
            ))
        })?;
        if !is_label_name(target) {
            return Err(QueryError::Execution(format!(
                "invalid destination label name in label_replace(): {target}"
            )));
        }
        let mut batch = self.eval(vector, frame)?;
        for series in &mut batch {
            self.release(series);
            let value = series.labels.get(source).unwrap_or("").to_owned();
            let Some(captures) = regex.captures(&value) else { continue };
            let mut result = String::new();
            captures.expand(replacement, &mut result);
            let mut builder = series.labels.to_builder();
            builder.set(target, &result);
            series.labels = builder.build();
            series.drop_name &= target != METRIC_NAME;
        }
        merge_equal(batch, frame.count)
    }

    pub(super) fn label_join(&mut self, call: &Call, frame: Frame) -> Result<Batch, QueryError> {
        let [vector, target, separator, sources @ ..] = &call.args[..] else {
            return Err(QueryError::execution("label_join needs at least 3 arguments"));
        };
        let (target, separator) = (text(target), text(separator));
        let sources: Vec<&str> = sources.iter().map(text).collect();
        if let Some(bad) = sources.iter().find(|s| !is_label_name(s)) {
            return Err(QueryError::Execution(format!(
                "invalid source label name in label_join(): {bad}"
            )));
        }
        if !is_label_name(target) {
            return Err(QueryError::Execution(format!(
                "invalid destination label name in label_join(): {target}"
            )));
        }
        let mut batch = self.eval(vector, frame)?;
        for series in &mut batch {
            self.release(series);
            let values: Vec<&str> =
                sources.iter().map(|s| series.labels.get(s).unwrap_or("")).collect();
            let mut builder = series.labels.to_builder();
            builder.set(target, &values.join(separator));
            series.labels = builder.build();
            series.drop_name &= target != METRIC_NAME;
        }
        merge_equal(batch, frame.count)
    }
}
