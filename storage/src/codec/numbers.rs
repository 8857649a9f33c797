//! Columns of numbers: a form, then integers, perhaps against a sibling.
//!
//! ```text
//! 0x2m            integers (decimal form, exponent 0), m the mode
//! 0x3m            the same as differences to the sibling's mantissas
//! 0x4m form       any other form
//! 0x5m form       the same against the sibling
//! 0x6m e          near decimals: mantissas over 10^e, and behind them one byte
//!                 of mode and integers: how many floats each value lies above
//!                 its decimal
//! ```
//!
//! The mode and what follows are described in [`ints`].

use super::form::{self, Form};
use super::input::Input;
use super::{CodecError, ints};

pub(super) const INTEGERS: u8 = 0x20;
const SIBLING: u8 = 0x10;
const FORM: u8 = 0x20;
const NEAR: u8 = 0x60;
pub(super) const END: u8 = 0x70;

/// Space that encoding needs, kept between chunks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    mantissas: Vec<i64>,
    others: Vec<i64>,
    ints: ints::Scratch,
}

/// Appends a chunk of at least one value, none of them a mark.
pub(super) fn encode(
    values: &[f64],
    sibling: Option<&[f64]>,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    if let Some(form) = form::decimal_form(values) {
        form::mantissas(values, form, &mut scratch.mantissas);
        return encode_form(form, sibling, scratch, out);
    }
    let (mut form, mut bits) = (Form::Bits, 0);
    if let Some(binary) = form::binary_form(values) {
        form::mantissas(values, Form::Bits, &mut scratch.others);
        form::mantissas(values, binary, &mut scratch.mantissas);
        bits = ints::estimate_bits(&scratch.mantissas);
        let bits_of_bits = ints::estimate_bits(&scratch.others);
        if bits <= bits_of_bits {
            form = binary;
        } else {
            bits = bits_of_bits;
        }
    }
    if let Some(exponent) = near_exponent(values) {
        split_near(values, exponent, &mut scratch.mantissas, &mut scratch.others);
        let near = ints::estimate_bits(&scratch.mantissas) + ints::estimate_bits(&scratch.others);
        let worth = near + values.len() as u64;
        if bits == 0 || worth < bits {
            return encode_near(exponent, scratch, out);
        }
    }
    form::mantissas(values, form, &mut scratch.mantissas);
    encode_form(form, sibling, scratch, out);
}

/// Appends a chunk whose mantissas are in `scratch`.
fn encode_form(form: Form, sibling: Option<&[f64]>, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let Scratch { mantissas, others, ints: space } = scratch;
    let mut tag = INTEGERS;
    if let Some(sibling) = sibling {
        others.clear();
        let pairs = mantissas.iter().zip(sibling);
        others.extend(pairs.map(|(m, s)| m.wrapping_sub(form::mantissa(*s, form))));
        // Prefer what can be read alone, unless it is worth a few bytes.
        if ints::estimate_bits(others) + 32 < ints::estimate_bits(mantissas) {
            std::mem::swap(mantissas, others);
            tag |= SIBLING;
        }
    }
    let tag_at = out.len();
    out.push(0);
    if !form.is_integral() {
        tag += FORM;
        form.encode(out);
    }

    out[tag_at] = tag | ints::encode(mantissas, space, out);
}

fn encode_near(exponent: u8, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let tag_at = out.len();
    out.extend([0, exponent]);
    out[tag_at] = NEAR | ints::encode(&scratch.mantissas, &mut scratch.ints, out);
    let mode_at = out.len();
    out.push(0);
    out[mode_at] = ints::encode(&scratch.others, &mut scratch.ints, out);
}

/// The exponent of decimals that a few of the values lie near to, if that can
/// hardly be by chance.
fn near_exponent(values: &[f64]) -> Option<u8> {
    const SAMPLES: usize = 8;
    /// In floats.
    const NEAR_BY: u64 = 16;
    const FAR_APART: f64 = 1024.0;
    let step = values.len().div_ceil(SAMPLES);
    let largest = values.iter().step_by(step).fold(0.0f64, |max, v| max.max(v.abs()));
    (1..=form::MAX_EXPONENT).find(|&exponent| {
        let apart = form::unscale(1, exponent) > largest * f64::EPSILON * FAR_APART;
        apart
            && values.iter().step_by(step).all(|v| {
                let near = form::unscale(form::scale(*v, exponent), exponent);
                floats_above(*v, near).unsigned_abs() <= NEAR_BY
            })
    })
}

/// How many floats `value` is above `base`.
fn floats_above(value: f64, base: f64) -> i64 {
    let order = |v: f64| form::order_bits(v.to_bits() as i64);
    order(value).wrapping_sub(order(base))
}

fn split_near(values: &[f64], exponent: u8, mantissas: &mut Vec<i64>, above: &mut Vec<i64>) {
    form::mantissas(values, Form::Decimal(exponent), mantissas);
    above.clear();
    let pairs = values.iter().zip(mantissas.iter());
    above.extend(pairs.map(|(v, m)| floats_above(*v, form::unscale(*m, exponent))));
}

/// Fills `out`, not empty, with the values of a chunk; says whether all are
/// integers of at most 2^53.
pub(super) fn decode(
    tag: u8,
    input: &mut Input<'_>,
    sibling: Option<&[f64]>,
    out: &mut [f64],
) -> Result<bool, CodecError> {
    let mode = tag & (ints::MODES - 1);
    let kind = tag - mode;
    if kind == NEAR {
        return decode_near(mode, input, out).map(|()| false);
    }
    let form = if kind >= INTEGERS + FORM { Form::decode(input)? } else { Form::Decimal(0) };
    if kind & SIBLING == 0 {
        form::decode(form, mode, input, out)?;
    } else {
        let sibling = sibling.ok_or(CodecError::NoSibling)?;
        form::decode_sibling(form, mode, input, sibling, out)?;
    }
    Ok(form.is_integral() && out.iter().all(|v| v.abs() <= super::MAX_INTEGRAL))
}

fn decode_near(mode: u8, input: &mut Input<'_>, out: &mut [f64]) -> Result<(), CodecError> {
    let exponent = input.byte()?;
    if exponent > form::MAX_EXPONENT {
        return Err(input.invalid("exponent"));
    }
    form::decode(Form::Decimal(exponent), mode, input, out)?;
    let mode = input.byte()?;
    if mode >= ints::MODES {
        return Err(CodecError::UnknownTag { offset: input.offset() - 1, tag: mode });
    }
    let mut above = vec![0.0; out.len()];
    ints::decode(mode, input, &mut above, |m| f64::from_bits(m as u64))?;
    for (slot, above) in out.iter_mut().zip(&above) {
        let order = form::order_bits(slot.to_bits() as i64);
        let bits = form::order_bits(order.wrapping_add(above.to_bits() as i64));
        *slot = f64::from_bits(bits as u64);
    }
    Ok(())
}
