//! What became of the operator's objects, and what should be known now?
//! `status/operator`, `notifications`.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::envelope::{Answer, ApiError};
use super::status::rfc3339;
use crate::discovery::operator::{ObjectName, Rejected};

/// What became of the operator's objects.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectsStatus {
    /// The configuration has a section `operator`.
    pub is_followed: bool,
    /// Every kind was listed, or waited for long enough.
    pub is_complete: bool,
    /// Scrape pools that come from objects.
    pub pools: Vec<String>,
    /// Rule files that come from objects.
    pub rule_files: Vec<String>,
    /// Objects that cannot be used, and why.
    pub rejected: Vec<Rejected>,
    /// Objects that the selectors leave out.
    pub not_selected: Vec<ObjectName>,
}

fn object(name: &ObjectName) -> Value {
    json!({"kind": name.kind, "namespace": name.namespace, "name": name.name})
}

/// `GET /api/v1/status/operator`: ours; Prometheus has no such thing.
pub async fn status(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let status = Arc::clone(&api.objects.borrow());
    let rejected = status.rejected.iter().map(|rejected| {
        let mut entry = object(&rejected.object);
        entry["reason"] = json!(rejected.reason);
        entry
    });
    Answer::of(&json!({
        "followed": status.is_followed,
        "complete": status.is_complete,
        "scrapePools": status.pools,
        "ruleFiles": status.rule_files,
        "rejected": rejected.collect::<Vec<_>>(),
        "notSelected": status.not_selected.iter().map(object).collect::<Vec<_>>(),
    }))
}

/// `GET /api/v1/notifications`: conditions that last and need a person.
pub async fn notifications(State(api): State<Arc<Api>>) -> Result<Answer, ApiError> {
    let notices = api.notices.list().into_iter().map(
        |notice| json!({"text": notice.text, "date": rfc3339(notice.since_ms), "active": true}),
    );
    Answer::of(&notices.collect::<Vec<_>>())
}
