//! Integers as differences, packed.

use super::CodecError;
use super::input::{Input, push_signed, unzigzag, zigzag};

/// Appends at least one integer to `out`.
pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    push_signed(values[0], out);
    let Some(second) = values.get(1) else { return };
    push_signed(second.wrapping_sub(values[0]), out);
    let differences = || {
        values.windows(3).map(|w| {
            let before = w[1].wrapping_sub(w[0]);
            zigzag(w[2].wrapping_sub(w[1]).wrapping_sub(before))
        })
    };
    let width = 64 - differences().fold(0, |all, d| all | d).leading_zeros();
    out.push(width as u8);
    let (mut word, mut filled) = (0u128, 0);
    for difference in differences() {
        word |= u128::from(difference) << filled;
        filled += width;
        while filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(word as u8);
    }
}

/// Appends `count` integers, at least one, to `out`.
pub(super) fn decode(
    input: &mut Input<'_>,
    count: usize,
    out: &mut Vec<i64>,
) -> Result<(), CodecError> {
    let mut value = input.signed()?;
    out.push(value);
    if count == 1 {
        return Ok(());
    }
    let mut step = input.signed()?;
    value = value.wrapping_add(step);
    out.push(value);
    let width = usize::from(input.byte()?);
    if width > 64 {
        return Err(input.invalid("width"));
    }
    let bytes = input.take(((count - 2) * width).div_ceil(8))?;
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    for i in 0..count - 2 {
        let at = i * width;
        let mut word = [0; 16];
        let end = (at / 8 + 16).min(bytes.len());
        let part = &bytes[(at / 8).min(end)..end];
        word[..part.len()].copy_from_slice(part);
        let bits = (u128::from_le_bytes(word) >> (at % 8)) as u64 & mask;
        step = step.wrapping_add(unzigzag(bits));
        value = value.wrapping_add(step);
        out.push(value);
    }
    Ok(())
}
