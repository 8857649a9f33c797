//! Where is the configuration wrong, and how?

use super::yaml::Position;

/// A configuration that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}{message}", place(file, *line, *column), path, if path.is_empty() { "" } else { ": " })]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// Line from 1; 0 if the file as a whole is meant.
    pub line: u32,
    /// Column from 1, in characters.
    pub column: u32,
    /// The field, such as `scrape_configs[2].tls_config.ca_file`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl ConfigError {
    /// A file that cannot be used at all.
    pub(super) fn file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
        }
    }

    pub(super) fn new(
        file: &str,
        at: Position,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            path: path.into(),
            message: message.into(),
        }
    }
}

fn place(file: &str, line: u32, column: u32) -> String {
    if line == 0 { format!("{file}: ") } else { format!("{file}:{line}:{column}: ") }
}
