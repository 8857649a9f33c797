//! Histograms as text, as Prometheus prints them.

use std::fmt::{self, Write as _};

use super::{CounterResetHint, Histogram, Span};

/// A float as Go's `%g` prints it: the shortest digits that give the float
/// back, with an exponent of two digits at least if it is below -4 or above 5.
#[derive(Debug, Clone, Copy)]
pub struct GoFloat(pub f64);

impl fmt::Display for GoFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        if value == 0.0 {
            return f.write_str(if value.is_sign_negative() { "-0" } else { "0" });
        }
        let scientific = format!("{value:e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..6).contains(&exponent) {
            return write!(f, "{value}");
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{mantissa}e{sign}{:02}", exponent.unsigned_abs())
    }
}

impl fmt::Display for Histogram {
    /// `{count:4, sum:7.5, [-0.1,0.1]:1, (1,2]:3}`: buckets with observations,
    /// ascending.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", GoFloat(self.count), GoFloat(self.sum))?;
        for bucket in self.negative().rev().filter(|b| b.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        if self.zero_count != 0.0 {
            write!(f, ", {}", self.zero_bucket())?;
        }
        for bucket in self.positive().filter(|b| b.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}

impl Histogram {
    /// The buckets that the HTTP API lists: those with observations, by
    /// ascending bounds.
    #[must_use]
    pub fn api_buckets(&self) -> Vec<super::Bucket> {
        self.ascending().filter(|b| b.count != 0.0).collect()
    }

    /// The literal for this histogram in PromQL test scripts and rule tests,
    /// such as `{{schema:1 count:3 sum:4 buckets:[1 2]}}`.
    #[must_use]
    pub fn to_literal(&self) -> String {
        let mut compact = self.clone();
        compact.compact(usize::MAX);
        let mut parts: Vec<String> = Vec::new();
        if compact.schema != 0 {
            parts.push(format!("schema:{}", compact.schema));
        }
        for (key, value) in [
            ("count", compact.count),
            ("sum", compact.sum),
            ("z_bucket", compact.zero_count),
            ("z_bucket_w", compact.zero_threshold),
        ] {
            if value != 0.0 {
                parts.push(format!("{key}:{}", GoFloat(value)));
            }
        }
        if compact.uses_custom_buckets() {
            parts.push(format!("custom_values:{}", list(&compact.custom_values)));
        }
        match compact.counter_reset_hint {
            CounterResetHint::Unknown => {}
            CounterResetHint::Reset => parts.push("counter_reset_hint:reset".to_owned()),
            CounterResetHint::NotReset => parts.push("counter_reset_hint:not_reset".to_owned()),
            CounterResetHint::Gauge => parts.push("counter_reset_hint:gauge".to_owned()),
        }
        let mut side = |offset: &str, buckets: &str, spans: &[Span], counts: &[f64]| {
            if let Some(span) = spans.first().filter(|s| s.offset != 0) {
                parts.push(format!("{offset}:{}", span.offset));
            }
            if !counts.is_empty() {
                parts.push(format!("{buckets}:{}", list(counts)));
            }
        };
        side("offset", "buckets", &compact.positive_spans, &compact.positive_buckets);
        side("n_offset", "n_buckets", &compact.negative_spans, &compact.negative_buckets);
        format!("{{{{{}}}}}", parts.join(" "))
    }
}

fn list(values: &[f64]) -> String {
    let mut out = String::from("[");
    for (i, &value) in values.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let _ = write!(out, "{}", GoFloat(value));
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (100_000.0, "100000"),
            (123_456.75, "123456.75"),
            (1_000_000.0, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(GoFloat(value).to_string(), text);
        }
    }
}
