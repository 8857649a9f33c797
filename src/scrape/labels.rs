//! From exposed labels to those of a series: target labels, metric
//! relabeling, limits.

use narthex_storage::labels::{
    Labels, LabelsBuilder, is_legacy_label_name, is_legacy_metric_name, write_quoted,
};

use crate::config::{NameValidation, ScrapeLimits};
use crate::relabel::Rules;

/// Most characters of a name or value in a message.
const SHOWN_CHARS: usize = 50;

/// What is done to the labels of every sample of a target.
#[derive(Debug)]
pub struct LabelRules {
    /// The target's public labels.
    pub target: Labels,
    /// Exposed labels win.
    pub honor_labels: bool,
    /// `metric_relabel_configs`.
    pub relabel: std::sync::Arc<Rules>,
    /// Of labels only.
    pub limits: ScrapeLimits,
    /// Which names are valid.
    pub validation: NameValidation,
}

/// What became of a label set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The labels of the series.
    Series(Labels),
    /// Metric relabeling does not want it.
    Dropped,
}

/// Why labels fail a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelError {
    /// A label limit is exceeded.
    Limit(String),
    /// A name is missing or not valid.
    Invalid(String),
}

impl LabelRules {
    /// Turns exposed labels into those of a series. `empty` names labels that
    /// were exposed with an empty value.
    ///
    /// # Errors
    ///
    /// [`LabelError`], with Prometheus' wording.
    pub fn resolve(
        &self,
        mut labels: LabelsBuilder,
        empty: &[String],
    ) -> Result<Resolved, LabelError> {
        if self.honor_labels {
            for (name, value) in &self.target {
                if labels.get(name).is_empty() && !empty.iter().any(|e| e == name) {
                    labels.set(name, value);
                }
            }
        } else {
            let mut conflicts = Vec::new();
            for (name, value) in &self.target {
                let exposed = labels.get(name);
                if !exposed.is_empty() {
                    conflicts.push((name.to_owned(), exposed.to_owned()));
                }
                labels.set(name, value);
            }
            conflicts.sort_by_key(|(name, _)| name.len());
            for (mut name, value) in conflicts {
                loop {
                    name.insert_str(0, "exported_");
                    if labels.get(&name).is_empty() {
                        labels.set(&name, &value);
                        break;
                    }
                }
            }
        }
        if !self.relabel.apply(&mut labels) {
            return Ok(Resolved::Dropped);
        }
        let labels = labels.build();
        if labels.is_empty() {
            return Ok(Resolved::Dropped);
        }
        let Some(metric) = labels.metric_name() else {
            return Err(LabelError::Invalid("missing metric name (__name__ label)".to_owned()));
        };
        let valid = match self.validation {
            NameValidation::Utf8 => labels.iter().all(|(name, _)| !name.is_empty()),
            NameValidation::Legacy => {
                is_legacy_metric_name(metric) && labels.iter().all(|(n, _)| is_legacy_label_name(n))
            }
        };
        if !valid {
            return Err(LabelError::Invalid(format!(
                "invalid metric name or label names: {labels}"
            )));
        }
        self.check_limits(&labels, metric)?;
        Ok(Resolved::Series(labels))
    }

    fn check_limits(&self, labels: &Labels, metric: &str) -> Result<(), LabelError> {
        let limits = &self.limits;
        if limits.labels == 0 && limits.label_name_bytes == 0 && limits.label_value_bytes == 0 {
            return Ok(());
        }
        let exceeds = |n: usize, limit: u64| limit > 0 && n as u64 > limit;
        let short = |text: &str| text.chars().take(SHOWN_CHARS).collect::<String>();
        let metric = short(metric);
        let count = labels.len();
        if exceeds(count, limits.labels) {
            return Err(LabelError::Limit(format!(
                "label_limit exceeded (metric: {metric}, number of labels: {count}, limit: {})",
                limits.labels
            )));
        }
        for (name, value) in labels {
            if exceeds(name.len(), limits.label_name_bytes) {
                return Err(LabelError::Limit(format!(
                    "label_name_length_limit exceeded (metric: {metric}, label name: {}, length: {}, limit: {})",
                    short(name),
                    name.len(),
                    limits.label_name_bytes
                )));
            }
            if exceeds(value.len(), limits.label_value_bytes) {
                let mut shown = String::new();
                let _ = write_quoted(&mut shown, &short(value));
                return Err(LabelError::Limit(format!(
                    "label_value_length_limit exceeded (metric: {metric}, label name: {}, value: {shown}, length: {}, limit: {})",
                    short(name),
                    value.len(),
                    limits.label_value_bytes
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(honor_labels: bool) -> LabelRules {
        LabelRules {
            target: Labels::from_pairs([("instance", "i:1"), ("job", "j")]),
            honor_labels,
            relabel: std::sync::Arc::default(),
            limits: ScrapeLimits::default(),
            validation: NameValidation::Utf8,
        }
    }

    fn resolve(rules: &LabelRules, pairs: &[(&str, &str)]) -> Result<String, LabelError> {
        let mut labels = LabelsBuilder::new();
        let mut empty = Vec::new();
        for (name, value) in pairs {
            labels.set(name, value);
            if value.is_empty() {
                empty.push((*name).to_owned());
            }
        }
        Ok(match rules.resolve(labels, &empty)? {
            Resolved::Series(labels) => labels.to_string(),
            Resolved::Dropped => "dropped".to_owned(),
        })
    }

    #[test]
    fn conflicts_are_resolved_as_in_prometheus() {
        let exposed = [("__name__", "m"), ("job", "x"), ("exported_job", "y"), ("instance", "")];
        assert_eq!(
            resolve(&rules(false), &exposed).expect("valid"),
            r#"{__name__="m", exported_exported_job="x", exported_job="y", instance="i:1", job="j"}"#
        );
        assert_eq!(
            resolve(&rules(true), &exposed).expect("valid"),
            r#"{__name__="m", exported_job="y", job="x"}"#
        );
    }

    #[test]
    fn limits_and_names_fail_the_scrape() {
        let mut r = rules(false);
        assert_eq!(
            resolve(&r, &[("a", "b")]),
            Err(LabelError::Invalid("missing metric name (__name__ label)".to_owned()))
        );
        r.validation = NameValidation::Legacy;
        assert!(resolve(&r, &[("__name__", "a.b")]).is_err());
        r.limits.labels = 3;
        assert_eq!(
            resolve(&r, &[("__name__", "m"), ("a", "b")]),
            Err(LabelError::Limit(
                "label_limit exceeded (metric: m, number of labels: 4, limit: 3)".to_owned()
            ))
        );
        r.limits.labels = 4;
        r.limits.label_value_bytes = 2;
        assert_eq!(
            resolve(&r, &[("__name__", "m"), ("a", "b\nc")]),
            Err(LabelError::Limit(
                "label_value_length_limit exceeded (metric: m, label name: a, value: \"b\\nc\", length: 3, limit: 2)".to_owned()
            ))
        );
    }
}
