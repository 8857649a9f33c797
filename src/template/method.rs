//! What fields and methods do values have?

use chrono::{DateTime, Datelike, Timelike, Utc};

use super::gofmt;
use super::value::{Named, Value};

/// Number of arguments of a method; `None` if there is none of that name.
pub(super) fn arity(receiver: &Value, name: &str) -> Option<usize> {
    match (receiver, name) {
        (Value::Time(_), "Format") => Some(1),
        (
            Value::Time(_),
            "Year" | "Month" | "Day" | "Hour" | "Minute" | "Second" | "Nanosecond" | "YearDay"
            | "Weekday" | "Unix" | "UnixMilli" | "UnixMicro" | "UnixNano" | "UTC" | "IsZero"
            | "String",
        )
        | (
            Value::Duration(_),
            "Hours" | "Minutes" | "Seconds" | "Milliseconds" | "Microseconds" | "Nanoseconds"
            | "String",
        )
        | (Value::Histogram(_) | Value::Named(_), "String") => Some(0),
        _ => None,
    }
}

/// Calls a method that [`arity`] knows, with as many texts.
#[allow(clippy::cast_precision_loss, reason = "as Go converts")]
pub(super) fn call(receiver: &Value, name: &str, args: &[Value]) -> Value {
    match receiver {
        Value::Time(ms) => match DateTime::from_timestamp_millis(*ms) {
            Some(time) => time_method(*ms, &time, name, args),
            None => Value::Nil,
        },
        Value::Duration(ns) => match name {
            "Hours" => Value::Float(*ns as f64 / 3.6e12),
            "Minutes" => Value::Float(*ns as f64 / 6e10),
            "Seconds" => Value::Float(*ns as f64 / 1e9),
            "Milliseconds" => Value::Int(ns / 1_000_000),
            "Microseconds" => Value::Int(ns / 1_000),
            "Nanoseconds" => Value::Int(*ns),
            _ => Value::text(gofmt::stringer(receiver)),
        },
        _ => Value::text(gofmt::stringer(receiver)),
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

fn time_method(ms: i64, time: &DateTime<Utc>, name: &str, args: &[Value]) -> Value {
    let int = |number: u32| Value::Int(i64::from(number));
    match name {
        "Year" => Value::Int(i64::from(time.year())),
        "Month" => Value::Named(Named {
            type_name: "time.Month",
            number: i64::from(time.month()),
            text: MONTHS[time.month0() as usize % 12],
        }),
        "Weekday" => {
            let number = time.weekday().num_days_from_sunday();
            let text = WEEKDAYS[number as usize % 7];
            Value::Named(Named { type_name: "time.Weekday", number: i64::from(number), text })
        }
        "Day" => int(time.day()),
        "Hour" => int(time.hour()),
        "Minute" => int(time.minute()),
        "Second" => int(time.second()),
        "Nanosecond" => int(time.nanosecond()),
        "YearDay" => int(time.ordinal()),
        "Unix" => Value::Int(time.timestamp()),
        "UnixMilli" => Value::Int(ms),
        "UnixMicro" => Value::Int(ms.saturating_mul(1_000)),
        "UnixNano" => Value::Int(ms.saturating_mul(1_000_000)),
        "IsZero" => Value::Bool(false),
        "UTC" => Value::Time(ms),
        "Format" => {
            let layout = args.first().and_then(Value::as_text).unwrap_or_default();
            Value::text(format_time(time, layout))
        }
        _ => Value::text(gofmt::time_text(ms)),
    }
}

/// Go's layouts: what stands for what, longer ones first.
const LAYOUT: [(&str, &str); 31] = [
    ("January", "%B"),
    ("Monday", "%A"),
    ("Z07:00", "Z"),
    ("-07:00", "+00:00"),
    ("Z0700", "Z"),
    ("-0700", "+0000"),
    ("2006", "%Y"),
    ("-07", "+00"),
    ("002", "%j"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    ("MST", "UTC"),
    ("__2", "%j"),
    ("_2", "%e"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    // A number that follows is no layout.
    ("%", "%%"),
    ("\n", "%n"),
    ("\t", "%t"),
];

fn format_time(time: &DateTime<Utc>, layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        if let Some((digits, keep_zeros)) = fraction(rest) {
            let text = format!("{:09}", time.nanosecond() % 1_000_000_000);
            let text = &text[..digits.min(9)];
            let text = if keep_zeros { text } else { text.trim_end_matches('0') };
            if !text.is_empty() {
                out.push(c);
                out.push_str(text);
            }
            rest = &rest[1 + digits..];
        } else if let Some((from, to)) = LAYOUT.iter().find(|(from, _)| stands_for(rest, from)) {
            out.push_str(&time.format(to).to_string());
            rest = &rest[from.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Whether `from` stands at the start; names of days and months in short form
/// are no part of longer words.
fn stands_for(layout: &str, from: &str) -> bool {
    let Some(after) = layout.strip_prefix(from) else { return false };
    !matches!(from, "Jan" | "Mon") || !after.starts_with(|c: char| c.is_ascii_lowercase())
}

/// `.000` or `.999`: how many digits, and whether zeros at the end stay.
fn fraction(layout: &str) -> Option<(usize, bool)> {
    let after = layout.strip_prefix(['.', ','])?;
    let digit = after.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let digits = after.len() - after.trim_start_matches(digit).len();
    let ends = !after[digits..].starts_with(|c: char| c.is_ascii_digit());
    ends.then_some((digits, digit == '0'))
}

/// A field of a struct; `None` if there is none of that name.
pub(super) fn field(receiver: &Value, name: &str) -> Option<Value> {
    match receiver {
        Value::Data(data) => Some(match name {
            "Labels" => Value::Labels(data.labels.clone()),
            "ExternalLabels" => Value::Labels(data.external_labels.clone()),
            "ExternalURL" => Value::Text(data.external_url.clone()),
            "Value" => data.value.clone(),
            _ => return None,
        }),
        Value::Sample(sample) => Some(match name {
            "Labels" => Value::Labels(sample.labels.clone()),
            "Value" => sample.value.clone(),
            _ => return None,
        }),
        Value::Histogram(histogram) => Some(match name {
            "Schema" => Value::Int(i64::from(histogram.schema)),
            "ZeroThreshold" => Value::Float(histogram.zero_threshold),
            "ZeroCount" => Value::Float(histogram.zero_count),
            "Count" => Value::Float(histogram.count),
            "Sum" => Value::Float(histogram.sum),
            _ => return None,
        }),
        _ => None,
    }
}
