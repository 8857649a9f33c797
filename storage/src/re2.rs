//! What does a regular expression mean? What RE2 says, as in Prometheus: our
//! engine's syntax differs in corners, so expressions are translated.
//!
//! The differences: `\d`, `\w`, `\s` and `\b` are ASCII in RE2; `{` that begins
//! no repetition is itself; `[` and doubled signs have no meaning in a class;
//! `\<` and octal escapes are characters; `\Q...\E` quotes; repetitions do not
//! stack and end at 1,000. What RE2 refuses is refused in Go's words.

mod class;

use std::iter::Peekable;
use std::str::CharIndices;

/// Largest count in a repetition.
const MAX_REPEAT: u32 = 1000;

/// Why an expression is refused, as Go says it:
/// ``error parsing regexp: missing closing ): `(a` ``.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {what}: `{part}`")]
pub struct SyntaxError {
    what: &'static str,
    part: String,
}

/// Translates an expression of RE2 into one that the `regex` crate takes for
/// the same. Groups keep their numbers and names.
///
/// # Errors
///
/// [`SyntaxError`] for most of what RE2 refuses; the rest is refused when the
/// translation is compiled.
pub fn translate(expression: &str) -> Result<String, SyntaxError> {
    let mut translator = Translator {
        text: expression,
        rest: expression.char_indices().peekable(),
        out: String::with_capacity(expression.len() + 8),
    };
    translator.run()?;
    Ok(translator.out)
}

struct Translator<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    out: String,
}

/// What an escape sequence stands for.
enum Escape {
    Char(char),
    /// A class: its content, and whether it is negated.
    Class(&'static str, bool),
    /// `\p{...}`, as it is to be written.
    Property(String),
}

type Read<T> = Result<T, SyntaxError>;

impl<'a> Translator<'a> {
    fn fail<T>(what: &'static str, part: impl Into<String>) -> Read<T> {
        Err(SyntaxError { what, part: part.into() })
    }

    /// Where the next character is.
    fn pos(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(i, _)| *i)
    }

    fn since(&mut self, start: usize) -> &'a str {
        let end = self.pos();
        self.text.get(start..end).unwrap_or("")
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    fn accept(&mut self, c: char) -> bool {
        self.rest.next_if(|(_, next)| *next == c).is_some()
    }

    fn skip_to(&mut self, pos: usize) {
        while self.rest.next_if(|(i, _)| *i < pos).is_some() {}
    }

    fn run(&mut self) -> Read<()> {
        let mut depth = 0_usize;
        // Whether something stands before that can be repeated, and where the
        // repetition directly before began.
        let mut repeatable = false;
        let mut repeated: Option<usize> = None;
        while let Some((at, c)) = self.rest.next() {
            let mut repeats_now = None;
            match c {
                '\\' => repeatable = self.escape_outside(at)? || repeatable,
                '[' => {
                    self.class(at)?;
                    repeatable = true;
                }
                '(' => {
                    depth += usize::from(self.group(at)?);
                    repeatable = false;
                }
                ')' => {
                    let Some(outer) = depth.checked_sub(1) else {
                        return Self::fail("unexpected )", self.text);
                    };
                    depth = outer;
                    self.out.push(')');
                    repeatable = true;
                }
                '|' => {
                    self.out.push('|');
                    repeatable = false;
                }
                '*' | '+' | '?' => {
                    self.out.push(c);
                    repeats_now = Some(at);
                }
                '{' => match self.repetition(at)? {
                    Some(counts) => {
                        self.out.push_str(&counts);
                        repeats_now = Some(at);
                    }
                    None => {
                        self.out.push_str("\\{");
                        repeatable = true;
                    }
                },
                c => {
                    self.out.push(c);
                    repeatable = true;
                }
            }
            if repeats_now.is_some() {
                if self.accept('?') {
                    self.out.push('?');
                }
                if let Some(first) = repeated {
                    return Self::fail("invalid nested repetition operator", self.since(first));
                }
                if !repeatable {
                    return Self::fail("missing argument to repetition operator", self.since(at));
                }
            }
            repeated = repeats_now;
        }
        if depth > 0 { Self::fail("missing closing )", self.text) } else { Ok(()) }
    }

    /// The rest of an opening parenthesis; whether it has to be closed.
    fn group(&mut self, start: usize) -> Read<bool> {
        self.out.push('(');
        if !self.accept('?') {
            return Ok(true);
        }
        self.out.push('?');
        let named =
            self.text.get(start + 2..).is_some_and(|t| t.starts_with("P<") || t.starts_with('<'));
        let lookbehind =
            self.text.get(start + 2..).is_some_and(|t| t.starts_with("<=") || t.starts_with("<!"));
        if named && !lookbehind {
            let rest = self.text.get(start..).unwrap_or("");
            let Some(end) = rest.find('>').map(|i| start + i + 1) else {
                return Self::fail("invalid named capture", rest);
            };
            let whole = &self.text[start..end];
            let name = whole.trim_start_matches("(?").trim_start_matches('P');
            let name = &name[1..name.len() - 1];
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Self::fail("invalid named capture", whole);
            }
            self.out.push_str(&whole[2..]);
            self.skip_to(end);
            return Ok(true);
        }
        let mut flags = String::new();
        loop {
            let Some((_, c)) = self.rest.next() else {
                return Self::fail("missing closing )", self.text);
            };
            flags.push(c);
            match c {
                'i' | 'm' | 's' | 'U' => {}
                '-' if flags.matches('-').count() == 1 => {}
                ':' | ')' if !flags.ends_with("-:") && !flags.ends_with("-)") => {
                    // Without flags, `(?)` means nothing.
                    if flags == ")" {
                        self.out.push(':');
                    }
                    self.out.push_str(&flags);
                    return Ok(c == ':');
                }
                _ => {
                    return Self::fail("invalid or unsupported Perl syntax", self.since(start));
                }
            }
        }
    }

    /// The repetition that a `{` begins, if it does.
    fn repetition(&mut self, start: usize) -> Read<Option<String>> {
        let rest = self.text.get(start + 1..).unwrap_or("");
        let Some((counts, _)) = rest.split_once('}') else { return Ok(None) };
        // Numbers with leading zeros are none.
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            (digits && (text == "0" || !text.starts_with('0')))
                .then(|| text.parse().unwrap_or(u32::MAX))
        };
        let (least, most) = match counts.split_once(',') {
            None => (number(counts), number(counts)),
            Some((least, "")) => (number(least), number(least).map(|n| n.min(MAX_REPEAT))),
            Some((least, most)) => (number(least), number(most)),
        };
        let (Some(least), Some(most)) = (least, most) else { return Ok(None) };
        let end = start + counts.len() + 2;
        if least > MAX_REPEAT || most > MAX_REPEAT || least > most {
            return Self::fail("invalid repeat count", &self.text[start..end]);
        }
        self.skip_to(end);
        Ok(Some(self.text[start..end].to_owned()))
    }

    /// An escape outside of classes, behind its backslash; whether it can be
    /// repeated.
    fn escape_outside(&mut self, start: usize) -> Read<bool> {
        match self.peek() {
            Some('Q') => {
                self.rest.next();
                return Ok(self.quoted());
            }
            Some(c @ ('A' | 'z' | 'B')) => {
                self.rest.next();
                self.out.push('\\');
                self.out.push(c);
                return Ok(true);
            }
            Some('b') => {
                self.rest.next();
                self.out.push_str("(?-u:\\b)");
                return Ok(true);
            }
            _ => {}
        }
        match self.escape(start)? {
            Escape::Char(c) => push_char(&mut self.out, c),
            Escape::Class(content, negated) => {
                self.out.push_str(if negated { "[^" } else { "[" });
                self.out.push_str(content);
                self.out.push(']');
            }
            Escape::Property(property) => self.out.push_str(&property),
        }
        Ok(true)
    }

    /// Characters between `\Q` and `\E`; whether there was any.
    fn quoted(&mut self) -> bool {
        let mut any = false;
        while let Some((i, c)) = self.rest.next() {
            if self.text.get(i..).is_some_and(|rest| rest.starts_with("\\E")) {
                self.rest.next();
                return any;
            }
            push_char(&mut self.out, c);
            any = true;
        }
        any
    }

    /// An escape sequence that may stand anywhere, behind its backslash.
    fn escape(&mut self, start: usize) -> Read<Escape> {
        let Some((_, c)) = self.rest.next() else {
            return Self::fail("trailing backslash at end of expression", "");
        };
        Ok(match c {
            'd' | 'D' => Escape::Class("0-9", c == 'D'),
            's' | 'S' => Escape::Class("\\t\\n\\x0c\\r\\x20", c == 'S'),
            'w' | 'W' => Escape::Class("0-9A-Za-z_", c == 'W'),
            'p' | 'P' => return self.property(start, c == 'P').map(Escape::Property),
            'a' => Escape::Char('\u{7}'),
            'f' => Escape::Char('\u{c}'),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            't' => Escape::Char('\t'),
            'v' => Escape::Char('\u{b}'),
            'x' => return self.hexadecimal(start).map(Escape::Char),
            // A single digit but 0 would refer back, which RE2 cannot.
            '1'..='7' if !self.peek().is_some_and(|c| c.is_digit(8)) => {
                return Self::fail("invalid escape sequence", self.since(start));
            }
            '0'..='7' => {
                let mut number = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    if let Some((_, c)) = self.rest.next_if(|(_, c)| c.is_digit(8)) {
                        number = number * 8 + c.to_digit(8).unwrap_or(0);
                    }
                }
                Escape::Char(char::from_u32(number).unwrap_or('\0'))
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Escape::Char(c),
            _ => return Self::fail("invalid escape sequence", self.since(start)),
        })
    }

    fn hexadecimal(&mut self, start: usize) -> Read<char> {
        let mut digits = String::new();
        if self.accept('{') {
            while let Some((_, c)) = self.rest.next_if(|(_, c)| c.is_ascii_hexdigit()) {
                digits.push(c);
            }
            if !self.accept('}') {
                digits.clear();
            }
        } else {
            for _ in 0..2 {
                if let Some((_, c)) = self.rest.next_if(|(_, c)| c.is_ascii_hexdigit()) {
                    digits.push(c);
                }
            }
            if digits.len() != 2 {
                digits.clear();
            }
        }
        match u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => Self::fail("invalid escape sequence", self.since(start)),
        }
    }

    /// `\pN`, `\p{Greek}`, `\p{^Greek}`.
    fn property(&mut self, start: usize, negated: bool) -> Read<String> {
        let invalid = "invalid character class range";
        let name = if self.accept('{') {
            let rest = self.text.get(start..).unwrap_or("");
            let Some(end) = rest.find('}').map(|i| start + i + 1) else {
                return Self::fail(invalid, rest);
            };
            self.skip_to(end);
            &self.text[start + 3..end - 1]
        } else {
            let from = self.pos();
            self.rest.next();
            self.since(from)
        };
        let (name, negated) = match name.strip_prefix('^') {
            Some(name) => (name, !negated),
            None => (name, negated),
        };
        let known =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let property = format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' });
        if !known || regex_syntax::parse(&property).is_err() {
            return Self::fail(invalid, self.since(start));
        }
        Ok(property)
    }
}

/// A character as itself, wherever it stands.
fn push_char(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{:02x}", u32::from(c)));
    }
}

#[cfg(test)]
mod tests;
