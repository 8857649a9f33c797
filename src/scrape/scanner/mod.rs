//! What does a page say? The exposition formats, entry by entry.
//!
//! The parsers here are exact and unhurried: they follow Prometheus' lexers
//! rule by rule, messages included, and are run for lines that the cache does
//! not know ([`super::page`] recognises the others without parsing labels).
//! They borrow from the page and keep nothing.

pub mod float;
pub mod openmetrics;
pub mod protobuf;
pub mod text;

use std::ops::Range;

use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME, write_quoted};
use narthex_storage::sample::MetricKind;

/// Longest part of a page that a message quotes, in bytes.
const QUOTE_LIMIT_BYTES: usize = 500;

/// One entry of a page.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    /// The page ends here.
    End,
    /// A comment without meaning.
    Comment,
    /// The type of a family.
    Type(&'a [u8], MetricKind),
    /// The help of a family, escaped.
    Help(&'a [u8], &'a [u8]),
    /// The unit of a family.
    Unit(&'a [u8], &'a [u8]),
    /// A sample; its labels are in the [`RawLabels`] that were passed.
    Sample(RawSample),
}

/// A sample as it stands on the page.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSample {
    /// Name and labels, the text that identifies the series to the cache.
    pub series: Range<usize>,
    /// The value; a NaN is Prometheus' quiet NaN.
    pub value: f64,
    /// The exposed timestamp in milliseconds.
    pub timestamp_ms: Option<i64>,
}

/// Where name and labels of a sample stand on the page, quotes left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawLabels {
    /// The metric name; `None` until it was seen.
    pub name: Option<Range<usize>>,
    /// Names and values in the page's order.
    pub pairs: Vec<(Range<usize>, Range<usize>)>,
    /// The sample's exemplar.
    pub exemplar: Option<RawExemplar>,
}

/// An exemplar as it stands on the page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawExemplar {
    /// Names and values in the page's order.
    pub pairs: Vec<(Range<usize>, Range<usize>)>,
    /// The observed value.
    pub value: f64,
    /// The exposed timestamp in milliseconds.
    pub timestamp_ms: Option<i64>,
}

impl RawExemplar {
    /// The labels, not unescaped: as Prometheus keeps them.
    #[must_use]
    pub fn labels(&self, page: &[u8]) -> Labels {
        let text = |range: &Range<usize>| String::from_utf8_lossy(&page[range.clone()]);
        Labels::from_pairs(self.pairs.iter().map(|(n, v)| (text(n), text(v))))
    }
}

impl RawLabels {
    /// Forgets everything but the allocation.
    pub fn clear(&mut self) {
        self.name = None;
        self.pairs.clear();
        self.exemplar = None;
    }

    /// Whether the metric name, as it stands on the page, ends so.
    #[must_use]
    pub fn name_ends_with(&self, page: &[u8], suffix: &[u8]) -> bool {
        self.name.as_ref().is_some_and(|name| page[name.clone()].ends_with(suffix))
    }

    /// Names that are exposed with an empty value.
    #[must_use]
    pub fn empty_names(&self, page: &[u8]) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(name, _)| String::from_utf8_lossy(&page[name.clone()]).into_owned())
            .collect()
    }

    /// Writes the labels to `out`, unescaped. Bounds of histograms and
    /// quantiles of summaries (`kind` is that of the last `TYPE`) are
    /// normalised as in OpenMetrics, as Prometheus 3 does.
    ///
    /// # Errors
    ///
    /// A message if a name occurs twice or is not UTF-8.
    pub fn resolve(
        &self,
        page: &[u8],
        kind: MetricKind,
        out: &mut LabelsBuilder,
    ) -> Result<(), String> {
        let text = |range: &Range<usize>| {
            std::str::from_utf8(&page[range.clone()])
                .map(unescape)
                .map_err(|_| format!("invalid UTF-8: {}", quoted(&page[range.clone()])))
        };
        if let Some(name) = &self.name {
            out.set(METRIC_NAME, &text(name)?);
        }
        for (name, value) in &self.pairs {
            let (name, value) = (text(name)?, text(value)?);
            if !out.get(&name).is_empty() {
                return Err(format!("label name \"{name}\" is not unique: invalid sample"));
            }
            let is_bound = kind == MetricKind::Histogram && name == "le"
                || kind == MetricKind::Summary && name == "quantile";
            match float::parse_float(value.as_bytes()).filter(|_| is_bound) {
                Some(bound) => out.set(&name, &float::open_metrics_float(bound)),
                None => out.set(&name, &value),
            };
        }
        Ok(())
    }
}

/// Why a page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line})")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// As Prometheus words it.
    pub message: String,
}

impl ParseError {
    /// An error at a byte of a page.
    #[must_use]
    pub fn at(page: &[u8], offset: usize, message: impl Into<String>) -> Self {
        let before = &page[..offset.min(page.len())];
        Self { line: memchr::memchr_iter(b'\n', before).count() + 1, message: message.into() }
    }
}

/// `\\`, `\"` and `\n` of label values; other backslashes stay.
#[must_use]
pub fn unescape(text: &str) -> std::borrow::Cow<'_, str> {
    replace(text, |c| match c {
        '\\' | '"' => Some(c),
        'n' => Some('\n'),
        _ => None,
    })
}

/// `\\` and `\n` of help texts; other backslashes stay.
#[must_use]
pub fn unescape_help(text: &str) -> std::borrow::Cow<'_, str> {
    replace(text, |c| match c {
        '\\' => Some(c),
        'n' => Some('\n'),
        _ => None,
    })
}

fn replace(text: &str, meaning: impl Fn(char) -> Option<char>) -> std::borrow::Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let replaced = if c == '\\' { chars.clone().next().and_then(&meaning) } else { None };
        if replaced.is_some() {
            chars.next();
        }
        out.push(replaced.unwrap_or(c));
    }
    out.into()
}

/// Bytes as Go's `%q` shows them, long ones cut.
fn quoted(bytes: &[u8]) -> String {
    let (bytes, more) = match bytes.get(..QUOTE_LIMIT_BYTES) {
        Some(start) if bytes.len() > QUOTE_LIMIT_BYTES => (start, "..."),
        _ => (bytes, ""),
    };
    let mut out = String::with_capacity(bytes.len() + 8);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        let mut part = String::new();
        if write_quoted(&mut part, chunk.valid()).is_ok() {
            out.push_str(part.get(1..part.len() - 1).unwrap_or_default());
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push_str(more);
    out.push('"');
    out
}

/// The end of a string that begins with a quote at `start`: the byte after
/// the closing quote, or `None` and how far the search came.
fn string_end(page: &[u8], start: usize, across_lines: bool) -> Result<usize, usize> {
    let mut at = start + 1;
    loop {
        match page.get(at) {
            None => return Err(page.len()),
            Some(b'"') => return Ok(at + 1),
            Some(b'\n') if !across_lines => return Err(at),
            // A backslash takes the next character with it, but no line end.
            Some(b'\\') => match page.get(at + 1) {
                None => return Err(page.len()),
                Some(b'\n') => return Err(at + 1),
                Some(_) => at += 2,
            },
            Some(_) => at += 1,
        }
    }
}

fn run(page: &[u8], start: usize, belongs: impl Fn(u8) -> bool) -> usize {
    page[start..].iter().position(|b| !belongs(*b)).map_or(page.len(), |n| start + n)
}

const fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || matches!(b, b'_' | b':')
}

const fn is_name(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit()
}

const fn is_label_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

const fn is_label(b: u8) -> bool {
    is_label_start(b) || b.is_ascii_digit()
}

/// What the lexers find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Invalid,
    Eof,
    EofWord,
    Linebreak,
    Whitespace,
    Help,
    Type,
    Unit,
    Text,
    Comment,
    MetricName,
    QuotedString,
    BraceOpen,
    BraceClose,
    LabelName,
    LabelValue,
    Comma,
    Equal,
    Timestamp,
    Value,
}

impl Token {
    const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Eof => "EOF",
            Self::EofWord => "EOFWORD",
            Self::Linebreak => "LINEBREAK",
            Self::Whitespace => "WHITESPACE",
            Self::Help => "HELP",
            Self::Type => "TYPE",
            Self::Unit => "UNIT",
            Self::Text => "TEXT",
            Self::Comment => "COMMENT",
            Self::MetricName => "MNAME",
            Self::QuotedString => "QSTRING",
            Self::BraceOpen => "BOPEN",
            Self::BraceClose => "BCLOSE",
            Self::LabelName => "LNAME",
            Self::LabelValue => "LVALUE",
            Self::Comma => "COMMA",
            Self::Equal => "EQUAL",
            Self::Timestamp => "TIMESTAMP",
            Self::Value => "VALUE",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Init,
    Comment,
    Meta1,
    Meta2,
    Labels,
    LabelValue,
    Value,
    Timestamp,
    Exemplar,
    ExemplarValue,
    ExemplarTimestamp,
}

/// Where a lexer stands.
struct Lexer<'a> {
    page: &'a [u8],
    /// Start of the last token.
    start: usize,
    /// End of the last token.
    at: usize,
    state: State,
}

impl<'a> Lexer<'a> {
    const fn new(page: &'a [u8], at: usize) -> Self {
        Self { page, start: at, at, state: State::Init }
    }

    fn token(&mut self, end: usize, state: State, token: Token) -> Token {
        (self.at, self.state) = (end, state);
        token
    }

    fn text(&self) -> &'a [u8] {
        &self.page[self.start..self.at]
    }

    fn error(&self, entry: usize, expected: &str, got: Token) -> String {
        let end = (self.at + 1).min(self.page.len());
        format!(
            "{expected}, got {} (\"{}\") while parsing: {}",
            quoted(&self.page[self.start..end]),
            got.name(),
            quoted(&self.page[entry..end])
        )
    }
}

/// The number of a sample; `while parsing` as Prometheus says.
fn value(lexer: &Lexer<'_>, text: &[u8], entry: usize) -> Result<f64, String> {
    float::parse_float(text).ok_or_else(|| {
        let parsed = quoted(&lexer.page[entry..lexer.at]);
        if text.iter().any(|b| matches!(b, b'p' | b'P' | b'_')) {
            return format!("unsupported character in float while parsing: {parsed}");
        }
        let finite = std::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok());
        let why = if finite.is_some_and(f64::is_infinite) {
            "value out of range"
        } else {
            "invalid syntax"
        };
        format!("strconv.ParseFloat: parsing {}: {why} while parsing: {parsed}", quoted(text))
    })
}
