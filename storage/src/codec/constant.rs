//! A chunk of one value over and over: two thirds of all chunks.
//!
//! The tag holds the form, and how many bytes follow, so that 0 and the
//! normal NaN take one byte, small integers two:
//!
//! ```text
//! 0x00 + n   n in 0..=7: integer 0 or more, n bytes
//! 0x08 + n   n in 1..=7: decimal: exponent byte, then the mantissa in n bytes
//! 0x10 + n   n in 1..=8: the top n bytes of the bits, the rest is zero
//! 0x19       the normal NaN
//! 0x1a       the staleness marker
//! ```
//!
//! The exponent byte of a decimal holds the sign in bit 7 and below it
//! the exponent plus 40.

use super::input::Input;
use super::{CodecError, MAX_INTEGRAL, tag};
use crate::sample::{NORMAL_NAN_BITS, STALE_NAN_BITS};

const INTEGER: u8 = tag::CONSTANT;
const DECIMAL: u8 = tag::CONSTANT + 0x08;
const BITS: u8 = tag::CONSTANT + 0x10;
const NORMAL_NAN: u8 = tag::CONSTANT + 0x19;
const STALE_NAN: u8 = tag::CONSTANT + 0x1a;

pub(super) fn encode(value: f64, out: &mut Vec<u8>) {
    let bits = value.to_bits();
    match bits {
        NORMAL_NAN_BITS => return out.push(NORMAL_NAN),
        STALE_NAN_BITS => return out.push(STALE_NAN),
        _ => {}
    }
    let bits_len = 8 - bits.trailing_zeros() as usize / 8;
    if (0.0..=MAX_INTEGRAL).contains(&value) && value.fract() == 0.0 && bits >> 63 == 0 {
        let integer = value as u64;
        let len = byte_len(integer);
        if len <= bits_len {
            out.push(INTEGER + len as u8);
            out.extend_from_slice(&integer.to_le_bytes()[..len]);
            return;
        }
    }
    if let Some((mantissa, exponent)) = shortest_decimal(value.abs()) {
        let len = byte_len(mantissa);
        if len < bits_len {
            out.push(DECIMAL + len as u8);
            out.push((bits >> 63 << 7) as u8 | (exponent + 40) as u8);
            out.extend_from_slice(&mantissa.to_le_bytes()[..len]);
            return;
        }
    }
    out.push(BITS + bits_len as u8);
    out.extend_from_slice(&bits.to_le_bytes()[8 - bits_len..]);
}

pub(super) fn decode(tag: u8, input: &mut Input<'_>) -> Result<f64, CodecError> {
    Ok(match tag {
        INTEGER..DECIMAL => input.uint(usize::from(tag - INTEGER))? as f64,
        DECIMAL..BITS => {
            let byte = input.byte()?;
            let mantissa = input.uint(usize::from(tag - DECIMAL))?;
            let value = decimal_value(mantissa, i32::from(byte & 0x7f) - 40)
                .ok_or_else(|| input.invalid("exponent"))?;
            if byte & 0x80 == 0 { value } else { -value }
        }
        BITS..NORMAL_NAN => {
            let len = usize::from(tag - BITS);
            f64::from_bits(input.uint(len)?.checked_shl(64 - 8 * len as u32).unwrap_or(0))
        }
        NORMAL_NAN => f64::from_bits(NORMAL_NAN_BITS),
        STALE_NAN => f64::from_bits(STALE_NAN_BITS),
        tag => return Err(CodecError::UnknownTag { offset: 0, tag }),
    })
}

const fn byte_len(integer: u64) -> usize {
    8 - integer.leading_zeros() as usize / 8
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

fn decimal_value(mantissa: u64, exponent: i32) -> Option<f64> {
    let power = *POWERS.get(exponent.unsigned_abs() as usize)?;
    Some(if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power })
}

/// The shortest mantissa that gives `value` (0 or more), if one below 2^53 does.
fn shortest_decimal(value: f64) -> Option<(u64, i32)> {
    let exact = |exponent: i32| {
        let power = POWERS[exponent.unsigned_abs() as usize];
        let scaled = if exponent < 0 { value * power } else { value / power };
        let mantissa = scaled.round_ties_even();
        (mantissa <= MAX_INTEGRAL
            && decimal_value(mantissa as u64, exponent).map(f64::to_bits) == Some(value.to_bits()))
        .then_some((mantissa as u64, exponent))
    };
    if value.fract() == 0.0 {
        return (0..=22).rev().find_map(exact);
    }
    (1..=22).map(|e| -e).find_map(exact)
}
