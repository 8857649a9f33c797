//! What surrounds an answer: the envelope, errors and their status codes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use narthex_query::engine::QueryError;
use narthex_storage::read::ReadError;

use super::json::{push_array, push_string};

/// The types of errors that clients tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The request is wrong: 400.
    BadData,
    /// The query failed: 422.
    Execution,
    /// The client went away: 499.
    Canceled,
    /// It took too long: 503.
    Timeout,
    /// Our fault: 500.
    Internal,
    /// There is no such thing: 404.
    NotFound,
    /// Not now, or not in this configuration: 503.
    Unavailable,
}

impl ErrorType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

/// An error as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Its type, which decides the status.
    pub kind: ErrorType,
    /// What people read.
    pub message: String,
}

impl ApiError {
    /// An error of this type.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request is wrong.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorType::BadData, message)
    }

    /// A parameter is wrong; the text is Prometheus'.
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {reason}"))
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = match &error {
            QueryError::Timeout => ErrorType::Timeout,
            QueryError::Canceled => ErrorType::Canceled,
            QueryError::Invalid(_) => ErrorType::BadData,
            QueryError::Storage(_) => ErrorType::Internal,
            _ => ErrorType::Execution,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::new(ErrorType::Internal, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = b"{\"status\":\"error\",\"errorType\":".to_vec();
        push_string(&mut body, self.kind.as_str());
        body.extend_from_slice(b",\"error\":");
        push_string(&mut body, &self.message);
        body.push(b'}');
        json_response(self.kind.status(), body)
    }
}

/// A successful answer: `data` is written into it, then it is finished.
#[derive(Debug)]
pub struct Answer {
    body: Vec<u8>,
    warnings: Vec<String>,
    infos: Vec<String>,
}

impl Answer {
    /// An answer whose data is still to be written to [`Answer::data`].
    #[must_use]
    pub fn new() -> Self {
        let mut body = Vec::with_capacity(4096);
        body.extend_from_slice(b"{\"status\":\"success\",\"data\":");
        Self { body, warnings: Vec::new(), infos: Vec::new() }
    }

    /// An answer with the data that `write` appends.
    pub fn with(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut answer = Self::new();
        write(&mut answer.body);
        answer
    }

    /// An answer with data of a serializable type.
    ///
    /// # Errors
    ///
    /// [`ErrorType::Internal`] if the type cannot be written as JSON.
    pub fn of<T: serde::Serialize + ?Sized>(data: &T) -> Result<Self, ApiError> {
        let mut answer = Self::new();
        serde_json::to_writer(&mut answer.body, data)
            .map_err(|e| ApiError::new(ErrorType::Internal, e.to_string()))?;
        Ok(answer)
    }

    /// Where the data goes: exactly one JSON value.
    pub const fn data(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    /// Adds warnings and infos of a query.
    #[must_use]
    pub fn notes(mut self, warnings: Vec<String>, infos: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self.infos.extend(infos);
        self
    }

    /// Adds a warning.
    #[must_use]
    pub fn warning(mut self, text: &str) -> Self {
        self.warnings.push(text.to_owned());
        self
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self::new()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut body = self.body;
        for (name, notes) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !notes.is_empty() {
                body.push(b',');
                push_string(&mut body, name);
                body.push(b':');
                push_array(&mut body, notes, |out, note| push_string(out, note));
            }
        }
        body.push(b'}');
        json_response(StatusCode::OK, body)
    }
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body).into_response()
}
