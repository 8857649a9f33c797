//! How does Go write strings, characters and floats in messages? Prometheus'
//! texts are made with its `%q`, `%U`, `%f` and `strconv`.

use std::fmt::Write as _;

/// `text` in double quotes with Go's escapes (`%q`).
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        escape(&mut out, c, '"');
    }
    out.push('"');
    out
}

/// A character in single quotes with Go's escapes (`%q`); the end of the text
/// is written as the replacement character.
#[must_use]
pub fn quoted_char(c: Option<char>) -> String {
    let mut out = String::from("'");
    escape(&mut out, c.unwrap_or(char::REPLACEMENT_CHARACTER), '\'');
    out.push('\'');
    out
}

/// A character as `U+0041 'A'` (`%#U`).
#[must_use]
pub fn code_point(c: char) -> String {
    let number = u32::from(c);
    if is_printable(c) { format!("U+{number:04X} '{c}'") } else { format!("U+{number:04X}") }
}

fn escape(out: &mut String, c: char, quote: char) {
    match c {
        c if c == quote => {
            out.push('\\');
            out.push(c);
        }
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{b}' => out.push_str("\\v"),
        '\u{c}' => out.push_str("\\f"),
        c if is_printable(c) => out.push(c),
        c => {
            let number = u32::from(c);
            let _ = match number {
                0..0x80 => write!(out, "\\x{number:02x}"),
                0x80..0x1_0000 => write!(out, "\\u{number:04x}"),
                _ => write!(out, "\\U{number:08x}"),
            };
        }
    }
}

/// Letters, marks, numbers, punctuation, symbols, and the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library knows printable characters only through its
    // escapes, and escapes marks as well if they come first.
    let text: String = ['a', c].iter().collect();
    text.escape_debug().count() == 2
}

/// A float in its shortest form without exponent (`%v` of the literal
/// printer: `strconv.FormatFloat(v, 'f', -1, 64)`).
#[must_use]
pub fn plain_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        format!("{value}")
    }
}

/// A float in its shortest form, with an exponent below 1e-4 and from 1e21 on
/// (`%v`, `strconv.FormatFloat(v, 'g', -1, 64)` with `%v`'s limits).
#[must_use]
pub fn short_float(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return plain_float(value);
    }
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        assert_eq!(
            quoted("a\"b\\\n\u{200b}é\u{301}\u{1}"),
            "\"a\\\"b\\\\\\n\\u200bé\u{301}\\x01\""
        );
        assert_eq!(quoted_char(Some('\'')), r"'\''");
        assert_eq!(code_point('ä'), "U+00E4 'ä'");
        assert_eq!(short_float(1e21), "1e+21");
        assert_eq!(short_float(0.00001), "1e-05");
        assert_eq!(short_float(-0.5), "-0.5");
        assert_eq!(plain_float(1e21), "1000000000000000000000");
    }
}
