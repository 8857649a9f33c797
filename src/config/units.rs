//! How do durations and sizes read? `1h30m`, `512MB`, as Prometheus writes them.

use std::time::Duration;

/// Units from large to small, in milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Go's largest duration, 2^63 - 1 nanoseconds, in milliseconds.
const MAX_MS: u64 = 9_223_372_036_854;

/// Reads a duration such as `5m`, `1h30m` or `0`; units must go from large to
/// small, each at most once.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let invalid = || format!("{text:?} is not a duration (such as 30s, 5m or 1h30m)");
    if text.is_empty() {
        return Err(invalid());
    }
    let mut total_ms: u64 = 0;
    let mut next_unit = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let name = &rest[..letters];
        rest = &rest[letters..];
        let unit = UNITS.iter().position(|(n, _)| *n == name).ok_or_else(invalid)?;
        if unit < next_unit {
            return Err(invalid());
        }
        next_unit = unit + 1;
        total_ms = number
            .checked_mul(UNITS[unit].1)
            .and_then(|ms| total_ms.checked_add(ms))
            .filter(|ms| *ms <= MAX_MS)
            .ok_or_else(|| format!("{text:?} is out of range"))?;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration as Prometheus does: years and weeks only if nothing is
/// left over (`90d`, not `12w6d`); below a millisecond nothing is shown.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (i, (name, unit_ms)) in UNITS.into_iter().enumerate() {
        let only_whole = i < 2;
        if ms < unit_ms || (only_whole && ms % unit_ms != 0) {
            continue;
        }
        out.push_str(&format!("{}{name}", ms / unit_ms));
        ms %= unit_ms;
    }
    out
}

const SIZE_LETTERS: &str = "KMGTPE";

/// Reads a size in bytes such as `512MB` or `1.5GiB`; both are powers of 1024.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let invalid = || format!("{text:?} is not a size (such as 512MB or 10GiB)");
    let mut total: f64 = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let name = &rest[..letters];
        rest = &rest[letters..];
        let power = match name.strip_suffix("iB").or_else(|| name.strip_suffix('B')) {
            Some("") if name == "B" => 0,
            Some(letter) => {
                1 + SIZE_LETTERS.find(letter).filter(|_| letter.len() == 1).ok_or_else(invalid)?
            }
            None => return Err(invalid()),
        };
        total += number * 1024_f64.powi(i32::try_from(power).unwrap_or(0));
    }
    #[allow(clippy::cast_precision_loss, reason = "only the order of magnitude is compared")]
    if total > i64::MAX as f64 {
        return Err(format!("{text:?} is out of range"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(total as u64)
}

/// Writes a size as Prometheus does: `1GiB512MiB`, `0B`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    for (i, letter) in SIZE_LETTERS.char_indices().rev() {
        let unit = 1_u64 << (10 * (i + 1));
        if rest >= unit {
            out.push_str(&format!("{}{letter}iB", rest / unit));
            rest %= unit;
        }
    }
    if rest > 0 || out.is_empty() {
        out.push_str(&format!("{rest}B"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_in_prometheus() {
        let ms = |t: &str| parse_duration(t).map(|d| d.as_millis());
        assert_eq!(ms("0"), Ok(0));
        assert_eq!(ms("1d12h"), Ok(129_600_000));
        assert_eq!(ms("1h30m5s20ms"), Ok(5_405_020));
        for bad in [
            "",
            "1",
            "1.5h",
            "m",
            "1m1h",
            "1m1m",
            "-5m",
            "5 m",
            "1x",
            "300y",
            "9999999999999999999999s",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_as_in_prometheus() {
        for text in ["0s", "15s", "1m", "1h", "90d", "1w", "1y", "1d12h", "1h30m5s20ms", "366d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap_or_default()), text);
        }
    }

    #[test]
    fn sizes_read_and_write_as_in_prometheus() {
        assert_eq!(parse_size("512MB"), Ok(512 << 20));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1.5GB"), Ok(3 << 29));
        assert_eq!(parse_size("1GB512KB"), Ok((1 << 30) + (512 << 10)));
        assert_eq!(parse_size("7B"), Ok(7));
        for bad in ["", "5", "MB", "5mb", "5KMB", "-1B", "1e3B", "99999EB", "5iB", "1..B"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(format_size((1 << 30) + (512 << 10)), "1GiB512KiB");
        assert_eq!(format_size(0), "0B");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(ms in 0..MAX_MS, bytes in 0u64..1 << 52) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}", near in "[0-9.a-zA-Z]{0,24}") {
            let _ = (parse_duration(&text), parse_size(&text));
            let _ = (parse_duration(&near), parse_size(&near));
        }
    }
}
