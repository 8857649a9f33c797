//! Label selectors: which objects and namespaces count.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::relabeling::sanitize;
use crate::config::{LabelSelector, LabelSelectorOp};

/// A selector that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid selector: {0}")]
pub struct SelectorError(String);

/// Whether an object with these labels is selected.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|term| {
            let value = labels.get(&term.key);
            let listed = value.is_some_and(|v| term.values.contains(v));
            match term.operator {
                LabelSelectorOp::In => listed,
                LabelSelectorOp::NotIn => !listed,
                LabelSelectorOp::Exists => value.is_some(),
                LabelSelectorOp::DoesNotExist => value.is_none(),
            }
        })
}

/// The relabel rules that keep what a selector selects, on the meta labels
/// `__meta_kubernetes_KIND_label_*`.
///
/// Values go into the expressions as they are, so that a dot is a wildcard:
/// the operator does the same.
///
/// # Errors
///
/// [`SelectorError`] for unknown operators, and values where there must be
/// none or some.
pub fn rules(kind: &str, selector: &Value) -> Result<Vec<Value>, SelectorError> {
    let labels = |key: &str| {
        let key = sanitize(key);
        let present = format!("__meta_kubernetes_{kind}_labelpresent_{key}");
        (format!("__meta_kubernetes_{kind}_label_{key}"), present)
    };
    let mut rules = Vec::new();
    let match_labels: BTreeMap<&String, &Value> =
        selector["matchLabels"].as_object().into_iter().flatten().collect();
    for (key, value) in match_labels {
        let (label, present) = labels(key);
        let regex = format!("({});true", value.as_str().unwrap_or(""));
        rules.push(json!({"action": "keep", "source_labels": [label, present], "regex": regex}));
    }
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let (label, present) = labels(term["key"].as_str().unwrap_or(""));
        let values: Vec<&str> =
            term["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let operator = term["operator"].as_str().unwrap_or("");
        let lists = matches!(operator, "In" | "NotIn");
        if lists == values.is_empty() {
            let what = if lists { "needs values" } else { "takes no values" };
            return Err(SelectorError(format!("operator {operator:?} {what}")));
        }
        let action = match operator {
            "In" | "Exists" => "keep",
            "NotIn" | "DoesNotExist" => "drop",
            other => return Err(SelectorError(format!("{other:?} is not a valid operator"))),
        };
        rules.push(if lists {
            let regex = format!("({});true", values.join("|"));
            json!({"action": action, "source_labels": [label, present], "regex": regex})
        } else {
            json!({"action": action, "source_labels": [present], "regex": "true"})
        });
    }
    Ok(rules)
}
