//! How does Go print this? `fmt` and `strconv`, as far as templates reach.

use std::fmt::Write as _;

use super::value::Value;

/// Largest width or precision of a verb, as in Go.
const MAX_WIDTH: usize = 1_000_000;

/// A text grew beyond its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Whether Go's `%q` leaves a character as it is.
pub(super) fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_whitespace() || c.is_control() || c.escape_debug().nth(1) == Some('u'))
}

/// Writes `text` in double quotes with Go's escapes.
pub fn quote(text: &str) -> String {
    quote_with(text, '"', false)
}

fn quote_with(text: &str, quote: char, ascii_only: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if is_printable(c) && (c.is_ascii() || !ascii_only) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..0x20 | 0x7f => write!(out, "\\x{code:02x}"),
                    ..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// A character as `%#U` writes it: its code and, if it can be seen, itself.
pub(super) fn unicode(c: char) -> String {
    let code = format!("U+{:04X}", u32::from(c));
    if is_printable(c) { format!("{code} '{c}'") } else { code }
}

/// The text of a Go literal with its quotes; `None` if it is not one.
pub(super) fn unquote(literal: &str) -> Option<String> {
    let quote = literal.chars().next()?;
    let inner = literal.get(1..literal.len().checked_sub(1)?)?;
    if literal.len() < 2 || !literal.ends_with(quote) {
        return None;
    }
    if quote == '`' {
        return Some(inner.replace('\r', ""));
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.next()?;
        let mut number = |radix: u32, count: usize, first: u32| {
            (0..count).try_fold(first, |code, _| Some(code * radix + rest.next()?.to_digit(radix)?))
        };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            'x' => out.push(u8::try_from(number(16, 2, 0)?).ok()?),
            '0'..='7' => out.push(u8::try_from(number(8, 2, escape.to_digit(8)?)?).ok()?),
            'u' => {
                let c = char::from_u32(number(16, 4, 0)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            'U' => {
                // The first two digits of eight are zeros in every character.
                if number(16, 2, 0)? != 0 {
                    return None;
                }
                let c = char::from_u32(number(16, 6, 0)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            c if c == quote => out.push(u8::try_from(c).ok()?),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// An unsigned integer with Go's prefixes (`0x`, `0o`, `0b`, `0`) and
/// underscores; `None` if it is not one or too large.
pub(super) fn parse_uint(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    u64::from_str_radix(&without_underscores(digits, radix != 10)?, radix).ok()
}

/// Underscores may only stand between digits.
fn without_underscores(digits: &str, after_prefix: bool) -> Option<String> {
    let bad = digits.is_empty()
        || digits.starts_with(['+', '-'])
        || digits.ends_with('_')
        || digits.contains("__")
        || (digits.starts_with('_') && !after_prefix);
    (!bad).then(|| digits.replace('_', ""))
}

/// A float as Go's `strconv.ParseFloat` reads it; `None` if it is not one or
/// out of range.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let (negative, digits) = match lower.as_bytes().first()? {
        b'-' => (true, &lower[1..]),
        b'+' => (false, &lower[1..]),
        _ => (false, lower.as_str()),
    };
    let value = match digits {
        "inf" | "infinity" => f64::INFINITY,
        "nan" => return Some(f64::NAN),
        hex if hex.starts_with("0x") => parse_hex_float(&hex[2..])?,
        decimal => {
            if !decimal.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                return None;
            }
            let value: f64 = decimal.parse().ok()?;
            if value.is_infinite() {
                return None;
            }
            value
        }
    };
    Some(if negative { -value } else { value })
}

/// What follows `0x`: hexadecimal digits, a point, and a binary exponent.
#[allow(clippy::cast_precision_loss, reason = "at most 60 bits are kept, then rounded once")]
fn parse_hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let mut exponent: i32 = exponent.parse().ok()?;
    let mut value = 0_u64;
    let (mut digits, mut point) = (0, false);
    for c in mantissa.chars() {
        if c == '.' && !point {
            point = true;
            continue;
        }
        let digit = u64::from(c.to_digit(16)?);
        digits += 1;
        if value >> 56 == 0 {
            value = value << 4 | digit;
            exponent = exponent.checked_sub(if point { 4 } else { 0 })?;
        } else if !point {
            exponent = exponent.checked_add(4)?;
        }
    }
    // In two steps, as 2^-1074 is no reciprocal of a float.
    let exponent = exponent.clamp(-2000, 2000);
    let half = exponent / 2;
    let value = value as f64 * 2_f64.powi(half) * 2_f64.powi(exponent - half);
    (digits > 0 && value.is_finite()).then_some(value)
}

/// The decimal digits of a finite number of no sign and the exponent of the
/// first one, rounded to `digits` digits; `None` is as many as needed.
fn decimal(value: f64, digits: Option<usize>) -> (Vec<u8>, i32) {
    let text = match digits {
        Some(digits) => format!("{value:.*e}", digits.saturating_sub(1)),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mut out: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    while out.len() > 1 && out.last() == Some(&b'0') {
        out.pop();
    }
    (out, exponent.parse().unwrap_or(0))
}

/// `e+xx`
fn push_exponent(out: &mut String, mark: char, exponent: i32) {
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "{mark}{sign}{:02}", exponent.unsigned_abs());
}

/// Digits after the point beyond which a float has only zeros.
const MAX_FLOAT_DIGITS: usize = 1100;

/// A float as Go's `strconv.FormatFloat(value, verb, precision, 64)`: the
/// precision `None` is the shortest that reads back as the same number.
pub fn format_float(value: f64, verb: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let mut out = String::new();
    if value.is_sign_negative() {
        out.push('-');
    }
    let magnitude = value.abs();
    // Formatting takes at most 65535; what is beyond is zeros.
    let (precision, zeros) = match precision {
        Some(p) => (Some(p.min(MAX_FLOAT_DIGITS)), p.saturating_sub(MAX_FLOAT_DIGITS)),
        None => (None, 0),
    };
    match verb {
        'e' | 'E' => {
            let text = match precision {
                Some(precision) => format!("{magnitude:.precision$e}"),
                None => format!("{magnitude:e}"),
            };
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            out.push_str(mantissa);
            out.extend(std::iter::repeat_n('0', zeros));
            push_exponent(&mut out, verb, exponent.parse().unwrap_or(0));
        }
        'f' | 'F' => {
            let _ = match precision {
                Some(precision) => write!(out, "{magnitude:.precision$}"),
                None => write!(out, "{magnitude}"),
            };
            out.extend(std::iter::repeat_n('0', zeros));
        }
        'b' => push_binary(&mut out, magnitude),
        'x' | 'X' => push_hex(&mut out, magnitude, verb, precision),
        _ => push_general(&mut out, magnitude, verb, precision),
    }
    out
}

/// `%g`: `%e` for exponents below -4 or at least the precision, else `%f`;
/// without zeros at the end.
#[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "small numbers")]
#[allow(clippy::cast_sign_loss, reason = "checked")]
fn push_general(out: &mut String, magnitude: f64, verb: char, precision: Option<usize>) {
    let wanted = precision.map(|p| p.max(1));
    let (digits, exponent) = decimal(magnitude, wanted);
    let count = digits.len() as i32;
    let threshold = match wanted {
        None => 6,
        Some(wanted) if wanted as i32 > count && count > exponent => count,
        Some(wanted) => wanted as i32,
    };
    if exponent < -4 || exponent >= threshold {
        out.push(char::from(digits[0]));
        if digits.len() > 1 {
            out.push('.');
            out.extend(digits[1..].iter().map(|&d| char::from(d)));
        }
        push_exponent(out, if verb == 'G' { 'E' } else { 'e' }, exponent);
        return;
    }
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.extend(digits.iter().map(|&d| char::from(d)));
        return;
    }
    let whole = exponent as usize + 1;
    for i in 0..whole.max(digits.len()) {
        if i == whole {
            out.push('.');
        }
        out.push(digits.get(i).map_or('0', |&d| char::from(d)));
    }
}

/// `%b`: mantissa and power of two.
#[allow(clippy::cast_possible_wrap, reason = "11 bits")]
fn push_binary(out: &mut String, magnitude: f64) {
    let bits = magnitude.to_bits();
    let (fraction, biased) = (bits & ((1 << 52) - 1), (bits >> 52) & 0x7ff);
    let (mantissa, exponent) =
        if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased as i64 - 1075) };
    let _ = write!(out, "{mantissa}p{exponent:+}");
}

/// `%x`: hexadecimal mantissa and power of two.
#[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "small numbers")]
fn push_hex(out: &mut String, magnitude: f64, verb: char, precision: Option<usize>) {
    let bits = magnitude.to_bits();
    let (mut mantissa, biased) = (bits & ((1 << 52) - 1), (bits >> 52) as i32 & 0x7ff);
    let mut exponent = biased - 1023;
    if biased == 0 {
        exponent = if mantissa == 0 { 0 } else { -1022 };
        while mantissa != 0 && mantissa & 1 << 52 == 0 {
            mantissa <<= 1;
            exponent -= 1;
        }
    } else {
        mantissa |= 1 << 52;
    }
    if let Some(precision) = precision.filter(|&p| p < 13) {
        let shift = (13 - precision) * 4;
        let (half, rest) = (1_u64 << (shift - 1), mantissa & ((1 << shift) - 1));
        mantissa >>= shift;
        if rest > half || (rest == half && mantissa & 1 == 1) {
            mantissa += 1;
        }
        mantissa <<= shift;
        if mantissa >> 53 != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
    }
    let digits = format!("{:013x}", mantissa & ((1 << 52) - 1));
    let digits = match precision {
        None => digits.trim_end_matches('0').to_owned(),
        Some(p) if p <= 13 => digits[..p].to_owned(),
        Some(p) => digits + &"0".repeat(p - 13),
    };
    let mut text = format!("0x{}", mantissa >> 52);
    if !digits.is_empty() {
        let _ = write!(text, ".{digits}");
    }
    push_exponent(&mut text, 'p', exponent);
    out.push_str(&if verb == 'X' { text.to_uppercase() } else { text });
}

/// Flags, width and precision of one verb.
#[derive(Debug, Clone, Copy, Default)]
struct Spec {
    sharp: bool,
    zero: bool,
    plus: bool,
    minus: bool,
    space: bool,
    /// `%#v`
    sharp_v: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// What a text is printed to, with its largest length.
struct Printer {
    out: String,
    limit: usize,
}

impl Printer {
    fn push(&mut self, text: &str) -> Result<(), TooLong> {
        if self.out.len() + text.len() > self.limit {
            return Err(TooLong);
        }
        self.out.push_str(text);
        Ok(())
    }

    fn pad(&mut self, text: &str, spec: &Spec) -> Result<(), TooLong> {
        let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.out.len() + text.len() + missing > self.limit {
            return Err(TooLong);
        }
        if spec.minus {
            self.out.push_str(text);
            self.out.extend(std::iter::repeat_n(' ', missing));
        } else {
            let fill = if spec.zero { '0' } else { ' ' };
            self.out.extend(std::iter::repeat_n(fill, missing));
            self.out.push_str(text);
        }
        Ok(())
    }

    fn text(&mut self, text: &str, verb: char, spec: &Spec) -> Result<(), TooLong> {
        let cut: String;
        let text = match (spec.precision, verb) {
            (Some(precision), 'v' | 's' | 'q') => {
                cut = text.chars().take(precision).collect();
                &cut
            }
            _ => text,
        };
        match verb {
            'v' if spec.sharp_v => self.quoted(text, spec),
            'v' | 's' => self.pad(text, spec),
            'q' => self.quoted(text, spec),
            'x' | 'X' => {
                let bytes = text.as_bytes();
                let bytes = &bytes[..spec.precision.unwrap_or(bytes.len()).min(bytes.len())];
                let mut hex = String::with_capacity(bytes.len() * 2);
                for (i, byte) in bytes.iter().enumerate() {
                    if i > 0 && spec.space {
                        hex.push(' ');
                    }
                    if spec.sharp && (spec.space || i == 0) {
                        hex.push_str(if verb == 'x' { "0x" } else { "0X" });
                    }
                    let _ = match verb {
                        'x' => write!(hex, "{byte:02x}"),
                        _ => write!(hex, "{byte:02X}"),
                    };
                }
                self.pad(&hex, spec)
            }
            _ => self.bad_verb(verb, &Value::text(text), spec),
        }
    }

    fn quoted(&mut self, text: &str, spec: &Spec) -> Result<(), TooLong> {
        let can_backquote =
            text.chars().all(|c| c != '`' && c != '\u{feff}' && (c == '\t' || !c.is_control()));
        if spec.sharp && can_backquote {
            return self.pad(&format!("`{text}`"), spec);
        }
        self.pad(&quote_with(text, '"', spec.plus), spec)
    }

    /// `%!d(string=x)`; the flags hold for the value, too, as in Go.
    fn bad_verb(&mut self, verb: char, value: &Value, spec: &Spec) -> Result<(), TooLong> {
        self.push("%!")?;
        self.push(verb.encode_utf8(&mut [0; 4]))?;
        self.push("(")?;
        match value.type_name() {
            None => self.push("<nil>")?,
            Some(name) => {
                self.push(name)?;
                self.push("=")?;
                self.value(value, 'v', spec, 0)?;
            }
        }
        self.push(")")
    }

    fn integer(
        &mut self,
        number: i64,
        verb: char,
        spec: &Spec,
        value: &Value,
    ) -> Result<(), TooLong> {
        let magnitude = number.unsigned_abs();
        let digits = match verb {
            'v' | 'd' => magnitude.to_string(),
            'b' => format!("{magnitude:b}"),
            'o' | 'O' => format!("{magnitude:o}"),
            'x' => format!("{magnitude:x}"),
            'X' => format!("{magnitude:X}"),
            'c' | 'q' | 'U' => {
                let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                let text = match verb {
                    'c' => c.to_string(),
                    'q' => quote_with(c.encode_utf8(&mut [0; 4]), '\'', spec.plus),
                    _ if spec.sharp && i64::from(u32::from(c)) == number => unicode(c),
                    _ => format!("U+{number:04X}"),
                };
                return self.pad(&text, &Spec { zero: spec.zero && verb != 'U', ..*spec });
            }
            _ => return self.bad_verb(verb, value, spec),
        };
        let negative = number < 0;
        let mut least = 0;
        if let Some(precision) = spec.precision {
            least = precision;
            if precision == 0 && number == 0 {
                return self.pad("", &Spec { zero: false, ..*spec });
            }
        } else if let (true, false, Some(width)) = (spec.zero, spec.minus, spec.width) {
            let signed = negative || spec.plus || spec.space;
            least = width.saturating_sub(usize::from(signed));
        }
        if least > self.limit {
            return Err(TooLong);
        }
        let mut text = "0".repeat(least.saturating_sub(digits.len())) + &digits;
        if spec.sharp {
            match verb {
                'b' => text.insert_str(0, "0b"),
                'o' if !text.starts_with('0') => text.insert(0, '0'),
                'x' => text.insert_str(0, "0x"),
                'X' => text.insert_str(0, "0X"),
                _ => {}
            }
        }
        if verb == 'O' {
            text.insert_str(0, "0o");
        }
        if negative {
            text.insert(0, '-');
        } else if spec.plus {
            text.insert(0, '+');
        } else if spec.space {
            text.insert(0, ' ');
        }
        self.pad(&text, &Spec { zero: false, ..*spec })
    }

    fn float(&mut self, number: f64, verb: char, spec: &Spec) -> Result<(), TooLong> {
        let (format, default) = match verb {
            'v' => ('g', None),
            'e' | 'E' | 'f' => (verb, Some(6)),
            'F' => ('f', Some(6)),
            'g' | 'G' | 'x' | 'X' | 'b' => (verb, None),
            _ => return self.bad_verb(verb, &Value::Float(number), spec),
        };
        let precision = spec.precision.or(default);
        if precision.unwrap_or(0) > self.limit {
            return Err(TooLong);
        }
        let mut text = format_float(number, format, precision);
        if !text.starts_with(['-', '+']) {
            text.insert(0, '+');
        }
        if spec.space && text.starts_with('+') && !spec.plus {
            text.replace_range(..1, " ");
        }
        if !number.is_finite() {
            if number.is_nan() && !spec.space && !spec.plus {
                text.remove(0);
            }
            return self.pad(&text, &Spec { zero: false, ..*spec });
        }
        if spec.sharp && format != 'b' {
            restore_zeros(&mut text, format, precision);
        }
        if spec.plus || !text.starts_with('+') {
            let width = spec.width.unwrap_or(0);
            if spec.zero && !spec.minus && width > text.len() {
                self.push(&text[..1])?;
                return self.pad(&text[1..], &Spec { width: Some(width - 1), ..*spec });
            }
            return self.pad(&text, spec);
        }
        self.pad(&text[1..], spec)
    }

    /// Any value; `depth` is 0 for one that stands alone.
    fn value(
        &mut self,
        value: &Value,
        verb: char,
        spec: &Spec,
        depth: usize,
    ) -> Result<(), TooLong> {
        if verb == 'T' {
            return self.text(value.type_name().unwrap_or("<nil>"), 's', spec);
        }
        match value {
            Value::Nil if verb == 'v' => self.pad("<nil>", spec),
            Value::Nil => self.bad_verb(verb, value, spec),
            Value::Bool(flag) if matches!(verb, 't' | 'v') => {
                self.pad(if *flag { "true" } else { "false" }, spec)
            }
            Value::Bool(_) => self.bad_verb(verb, value, spec),
            Value::Int(number) => self.integer(*number, verb, spec, value),
            Value::Byte(number) if verb == 'v' && spec.sharp_v => {
                self.pad(&format!("{number:#x}"), spec)
            }
            Value::Byte(number) => self.integer(i64::from(*number), verb, spec, value),
            Value::Float(number) => self.float(*number, verb, spec),
            Value::Text(text) | Value::Html(text) => {
                if matches!(verb, 'v' | 's' | 'q' | 'x' | 'X') {
                    self.text(text, verb, spec)
                } else {
                    self.bad_verb(verb, value, spec)
                }
            }
            Value::Time(_) | Value::Duration(_) | Value::Histogram(_) | Value::Named(_)
                if matches!(verb, 'v' | 's' | 'q' | 'x' | 'X') && !spec.sharp_v =>
            {
                self.text(&stringer(value), verb, spec)
            }
            Value::Named(named) => self.integer(named.number, verb, spec, value),
            Value::Duration(ns) => self.integer(*ns, verb, spec, value),
            Value::Time(_) | Value::Histogram(_) => self.text(&stringer(value), 's', spec),
            Value::Labels(labels) => {
                let pairs = labels.iter().map(|(n, v)| (n, Value::text(v)));
                self.map("map[string]string", pairs, verb, spec, depth)
            }
            Value::Args(args) => {
                let pairs = args.iter().map(|(n, v)| (n.as_str(), v.clone()));
                self.map("map[string]interface {}", pairs, verb, spec, depth)
            }
            Value::Sample(sample) if depth == 0 => {
                self.push("&{")?;
                self.value(&Value::Labels(sample.labels.clone()), verb, spec, depth + 1)?;
                self.push(" ")?;
                self.value(&sample.value, verb, spec, depth + 1)?;
                self.push("}")
            }
            // Go prints the address; ours is the same for all.
            Value::Sample(_) => self.push("0xc000000000"),
            Value::Vector(samples) => {
                self.push("[")?;
                for i in 0..samples.borrow().len() {
                    self.push(if i > 0 { " 0xc000000000" } else { "0xc000000000" })?;
                }
                self.push("]")
            }
            Value::Data(data) => {
                self.push("{")?;
                self.value(&Value::Labels(data.labels.clone()), verb, spec, depth + 1)?;
                self.push(" ")?;
                self.value(&Value::Labels(data.external_labels.clone()), verb, spec, depth + 1)?;
                self.push(" ")?;
                self.value(&Value::Text(data.external_url.clone()), verb, spec, depth + 1)?;
                self.push(" ")?;
                self.value(&data.value, verb, spec, depth + 1)?;
                self.push("}")
            }
        }
    }

    fn map<'a>(
        &mut self,
        type_name: &str,
        pairs: impl Iterator<Item = (&'a str, Value)>,
        verb: char,
        spec: &Spec,
        depth: usize,
    ) -> Result<(), TooLong> {
        let (open, close, comma) =
            if spec.sharp_v { (type_name, "}", ", ") } else { ("map", "]", " ") };
        self.push(open)?;
        self.push(if spec.sharp_v { "{" } else { "[" })?;
        for (i, (name, value)) in pairs.enumerate() {
            if i > 0 {
                self.push(comma)?;
            }
            self.value(&Value::text(name), verb, spec, depth + 1)?;
            self.push(":")?;
            self.value(&value, verb, spec, depth + 1)?;
        }
        self.push(close)
    }
}

/// `#`: keeps the point and the zeros at the end.
fn restore_zeros(text: &mut String, format: char, precision: Option<usize>) {
    let mut digits = match format {
        'g' | 'G' | 'x' => precision.unwrap_or(6),
        _ => 0,
    };
    let split = match format {
        'x' | 'X' => text.find(['p', 'P']),
        _ => text.find(['e', 'E']),
    };
    let tail = text.split_off(split.unwrap_or(text.len()));
    let mut seen_nonzero = false;
    for c in text[1..].chars().filter(|&c| c != '.') {
        seen_nonzero |= c != '0';
        if seen_nonzero {
            digits = digits.saturating_sub(1);
        }
    }
    if !text.contains('.') {
        if text[1..] == *"0" {
            digits = digits.saturating_sub(1);
        }
        text.push('.');
    }
    text.push_str(&"0".repeat(digits));
    text.push_str(&tail);
}

/// What a value with a method `String` says of itself.
pub(super) fn stringer(value: &Value) -> String {
    match value {
        Value::Time(ms) => time_text(*ms),
        Value::Duration(ns) => duration_text(*ns),
        Value::Histogram(histogram) => histogram.to_string(),
        Value::Named(named) => named.text.to_owned(),
        _ => String::new(),
    }
}

/// `2006-01-02 15:04:05.999999999 +0000 UTC`
pub(super) fn time_text(ms: i64) -> String {
    let Some(time) = chrono::DateTime::from_timestamp_millis(ms) else {
        return format!("{ms} ms");
    };
    let mut text = time.format("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = ms.rem_euclid(1000);
    if fraction != 0 {
        text.push_str(format!(".{fraction:03}").trim_end_matches('0'));
    }
    text + " +0000 UTC"
}

/// Nanoseconds as `1h2m3.5s`, as Go writes durations.
#[must_use]
pub fn duration_text(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let magnitude = ns.unsigned_abs();
    let fraction = |part: u64, width: usize| {
        let digits = format!("{part:0width$}");
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() { String::new() } else { format!(".{digits}") }
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => {
            format!("{sign}{}{}\u{b5}s", magnitude / 1_000, fraction(magnitude % 1_000, 3))
        }
        1_000_000..1_000_000_000 => {
            format!("{sign}{}{}ms", magnitude / 1_000_000, fraction(magnitude % 1_000_000, 6))
        }
        _ => {
            let (all_seconds, part) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
            let seconds = format!("{}{}s", all_seconds % 60, fraction(part, 9));
            match (all_seconds / 3600, all_seconds / 60 % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// As [`sprint`], but of what pointers point to, and `<no value>` for none.
pub(super) fn sprint_pointees(args: &[Value], limit: usize) -> Result<String, TooLong> {
    let mut printer = Printer { out: String::new(), limit };
    let mut before_is_text = true;
    for arg in args {
        let is_text = arg.as_text().is_some() || matches!(arg, Value::Nil);
        if !is_text && !before_is_text {
            printer.push(" ")?;
        }
        before_is_text = is_text;
        match arg {
            Value::Nil => printer.push("<no value>")?,
            Value::Sample(_) => {
                let start = printer.out.len();
                printer.value(arg, 'v', &Spec::default(), 0)?;
                // Go prints `&` before what a pointer points to.
                printer.out.remove(start);
            }
            arg => printer.value(arg, 'v', &Spec::default(), 0)?,
        }
    }
    Ok(printer.out)
}

/// Go's `fmt.Sprint`: a space between two operands that are no texts.
pub(super) fn sprint(args: &[Value], limit: usize) -> Result<String, TooLong> {
    let mut printer = Printer { out: String::new(), limit };
    let mut before_is_text = true;
    for arg in args {
        let is_text = arg.as_text().is_some();
        if !is_text && !before_is_text {
            printer.push(" ")?;
        }
        printer.value(arg, 'v', &Spec::default(), 0)?;
        before_is_text = is_text;
    }
    Ok(printer.out)
}

/// Go's `fmt.Sprintln`.
pub(super) fn sprintln(args: &[Value], limit: usize) -> Result<String, TooLong> {
    let mut printer = Printer { out: String::new(), limit };
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            printer.push(" ")?;
        }
        printer.value(arg, 'v', &Spec::default(), 0)?;
    }
    printer.push("\n")?;
    Ok(printer.out)
}

/// Where `sprintf` stands in its format and arguments.
struct Format<'a> {
    format: &'a str,
    pos: usize,
    args: &'a [Value],
    next: usize,
    reordered: bool,
    good_index: bool,
}

impl Format<'_> {
    fn byte(&self) -> Option<u8> {
        self.format.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.byte() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    /// A decimal number; too large ones end the format, as in Go.
    fn number(&mut self) -> Option<usize> {
        let start = self.pos;
        let mut number = 0;
        while let Some(digit @ b'0'..=b'9') = self.byte() {
            if number > MAX_WIDTH {
                self.pos = self.format.len();
                return None;
            }
            number = number * 10 + usize::from(digit - b'0');
            self.pos += 1;
        }
        (self.pos > start).then_some(number)
    }

    /// `[3]`: the next argument is the third. Whether there was one.
    fn index(&mut self) -> bool {
        if self.byte() != Some(b'[') {
            return false;
        }
        self.reordered = true;
        let start = self.pos;
        let close = self.format[start..].find(']');
        let Some(close) = close.filter(|_| self.format.len() - start >= 3) else {
            self.good_index = false;
            self.pos += 1;
            return false;
        };
        self.pos += 1;
        let number = self.number();
        let complete = self.pos == start + close;
        self.pos = start + close + 1;
        match number {
            Some(number @ 1..) if complete && number <= self.args.len() => {
                self.next = number - 1;
                true
            }
            number => {
                self.good_index = false;
                number.is_some() && complete
            }
        }
    }

    /// `*`: an argument is the number. `Err` if it is no integer.
    fn star(&mut self) -> Result<i64, ()> {
        let arg = self.args.get(self.next);
        self.next += usize::from(arg.is_some());
        match arg {
            Some(&Value::Int(number)) if number.unsigned_abs() <= MAX_WIDTH as u64 => Ok(number),
            Some(&Value::Byte(number)) => Ok(i64::from(number)),
            _ => Err(()),
        }
    }
}

/// Go's `fmt.Sprintf`.
#[allow(clippy::cast_possible_truncation, reason = "checked by `star`")]
pub(super) fn sprintf(format: &str, args: &[Value], limit: usize) -> Result<String, TooLong> {
    let mut printer = Printer { out: String::new(), limit };
    let mut f = Format { format, pos: 0, args, next: 0, reordered: false, good_index: true };
    loop {
        let rest = &format[f.pos..];
        let Some(percent) = rest.find('%') else {
            printer.push(rest)?;
            break;
        };
        printer.push(&rest[..percent])?;
        f.pos += percent + 1;
        f.good_index = true;
        let mut spec = Spec::default();
        while let Some(flag) = f.byte() {
            match flag {
                b'#' => spec.sharp = true,
                b'0' => spec.zero = true,
                b'+' => spec.plus = true,
                b'-' => spec.minus = true,
                b' ' => spec.space = true,
                _ => break,
            }
            f.pos += 1;
        }
        let mut after_index = f.index();
        if f.eat(b'*') {
            match f.star() {
                Ok(width) => {
                    spec.width = Some(width.unsigned_abs() as usize);
                    if width < 0 {
                        spec.minus = true;
                        spec.zero = false;
                    }
                }
                Err(()) => printer.push("%!(BADWIDTH)")?,
            }
            after_index = false;
        } else {
            spec.width = f.number();
            if after_index && spec.width.is_some() {
                f.good_index = false;
            }
        }
        if f.eat(b'.') {
            if after_index {
                f.good_index = false;
            }
            after_index = f.index();
            if f.eat(b'*') {
                match f.star() {
                    Ok(precision) => spec.precision = usize::try_from(precision).ok(),
                    Err(()) => printer.push("%!(BADPREC)")?,
                }
                after_index = false;
            } else {
                spec.precision = Some(f.number().unwrap_or(0));
            }
        }
        if !after_index {
            f.index();
        }
        let Some(verb) = format[f.pos..].chars().next() else {
            printer.push("%!(NOVERB)")?;
            break;
        };
        f.pos += verb.len_utf8();
        if verb == '%' {
            printer.push("%")?;
        } else if !f.good_index {
            printer.push(&format!("%!{verb}(BADINDEX)"))?;
        } else if let Some(arg) = args.get(f.next) {
            f.next += 1;
            if verb == 'v' {
                spec.sharp_v = std::mem::take(&mut spec.sharp);
                spec.plus = false;
            }
            printer.value(arg, verb, &spec, 0)?;
        } else {
            printer.push(&format!("%!{verb}(MISSING)"))?;
        }
    }
    if !f.reordered && f.next < args.len() {
        printer.push("%!(EXTRA ")?;
        for (i, arg) in args[f.next..].iter().enumerate() {
            if i > 0 {
                printer.push(", ")?;
            }
            match arg.type_name() {
                None => printer.push("<nil>")?,
                Some(name) => {
                    printer.push(name)?;
                    printer.push("=")?;
                    printer.value(arg, 'v', &Spec::default(), 0)?;
                }
            }
        }
        printer.push(")")?;
    }
    Ok(printer.out)
}
