//! What does a query mean? Text to a typed syntax tree.
//!
//! A hand-written descent over the tokens of `lex` that follows Prometheus'
//! grammar, its precedences, and its way of naming errors: the innermost
//! construct that could say what it expected says so. Only the first error is
//! reported, as Prometheus shows only the first.
//!
//! Limits: texts of [`MAX_LENGTH_BYTES`], brackets nested
//! [`MAX_NESTING`] deep, trees [`MAX_DEPTH`] high. The last also bounds
//! whoever walks the tree recursively.

mod duration;
mod error;
mod expr;
mod number;
mod selector;
pub mod series;

#[cfg(test)]
mod tests;

use narthex_storage::labels::Matcher;

use error::Fail;
pub use error::ParseError;

use crate::ast::{Expr, Span};
use crate::check;
use crate::lex::{Kind, Lexer, Token};

/// Longest text that is read, in bytes.
pub const MAX_LENGTH_BYTES: usize = 4 << 20;

/// Deepest nesting of parentheses, calls and unary operators.
pub const MAX_NESTING: usize = 200;

/// Highest syntax tree: `a + b + c` has three levels.
pub const MAX_DEPTH: usize = 500;

/// Which experimental parts of the language are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParseOptions {
    /// `promql-experimental-functions`: functions and aggregations.
    pub experimental_functions: bool,
    /// `promql-duration-expr`: arithmetic in ranges and offsets.
    pub duration_expressions: bool,
    /// `promql-extended-range-selectors`: `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`: `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
}

impl ParseOptions {
    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
        }
    }
}

/// Reads a query and checks its types.
///
/// # Errors
///
/// [`ParseError`], the first one found, in Prometheus' words.
pub fn parse(text: &str, options: &ParseOptions) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, *options)?;
    let mut expr = parser.whole(Parser::query)?;
    check::check(&mut expr, text)?;
    Ok(expr)
}

/// Reads a series selector as in `match[]`: no modifiers, no range. The empty
/// selector is not refused here.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text, ParseOptions::default())?;
    let (selector, _) = parser.whole(|p| p.vector_selector())?;
    Ok(selector.matchers)
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    options: ParseOptions,
    lookahead: Option<Token>,
    /// End of the newest token that may end an expression.
    last_closing: usize,
    nesting: usize,
}

type Parsed<T> = Result<T, Fail>;

impl<'a> Parser<'a> {
    fn new(text: &'a str, options: ParseOptions) -> Result<Self, ParseError> {
        if text.len() > MAX_LENGTH_BYTES {
            let message = format!(
                "query is longer than {MAX_LENGTH_BYTES} bytes: it has {} bytes",
                text.len()
            );
            return Err(ParseError::new(message, Span::default(), text));
        }
        let lexer = Lexer::new(text);
        Ok(Self { text, lexer, options, lookahead: None, last_closing: 0, nesting: 0 })
    }

    /// Reads the whole text; what nobody expected is named here.
    fn whole<T>(&mut self, what: impl FnOnce(&mut Self) -> Parsed<T>) -> Result<T, ParseError> {
        let result = self.or("", "", |p| {
            let found = what(p)?;
            p.expect(Kind::Eof)?;
            Ok(found)
        });
        result.map_err(|fail| match fail {
            Fail::Told(error) => *error,
            Fail::Unexpected => ParseError::new("unexpected error", Span::default(), self.text),
        })
    }

    /// The next token, which stays the next.
    fn peek(&mut self) -> Parsed<Token> {
        if let Some(token) = self.lookahead {
            return Ok(token);
        }
        let token = self.lexer.next_token().map_err(|e| {
            let span = Span { start: e.start, end: self.text.len() };
            self.told(e.message, span)
        })?;
        if matches!(
            token.kind,
            Kind::RightBrace
                | Kind::RightParen
                | Kind::RightBracket
                | Kind::Duration
                | Kind::Number
        ) {
            self.last_closing = token.end;
        }
        self.lookahead = Some(token);
        Ok(token)
    }

    fn peek_kind(&mut self) -> Parsed<Kind> {
        Ok(self.peek()?.kind)
    }

    /// The next token, taken.
    fn next(&mut self) -> Parsed<Token> {
        let token = self.peek()?;
        self.lookahead = None;
        Ok(token)
    }

    /// Takes the next token if it is of that kind.
    fn accept(&mut self, kind: Kind) -> Parsed<Option<Token>> {
        if self.peek_kind()? == kind { self.next().map(Some) } else { Ok(None) }
    }

    fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        self.accept(kind)?.ok_or(Fail::Unexpected)
    }

    /// Runs `what`; a token that it did not expect is reported as unexpected
    /// in `context`, where `expected` should stand.
    fn or<T>(
        &mut self,
        context: &str,
        expected: &str,
        what: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        match what(self) {
            Err(Fail::Unexpected) => Err(self.unexpected(context, expected)),
            other => other,
        }
    }

    fn unexpected(&mut self, context: &str, expected: &str) -> Fail {
        let token = match self.peek() {
            Ok(token) => token,
            Err(fail) => return fail,
        };
        let mut message = format!("unexpected {}", token.describe(self.text));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.told(message, span_of(token))
    }

    /// An error that says all there is to say.
    fn told(&self, message: impl Into<String>, span: Span) -> Fail {
        Fail::Told(Box::new(ParseError::new(message, span, self.text)))
    }

    /// Runs `what` one level deeper.
    fn nested<T>(&mut self, what: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            let message = format!("query is nested more than {MAX_NESTING} levels deep");
            let span = self.peek().map(span_of)?;
            return Err(self.told(message, span));
        }
        self.nesting += 1;
        let result = what(self);
        self.nesting -= 1;
        result
    }
}

const fn span_of(token: Token) -> Span {
    Span { start: token.start, end: token.end }
}

const fn merge(first: Span, last: Span) -> Span {
    Span { start: first.start, end: last.end }
}
