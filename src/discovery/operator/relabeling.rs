//! Relabel rules: those that users write in objects, and short forms for
//! those that are generated.

use serde_json::{Map, Value, json};

/// Every character outside `[a-zA-Z0-9_]` becomes one underscore.
pub fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// `target` = the value of `source`; an absent source removes it.
pub fn copy(source: &str, target: &str) -> Value {
    json!({"source_labels": [source], "target_label": target})
}

/// `target` = the value of `source`, if it has one.
pub fn copy_present(source: &str, target: &str) -> Value {
    json!({"source_labels": [source], "target_label": target, "regex": "(.+)", "replacement": "${1}"})
}

/// `target` = `value`.
pub fn constant(target: &str, value: &str) -> Value {
    json!({"target_label": target, "replacement": value})
}

/// Keeps targets whose `source` is `value`.
pub fn keep(source: &str, value: &str) -> Value {
    json!({"action": "keep", "source_labels": [source], "regex": value})
}

/// Leaves out pods that have ended.
pub fn drop_finished_pods() -> Value {
    json!({"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"})
}

/// Every object's first rule: the pool's name stays at hand.
pub fn remember_job() -> Value {
    copy("job", "__tmp_prometheus_job_name")
}

/// The rules of `relabelings` and the like: camelCase to snake_case, an empty
/// regex and a modulus of 0 are not set, a null separator or replacement is
/// the default while an empty one is empty.
pub fn of_user(list: &Value) -> Vec<Value> {
    list.as_array().into_iter().flatten().map(rule).collect()
}

fn rule(from: &Value) -> Value {
    let mut to = Map::new();
    let mut put = |name: &str, value: &Value| {
        if !value.is_null() {
            to.insert(name.to_owned(), value.clone());
        }
    };
    put("source_labels", &from["sourceLabels"]);
    put("separator", &from["separator"]);
    put("replacement", &from["replacement"]);
    if from["targetLabel"].as_str().is_some_and(|t| !t.is_empty()) {
        put("target_label", &from["targetLabel"]);
    }
    if from["regex"].as_str().is_some_and(|r| !r.is_empty()) {
        put("regex", &from["regex"]);
    }
    if from["modulus"].as_u64().is_some_and(|m| m > 0) {
        put("modulus", &from["modulus"]);
    }
    if let Some(action) = from["action"].as_str().filter(|a| !a.is_empty()) {
        put("action", &Value::from(action.to_lowercase()));
    }
    Value::Object(to)
}
