//! Numbers of the exposition formats, exactly as Go's `strconv` reads them.

/// Powers of ten that are exact as floats.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Parses a value: decimal, `Inf`, `Infinity` and `NaN` in any case. `None`
/// for everything else, hexadecimal and underscores included, and for numbers
/// that no float can hold.
///
/// A NaN is Prometheus' quiet NaN. Mantissas up to 2^53 with a power of ten
/// up to 22 are one exact multiplication or division (Clinger's fast path);
/// the others go to the standard library.
#[must_use]
pub fn parse_float(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut mantissa: u64 = 0;
    let mut i = 0;
    while let Some(d) = digits.get(i).map(|b| b.wrapping_sub(b'0'))
        && d < 10
    {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(d));
        i += 1;
    }
    let mut count = i;
    let mut fraction = 0;
    if digits.get(i) == Some(&b'.') {
        i += 1;
        while let Some(d) = digits.get(i).map(|b| b.wrapping_sub(b'0'))
            && d < 10
        {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(d));
            i += 1;
            fraction += 1;
        }
        count += fraction;
    }
    let mut exponent: i32 = 0;
    if count > 0 && matches!(digits.get(i), Some(b'e' | b'E')) {
        let (down, start) = match digits.get(i + 1) {
            Some(b'-') => (true, i + 2),
            Some(b'+') => (false, i + 2),
            _ => (false, i + 1),
        };
        i = start;
        while let Some(d) = digits.get(i).map(|b| b.wrapping_sub(b'0'))
            && d < 10
            && i - start < 4
        {
            exponent = exponent * 10 + i32::from(d);
            i += 1;
        }
        if i == start {
            return None;
        }
        if down {
            exponent = -exponent;
        }
    }
    // 19 digits fit 64 bits; leading zeros only make this more careful.
    if i != digits.len() || count == 0 || count > 19 || mantissa > 1 << 53 {
        return parse_slowly(text);
    }
    #[allow(clippy::cast_precision_loss, reason = "at most 2^53")]
    let float = mantissa as f64;
    let power = exponent - i32::try_from(fraction).ok()?;
    let magnitude = match POWERS.get(power.unsigned_abs() as usize) {
        Some(p) if power < 0 => float / p,
        Some(p) => float * p,
        None => return parse_slowly(text),
    };
    Some(if negative { -magnitude } else { magnitude })
}

#[cold]
fn parse_slowly(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    let unsigned = text.trim_start_matches(['+', '-']);
    if value.is_nan() {
        // Go takes no sign here.
        return (unsigned.len() == text.len())
            .then(|| f64::from_bits(narthex_storage::sample::NORMAL_NAN_BITS));
    }
    let named = unsigned.starts_with(['i', 'I']);
    (value.is_finite() || named).then_some(value)
}

/// Writes a float as OpenMetrics wants `le` and `quantile`: shortest digits,
/// with `.0` where neither point nor exponent is there.
#[must_use]
pub fn open_metrics_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Go's 'g' with the shortest digits: an exponent below -4 or from 6 on.
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_numbers_are_read_as_go_does() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("+1", Some(1.0)),
            ("-0", Some(-0.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e3", Some(1000.0)),
            ("1E-2", Some(0.01)),
            ("iNf", Some(f64::INFINITY)),
            ("-infinity", Some(f64::NEG_INFINITY)),
            ("9007199254740993", Some(9_007_199_254_740_992.0)),
            ("18446744073709551616", Some(18_446_744_073_709_551_616.0)),
            ("1e-400", Some(0.0)),
            ("00000000000000000000001", Some(1.0)),
            ("1e00000000003", Some(1000.0)),
            ("", None),
            ("+", None),
            (".", None),
            ("e5", None),
            ("1e", None),
            ("1e+", None),
            ("1e999", None),
            ("1_0", None),
            ("0x10", None),
            ("0x1p3", None),
            ("1f", None),
            ("+NaN", None),
            ("infin", None),
            ("1 ", None),
            ("--1", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(
                parse_float(text.as_bytes()).map(f64::to_bits),
                expected.map(f64::to_bits),
                "{text:?}"
            );
        }
        assert_eq!(
            parse_float(b"nAN").map(f64::to_bits),
            Some(narthex_storage::sample::NORMAL_NAN_BITS)
        );
    }

    #[test]
    fn bounds_are_written_as_open_metrics_wants_them() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-1.0, "-1.0"),
            (0.005, "0.005"),
            (1e20, "1e+20"),
            (1e6, "1e+06"),
            (123_456.0, "123456.0"),
            (1e-5, "1e-05"),
            (1e21, "1e+21"),
            (2.5e-7, "2.5e-07"),
            (f64::INFINITY, "+Inf"),
            (16.0, "16.0"),
            (12_345_678.0, "1.2345678e+07"),
        ] {
            assert_eq!(open_metrics_float(value), text);
        }
    }

    proptest! {
        #[test]
        fn every_float_comes_back(bits in any::<u64>(), form in 0..3) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = match form { 0 => format!("{value}"), 1 => format!("{value:e}"), _ => format!("{value:?}") };
            prop_assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn decimals_are_those_of_the_standard_library(text in "[-+]?[0-9]{0,20}(\\.[0-9]{0,20})?([eE][-+]?[0-9]{0,3})?") {
            let expected = text.parse::<f64>().ok().filter(|v| v.is_finite());
            prop_assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), expected.map(f64::to_bits));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_float(&bytes);
        }
    }
}
