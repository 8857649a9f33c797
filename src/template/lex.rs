//! Where does an action begin, and what is in it? Text to tokens, on nom.
//!
//! The tokens, their positions and the messages for what is no token are
//! those of Go's text/template/parse, as users know them from Prometheus.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_until, take_while, take_while1};
use nom::character::complete::{anychar, char, none_of, one_of};
use nom::combinator::{opt, recognize, verify};
use nom::multi::many0_count;
use nom::sequence::{pair, preceded, terminated};
use nom::{IResult, Parser};

use super::gofmt;

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as in Go's lexer")]
pub(super) enum Kind {
    Error,
    Eof,
    Text,
    LeftDelim,
    RightDelim,
    Space,
    Bool,
    Char,
    CharConstant,
    Number,
    Complex,
    String,
    RawString,
    Assign,
    Declare,
    Pipe,
    LeftParen,
    RightParen,
    Field,
    Variable,
    Identifier,
    Dot,
    Nil,
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

impl Kind {
    /// The kind of a word that has a meaning of its own.
    fn of_keyword(word: &str) -> Option<Self> {
        Some(match word {
            "block" => Self::Block,
            "break" => Self::Break,
            "continue" => Self::Continue,
            "define" => Self::Define,
            "else" => Self::Else,
            "end" => Self::End,
            "if" => Self::If,
            "nil" => Self::Nil,
            "range" => Self::Range,
            "template" => Self::Template,
            "with" => Self::With,
            _ => return None,
        })
    }

    fn is_keyword(self) -> bool {
        matches!(
            self,
            Self::Dot
                | Self::Nil
                | Self::Block
                | Self::Break
                | Self::Continue
                | Self::Define
                | Self::Else
                | Self::End
                | Self::If
                | Self::Range
                | Self::Template
                | Self::With
        )
    }
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// First byte.
    pub(super) pos: usize,
    /// Its text; of an error the message.
    pub(super) text: String,
    /// Line of its first byte, from 1.
    pub(super) line: usize,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Eof => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.text),
            kind if kind.is_keyword() => write!(f, "<{}>", self.text),
            _ if self.text.len() > 10 => {
                let head: String = self.text.chars().take(10).collect();
                write!(f, "{}...", gofmt::quote(&head))
            }
            _ => f.write_str(&gofmt::quote(&self.text)),
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphabetic() || c.is_numeric()
}

/// `}}`, or ` -}}` with the space before it.
fn right_delim(input: &str) -> IResult<&str, bool> {
    alt((
        preceded((verify(anychar, |&c| is_space(c)), tag("-}}")), nom::combinator::success(true)),
        preceded(tag("}}"), nom::combinator::success(false)),
    ))
    .parse(input)
}

/// `- ` after `{{`: the white space before is trimmed.
fn left_trim_marker(input: &str) -> IResult<&str, ()> {
    nom::combinator::value((), pair(char('-'), verify(anychar, |&c| is_space(c)))).parse(input)
}

fn number(input: &str) -> IResult<&str, &str> {
    let exponent = |marks: &'static str| {
        recognize(opt((one_of(marks), opt(one_of("+-")), take_while(is_digit))))
    };
    let fraction = |digit: fn(char) -> bool| recognize(opt((char('.'), take_while(digit))));
    let hex =
        recognize((tag("0"), one_of("xX"), take_while(is_hex), fraction(is_hex), exponent("pP")));
    let octal = recognize((tag("0"), one_of("oO"), take_while(is_digit), fraction(is_digit)));
    let binary = recognize((tag("0"), one_of("bB"), take_while(is_digit), fraction(is_digit)));
    let decimal = recognize((take_while(is_digit), fraction(is_digit), exponent("eE")));
    recognize((opt(one_of("+-")), alt((hex, octal, binary, decimal)), opt(char('i')))).parse(input)
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || c == '_'
}

fn is_hex(c: char) -> bool {
    c.is_ascii_hexdigit() || c == '_'
}

/// A quoted text on one line, its quotes included.
fn quoted(quote: char) -> impl FnMut(&str) -> IResult<&str, &str> {
    move |input| {
        let plain = verify(anychar, move |&c| c != quote && c != '\\' && c != '\n');
        let escaped = preceded(char('\\'), none_of("\n"));
        recognize((char(quote), many0_count(alt((plain, escaped))), char(quote))).parse(input)
    }
}

fn raw_quoted(input: &str) -> IResult<&str, &str> {
    recognize((char('`'), terminated(take_until("`"), char('`')))).parse(input)
}

fn comment(input: &str) -> IResult<&str, &str> {
    recognize((tag("/*"), terminated(take_until("*/"), tag("*/")))).parse(input)
}

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    /// Line of `counted`, and up to where lines were counted.
    line: usize,
    counted: usize,
    out: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.input[self.pos..]
    }

    fn line_at(&mut self, pos: usize) -> usize {
        if pos > self.counted {
            let skipped = &self.input.as_bytes()[self.counted..pos];
            self.line += memchr::memchr_iter(b'\n', skipped).count();
            self.counted = pos;
        }
        self.line
    }

    fn push(&mut self, kind: Kind, start: usize, text: impl Into<String>) {
        let line = self.line_at(start);
        self.out.push(Token { kind, pos: start, text: text.into(), line });
    }

    /// Emits the next `len` bytes as one token.
    fn emit(&mut self, kind: Kind, len: usize) {
        let start = self.pos;
        self.pos += len;
        self.push(kind, start, &self.input[start..self.pos]);
    }

    /// Emits an error and stops.
    fn fail(&mut self, start: usize, message: impl Into<String>) -> Option<()> {
        self.push(Kind::Error, start, message);
        None
    }

    fn skip_space(&mut self) {
        self.pos += self.rest().len() - self.rest().trim_start_matches(is_space).len();
    }

    fn run(&mut self) -> Option<()> {
        loop {
            let Some(at) = self.rest().find("{{") else {
                let len = self.rest().len();
                if len > 0 {
                    self.emit(Kind::Text, len);
                }
                self.push(Kind::Eof, self.pos, "EOF");
                return Some(());
            };
            let delim = self.pos + at;
            let trimmed = left_trim_marker(&self.input[delim + 2..]).is_ok();
            let text = &self.input[self.pos..delim];
            let text = if trimmed { text.trim_end_matches(is_space) } else { text };
            if !text.is_empty() {
                self.emit(Kind::Text, text.len());
            }
            self.pos = delim;
            let after = delim + 2 + if trimmed { 2 } else { 0 };
            if self.input[after..].starts_with("/*") {
                self.pos = after;
                self.skip_comment()?;
            } else {
                self.push(Kind::LeftDelim, delim, "{{");
                self.pos = after;
                self.action()?;
            }
        }
    }

    fn skip_comment(&mut self) -> Option<()> {
        let start = self.pos;
        let Ok((_, text)) = comment(self.rest()) else {
            return self.fail(start, "unclosed comment");
        };
        self.pos += text.len();
        let Ok((rest, trim)) = right_delim(self.rest()) else {
            return self.fail(start, "comment ends before closing delimiter");
        };
        self.pos = self.input.len() - rest.len();
        if trim {
            self.skip_space();
        }
        Some(())
    }

    /// The tokens between `{{` and `}}`, the latter included.
    fn action(&mut self) -> Option<()> {
        let mut parens = 0_usize;
        loop {
            let rest = self.rest();
            let start = self.pos;
            if let Ok((after, trim)) = right_delim(rest) {
                if parens > 0 {
                    return self.fail(start, "unclosed left paren");
                }
                let end = self.input.len() - after.len();
                self.push(Kind::RightDelim, end - 2, "}}");
                self.pos = end;
                if trim {
                    self.skip_space();
                }
                return Some(());
            }
            let Some(c) = rest.chars().next() else {
                return self.fail(start, "unclosed action");
            };
            match c {
                c if is_space(c) => self.space(),
                '=' => self.emit(Kind::Assign, 1),
                ':' if rest.starts_with(":=") => self.emit(Kind::Declare, 2),
                ':' => return self.fail(start, "expected :="),
                '|' => self.emit(Kind::Pipe, 1),
                '"' => match quoted('"')(rest) {
                    Ok((_, text)) => self.emit(Kind::String, text.len()),
                    Err(_) => return self.fail(start, "unterminated quoted string"),
                },
                '\'' => match quoted('\'')(rest) {
                    Ok((_, text)) => self.emit(Kind::CharConstant, text.len()),
                    Err(_) => return self.fail(start, "unterminated character constant"),
                },
                '`' => match raw_quoted(rest) {
                    Ok((_, text)) => self.emit(Kind::RawString, text.len()),
                    Err(_) => return self.fail(start, "unterminated raw quoted string"),
                },
                '$' => self.field_or_variable(Kind::Variable, Kind::Variable)?,
                // Go takes a point at the very end for a number.
                '.' if rest.len() > 1 && !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    self.field_or_variable(Kind::Field, Kind::Dot)?;
                }
                '.' | '+' | '-' | '0'..='9' => self.number()?,
                c if is_alphanumeric(c) => self.identifier()?,
                '(' => {
                    parens += 1;
                    self.emit(Kind::LeftParen, 1);
                }
                ')' if parens == 0 => return self.fail(start, "unexpected right paren"),
                ')' => {
                    parens -= 1;
                    self.emit(Kind::RightParen, 1);
                }
                c if c.is_ascii_graphic() => self.emit(Kind::Char, 1),
                c => {
                    let shown = gofmt::unicode(c);
                    return self.fail(start, format!("unrecognized character in action: {shown}"));
                }
            }
        }
    }

    /// A run of white space; the last one before `-}}` belongs to that.
    fn space(&mut self) {
        let rest = self.rest();
        let len = rest.len() - rest.trim_start_matches(is_space).len();
        let len = if rest[len..].starts_with("-}}") { len - 1 } else { len };
        self.emit(Kind::Space, len);
    }

    /// Whether a name may end here.
    fn at_terminator(&self) -> bool {
        self.rest()
            .chars()
            .next()
            .is_none_or(|c| is_space(c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '('))
            || self.rest().starts_with("}}")
    }

    fn bad_character(&mut self, start: usize) -> Option<()> {
        let shown = self.rest().chars().next().map_or_else(String::new, gofmt::unicode);
        self.fail(start, format!("bad character {shown}"))
    }

    fn field_or_variable(&mut self, kind: Kind, alone: Kind) -> Option<()> {
        let start = self.pos;
        self.pos += 1;
        if self.at_terminator() {
            self.push(alone, start, &self.input[start..self.pos]);
            return Some(());
        }
        let name: IResult<&str, &str> = take_while(is_alphanumeric)(self.rest());
        self.pos += name.map_or(0, |(_, name)| name.len());
        if !self.at_terminator() {
            return self.bad_character(start);
        }
        self.push(kind, start, &self.input[start..self.pos]);
        Some(())
    }

    fn identifier(&mut self) -> Option<()> {
        let start = self.pos;
        let word: IResult<&str, &str> = take_while1(is_alphanumeric)(self.rest());
        let word = word.map_or("", |(_, word)| word);
        self.pos += word.len();
        if !self.at_terminator() {
            return self.bad_character(start);
        }
        let kind = match word {
            "true" | "false" => Kind::Bool,
            _ => Kind::of_keyword(word).unwrap_or(Kind::Identifier),
        };
        self.push(kind, start, word);
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.pos;
        let len = number(self.rest()).map_or(0, |(_, text)| text.len());
        self.pos += len;
        let mut kind = Kind::Number;
        if self.rest().starts_with(['+', '-']) {
            let len = number(self.rest()).map_or(0, |(_, text)| text.len());
            self.pos += len;
            kind = Kind::Complex;
        }
        if self.rest().starts_with(is_alphanumeric) {
            self.pos += self.rest().chars().next().map_or(0, char::len_utf8);
            return self.bad_number(start);
        }
        if kind == Kind::Complex && !self.input[..self.pos].ends_with('i') {
            return self.bad_number(start);
        }
        self.push(kind, start, &self.input[start..self.pos]);
        Some(())
    }

    fn bad_number(&mut self, start: usize) -> Option<()> {
        let shown = gofmt::quote(&self.input[start..self.pos]);
        self.fail(start, format!("bad number syntax: {shown}"))
    }
}

/// All tokens of a template; the last is an error or the end.
pub(super) fn tokens(input: &str) -> Vec<Token> {
    let mut lexer = Lexer { input, pos: 0, line: 1, counted: 0, out: Vec::new() };
    lexer.run();
    lexer.out
}
