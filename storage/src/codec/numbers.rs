//! Columns of numbers: a form, then integers, perhaps against a sibling.
//!
//! ```text
//! 0x2m            integers (decimal form, exponent 0), m the mode
//! 0x3m            the same as differences to the sibling's mantissas
//! 0x4m form       any other form
//! 0x5m form       the same against the sibling
//! 0x6m            sums of decimals, see [`steps`]
//! ```
//!
//! The mode and what follows are described in [`ints`].

use super::form::{self, Form};
use super::input::Input;
use super::{CodecError, ints, steps};

pub(super) const INTEGERS: u8 = 0x20;
const SIBLING: u8 = 0x10;
const FORM: u8 = 0x20;
const STEPS: u8 = 0x60;
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
    if let Some(form) = form::find_decimals(values, &mut scratch.mantissas) {
        return encode_form(form, sibling, scratch, out);
    }
    let (mut form, mut bits) = (Form::Bits, u64::MAX);
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
    if let Some(exponent) = steps::find_exponent(values) {
        let Scratch { mantissas, others, ints: space } = scratch;
        steps::split_all(values, exponent, mantissas, others);
        let extra = values.len() as u64;
        if ints::level_bits(mantissas) + ints::level_bits(others) + extra < bits {
            let tag_at = out.len();
            out.push(0);
            out[tag_at] =
                STEPS | steps::encode(values[0], exponent, (mantissas, others), space, out);
            return;
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
        // Prefer what can be read alone: another column must be decoded first,
        // and what that builds on.
        let alone = ints::estimate_bits(mantissas);
        if ints::estimate_bits(others) + 32.max(alone / 8) < alone {
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

/// Whether a chunk with this tag, without marks, needs a sibling.
pub(super) const fn needs_sibling(tag: u8) -> bool {
    tag >= INTEGERS && tag < STEPS && tag & SIBLING != 0
}

/// Whether a chunk with this tag holds integers.
pub(super) const fn holds_integers(tag: u8) -> bool {
    tag >= INTEGERS && tag < INTEGERS + FORM
}

/// Whether a chunk with this tag, and this byte behind it, can hold no NaN.
pub(super) const fn are_numbers(tag: u8, next: Option<u8>) -> bool {
    let has_form = tag >= INTEGERS + FORM;
    let is_marked = tag & super::tag::MARKS != 0;
    tag >= INTEGERS && tag < STEPS && !is_marked && (!has_form || form::is_arithmetic(next))
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
    if kind == STEPS {
        return steps::decode(mode, input, out).map(|()| false);
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
