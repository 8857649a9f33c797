//! How does a number read best? Prometheus' humanize functions.

use super::gofmt::{format_float, parse_float, quote, time_text};
use super::value::Value;

/// A value as float, or Go's words for why not.
#[allow(clippy::cast_precision_loss, reason = "as Go converts")]
pub(super) fn to_float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(float) => Ok(*float),
        Value::Int(int) => Ok(*int as f64),
        Value::Text(text) => parse_float(text).ok_or_else(|| {
            let parses = text.parse::<f64>().is_ok();
            let why = if parses { "value out of range" } else { "invalid syntax" };
            format!("strconv.ParseFloat: parsing {}: {why}", quote(text))
        }),
        other => {
            let name = other.type_name().unwrap_or("<nil>");
            Err(format!("can't convert {name} to float"))
        }
    }
}

/// `%.4g`
fn short(value: f64) -> String {
    format_float(value, 'g', Some(4))
}

const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// Scales a number below 1 up to the prefix that fits.
fn small(mut value: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for next in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    (value, prefix)
}

/// Scales a number down to the prefix that fits.
fn large(mut value: f64, base: f64, prefixes: [&'static str; 8]) -> (f64, &'static str) {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < base {
            break;
        }
        prefix = next;
        value /= base;
    }
    (value, prefix)
}

/// `humanize`: metric prefixes.
pub(super) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return short(value);
    }
    let (value, prefix) = if value.abs() >= 1.0 {
        large(value, 1000.0, ["k", "M", "G", "T", "P", "E", "Z", "Y"])
    } else {
        small(value)
    };
    short(value) + prefix
}

/// `humanize1024`: prefixes of powers of 1024.
pub(super) fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return short(value);
    }
    let (value, prefix) = large(value, 1024.0, ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"]);
    short(value) + prefix
}

/// `humanizePercentage`: a ratio as per cent.
pub(super) fn percentage(value: f64) -> String {
    short(value * 100.0) + "%"
}

/// `humanizeDuration`: seconds as days, hours, minutes and seconds.
#[allow(clippy::cast_possible_truncation, reason = "saturates, as durations may")]
pub(super) fn duration(value: f64) -> String {
    if !value.is_finite() {
        return short(value);
    }
    if value == 0.0 {
        return short(value) + "s";
    }
    if value.abs() < 1.0 {
        let (value, prefix) = small(value);
        return short(value) + prefix + "s";
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let magnitude = value.abs();
    let whole = magnitude as i64;
    let (seconds, minutes) = (whole % 60, whole / 60 % 60);
    let (hours, days) = (whole / 3600 % 24, whole / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", short(magnitude)),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

/// `toTime`: seconds since the Unix epoch to milliseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "checked")]
pub(super) fn to_time_ms(value: f64) -> Result<i64, String> {
    if !value.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let ns = value * 1e9;
    if ns > i64::MAX as f64 || ns < i64::MIN as f64 {
        let shown = format_float(value, 'g', None);
        return Err(format!(
            "{shown} cannot be represented as a nanoseconds timestamp since it overflows int64"
        ));
    }
    Ok(ns as i64 / 1_000_000)
}

/// `toDuration`: seconds to nanoseconds.
#[allow(clippy::cast_possible_truncation, reason = "saturates")]
pub(super) fn to_duration_ns(value: f64) -> i64 {
    (value * 1e9) as i64
}

/// `humanizeTimestamp`: seconds since the Unix epoch as date and time.
pub(super) fn timestamp(value: f64) -> Result<String, String> {
    if !value.is_finite() {
        return Ok(short(value));
    }
    to_time_ms(value).map(time_text)
}

/// `parseDuration`: `1h30m` in seconds; a sign may stand before.
#[allow(clippy::cast_precision_loss, reason = "as Go converts")]
pub(super) fn parse_duration(text: &str) -> Result<f64, String> {
    let (sign, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    super::duration::parse_ms(magnitude).map(|ms| sign * (ms as f64 / 1000.0))
}
