//! PrometheusRules: one rule file per object.

use serde_json::{Map, Value, json};

use super::{Rejected, describe};

/// Members of a group that a rule file has, too.
const GROUP: [&str; 5] = ["name", "interval", "query_offset", "limit", "labels"];

/// Members of a rule.
const RULE: [&str; 7] =
    ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];

/// The name and content of the rule file that an object is.
///
/// # Errors
///
/// [`Rejected`] if there are two groups of one name. Whether the rules parse
/// is for the rule file's parser to say.
pub fn rule_file(object: &Value) -> Result<(String, String), Rejected> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let meta = &object["metadata"];
    let name =
        format!("{}-{}-{}.yaml", text(&meta["namespace"]), text(&meta["name"]), text(&meta["uid"]));
    let mut groups: Vec<Value> = Vec::new();
    for group in object["spec"]["groups"].as_array().into_iter().flatten() {
        if groups.iter().any(|g| g["name"] == group["name"]) {
            let reason = format!("two groups are called {}", group["name"]);
            return Err(Rejected { object: describe(object), reason });
        }
        let mut to = copy(group, &GROUP);
        let rules = group["rules"].as_array().into_iter().flatten();
        to.insert("rules".to_owned(), rules.map(|r| Value::Object(copy(r, &RULE))).collect());
        groups.push(Value::Object(to));
    }
    // JSON is YAML.
    Ok((name, json!({"groups": groups}).to_string()))
}

/// The members that say something; numbers where texts are meant become texts.
fn copy(from: &Value, members: &[&str]) -> Map<String, Value> {
    let mut to = Map::new();
    for member in members {
        match &from[*member] {
            Value::Null => {}
            Value::String(text) if text.is_empty() && *member != "expr" => {}
            Value::Number(number) if *member == "expr" => {
                to.insert((*member).to_owned(), json!(number.to_string()));
            }
            value => {
                to.insert((*member).to_owned(), value.clone());
            }
        }
    }
    to
}
