//! What follows from the data? `rules`, `alerts`, `alertmanagers`.

use serde_json::json;

use super::envelope::{Answer, ApiError};

/// `GET /api/v1/rules`.
pub async fn rules() -> Result<Answer, ApiError> {
    Answer::of(&json!({"groups": []}))
}

/// `GET /api/v1/alerts`.
pub async fn alerts() -> Result<Answer, ApiError> {
    Answer::of(&json!({"alerts": []}))
}

/// `GET /api/v1/alertmanagers`.
pub async fn alertmanagers() -> Result<Answer, ApiError> {
    Answer::of(&json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}
