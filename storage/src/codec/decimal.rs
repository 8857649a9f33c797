//! Mantissas over a common power of ten.

use super::input::Input;
use super::{CodecError, MAX_INTEGRAL, ints, tag};

const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Appends the values if they have a common power of ten; says whether.
pub(super) fn encode(values: &[f64], mantissas: &mut Vec<i64>, out: &mut Vec<u8>) -> bool {
    for (exponent, power) in POWERS.iter().enumerate() {
        mantissas.clear();
        mantissas.extend(values.iter().map_while(|v| {
            let scaled = (v * power).round_ties_even();
            let exact = scaled.abs() <= MAX_INTEGRAL
                && ((scaled as i64) as f64 / power).to_bits() == v.to_bits();
            exact.then_some(scaled as i64)
        }));
        if mantissas.len() == values.len() {
            out.push(tag::DECIMAL + exponent as u8);
            ints::encode(mantissas, out);
            return true;
        }
    }
    false
}

/// Appends `count` values; says whether they are integral.
pub(super) fn decode(
    tag: u8,
    count: usize,
    input: &mut Input<'_>,
    out: &mut Vec<f64>,
) -> Result<bool, CodecError> {
    let exponent = usize::from(tag - super::tag::DECIMAL);
    let power = *POWERS.get(exponent).ok_or_else(|| input.invalid("exponent"))?;
    let mut mantissas = Vec::new();
    ints::decode(input, count, &mut mantissas)?;
    out.extend(mantissas.iter().map(|m| *m as f64 / power));
    Ok(exponent == 0 && mantissas.iter().all(|m| m.unsigned_abs() <= 1 << 53))
}
