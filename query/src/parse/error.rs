//! What is wrong with a query, and where.

use std::fmt;

use crate::ast::Span;

/// A query that cannot be understood. Prints as Prometheus does:
/// `1:4: parse error: unexpected identifier "up"`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// What is wrong, in Prometheus' words.
    pub message: String,
    /// Where, in bytes.
    pub span: Span,
    position: String,
}

impl ParseError {
    /// An error at `span` of `query`.
    #[must_use]
    pub fn new(message: impl Into<String>, span: Span, query: &str) -> Self {
        Self { message: message.into(), span, position: position(query, span.start) }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: parse error: {}", self.position, self.message)
    }
}

/// `line:column` of a byte offset, both counted from 1, the column in bytes;
/// in an empty query `unknown position`.
#[must_use]
pub fn position(query: &str, offset: usize) -> String {
    if query.is_empty() {
        return "unknown position".to_owned();
    }
    let Some(before) = query.as_bytes().get(..offset) else {
        return "invalid position".to_owned();
    };
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    format!("{line}:{}", offset - line_start + 1)
}

/// Why a part could not be read.
#[derive(Debug)]
pub(super) enum Fail {
    /// The next token has no place here; whoever knows what should stand here
    /// says so.
    Unexpected,
    /// All is said.
    Told(Box<ParseError>),
}
