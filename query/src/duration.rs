//! How are durations written? `1h30m`, `10s53ms`: numbers with units in
//! descending order, as everywhere in Prometheus.

use crate::quote::quoted;

/// Units in nanoseconds, largest first.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3600 * 1_000_000_000),
    ("w", 7 * 24 * 3600 * 1_000_000_000),
    ("d", 24 * 3600 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// Reads a duration; gives milliseconds. A bare `0` is allowed.
///
/// # Errors
///
/// Prometheus' text if it is none, or above 292 years.
pub fn parse(text: &str) -> Result<i64, String> {
    match text {
        "0" => return Ok(0),
        "" => return Err("empty duration string".to_owned()),
        _ => {}
    }
    let invalid = || format!("not a valid duration string: {}", quoted(text));
    let out_of_range = || "duration out of range".to_owned();
    let mut total_ns = 0_u64;
    let mut rest = text;
    let mut units = &UNITS[..];
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let count: u64 = number.parse().map_err(|_| invalid())?;
        let letters = behind.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let (unit, behind) = behind.split_at(letters);
        if unit.is_empty() {
            return Err(invalid());
        }
        let Some((_, unit_ns)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {} in duration {}", quoted(unit), quoted(text)));
        };
        let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        units = &units[place + 1..];
        total_ns = count
            .checked_mul(*unit_ns)
            .and_then(|ns| total_ns.checked_add(ns))
            .filter(|ns| i64::try_from(*ns).is_ok())
            .ok_or_else(out_of_range)?;
        rest = behind;
    }
    i64::try_from(total_ns / 1_000_000).map_err(|_| out_of_range())
}

/// Writes a duration in milliseconds: `1h30m`, `-5m`, `0s`. Years and weeks
/// only if nothing is left over.
#[must_use]
pub fn format(duration_ms: i64) -> String {
    if duration_ms == 0 {
        return "0s".to_owned();
    }
    let mut rest_ms = duration_ms.unsigned_abs();
    let mut out = String::from(if duration_ms < 0 { "-" } else { "" });
    for (unit, unit_ns) in UNITS {
        let unit_ms = unit_ns / 1_000_000;
        let exact_only = matches!(unit, "y" | "w");
        if rest_ms < unit_ms || (exact_only && !rest_ms.is_multiple_of(unit_ms)) {
            continue;
        }
        out.push_str(&(rest_ms / unit_ms).to_string());
        out.push_str(unit);
        rest_ms %= unit_ms;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_descend_and_zero_parts_are_fine() {
        assert_eq!(parse("1h0m5s"), Ok(3_605_000));
        assert_eq!(parse("10s53ms"), Ok(10_053));
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("1m1h"), Err(r#"not a valid duration string: "1m1h""#.to_owned()));
        assert_eq!(parse("1hs"), Err(r#"unknown unit "hs" in duration "1hs""#.to_owned()));
        assert_eq!(parse("300y"), Err("duration out of range".to_owned()));
        assert_eq!(parse("5"), Err(r#"not a valid duration string: "5""#.to_owned()));
    }

    #[test]
    fn weeks_and_years_only_if_exact() {
        assert_eq!(format(90 * 86_400_000), "90d");
        assert_eq!(format(14 * 86_400_000), "2w");
        assert_eq!(format(-90_000), "-1m30s");
        assert_eq!(format(1), "1ms");
    }
}
