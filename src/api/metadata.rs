//! What do metrics mean? `metadata`: type, help and unit by family.

use std::sync::Arc;

use axum::extract::State;
use narthex_storage::sample::Metadata;

use super::Api;
use super::envelope::{Answer, ApiError};
use super::json::{push_array, push_string};
use super::params::Params;

/// `GET /api/v1/metadata`.
pub async fn metadata(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let limit = count(&params, "limit", "limit")?;
    let per_metric = count(&params, "limit_per_metric", "limit_per_metric")?;
    let wanted = params.get("metric").map(ToOwned::to_owned);
    api.blocking(move |api| {
        let now_ms = api.clock.now_ms();
        let mut families = api.queryable.querier(now_ms, now_ms)?.metadata();
        families.retain(|(family, list)| {
            !list.is_empty() && wanted.as_ref().is_none_or(|w| w == family)
        });
        if let Some(limit) = limit {
            families.truncate(limit);
        }
        Ok(Answer::with(|out| {
            out.push(b'{');
            for (i, (family, list)) in families.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_string(out, family);
                out.push(b':');
                push_array(out, list.iter().take(per_metric.unwrap_or(usize::MAX)), push_metadata);
            }
            out.push(b'}');
        }))
    })
    .await
}

/// Appends one entry; all members are always there.
pub fn push_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    out.extend_from_slice(b"{\"type\":");
    push_string(out, metadata.kind.as_str());
    out.extend_from_slice(b",\"help\":");
    push_string(out, &metadata.help);
    out.extend_from_slice(b",\"unit\":");
    push_string(out, &metadata.unit);
    out.push(b'}');
}

/// A count; `None` (no limit) if absent, zero or negative.
pub fn count(params: &Params, name: &str, shown: &str) -> Result<Option<usize>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let number: i64 =
        text.parse().map_err(|_| ApiError::bad_data(format!("{shown} must be a number")))?;
    Ok(usize::try_from(number).ok().filter(|n| *n > 0))
}
