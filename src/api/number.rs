//! How are numbers written? As Go writes them, since readers compare texts.

/// Appends a sample value as Prometheus does: the shortest text that reads
/// back, with an exponent of at least two digits below 1e-6 and from 1e21 on.
pub fn push_float(out: &mut Vec<u8>, value: f64) {
    if value.fract() == 0.0 && value.abs() < 1e15 && (value != 0.0 || value.is_sign_positive()) {
        #[allow(clippy::cast_possible_truncation, reason = "integral and below 1e15")]
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        return;
    }
    push_float_slow(out, value);
}

#[cold]
fn push_special(out: &mut Vec<u8>, value: f64) {
    let text: &[u8] = if value.is_nan() {
        b"NaN"
    } else if value > 0.0 {
        b"+Inf"
    } else {
        b"-Inf"
    };
    out.extend_from_slice(text);
}

fn push_float_slow(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        return push_special(out, value);
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    let magnitude = value.abs();
    // Most values: what the library writes without an exponent is Go's text,
    // too, but for the zero behind integers.
    if (1e-5..1e15).contains(&magnitude) && !text.as_bytes().contains(&b'e') {
        return out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
    let decimal = Decimal::parse(text);
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        decimal.push_scientific(out);
    } else {
        decimal.push_plain(out);
    }
}

/// Appends a value in Go's `%e`-like shortest form (`1e+00`), as the alerts
/// API wants it.
pub fn push_float_scientific(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        return push_special(out, value);
    }
    let mut buffer = zmij::Buffer::new();
    let decimal = Decimal::parse(buffer.format_finite(value));
    if value.is_sign_negative() {
        out.push(b'-');
    }
    decimal.push_scientific(out);
}

/// Appends milliseconds as seconds: `1795246716.460`, three decimals or none.
pub fn push_timestamp(out: &mut Vec<u8>, timestamp_ms: i64) {
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    let magnitude = timestamp_ms.unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(magnitude / 1000).as_bytes());
    let fraction = magnitude % 1000;
    if fraction != 0 {
        let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or(0);
        out.extend_from_slice(&[
            b'.',
            digit(fraction / 100),
            digit(fraction / 10),
            digit(fraction),
        ]);
    }
}

/// Appends milliseconds as a float of seconds: `1763700000.5`, as scalars have.
pub fn push_timestamp_float(out: &mut Vec<u8>, timestamp_ms: i64) {
    #[allow(clippy::cast_precision_loss, reason = "Prometheus divides floats here, too")]
    push_float(out, timestamp_ms as f64 / 1000.0);
}

/// The significant digits of a number and the position of its point.
struct Decimal {
    digits: [u8; 24],
    len: usize,
    /// The value is 0.DIGITS times ten to this.
    point: i32,
}

impl Decimal {
    /// Reads what the shortest-digits library writes (`1.5e-7`, `120.0`); the
    /// sign is left to the caller.
    fn parse(text: &str) -> Self {
        let text = text.trim_start_matches('-');
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().expect("written by the formatter");
        let mut decimal = Self { digits: [0; 24], len: 0, point: 0 };
        let mut seen_point = false;
        for byte in mantissa.bytes() {
            if byte == b'.' {
                seen_point = true;
                continue;
            }
            if decimal.len == 0 && byte == b'0' {
                // A leading zero is no digit, but behind the point it moves it.
                decimal.point -= i32::from(seen_point);
                continue;
            }
            decimal.digits[decimal.len] = byte;
            decimal.len += 1;
            decimal.point += i32::from(!seen_point);
        }
        decimal.point += exponent;
        while decimal.len > 0 && decimal.digits[decimal.len - 1] == b'0' {
            decimal.len -= 1;
        }
        if decimal.len == 0 {
            decimal.point = 1;
        }
        decimal
    }

    fn push_plain(&self, out: &mut Vec<u8>) {
        let digits = &self.digits[..self.len];
        let Ok(point) = usize::try_from(self.point) else {
            out.extend_from_slice(b"0.");
            out.extend((self.point..0).map(|_| b'0'));
            return out.extend_from_slice(digits);
        };
        if point == 0 {
            out.extend_from_slice(b"0.");
            out.extend_from_slice(digits);
        } else if point >= self.len {
            out.extend_from_slice(digits);
            out.extend((self.len..point).map(|_| b'0'));
        } else {
            out.extend_from_slice(&digits[..point]);
            out.push(b'.');
            out.extend_from_slice(&digits[point..]);
        }
    }

    fn push_scientific(&self, out: &mut Vec<u8>) {
        let digits = &self.digits[..self.len];
        let Some((first, rest)) = digits.split_first() else {
            return out.extend_from_slice(b"0e+00");
        };
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let exponent = self.point - 1;
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(exponent.abs()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (-3.0, "-3"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (1.25e-7, "1.25e-07"),
            (5e-324, "5e-324"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (123_456_789.125, "123456789.125"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(|out| push_float(out, value)), expected);
        }
        assert_eq!(text(|out| push_float_scientific(out, 1.0)), "1e+00");
        assert_eq!(text(|out| push_float_scientific(out, 0.0)), "0e+00");
        assert_eq!(text(|out| push_float_scientific(out, 81.25)), "8.125e+01");
    }

    #[test]
    fn timestamps_have_three_decimals_or_none() {
        assert_eq!(text(|out| push_timestamp(out, 1_795_246_716_460)), "1795246716.460");
        assert_eq!(text(|out| push_timestamp(out, 4000)), "4");
        assert_eq!(text(|out| push_timestamp(out, -1)), "-0.001");
        assert_eq!(text(|out| push_timestamp_float(out, 1_763_700_000_500)), "1763700000.5");
    }

    proptest! {
        #[test]
        fn floats_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let written = text(|out| push_float(out, value));
            prop_assert_eq!(written.parse::<f64>().expect("a float").to_bits(), bits);
            let written = text(|out| push_float_scientific(out, value));
            prop_assert_eq!(written.parse::<f64>().expect("a float").to_bits(), bits);
        }
    }
}
