//! What are number literals worth? As in Go: decimal, hexadecimal, octal with
//! a leading zero, underscores between digits, `Inf` and `NaN` in any case.

use crate::quote::quoted;

/// The value of a number token.
///
/// # Errors
///
/// Prometheus' text.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let digits = without_underscores(text);
    if let Some(value) = digits.as_deref().and_then(integer) {
        return Ok(value);
    }
    let error = |what: &str| {
        format!("error parsing number: strconv.ParseFloat: parsing {}: {what}", quoted(text))
    };
    let syntax = || error("invalid syntax");
    let digits = digits.ok_or_else(syntax)?;
    match digits.to_ascii_lowercase().as_str() {
        "inf" => return Ok(f64::INFINITY),
        // The bits that Go gives: 0x7ff8000000000001.
        "nan" => return Ok(f64::from_bits(narthex_storage::sample::NORMAL_NAN_BITS)),
        _ => {}
    }
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    let value: f64 =
        if plain { digits.parse().map_err(|_| syntax())? } else { return Err(syntax()) };
    if value.is_infinite() { Err(error("value out of range")) } else { Ok(value) }
}

/// An integer of 64 bits, signed, in the base that its prefix says.
fn integer(digits: &str) -> Option<f64> {
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.strip_prefix("0x") {
        Some(rest) => (16, rest),
        None if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        None => (10, lower.as_str()),
    };
    if !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    i64::from_str_radix(digits, base).ok().map(|n| n as f64)
}

/// The digits without underscores; `None` if one stands where none may: not
/// between digits, or a base prefix and a digit.
fn without_underscores(text: &str) -> Option<String> {
    if !text.contains('_') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let hex = text.len() > 2 && text.is_char_boundary(2) && text[..2].eq_ignore_ascii_case("0x");
    let is_digit = |b: u8| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
    for (i, b) in bytes.iter().enumerate() {
        if *b == b'_' {
            let before = i.checked_sub(1).is_some_and(|j| is_digit(bytes[j]) || (hex && j == 1));
            let after = bytes.get(i + 1).is_some_and(|b| is_digit(*b));
            if !before || !after {
                return None;
            }
        }
    }
    Some(text.replace('_', ""))
}
