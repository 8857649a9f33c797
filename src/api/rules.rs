//! What follows from the data? `rules`, `alerts`, `alertmanagers`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use narthex_storage::labels::{Labels, Matcher};
use serde_json::{Map, Value, json};

use super::Api;
use super::envelope::{Answer, ApiError};
use super::number::push_float_scientific;
use super::params::Params;
use super::status::rfc3339;
use crate::rules::status::{AlertStatus, GroupStatus, RuleStatus};

/// Which rules are asked for.
struct Filter {
    kind: Option<bool>,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    matchers: Vec<Vec<Matcher>>,
    exclude_alerts: bool,
}

impl Filter {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let kind = match params.get("type").map(str::to_lowercase).as_deref() {
            None => None,
            Some("alert") => Some(true),
            Some("record") => Some(false),
            Some(other) => {
                return Err(ApiError::parameter("type", format!("not supported value {other:?}")));
            }
        };
        let list = |name: &str| params.all(name).map(ToOwned::to_owned).collect();
        Ok(Self {
            kind,
            names: list("rule_name[]"),
            groups: list("rule_group[]"),
            files: list("file[]"),
            matchers: params.matchers()?,
            exclude_alerts: params.flag("exclude_alerts")?,
        })
    }

    /// Whether groups without rules are left out.
    fn narrows_rules(&self) -> bool {
        self.kind.is_some() || !self.names.is_empty() || !self.matchers.is_empty()
    }

    fn wants_group(&self, group: &GroupStatus) -> bool {
        (self.groups.is_empty() || self.groups.contains(&group.name))
            && (self.files.is_empty() || self.files.contains(&group.file))
    }

    fn wants_rule(&self, rule: &RuleStatus) -> bool {
        let matches = |set: &Vec<Matcher>| {
            set.iter().all(|m| m.matches(rule.labels.get(&m.name).unwrap_or("")))
        };
        self.kind.is_none_or(|alerting| rule.alerting.is_some() == alerting)
            && (self.names.is_empty() || self.names.contains(&rule.name))
            && (self.matchers.is_empty() || self.matchers.iter().any(matches))
    }
}

/// `GET /api/v1/rules`.
pub async fn rules(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let filter = Filter::read(&params)?;
    let (limit, token) = page(&params)?;
    let mut groups = api.rules.status();
    groups.sort_by(|a, b| a.file.cmp(&b.file));
    let mut shown: Vec<Value> = Vec::new();
    let mut next = None;
    let mut reached = token.is_none();
    for group in groups.iter().filter(|g| filter.wants_group(g)) {
        let key = group_token(group);
        if !reached {
            // The token names the last group that was shown.
            reached = token.as_ref() == Some(&key);
            continue;
        }
        let rules: Vec<&RuleStatus> = group.rules.iter().filter(|r| filter.wants_rule(r)).collect();
        if rules.is_empty() && filter.narrows_rules() {
            continue;
        }
        if limit.is_some_and(|limit| shown.len() == limit) {
            next = shown.last().and_then(|_| last_token(&groups, &shown));
            break;
        }
        shown.push(group_json(group, &rules, filter.exclude_alerts));
    }
    if !reached {
        return Err(ApiError::parameter("group_next_token", "invalid group_next_token"));
    }
    let mut data = json!({ "groups": shown });
    if let Some(token) = next {
        data["groupNextToken"] = json!(token);
    }
    Answer::of(&data)
}

fn page(params: &Params) -> Result<(Option<usize>, Option<String>), ApiError> {
    let token = params.get("group_next_token").map(ToOwned::to_owned);
    let limit = match params.get("group_limit") {
        None => None,
        Some(text) => {
            let number = text.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(|| {
                ApiError::parameter("group_limit", "group_limit needs to be greater than 0")
            })?;
            Some(number)
        }
    };
    if token.is_some() && limit.is_none() {
        let reason = "group_limit needs to be present in order to paginate over the groups";
        return Err(ApiError::parameter("group_limit", reason));
    }
    Ok((limit, token))
}

/// Names a group for the next page; opaque to clients.
fn group_token(group: &GroupStatus) -> String {
    let text = format!("{};{}", group.file, group.name);
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

fn last_token(groups: &[GroupStatus], shown: &[Value]) -> Option<String> {
    let last = shown.last()?;
    groups.iter().find(|g| last["name"] == g.name && last["file"] == g.file).map(group_token)
}

fn map(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

fn time(ms: Option<i64>) -> String {
    ms.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339)
}

/// Seconds as Go writes them: without a fraction if there is none.
#[allow(clippy::cast_possible_truncation, reason = "checked")]
fn seconds(seconds: f64) -> Value {
    const EXACT: f64 = 9e15;
    if seconds.fract() == 0.0 && seconds.abs() < EXACT {
        json!(seconds as i64)
    } else {
        json!(seconds)
    }
}

fn group_json(group: &GroupStatus, rules: &[&RuleStatus], exclude_alerts: bool) -> Value {
    json!({
        "name": group.name,
        "file": group.file,
        "rules": rules.iter().map(|rule| rule_json(rule, exclude_alerts)).collect::<Vec<_>>(),
        "interval": seconds(group.interval_s),
        "limit": group.limit,
        "evaluationTime": seconds(group.evaluation_s),
        "lastEvaluation": time(group.last_evaluation_ms),
    })
}

fn rule_json(rule: &RuleStatus, exclude_alerts: bool) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    match &rule.alerting {
        Some(alerting) => {
            put("state", json!(alerting.state.as_str()));
            put("name", json!(rule.name));
            put("query", json!(rule.query));
            put("duration", seconds(alerting.for_s));
            put("keepFiringFor", seconds(alerting.keep_firing_for_s));
            put("labels", json!(map(&rule.labels)));
            put("annotations", json!(alerting.annotations));
            let shown = if exclude_alerts { &[][..] } else { &alerting.alerts };
            put("alerts", shown.iter().map(alert_json).collect());
        }
        None => {
            put("name", json!(rule.name));
            put("query", json!(rule.query));
            if !rule.labels.is_empty() {
                put("labels", json!(map(&rule.labels)));
            }
        }
    }
    put("health", json!(rule.health.as_str()));
    if let Some(error) = &rule.last_error {
        put("lastError", json!(error));
    }
    put("evaluationTime", seconds(rule.evaluation_s));
    put("lastEvaluation", json!(time(rule.last_evaluation_ms)));
    put("type", json!(if rule.alerting.is_some() { "alerting" } else { "recording" }));
    Value::Object(out)
}

fn alert_json(alert: &AlertStatus) -> Value {
    let mut value = Vec::new();
    push_float_scientific(&mut value, alert.value);
    let mut out = json!({
        "labels": map(&alert.labels),
        "annotations": alert.annotations,
        "state": alert.state.as_str(),
        "activeAt": rfc3339(alert.active_at_ms),
        "value": String::from_utf8_lossy(&value),
    });
    if let Some(since) = alert.keep_firing_since_ms {
        out["keepFiringSince"] = json!(rfc3339(since));
    }
    out
}

/// `GET /api/v1/alerts`.
pub async fn alerts(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let groups = api.rules.status();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let alerts: Vec<Value> =
        rules.filter_map(|r| r.alerting.as_ref()).flat_map(|a| &a.alerts).map(alert_json).collect();
    Answer::of(&json!({ "alerts": alerts }))
}

/// `GET /api/v1/alertmanagers`.
pub async fn alertmanagers(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let urls = |urls: Vec<String>| -> Vec<Value> {
        urls.into_iter().map(|url| json!({ "url": url })).collect()
    };
    let (active, dropped) = api.notifier.alertmanagers();
    Answer::of(&json!({
        "activeAlertmanagers": urls(active),
        "droppedAlertmanagers": urls(dropped),
    }))
}
