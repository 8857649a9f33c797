//! What can a template handle? Values as Go's text/template sees them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use narthex_storage::histogram::Histogram;
use narthex_storage::labels::Labels;

/// A value during execution. The names of the types are Go's, as errors and
/// `%T` show them.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// No value at all, or a nil.
    Nil,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint8`: a byte of a text.
    Byte(u8),
    /// `float64`
    Float(f64),
    /// `string`
    Text(Rc<str>),
    /// `template.HTML`: a text that must not be escaped.
    Html(Rc<str>),
    /// `map[string]string`
    Labels(Labels),
    /// `map[string]interface {}`
    Args(Rc<BTreeMap<String, Value>>),
    /// `*template.sample`
    Sample(Rc<Sample>),
    /// `template.queryResult`; shared, as sorting sorts it for all.
    Vector(Rc<RefCell<Vec<Rc<Sample>>>>),
    /// `*time.Time` in milliseconds since the Unix epoch, UTC.
    Time(i64),
    /// `*time.Duration` in nanoseconds.
    Duration(i64),
    /// `*histogram.FloatHistogram`
    Histogram(Arc<Histogram>),
    /// A number with a name, such as a month.
    Named(Named),
    /// What the template was called with.
    Data(Rc<Data>),
}

/// A number of a named Go type that prints as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) type_name: &'static str,
    pub(super) number: i64,
    pub(super) text: &'static str,
}

/// One series of a query's answer.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    pub(super) value: Value,
}

/// What an alert's template is called with.
#[derive(Debug, Clone)]
pub(super) struct Data {
    pub(super) labels: Labels,
    pub(super) external_labels: Labels,
    pub(super) external_url: Rc<str>,
    pub(super) value: Value,
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Rc::from(text.as_ref()))
    }

    /// The type as Go prints it; `None` for no value.
    pub(super) fn type_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Nil => return None,
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Html(_) => "template.HTML",
            Self::Labels(_) => "map[string]string",
            Self::Args(_) => "map[string]interface {}",
            Self::Sample(_) => "*template.sample",
            Self::Vector(_) => "template.queryResult",
            Self::Time(_) => "*time.Time",
            Self::Duration(_) => "*time.Duration",
            Self::Histogram(_) => "*histogram.FloatHistogram",
            Self::Named(named) => named.type_name,
            Self::Data(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; \
                 ExternalURL string; Value interface {} }"
            }
        })
    }

    /// What `if` makes of it: whether it is not the zero of its type.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Byte(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) | Self::Html(text) => !text.is_empty(),
            Self::Labels(labels) => !labels.is_empty(),
            Self::Args(args) => !args.is_empty(),
            Self::Vector(samples) => !samples.borrow().is_empty(),
            Self::Named(named) => named.number != 0,
            Self::Sample(_)
            | Self::Time(_)
            | Self::Duration(_)
            | Self::Histogram(_)
            | Self::Data(_) => true,
        }
    }

    /// Whether its kind is `string`, whatever its type is called.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Html(text) => Some(text),
            _ => None,
        }
    }
}
