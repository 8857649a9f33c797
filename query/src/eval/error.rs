//! Why a query has no answer.

use narthex_storage::read::ReadError;

/// Why a query has no answer. The texts are Prometheus' where it has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query cannot be evaluated over these data (HTTP 422).
    #[error("{0}")]
    Execution(String),
    /// The query makes no sense, which only shows with its range known, as in
    /// a duration expression (HTTP 400).
    #[error("{0}")]
    Invalid(String),
    /// More samples at one time than `query.max-samples` (HTTP 422).
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// More memory than is left of that of all queries (HTTP 422).
    #[error(
        "query needs {held} bytes of memory, {over} more than it can have of the {limit} that all queries share"
    )]
    TooManyBytes {
        /// Bytes that the query would hold.
        held: usize,
        /// How many of them are too many.
        over: usize,
        /// Bytes that all queries may hold.
        limit: usize,
    },
    /// The time limit has passed (HTTP 503).
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The client went away, or the server stops (HTTP 499, 503).
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The storage could not be read (HTTP 500).
    #[error("expanding series: {0}")]
    Storage(ReadError),
}

impl QueryError {
    pub(crate) fn same_labelset() -> Self {
        Self::Execution("vector cannot contain metrics with the same labelset".to_owned())
    }

    pub(crate) fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }
}
