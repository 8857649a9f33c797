//! Sums of decimals: every addition rounds, so the values are no decimals, but
//! their steps nearly are.
//!
//! ```text
//! 0x6m       m is the mode of the steps
//! byte       e, 1 to 15
//! constant   the first value, as a constant chunk
//! integers   a step q each: the float nearest to q / 10^e is added to the
//!            value before
//! byte       the mode of the corrections
//! integers   how many floats each value is above that sum
//! ```
//!
//! Counters of seconds in clients look like this (`sum += duration`), and
//! everything that went through two divisions.

use super::input::Input;
use super::{CodecError, constant, form, ints};

/// The exponent with which most of a few steps are near to decimals, if that
/// is hardly by chance.
pub(super) fn find_exponent(values: &[f64]) -> Option<u8> {
    const SAMPLES: usize = 16;
    /// In floats.
    const NEAR: u64 = 4;
    const FAR_APART: f64 = 64.0;
    let stride = (values.len() / SAMPLES).max(1);
    let pairs = || values.windows(2).step_by(stride).filter(|w| w[0] != w[1]);
    let sampled = pairs().count();
    let largest = values.iter().step_by(stride).fold(0.0f64, |max, v| max.max(v.abs()));
    if sampled < SAMPLES / 4 {
        return None;
    }
    (1..=form::MAX_EXPONENT)
        .take_while(|e| form::unscale(1, *e) > largest * f64::EPSILON * FAR_APART)
        .find(|e| {
            let near = |w: &&[f64]| {
                let (q, above) = split(w[0], w[1], *e);
                q != 0 && above.unsigned_abs() <= NEAR
            };
            pairs().filter(near).count() * 4 >= sampled * 3
        })
}

#[inline]
fn split(before: f64, value: f64, exponent: u8) -> (i64, i64) {
    let step = form::scale(value - before, exponent);
    let sum = before + form::unscale(step, exponent);
    (step, order(value).wrapping_sub(order(sum)))
}

#[inline]
const fn order(value: f64) -> i64 {
    form::order_bits(value.to_bits() as i64)
}

/// Replaces `steps` and `above` by those of `values`.
pub(super) fn split_all(values: &[f64], exponent: u8, steps: &mut Vec<i64>, above: &mut Vec<i64>) {
    steps.clear();
    above.clear();
    for pair in values.windows(2) {
        let (step, correction) = split(pair[0], pair[1], exponent);
        steps.push(step);
        above.push(correction);
    }
}

/// Appends what stands behind the tag; returns the mode in the tag. There are
/// at least two values.
pub(super) fn encode(
    first: f64,
    exponent: u8,
    (steps, above): (&[i64], &[i64]),
    space: &mut ints::Scratch,
    out: &mut Vec<u8>,
) -> u8 {
    out.push(exponent);
    constant::encode(first, out);
    let mode = ints::encode(steps, space, out);
    let mode_at = out.len();
    out.push(0);
    out[mode_at] = ints::encode(above, space, out);
    mode
}

/// Fills `out`, not empty, with the values behind a tag with this mode.
/// Allocates scratch space.
pub(super) fn decode(mode: u8, input: &mut Input<'_>, out: &mut [f64]) -> Result<(), CodecError> {
    let exponent = input.byte()?;
    if exponent > form::MAX_EXPONENT {
        return Err(input.invalid("exponent"));
    }
    let tag = input.byte()?;
    out[0] = constant::decode(tag, input)?;
    let (first, rest) = out.split_at_mut(1);
    if rest.is_empty() {
        return Err(input.invalid("number of steps"));
    }
    ints::decode(mode, input, rest, |q| form::unscale(q, exponent))?;
    let mode = input.byte()?;
    if mode >= ints::MODES {
        return Err(CodecError::UnknownTag { offset: input.offset() - 1, tag: mode });
    }
    let mut above = vec![0.0; rest.len()];
    ints::decode(mode, input, &mut above, |m| f64::from_bits(m as u64))?;
    let mut value = first[0];
    for (slot, above) in rest.iter_mut().zip(&above) {
        let bits = form::order_bits(order(value + *slot).wrapping_add(above.to_bits() as i64));
        value = f64::from_bits(bits as u64);
        *slot = value;
    }
    Ok(())
}
