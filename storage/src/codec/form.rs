//! In which form is a float an integer?
//!
//! Each form is a pair of functions that both sides compute alike, with one
//! rounding of IEEE 754 per operation:
//!
//! ```text
//! byte  kind << 4 | e     a float of mantissa m is
//! 0x0e  decimal           m / 10^e          1.5 as exporters print it
//! 0x1e  ticks             m * 10^-e         what `ticks * 0.001` gives
//! 0x2x  binary, + 1 byte  m * 2^-k          sums of real floats; k is the
//!                                           12 bits from x on, less 2048
//! 0x30  bits              the bits, negative ones in reverse order
//! ```

use super::input::Input;
use super::{CodecError, ints};

/// How floats become integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Over a power of ten, 0 for integers.
    Decimal(u8),
    /// Times the float nearest to a power of ten below 1.
    Ticks(u8),
    /// Times a power of two.
    Binary(i16),
    /// The bits, ordered as the floats are.
    Bits,
}

/// Largest exponent of [`Form::Decimal`] and [`Form::Ticks`].
pub(super) const MAX_EXPONENT: u8 = 15;
const POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
const INVERSE: [f64; 16] = [
    1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14,
    1e-15,
];
/// Powers of two beyond this are not tried: they and their inverse are normal.
const MAX_BINARY: i16 = 1000;
/// Mantissas of decimals and ticks are below 2^51, other integers at most 2^53.
const MAX_SCALED: f64 = (1u64 << 51) as f64;
/// Added to a float below 2^51, leaves the nearest integer in the low bits.
const ROUNDER: f64 = (3u64 << 51) as f64;

/// The integer nearest to `value * 10^exponent`, ties to even; any, if that is
/// out of range.
#[inline]
pub(super) fn scale(value: f64, exponent: u8) -> i64 {
    let scaled = value * POWERS[usize::from(exponent)];
    if scaled.abs() < MAX_SCALED { round(scaled) } else { scaled as i64 }
}

#[inline]
fn round(scaled: f64) -> i64 {
    ((scaled + ROUNDER).to_bits() as i64).wrapping_sub(ROUNDER.to_bits() as i64)
}

/// `mantissa / 10^exponent`.
#[inline]
pub(super) fn unscale(mantissa: i64, exponent: u8) -> f64 {
    mantissa as f64 / POWERS[usize::from(exponent)]
}

const fn power_of_two(k: i16) -> f64 {
    f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

/// The bits as an integer that is ordered as the floats are; its own inverse.
#[inline]
pub(super) const fn order_bits(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Replaces `mantissas` by those of the form with the smallest power of ten that
/// fits all values, if there is one.
pub(super) fn find_decimals(values: &[f64], mantissas: &mut Vec<i64>) -> Option<Form> {
    find_exponent(values, 0, Form::Decimal, mantissas)
        .or_else(|| find_exponent(values, 1, Form::Ticks, mantissas))
}

fn find_exponent(
    values: &[f64],
    from: u8,
    form: impl Fn(u8) -> Form,
    mantissas: &mut Vec<i64>,
) -> Option<Form> {
    const SAMPLES: usize = 8;
    let mut samples = values.iter().step_by(values.len().div_ceil(SAMPLES));
    let sampled = samples.try_fold(from, |e, v| grow(e, *v, &form))?;
    if fit(values, form(sampled), mantissas) {
        return Some(form(sampled));
    }
    // A value that fitted may not fit with more decimals: its mantissa grows.
    let exponent = values.iter().try_fold(sampled, |e, v| grow(e, *v, &form))?;
    fit(values, form(exponent), mantissas).then(|| form(exponent))
}

/// The smallest exponent from this one on that fits a value.
fn grow(exponent: u8, value: f64, form: &impl Fn(u8) -> Form) -> Option<u8> {
    (exponent..=MAX_EXPONENT).find(|e| fits_one(value, form(*e)))
}

fn fits_one(value: f64, form: Form) -> bool {
    fit_each(&[value], form, &mut [0])
}

fn fit(values: &[f64], form: Form, mantissas: &mut Vec<i64>) -> bool {
    mantissas.clear();
    mantissas.resize(values.len(), 0);
    fit_each(values, form, mantissas)
}

/// Fills `mantissas`; says whether they are those of the values.
fn fit_each(values: &[f64], form: Form, mantissas: &mut [i64]) -> bool {
    match form {
        Form::Decimal(0) => {
            fit_scaled(values, 1.0, |m| m, mantissas) || fit_integers(values, mantissas)
        }
        Form::Decimal(e) => {
            let power = POWERS[usize::from(e)];
            fit_scaled(values, power, |m| m / power, mantissas)
        }
        Form::Ticks(e) => {
            let tick = INVERSE[usize::from(e)];
            fit_scaled(values, POWERS[usize::from(e)], |m| m * tick, mantissas)
        }
        Form::Binary(_) | Form::Bits => unreachable!("BUG: {form:?} is not found by trying"),
    }
}

/// The hot loop of encoding: no branches, so that the compiler does two or more
/// values at once.
#[inline]
fn fit_scaled(
    values: &[f64],
    power: f64,
    back: impl Fn(f64) -> f64,
    mantissas: &mut [i64],
) -> bool {
    let (mut wrong, mut largest) = (0u64, 0.0f64);
    for (value, mantissa) in values.iter().zip(mantissas) {
        let scaled = value * power;
        let sum = scaled + ROUNDER;
        *mantissa = (sum.to_bits() as i64).wrapping_sub(ROUNDER.to_bits() as i64);
        wrong |= back(sum - ROUNDER).to_bits() ^ value.to_bits();
        let size = scaled.abs();
        largest = if size > largest { size } else { largest };
    }
    wrong == 0 && largest < MAX_SCALED
}

fn fit_integers(values: &[f64], mantissas: &mut [i64]) -> bool {
    values.iter().zip(mantissas).all(|(value, mantissa)| {
        *mantissa = *value as i64;
        (*mantissa as f64).to_bits() == value.to_bits() && value.abs() <= super::MAX_INTEGRAL
    })
}

/// The smallest power of two with which finite values are integers below 2^62.
pub(super) fn binary_form(values: &[f64]) -> Option<Form> {
    let (mut low, mut high) = (i32::MAX, i32::MIN);
    for value in values {
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        if exponent == 0 && fraction == 0 && bits == 0 {
            continue;
        }
        if exponent == 0 || exponent == 0x7ff {
            return None;
        }
        let zeros = (fraction | 1 << 52).trailing_zeros() as i32;
        low = low.min(exponent + zeros);
        high = high.max(exponent);
    }
    if high < low - 52 || high - low + 53 > 62 {
        return None;
    }
    i16::try_from(1075 - low).ok().filter(|k| k.abs() <= MAX_BINARY).map(Form::Binary)
}

/// The mantissa of a value in a form; any integer, if it has none.
#[inline]
pub(super) fn mantissa(value: f64, form: Form) -> i64 {
    match form {
        Form::Decimal(0) => value as i64,
        Form::Decimal(e) | Form::Ticks(e) => scale(value, e),
        Form::Binary(k) => (value * power_of_two(k)) as i64,
        Form::Bits => order_bits(value.to_bits() as i64),
    }
}

/// Replaces `mantissas` by those of `values`, whatever they are.
pub(super) fn mantissas(values: &[f64], form: Form, mantissas: &mut Vec<i64>) {
    mantissas.clear();
    match form {
        Form::Decimal(0) => mantissas.extend(values.iter().map(|v| *v as i64)),
        form => mantissas.extend(values.iter().map(|v| mantissa(*v, form))),
    }
}

/// Calls `with` with the function from mantissas to values.
macro_rules! with_values {
    ($form:expr, $value:ident => $with:expr) => {
        match $form {
            Form::Decimal(0) => {
                let $value = |m: i64| m as f64;
                $with
            }
            Form::Decimal(e) => {
                let power = POWERS[usize::from(e)];
                let $value = move |m: i64| m as f64 / power;
                $with
            }
            Form::Ticks(e) => {
                let tick = INVERSE[usize::from(e)];
                let $value = move |m: i64| m as f64 * tick;
                $with
            }
            Form::Binary(k) => {
                let factor = power_of_two(-k);
                let $value = move |m: i64| m as f64 * factor;
                $with
            }
            Form::Bits => {
                let $value = |m: i64| f64::from_bits(order_bits(m) as u64);
                $with
            }
        }
    };
}

/// Fills `out` with the floats of a column of integers; see [`ints::decode`].
pub(super) fn decode(
    form: Form,
    mode: u8,
    input: &mut Input<'_>,
    out: &mut [f64],
) -> Result<(), CodecError> {
    with_values!(form, value => ints::decode(mode, input, out, value))
}

/// As [`decode`]; the integers are differences to the mantissas of a sibling.
pub(super) fn decode_sibling(
    form: Form,
    mode: u8,
    input: &mut Input<'_>,
    sibling: &[f64],
    out: &mut [f64],
) -> Result<(), CodecError> {
    ints::decode(mode, input, out, |m| f64::from_bits(m as u64))?;
    with_values!(form, value => {
        for (slot, other) in out.iter_mut().zip(sibling) {
            *slot = value(mantissa(*other, form).wrapping_add(slot.to_bits() as i64));
        }
    });
    Ok(())
}

/// Whether this is the first byte of a form that computes its values from
/// integers, so that they are numbers.
pub(super) const fn is_arithmetic(byte: Option<u8>) -> bool {
    matches!(byte, Some(byte) if byte >> 4 < 3)
}

impl Form {
    /// Whether all values of this form are integers.
    pub(super) const fn is_integral(self) -> bool {
        matches!(self, Self::Decimal(0))
    }

    /// Appends the form's byte or bytes.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Decimal(e) => out.push(e),
            Self::Ticks(e) => out.push(0x10 | e),
            Self::Binary(k) => {
                let biased = (k + 2048) as u16;
                out.extend([0x20 | (biased >> 8) as u8, biased as u8]);
            }
            Self::Bits => out.push(0x30),
        }
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self, CodecError> {
        let byte = input.byte()?;
        let low = byte & 0x0f;
        match byte >> 4 {
            0 => Ok(Self::Decimal(low)),
            1 => Ok(Self::Ticks(low)),
            2 => {
                let k = (i16::from(low) << 8 | i16::from(input.byte()?)) - 2048;
                if k.abs() > MAX_BINARY {
                    Err(input.invalid("power of two"))
                } else {
                    Ok(Self::Binary(k))
                }
            }
            _ if byte == 0x30 => Ok(Self::Bits),
            _ => Err(CodecError::UnknownTag { offset: input.offset() - 1, tag: byte }),
        }
    }
}
