//! What does an annotation say? Go's text/template as alerts use it.
//!
//! [`Template`] is a parsed text; it is parsed once, when its rule is loaded,
//! and expanded for each alert. Output, and the words and places of errors,
//! are those of Prometheus. Invariant: an expansion ends. Steps, output,
//! depth and queries are counted, and what exceeds its limit is an error in
//! the annotation.

mod ast;
pub mod duration;
mod exec;
mod function;
mod gofmt;
mod humanize;
mod lex;
mod method;
mod parse;
mod value;

#[cfg(test)]
mod tests;

use std::rc::Rc;

use narthex_query::value::VectorSample;
use narthex_storage::labels::Labels;
use narthex_storage::sample;

use value::{Data, Value};

pub use function::escape_query;
pub use gofmt::{duration_text as go_duration, format_float, quote};

/// What stands before each text: names that are easier to remember than
/// fields. Part of the text, so that columns in errors are Prometheus'.
const DEFINITIONS: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                           {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// How much one expansion may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Statements, commands and arguments, and one for each 64 bytes produced.
    pub steps: usize,
    /// Bytes of the output, and of any text on the way.
    pub output_bytes: usize,
    /// Blocks, templates and parentheses within each other.
    pub depth: usize,
    /// Calls of `query`.
    pub queries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 1_000_000, output_bytes: 1 << 20, depth: 250, queries: 1_000 }
    }
}

/// What surrounds an expansion.
pub struct Environment<'a> {
    /// The evaluation time, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// For `externalURL` and `pathPrefix`; `None` makes them an error, as in
    /// unit tests of rules.
    pub external_url: Option<&'a str>,
    /// Answers `query`: an instant query at the evaluation time.
    pub query: &'a mut dyn FnMut(&str) -> Result<Vec<VectorSample>, String>,
}

impl Environment<'_> {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
    fn now_s(&self) -> f64 {
        self.now_ms as f64 / 1000.0
    }
}

/// What a template is about: one alert.
#[derive(Debug, Clone)]
pub struct AlertData {
    /// Labels of the series that the expression gave: `$labels`.
    pub labels: Labels,
    /// `$externalLabels`
    pub external_labels: Labels,
    /// `$externalURL`
    pub external_url: String,
    /// `$value`
    pub value: sample::Value,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    tree: ast::Tree,
    /// Neither actions nor anything else: the text is the output.
    is_plain: bool,
    text: String,
}

impl Template {
    /// Parses the template of a label or annotation; `name` is shown in
    /// errors (`__alert_` and the name of the rule).
    ///
    /// # Errors
    ///
    /// Go's message, such as `template: __alert_X:1: unclosed action`.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let tree = parse::parse(name, &format!("{DEFINITIONS}{text}"), false)?;
        Ok(Self { tree, is_plain: !text.contains("{{"), text: text.to_owned() })
    }

    /// The text as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Expands the template.
    ///
    /// # Errors
    ///
    /// `error executing template NAME: ...` in Prometheus' words; a limit
    /// that was exceeded likewise.
    pub fn expand(&self, data: &AlertData, env: &mut Environment<'_>) -> Result<String, String> {
        if self.is_plain {
            return Ok(self.text.clone());
        }
        let value = match &data.value {
            sample::Value::Float(float) => Value::Float(*float),
            sample::Value::Histogram(histogram) => Value::Histogram(histogram.clone()),
        };
        let data = Value::Data(Rc::new(Data {
            labels: data.labels.clone(),
            external_labels: data.external_labels.clone(),
            external_url: data.external_url.as_str().into(),
            value,
        }));
        exec::execute(&self.tree, data, Limits::default(), env)
            .map_err(|error| format!("error executing template {}: {error}", self.tree.name))
    }
}
