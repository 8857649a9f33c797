//! Selectors: `metric{label="value", ...}`, with names in quotes where needed.

use narthex_storage::labels::{METRIC_NAME, MatchOp, Matcher};

use super::{Fail, Parsed, Parser, merge, span_of};
use crate::ast::{Extension, Span, VectorSelector};
use crate::lex::{Kind, Token, unquote};
use crate::quote::quoted;

const AFTER_MATCHER: &str = "\",\" or \"}\"";
const MATCHER: &str = "identifier or \"}\"";

impl Parser<'_> {
    /// A selector without modifiers.
    pub(super) fn vector_selector(&mut self) -> Parsed<(VectorSelector, Span)> {
        let token = self.peek()?;
        if token.kind == Kind::LeftBrace {
            let (matchers, span) = self.matchers()?;
            return Ok((selector(None, matchers), span));
        }
        if !token.kind.is_metric_name() {
            return Err(Fail::Unexpected);
        }
        self.next()?;
        self.named_selector(token)
    }

    /// What follows a metric name that was read.
    pub(super) fn named_selector(&mut self, name: Token) -> Parsed<(VectorSelector, Span)> {
        let mut span = span_of(name);
        let mut matchers = Vec::new();
        if self.peek_kind()? == Kind::LeftBrace {
            let braces;
            (matchers, braces) = self.matchers()?;
            span = merge(span, braces);
        }
        let name = name.text(self.text).to_owned();
        matchers.push(Matcher::equal(METRIC_NAME, name.as_str()));
        Ok((selector(Some(name), matchers), span))
    }

    fn matchers(&mut self) -> Parsed<(Vec<Matcher>, Span)> {
        let open = self.expect(Kind::LeftBrace)?;
        let mut matchers = Vec::new();
        loop {
            if let Some(close) = self.accept(Kind::RightBrace)? {
                return Ok((matchers, merge(span_of(open), span_of(close))));
            }
            matchers.push(self.or("label matching", MATCHER, Self::matcher)?);
            let closed = self.or("label matching", AFTER_MATCHER, |p| {
                if p.accept(Kind::Comma)?.is_some() {
                    return Ok(None);
                }
                p.expect(Kind::RightBrace).map(Some)
            })?;
            if let Some(close) = closed {
                return Ok((matchers, merge(span_of(open), span_of(close))));
            }
        }
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let name = self.peek()?;
        let quoted_name = match name.kind {
            Kind::Identifier => false,
            Kind::String => true,
            _ => return Err(Fail::Unexpected),
        };
        self.next()?;
        let label =
            if quoted_name { self.string_value(name)? } else { name.text(self.text).to_owned() };
        let op = match self.peek_kind()? {
            Kind::Eql => MatchOp::Equal,
            Kind::Neq => MatchOp::NotEqual,
            Kind::EqlRegex => MatchOp::Regex,
            Kind::NeqRegex => MatchOp::NotRegex,
            _ if quoted_name => return Ok(Matcher::equal(METRIC_NAME, label)),
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.next()?;
        let value = self.or("label matching", "string", |p| p.expect(Kind::String))?;
        let text = self.string_value(value)?;
        Matcher::new(op, label, text).map_err(|error| {
            let span = merge(span_of(name), span_of(value));
            self.told(error.to_string(), span)
        })
    }

    /// The text that a string token stands for.
    pub(super) fn string_value(&self, token: Token) -> Parsed<String> {
        let literal = token.text(self.text);
        unquote(literal).ok_or_else(|| {
            let literal = quoted(literal);
            self.told(format!("error unquoting string {literal}: invalid syntax"), span_of(token))
        })
    }
}

fn selector(name: Option<String>, matchers: Vec<Matcher>) -> VectorSelector {
    VectorSelector { name, matchers, offset: None, at: None, extension: Extension::None }
}
