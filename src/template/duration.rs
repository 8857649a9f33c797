//! How long is `1h30m`? Prometheus' durations as text.

use nom::bytes::complete::{take_while, take_while1};
use nom::sequence::pair;
use nom::{IResult, Parser};

use super::gofmt::quote;

/// Units in the order they must be written, with their milliseconds.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Longest duration of Prometheus: what fits 63 bits of nanoseconds.
const MAX_MS: i64 = i64::MAX / 1_000_000;

/// A number and what follows up to the next digit.
fn part(input: &str) -> IResult<&str, (&str, &str)> {
    pair(take_while1(|c: char| c.is_ascii_digit()), take_while(|c: char| !c.is_ascii_digit()))
        .parse(input)
}

/// Reads a duration in milliseconds, 0 or more; units from the largest to the
/// smallest, each at most once.
///
/// # Errors
///
/// Prometheus' words for what is wrong.
pub fn parse_ms(text: &str) -> Result<i64, String> {
    match text {
        "0" => return Ok(0),
        "" => return Err("empty duration string".to_owned()),
        _ => {}
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let out_of_range = || "duration out of range".to_owned();
    let mut total_ms = 0_i64;
    let mut next_unit = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (after, (digits, unit)) = part(rest).map_err(|_| invalid())?;
        rest = after;
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        if unit.is_empty() {
            return Err(invalid());
        }
        let position = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(|| format!("unknown unit {} in duration {}", quote(unit), quote(text)))?;
        if position < next_unit {
            return Err(invalid());
        }
        next_unit = position + 1;
        let number = i64::try_from(number).map_err(|_| out_of_range())?;
        let part_ms = number.checked_mul(UNITS[position].1).ok_or_else(out_of_range)?;
        total_ms = total_ms.checked_add(part_ms).ok_or_else(out_of_range)?;
        if total_ms > MAX_MS {
            return Err(out_of_range());
        }
    }
    Ok(total_ms)
}

/// A duration as Prometheus writes it: `1h30m`, `90d`, `0s`.
#[must_use]
pub fn format_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = if ms < 0 { "-".to_owned() } else { String::new() };
    let mut rest = ms.unsigned_abs();
    for (name, unit) in UNITS {
        let unit = unit.unsigned_abs();
        // Years and weeks only where nothing remains: 90d, not 12w6d.
        let exact = matches!(name, "y" | "w");
        if rest >= unit && (!exact || rest.is_multiple_of(unit)) {
            out.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    out
}
