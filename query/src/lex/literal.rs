//! Numbers, durations and strings: where they end and what they say.

use super::{Kind, LexError, Lexer, is_alphanumeric};
use crate::quote::{code_point, quoted};

const DIGITS: &str = "0123456789";
const HEX_DIGITS: &str = "0123456789abcdefABCDEF";

impl Lexer<'_> {
    pub(super) fn starts_number(&self, c: char) -> bool {
        c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit()))
    }

    /// A number or duration whose first character was read.
    pub(super) fn number_or_duration(&mut self) -> Result<Kind, LexError> {
        self.backup();
        if self.number() {
            return Ok(Kind::Number);
        }
        if self.remaining_duration() {
            return Ok(Kind::Duration);
        }
        let seen = quoted(&self.text[self.start..self.pos]);
        self.error(format!("bad number or duration syntax: {seen}"))
    }

    /// Moves over the longest thing that looks like a number; whether it is
    /// one. What it is worth is found out by the parser.
    fn number(&mut self) -> bool {
        let first = self.pos;
        let mut digits = DIGITS;
        if self.accept("0") && self.accept("xX") {
            self.accept("_");
            digits = HEX_DIGITS;
        }
        self.accept(".");
        self.accept(digits);
        let (mut dots, mut exponents) = (0, 0);
        while self.is(digits) || self.is("._eE") {
            if (self.is(".") && dots > 0) || (self.is("eE") && exponents > 0) {
                self.next();
                return false;
            }
            if self.accept(".") {
                dots += 1;
                // Hexadecimal numbers have no fraction.
                if self.accept("_.") || digits == HEX_DIGITS {
                    return false;
                }
            } else if self.accept("eE") {
                exponents += 1;
                self.accept("+-");
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if self.accept("_") {
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                self.skip_while(|c| digits.contains(c));
            }
        }
        self.pos != first && !self.peek().is_some_and(is_alphanumeric)
    }

    /// The rest of a duration, behind its first digits.
    fn remaining_duration(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept(DIGITS) {
            self.skip_while(|c| c.is_ascii_digit());
            // Years only come first.
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        match self.next() {
            Some(c) if is_alphanumeric(c) => false,
            _ => {
                self.backup();
                true
            }
        }
    }

    /// A string whose opening quote was read.
    pub(super) fn string(&mut self, quote: char) -> Result<Kind, LexError> {
        loop {
            match self.next() {
                Some('\\') => self.escape(quote)?,
                Some('\u{fffd}') => return self.error("invalid UTF-8 rune"),
                None | Some('\n') => return self.error("unterminated quoted string"),
                Some(c) if c == quote => return Ok(Kind::String),
                Some(_) => {}
            }
        }
    }

    pub(super) fn raw_string(&mut self) -> Result<Kind, LexError> {
        loop {
            match self.next() {
                Some('`') => return Ok(Kind::String),
                Some('\u{fffd}') => return self.error("invalid UTF-8 rune"),
                None => return self.error("unterminated raw string"),
                Some(_) => {}
            }
        }
    }

    /// An escape sequence, behind its backslash.
    fn escape(&mut self, quote: char) -> Result<(), LexError> {
        let mut c = self.next();
        let (digits, base, largest) = match c {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some('0'..='7') => (3, 8, 255),
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, u32::from(char::MAX)),
            Some('U') => (8, 16, u32::from(char::MAX)),
            None => return self.error("escape sequence not terminated"),
            Some(c) => return self.error(format!("unknown escape sequence {}", code_point(c))),
        };
        if base == 16 {
            c = self.next();
        }
        let mut value = 0_u32;
        for left in (0..digits).rev() {
            let Some(c_now) = c else { return self.error("escape sequence not terminated") };
            let Some(digit) = c_now.to_digit(16).filter(|d| *d < base) else {
                let c = code_point(c_now);
                return self.error(format!("illegal character {c} in escape sequence"));
            };
            value = value.wrapping_mul(base).wrapping_add(digit);
            if left > 0 {
                c = self.next();
            }
        }
        if value > largest || (0xd800..0xe000).contains(&value) {
            return self.error("escape sequence is an invalid Unicode code point");
        }
        Ok(())
    }
}

/// The text that a string literal stands for; `None` if it is none. Bytes that
/// are not UTF-8 become replacement characters.
#[must_use]
pub fn unquote(literal: &str) -> Option<String> {
    let quote = literal.chars().next()?;
    let inner = literal.strip_prefix(quote)?.strip_suffix(quote)?;
    match quote {
        '`' if !inner.contains('`') => return Some(inner.to_owned()),
        '"' | '\'' if !inner.contains('\n') => {}
        _ => return None,
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut buffer = [0; 4];
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c == quote => return None,
            '\\' => match unescape(&mut rest, quote)? {
                Unescaped::Byte(b) => bytes.push(b),
                Unescaped::Char(c) => {
                    bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                }
            },
            c => bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
        }
    }
    Some(String::from_utf8(bytes).unwrap_or_else(|e| {
        // No label holds such bytes, so that what stands for them hardly
        // matters; Prometheus takes them.
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    }))
}

enum Unescaped {
    /// Of `\x` and octal escapes; several of them may make one character.
    Byte(u8),
    Char(char),
}

/// One escape sequence, behind its backslash.
fn unescape(rest: &mut std::str::Chars<'_>, quote: char) -> Option<Unescaped> {
    let byte = match rest.next()? {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        c if c == quote => u8::try_from(c).ok()?,
        c @ '0'..='7' => {
            let high = c.to_digit(8)?;
            u8::try_from((high << 6) | digits(rest, 2, 8)?).ok()?
        }
        'x' => u8::try_from(digits(rest, 2, 16)?).ok()?,
        'u' => return char::from_u32(digits(rest, 4, 16)?).map(Unescaped::Char),
        'U' => return char::from_u32(digits(rest, 8, 16)?).map(Unescaped::Char),
        _ => return None,
    };
    Some(Unescaped::Byte(byte))
}

fn digits(rest: &mut std::str::Chars<'_>, count: usize, base: u32) -> Option<u32> {
    let mut value = 0_u32;
    for _ in 0..count {
        value = value.checked_mul(base)?.checked_add(rest.next()?.to_digit(base)?)?;
    }
    Some(value)
}
