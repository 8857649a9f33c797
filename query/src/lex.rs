//! What are the words of a query? Text to tokens, one at a time.
//!
//! The lexer knows a little context, as Prometheus' does, because words mean
//! different things in different places: in braces there are no keywords, in
//! brackets there are durations. [`Lexer::next_token`] gives tokens until
//! [`Kind::Eof`] or the first [`LexError`].
//!
//! Runs of characters are cut off with nom; what may follow what in a number
//! is spelled out in `number`, as no grammar says it shorter.

mod literal;
mod token;

#[cfg(test)]
mod tests;

use nom::Parser as _;
use nom::bytes::complete::{take_till, take_while};

pub use literal::unquote;
pub use token::{Kind, Token};

use crate::quote::quoted_char;

/// Text that is no word, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexError {
    /// What is wrong, in Prometheus' words.
    pub message: String,
    /// Byte offset.
    pub start: usize,
}

/// Cuts a query into tokens.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    text: &'a str,
    /// The next character to look at.
    pos: usize,
    /// Where the current token began.
    start: usize,
    /// Length of the character last read.
    width: usize,
    /// Open parentheses.
    paren_depth: usize,
    brace_open: bool,
    bracket_open: bool,
    got_colon: bool,
    got_duration: bool,
    /// Directly behind `[`, before its first number.
    in_duration: bool,
}

type Lexed = Result<Option<Kind>, LexError>;

impl<'a> Lexer<'a> {
    /// A lexer at the start of `text`.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self {
            text,
            pos: 0,
            start: 0,
            width: 0,
            paren_depth: 0,
            brace_open: false,
            bracket_open: false,
            got_colon: false,
            got_duration: false,
            in_duration: false,
        }
    }

    /// The next token; comments and blanks are skipped. At the end of the text
    /// [`Kind::Eof`], however often it is called.
    ///
    /// # Errors
    ///
    /// [`LexError`] for what cannot be a token.
    pub fn next_token(&mut self) -> Result<Token, LexError> {
        loop {
            let lexed = if self.brace_open {
                self.inside_braces()?
            } else if self.in_duration {
                self.inside_duration()?
            } else {
                self.statement()?
            };
            if let Some(kind) = lexed {
                let token = Token { kind, start: self.start, end: self.pos };
                self.start = self.pos;
                return Ok(token);
            }
            self.start = self.pos;
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or("")
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next();
        self.width = c.map_or(0, char::len_utf8);
        self.pos += self.width;
        c
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes back the last `next`.
    fn backup(&mut self) {
        self.pos -= self.width;
        self.width = 0;
    }

    fn accept(&mut self, valid: &str) -> bool {
        let found = self.peek().is_some_and(|c| valid.contains(c));
        if found {
            self.next();
        }
        found
    }

    fn is(&self, valid: &str) -> bool {
        self.peek().is_some_and(|c| valid.contains(c))
    }

    /// Moves over all characters that satisfy `belongs`.
    fn skip_while(&mut self, belongs: impl Fn(char) -> bool) {
        let run = take_while::<_, _, nom::error::Error<&str>>(belongs).parse(self.rest());
        if let Ok((_, taken)) = run {
            self.pos += taken.len();
        }
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, LexError> {
        Err(LexError { message: message.into(), start: self.start })
    }

    /// An error behind a token that is complete but must not stand here.
    fn error_behind<T>(&mut self, message: impl Into<String>) -> Result<T, LexError> {
        self.start = self.pos;
        self.error(message)
    }

    fn comment(&mut self) {
        let line = take_till::<_, _, nom::error::Error<&str>>(|c| c == '\n' || c == '\r');
        let mut line = line;
        if let Ok((_, taken)) = line.parse(self.rest()) {
            self.pos += taken.len();
        }
    }

    /// If the next character is `expected`, takes it and gives `then`.
    fn either(&mut self, expected: char, then: Kind, otherwise: Kind) -> Kind {
        if self.peek() == Some(expected) {
            self.next();
            then
        } else {
            otherwise
        }
    }

    fn statement(&mut self) -> Lexed {
        let Some(c) = self.next() else {
            return if self.paren_depth != 0 {
                self.error("unclosed left parenthesis")
            } else if self.bracket_open {
                self.error("unclosed left bracket")
            } else {
                Ok(Some(Kind::Eof))
            };
        };
        let kind = match c {
            '#' => {
                self.comment();
                return Ok(None);
            }
            ',' => Kind::Comma,
            c if is_space(c) => {
                self.skip_while(is_space);
                return Ok(None);
            }
            '*' => Kind::Mul,
            '/' => Kind::Div,
            '%' => Kind::Mod,
            '+' => Kind::Add,
            '-' => Kind::Sub,
            '^' => Kind::Pow,
            '=' if self.peek() == Some('~') => {
                return self.error("unexpected character after '=': '~'");
            }
            '=' => self.either('=', Kind::EqlC, Kind::Eql),
            '!' => match self.next() {
                Some('=') => Kind::Neq,
                other => {
                    let other = quoted_char(other);
                    return self.error(format!("unexpected character after '!': {other}"));
                }
            },
            '<' if self.peek() == Some('/') => self.either('/', Kind::TrimUpper, Kind::Lss),
            '<' => self.either('=', Kind::Lte, Kind::Lss),
            '>' if self.peek() == Some('/') => self.either('/', Kind::TrimLower, Kind::Gtr),
            '>' => self.either('=', Kind::Gte, Kind::Gtr),
            c if self.starts_number(c) => return self.number_or_duration().map(Some),
            '"' | '\'' => return self.string(c).map(Some),
            '`' => return self.raw_string().map(Some),
            c if is_alpha(c) || c == ':' => {
                if !self.bracket_open {
                    return Ok(Some(self.keyword_or_identifier()));
                }
                return self.word_in_brackets(c).map(Some);
            }
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => return self.right_paren().map(Some),
            '{' => {
                self.brace_open = true;
                Kind::LeftBrace
            }
            '[' if self.bracket_open => return self.error("unexpected left bracket '['"),
            '[' => {
                self.got_colon = false;
                self.bracket_open = true;
                self.in_duration = true;
                Kind::LeftBracket
            }
            ']' if !self.bracket_open => return self.error("unexpected right bracket ']'"),
            ']' => {
                self.bracket_open = false;
                Kind::RightBracket
            }
            '@' => Kind::At,
            c => {
                let c = quoted_char(Some(c));
                return self.error(format!("unexpected character: {c}"));
            }
        };
        Ok(Some(kind))
    }

    fn right_paren(&mut self) -> Result<Kind, LexError> {
        let Some(depth) = self.paren_depth.checked_sub(1) else {
            return self.error_behind("unexpected right parenthesis ')'");
        };
        self.paren_depth = depth;
        Ok(Kind::RightParen)
    }

    /// A word or colon within brackets, behind the first number.
    fn word_in_brackets(&mut self, c: char) -> Result<Kind, LexError> {
        if c == ':' {
            if self.got_colon {
                return self.error("unexpected colon ':'");
            }
            self.got_colon = true;
            return Ok(Kind::Colon);
        }
        match self.duration_keyword(c) {
            Some(kind) => Ok(kind),
            None => {
                let c = quoted_char(Some(c));
                self.error(format!("unexpected character: {c}, expected ':'"))
            }
        }
    }

    /// `step`, `range`, `max_of` or `min_of`, whose first letter was read.
    fn duration_keyword(&mut self, first: char) -> Option<Kind> {
        if !matches!(first.to_ascii_lowercase(), 's' | 'r' | 'm') {
            return None;
        }
        self.skip_while(is_alpha);
        match self.text[self.start..self.pos].to_ascii_lowercase().as_str() {
            "step" => Some(Kind::Step),
            "range" => Some(Kind::Range),
            "max_of" => Some(Kind::MaxOf),
            "min_of" => Some(Kind::MinOf),
            _ => None,
        }
    }

    /// Behind `[`, up to the first number.
    fn inside_duration(&mut self) -> Lexed {
        let Some(c) = self.next() else {
            return self.error("unexpected end of input in duration expression");
        };
        let kind = match c {
            ']' => {
                self.bracket_open = false;
                self.got_colon = false;
                self.in_duration = false;
                Kind::RightBracket
            }
            ':' if !self.got_duration => {
                return self
                    .error_behind("unexpected colon before duration in duration expression");
            }
            ':' if self.got_colon => {
                return self.error_behind("unexpected repeated colon in duration expression");
            }
            ':' => {
                self.got_colon = true;
                Kind::Colon
            }
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => return self.right_paren().map(Some),
            c if is_space(c) => {
                self.skip_while(is_space);
                return Ok(None);
            }
            '+' => Kind::Add,
            '-' => Kind::Sub,
            '*' => Kind::Mul,
            '/' => Kind::Div,
            '%' => Kind::Mod,
            '^' => Kind::Pow,
            ',' => Kind::Comma,
            c if self.starts_number(c) => {
                self.got_duration = true;
                self.in_duration = false;
                return self.number_or_duration().map(Some);
            }
            c => match self.duration_keyword(c) {
                Some(kind) => kind,
                None => {
                    let c = quoted_char(Some(c));
                    return self.error(format!("unexpected character in duration expression: {c}"));
                }
            },
        };
        Ok(Some(kind))
    }

    fn inside_braces(&mut self) -> Lexed {
        let Some(c) = self.next() else {
            return self.error("unexpected end of input inside braces");
        };
        let kind = match c {
            '#' => {
                self.comment();
                return Ok(None);
            }
            c if is_space(c) => {
                self.skip_while(is_space);
                return Ok(None);
            }
            c if is_alpha(c) => {
                self.skip_while(is_alphanumeric);
                Kind::Identifier
            }
            ',' => Kind::Comma,
            '"' | '\'' => return self.string(c).map(Some),
            '`' => return self.raw_string().map(Some),
            '=' => self.either('~', Kind::EqlRegex, Kind::Eql),
            '!' => match self.next() {
                Some('~') => Kind::NeqRegex,
                Some('=') => Kind::Neq,
                other => {
                    let other = quoted_char(other);
                    return self
                        .error(format!("unexpected character after '!' inside braces: {other}"));
                }
            },
            '{' => return self.error("unexpected left brace '{'"),
            '}' => {
                self.brace_open = false;
                Kind::RightBrace
            }
            c => {
                let c = quoted_char(Some(c));
                return self.error(format!("unexpected character inside braces: {c}"));
            }
        };
        Ok(Some(kind))
    }

    fn keyword_or_identifier(&mut self) -> Kind {
        self.skip_while(|c| is_alphanumeric(c) || c == ':');
        let word = &self.text[self.start..self.pos];
        match Kind::keyword(word) {
            // Words only in front of a parenthesis, so that metrics of that
            // name keep working.
            Some(Kind::Fill | Kind::FillLeft | Kind::FillRight)
                if !self.rest().trim_start_matches(is_space).starts_with('(') =>
            {
                Kind::Identifier
            }
            Some(keyword) => keyword,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}
