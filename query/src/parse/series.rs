//! Series written down with their samples, as in test scripts and rule tests:
//! `metric{label="value"} 1 2+1x3 _ stale {{schema:1 sum:2 count:3 buckets:[1 2]}}`.

mod literal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use narthex_storage::histogram::Histogram;
use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME};
use narthex_storage::sample::stale_nan;

use super::{Fail, ParseError, ParseOptions, Parsed, Parser, number};
use crate::ast::Span;
use crate::lex::Kind;

use literal::HistogramLiteral;

/// Most positions that one description may have.
pub const MAX_POSITIONS: usize = 1_000_000;

/// A series and what stands at its positions, one interval apart.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesDescription {
    /// Its labels, the metric name included.
    pub labels: Labels,
    /// One value per position.
    pub values: Vec<SequenceValue>,
}

/// What stands at one position.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceValue {
    /// No sample.
    Omitted,
    /// A float; `stale` is the staleness marker.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// The histogram, as written.
        value: Arc<Histogram>,
        /// Whether its counter-reset hint was written.
        hint_written: bool,
    },
}

/// Reads the description of a series.
///
/// # Errors
///
/// [`ParseError`] with the place in `text`.
pub fn parse_series(text: &str) -> Result<SeriesDescription, ParseError> {
    let mut parser = Parser::new(text, ParseOptions::default())?;
    let (labels, end) = parser.told_all(Parser::metric)?;
    let values = parse_sequence(text, end)?;
    Ok(SeriesDescription { labels, values })
}

/// Reads labels alone: `metric{label="value"}`.
///
/// # Errors
///
/// [`ParseError`] with the place in `text`.
pub fn parse_metric(text: &str) -> Result<Labels, ParseError> {
    let mut parser = Parser::new(text, ParseOptions::default())?;
    parser.whole(|p| p.metric().map(|(labels, _)| labels))
}

impl Parser<'_> {
    /// Runs `what` without looking at what comes behind it.
    fn told_all<T>(&mut self, what: impl FnOnce(&mut Self) -> Parsed<T>) -> Result<T, ParseError> {
        self.or("", "", what).map_err(|fail| match fail {
            Fail::Told(error) => *error,
            Fail::Unexpected => ParseError::new("unexpected error", Span::default(), self.text),
        })
    }

    /// A label set and where it ends.
    fn metric(&mut self) -> Parsed<(Labels, usize)> {
        let mut labels = LabelsBuilder::new();
        let mut end = 0;
        let mut name = None;
        let first = self.peek()?;
        if first.kind.is_metric_name() {
            self.next()?;
            end = first.end;
            name = Some(first.text(self.text));
        }
        // What stands behind a name without braces are values, whose words are
        // not those of queries.
        let braces = self.text.get(end..).is_some_and(|rest| rest.trim_start().starts_with('{'))
            && !self.text.get(end..).is_some_and(|rest| rest.trim_start().starts_with("{{"));
        if braces {
            self.next()?;
            end = self.label_set(&mut labels)?;
        } else if name.is_none() {
            return Err(Fail::Unexpected);
        }
        if let Some(name) = name {
            labels.set(METRIC_NAME, name);
        }
        Ok((labels.build(), end))
    }

    /// Labels behind an opening brace that was read; gives the end.
    fn label_set(&mut self, labels: &mut LabelsBuilder) -> Parsed<usize> {
        loop {
            if let Some(close) = self.accept(Kind::RightBrace)? {
                return Ok(close.end);
            }
            self.or("label set", "identifier or \"}\"", |p| p.label(labels))?;
            let closed = self.or("label set", "\",\" or \"}\"", |p| {
                if p.accept(Kind::Comma)?.is_some() {
                    return Ok(None);
                }
                p.expect(Kind::RightBrace).map(Some)
            })?;
            if let Some(close) = closed {
                return Ok(close.end);
            }
        }
    }

    fn label(&mut self, labels: &mut LabelsBuilder) -> Parsed<()> {
        let token = self.peek()?;
        let name = match token.kind {
            Kind::Identifier => token.text(self.text).to_owned(),
            Kind::String => self.string_value(token)?,
            _ => return Err(Fail::Unexpected),
        };
        self.next()?;
        if self.peek_kind()? != Kind::Eql {
            if token.kind == Kind::String {
                labels.set(METRIC_NAME, &name);
                return Ok(());
            }
            return Err(self.unexpected("label set", "\"=\""));
        }
        self.next()?;
        let value = self.or("label set", "string", |p| p.expect(Kind::String))?;
        labels.set(&name, &self.string_value(value)?);
        Ok(())
    }
}

/// Reads the values from `start` on.
fn parse_sequence(text: &str, start: usize) -> Result<Vec<SequenceValue>, ParseError> {
    let mut values = Vec::new();
    let mut items = Items { text, pos: start };
    loop {
        let had_space = items.skip_spaces();
        if items.rest().is_empty() {
            return Ok(values);
        }
        if !had_space {
            return Err(items.error("unexpected text in series values, expected a blank"));
        }
        items.item(&mut values)?;
    }
}

/// The values of a series, read from left to right.
struct Items<'a> {
    text: &'a str,
    pos: usize,
}

type Read<T> = Result<T, ParseError>;

impl<'a> Items<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or("")
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        let span = Span { start: self.pos, end: self.text.len() };
        ParseError::new(message, span, self.text)
    }

    /// Whether there was any.
    fn skip_spaces(&mut self) -> bool {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start().len();
        self.pos += spaces;
        spaces > 0
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.pos += text.len();
        }
        found
    }

    fn item(&mut self, values: &mut Vec<SequenceValue>) -> Read<()> {
        if self.rest().starts_with("{{") {
            return self.histograms(values);
        }
        if self.accept("_") {
            let count = if self.accept("x") { self.count()? } else { 1 };
            return self.repeat(values, count, || SequenceValue::Omitted);
        }
        if self.accept("stale") {
            values.push(SequenceValue::Float(stale_nan()));
            return Ok(());
        }
        let mut value = self.signed_number()?;
        let step =
            if self.rest().starts_with(['+', '-']) { Some(self.signed_number()?) } else { None };
        if !self.accept("x") {
            if step.is_some() {
                return Err(self.error("unexpected text in series values, expected \"x\""));
            }
            values.push(SequenceValue::Float(value));
            return Ok(());
        }
        let count = self.count()?.saturating_add(1);
        let mut first = true;
        self.repeat(values, count, || {
            if !first {
                value += step.unwrap_or(0.0);
            }
            first = false;
            SequenceValue::Float(value)
        })
    }

    fn histograms(&mut self, values: &mut Vec<SequenceValue>) -> Read<()> {
        let HistogramLiteral { histogram, mut hint_written } = self.histogram()?;
        let sign = if self.accept("+") {
            1
        } else if self.accept("-") {
            -1
        } else {
            0
        };
        let step = if sign == 0 { None } else { Some(self.histogram()?) };
        if let Some(step) = &step {
            hint_written = step.hint_written;
        }
        let repeats = if self.accept("x") {
            self.count()?
        } else if step.is_some() {
            return Err(self.error("unexpected text in series values, expected \"x\""));
        } else {
            0
        };
        let mut value = Arc::new(histogram);
        let make = |value: &Arc<Histogram>| SequenceValue::Histogram {
            value: value.clone(),
            hint_written,
        };
        let Some(step) = step else {
            return self.repeat(values, repeats.saturating_add(1), || make(&value));
        };
        values.push(make(&value));
        for _ in 0..repeats {
            if values.len() >= MAX_POSITIONS {
                return Err(self.error(format!("more than {MAX_POSITIONS} positions")));
            }
            let (from, to) = (step.histogram.schema, value.schema);
            if to > from {
                let message =
                    format!("error combining histograms: cannot merge from schema {from} to {to}");
                return Err(self.error(message));
            }
            let mut next = Histogram::clone(&value);
            let combined =
                if sign > 0 { next.add(&step.histogram) } else { next.sub(&step.histogram) };
            combined.map_err(|e| self.error(e.to_string()))?;
            value = Arc::new(next);
            values.push(make(&value));
        }
        Ok(())
    }

    fn repeat(
        &self,
        values: &mut Vec<SequenceValue>,
        count: usize,
        make: impl FnMut() -> SequenceValue,
    ) -> Read<()> {
        if count > MAX_POSITIONS.saturating_sub(values.len()) {
            return Err(self.error(format!("more than {MAX_POSITIONS} positions")));
        }
        values.extend(std::iter::repeat_with(make).take(count));
        Ok(())
    }

    /// The number of repetitions behind `x`.
    fn count(&mut self) -> Read<usize> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let count = self.rest()[..digits]
            .parse()
            .map_err(|_| self.error("invalid repetition in series values"))?;
        self.pos += digits;
        Ok(count)
    }

    /// A decimal number, `Inf` or `NaN`, perhaps with a sign. Hexadecimal ones
    /// cannot be told from repetitions.
    fn signed_number(&mut self) -> Read<f64> {
        let negative = self.accept("-");
        if !negative {
            self.accept("+");
        }
        let bytes = self.rest().as_bytes();
        let word = bytes.iter().take_while(|b| b.is_ascii_alphabetic()).count().min(3);
        let mut end = word;
        if word == 0 {
            while let Some(b) = bytes.get(end) {
                let exponent_sign =
                    matches!(b, b'+' | b'-') && end > 0 && matches!(bytes[end - 1], b'e' | b'E');
                if !b.is_ascii_digit() && !matches!(b, b'.' | b'_' | b'e' | b'E') && !exponent_sign
                {
                    break;
                }
                end += 1;
            }
        }
        let text = &self.rest()[..end];
        if text.is_empty() {
            return Err(
                self.error("unexpected text in series values, expected number or \"stale\"")
            );
        }
        let value = number::number(text).map_err(|message| self.error(message))?;
        self.pos += end;
        Ok(if negative { -value } else { value })
    }
}

/// A number as it stands in a line of its own, perhaps with a sign.
#[must_use]
pub fn parse_number(text: &str) -> Option<f64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = number::number(digits).ok()?;
    Some(if negative { -value } else { value })
}
