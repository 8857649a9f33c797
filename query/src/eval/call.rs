//! Functions that need all series of their argument at once.

use crate::plan::Call;

use super::lanes::{Batch, Frame, Series, merge_equal};
use super::{Eval, QueryError, label, sort};

impl Eval<'_> {
    pub(super) fn call(&mut self, call: &Call, frame: Frame) -> Result<Batch, QueryError> {
        match call.function {
            "vector" => {
                let floats = self.scalar(&call.args[0], frame)?.into_lane(frame.count);
                Ok(vec![Series { floats, ..Series::default() }])
            }
            "absent" => self.absent(call, frame),
            "label_replace" => self.label_replace(call, frame),
            "label_join" => self.label_join(call, frame),
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => self.sort(call, frame),
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                self.histogram_call(call, frame)
            }
            "info" => self.info(call, frame),
            "minute" | "hour" | "day_of_week" | "day_of_month" | "day_of_year"
            | "days_in_month" | "month" | "year" => {
                let f =
                    super::time::function(call.function).ok_or_else(|| unknown(call.function))?;
                let seconds = |ms: i64| super::rollup_float::seconds(ms.div_euclid(1000) * 1000);
                let floats = frame.times().map(|t| f(seconds(t))).collect();
                Ok(vec![Series { floats, ..Series::default() }])
            }
            other => Err(unknown(other)),
        }
    }

    fn sort(&mut self, call: &Call, frame: Frame) -> Result<Batch, QueryError> {
        let batch = self.eval(&call.args[0], frame)?;
        for series in &batch {
            self.release(series);
        }
        if !self.is_instant(frame) {
            if self.options.warn_sort_in_range {
                self.notes.warn(
                    call.span,
                    "sort is ineffective for range queries since results are always ordered by labels",
                );
            }
            let mut batch = batch;
            if matches!(call.function, "sort" | "sort_desc") {
                batch.iter_mut().for_each(|s| s.histograms.clear());
                batch.retain(|s| !s.is_vacant());
            }
            return merge_equal(batch, frame.count);
        }
        let names: Vec<&str> = call.args[1..].iter().map(label::text).collect();
        Ok(match call.function {
            "sort" => sort::by_value(batch, false),
            "sort_desc" => sort::by_value(batch, true),
            "sort_by_label" => sort::by_labels(batch, &names, false),
            _ => sort::by_labels(batch, &names, true),
        })
    }

    /// Whether the frame is that of an instant query.
    fn is_instant(&self, frame: Frame) -> bool {
        frame.count == 1
    }
}

fn unknown(function: &str) -> QueryError {
    QueryError::Execution(format!("unknown function with name \"{function}\""))
}
