//! Which differences of a column of integers are smallest?
//!
//! Integers are written as residuals in [`prefix`](super::prefix) codes. A mode
//! of four bits says what the residuals are:
//!
//! ```text
//! bits 0-1  order: 0 values, 1 differences, 2 differences of differences,
//!           3 there are none: all values are the first
//! bit 2     residuals count from the smallest one, else they alternate around
//!           a middle one: 0, -1, 1, -2, ...
//! bit 3     all differences have a common divisor
//! ```
//!
//! Then the fields, then the blocks:
//!
//! ```text
//! varint    the divisor, if bit 3 is set; 2 or more
//! signed    order 0: the middle or smallest value; else the first value
//! signed    order 2: the first difference, over the divisor
//! signed    order 1 and 2: the middle or smallest difference, over the divisor
//! per block of 512 residuals (the last has what is left):
//!   byte    code, see `prefix`
//!   ...     its values, filled up to a byte
//! ```
//!
//! Differences wrap around, so that any 64-bit integers can be written.

use super::CodecError;
use super::bits::{BitReader, BitWriter};
use super::input::{Input, push_signed, push_varint, unzigzag, zigzag};
use super::prefix::{self, Code, Sizes};

const ORDER: u8 = 0x03;
const ALL_EQUAL: u8 = 0x03;
const FROM_SMALLEST: u8 = 0x04;
const DIVISOR: u8 = 0x08;
/// Modes are below this.
pub(super) const MODES: u8 = 0x10;

/// Residuals per block: enough to pay for the header of a code.
const BLOCK: usize = 512;

/// Space that encoding needs, kept between chunks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Values from the first one, over the divisor.
    reduced: Vec<i64>,
    /// Residuals before they are folded, in order; and any order.
    signed: Vec<i64>,
    unordered: Vec<i64>,
    residuals: Vec<u64>,
    other_residuals: Vec<u64>,
}

/// Appends the fields and blocks of at least one integer to `out`; returns the
/// mode.
pub(super) fn encode(values: &[i64], scratch: &mut Scratch, out: &mut Vec<u8>) -> u8 {
    let first = values[0];
    let Some(divisor) = reduce(values, &mut scratch.reduced) else {
        push_signed(first, out);
        return ALL_EQUAL;
    };
    let mut mode = 0;
    if divisor > 1 {
        push_varint(divisor, out);
        mode |= DIVISOR;
    }
    let (order, middle) = choose_order(scratch);
    mode |= order;
    let signed = &scratch.signed;
    let smallest = signed.iter().copied().min().unwrap_or_default();
    let largest = signed.iter().copied().max().unwrap_or_default();
    let (residuals, other) = (&mut scratch.residuals, &mut scratch.other_residuals);
    residuals.clear();
    residuals.extend(signed.iter().map(|s| zigzag(s.wrapping_sub(middle))));
    let mut origin = middle;
    let mut choice = Sizes::of(residuals).choose();
    // Counting from the smallest is better where most values are near it.
    if middle.abs_diff(smallest) <= largest.abs_diff(middle) {
        other.clear();
        other.extend(signed.iter().map(|s| s.wrapping_sub(smallest) as u64));
        let other_choice = Sizes::of(other).choose();
        if other_choice.bits < choice.bits {
            std::mem::swap(residuals, other);
            choice = other_choice;
            origin = smallest;
            mode |= FROM_SMALLEST;
        }
    }
    match order {
        0 => push_signed(first.wrapping_add(origin.wrapping_mul(divisor as i64)), out),
        1 => {
            push_signed(first, out);
            push_signed(origin, out);
        }
        _ => {
            push_signed(first, out);
            push_signed(scratch.reduced[1], out);
            push_signed(origin, out);
        }
    }
    if residuals.len() <= BLOCK {
        encode_block(residuals, choice.code, out);
    } else {
        for block in residuals.chunks(BLOCK) {
            encode_block(block, Sizes::of(block).choose().code, out);
        }
    }
    mode
}

fn encode_block(residuals: &[u64], code: Code, out: &mut Vec<u8>) {
    code.encode(out);
    match code {
        Code::Sparse => prefix::write_sparse(residuals, out),
        Code::Classes { shape, k } => {
            let mut bits = BitWriter::new(out);
            prefix::write_classes(residuals, shape, k, &mut bits);
            bits.finish();
        }
    }
}

/// Fills `reduced` with the differences to the first value over their common
/// divisor, which is returned; `None` if all are zero.
fn reduce(values: &[i64], reduced: &mut Vec<i64>) -> Option<u64> {
    let first = values[0];
    let (mut any, mut min, mut max) = (0, first, first);
    reduced.clear();
    reduced.extend(values.iter().map(|v| {
        min = min.min(*v);
        max = max.max(*v);
        let difference = v.wrapping_sub(first);
        any |= difference;
        difference
    }));
    if any == 0 {
        return None;
    }
    // Differences that wrapped cannot be divided.
    if min < i64::MIN / 4 || max > i64::MAX / 4 {
        return Some(1);
    }
    let twos = any.trailing_zeros();
    let mut odd = 0;
    for difference in reduced.iter() {
        odd = greatest_common_divisor(difference.unsigned_abs() >> twos, odd);
        if odd == 1 {
            break;
        }
    }
    let divisor = odd << twos;
    match (odd, twos) {
        (1, 0) => {}
        (1, _) => reduced.iter_mut().for_each(|r| *r >>= twos),
        _ => reduced.iter_mut().for_each(|r| *r /= divisor as i64),
    }
    Some(divisor)
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The order whose residuals are smallest, and the middle one; they are left
/// in `scratch.signed`.
fn choose_order(scratch: &mut Scratch) -> (u8, i64) {
    let Scratch { reduced, signed, unordered, .. } = scratch;
    let differences = |signed: &mut Vec<i64>| {
        signed.clear();
        signed.extend(reduced.windows(2).map(|w| w[1].wrapping_sub(w[0])));
    };
    differences(signed);
    let rises = signed.iter().all(|d| *d >= 0);
    let middle = median(signed, unordered);
    let bits = total_bits(signed, middle);
    if reduced.len() > 2 {
        let second = |w: &[i64]| w[2].wrapping_sub(w[1]).wrapping_sub(w[1].wrapping_sub(w[0]));
        let second_bits: u64 = reduced.windows(3).map(|w| bit_len(second(w))).sum();
        if second_bits + 16 < bits {
            signed.clear();
            signed.extend(reduced.windows(3).map(second));
            return (2, median(signed, unordered));
        }
    }
    if !rises || reduced.len() < 8 {
        let level = median(reduced, unordered);
        if total_bits(reduced, level) <= bits + 8 {
            signed.clone_from(reduced);
            return (0, level);
        }
    }
    (1, middle)
}

#[inline]
const fn bit_len(value: i64) -> u64 {
    (64 - (value ^ (value >> 63)).leading_zeros()) as u64
}

fn total_bits(values: &[i64], middle: i64) -> u64 {
    values.iter().map(|v| bit_len(v.wrapping_sub(middle))).sum()
}

fn median(values: &[i64], unordered: &mut Vec<i64>) -> i64 {
    unordered.clear();
    unordered.extend_from_slice(values);
    let half = unordered.len() / 2;
    if unordered.is_empty() { 0 } else { *unordered.select_nth_unstable(half).1 }
}

/// About how many bits the integers would take, without trying.
pub(super) fn estimate_bits(values: &[i64]) -> u64 {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return 0 };
    let steps = (values.len() as i64 - 1).max(1);
    let mean = last.wrapping_sub(*first) / steps;
    values.windows(2).map(|w| bit_len(w[1].wrapping_sub(w[0]).wrapping_sub(mean))).sum()
}

/// As [`estimate_bits`], of integers that are written as they are.
pub(super) fn level_bits(values: &[i64]) -> u64 {
    let mean = values.iter().map(|v| i128::from(*v)).sum::<i128>() / values.len().max(1) as i128;
    total_bits(values, mean as i64)
}

/// The fields before the blocks.
struct Fields {
    mode: u8,
    first: i64,
    step: i64,
    origin: i64,
    divisor: i64,
}

impl Fields {
    fn decode(mode: u8, input: &mut Input<'_>) -> Result<Self, CodecError> {
        let divisor = if mode & DIVISOR == 0 { 1 } else { input.varint()? as i64 };
        let first = input.signed()?;
        let order = mode & ORDER;
        let step = if order == 2 { input.signed()? } else { 0 };
        let origin = if matches!(order, 1 | 2) { input.signed()? } else { 0 };
        Ok(Self { mode, first, step, origin, divisor })
    }
}

/// Fills `out`, not empty, with integers, each passed through `finish`.
pub(super) fn decode(
    mode: u8,
    input: &mut Input<'_>,
    out: &mut [f64],
    finish: impl Fn(i64) -> f64,
) -> Result<(), CodecError> {
    let fields = Fields::decode(mode, input)?;
    let order = usize::from(mode & ORDER);
    if mode & ORDER == ALL_EQUAL {
        out.fill(finish(fields.first));
        return Ok(());
    }
    // The residuals' bits go where the floats will be.
    let at = order.min(out.len());
    decode_blocks(input, &mut out[at..])?;
    if fields.mode & FROM_SMALLEST == 0 {
        sum_up(&fields, out, unzigzag, finish);
    } else {
        sum_up(&fields, out, |r| r as i64, finish);
    }
    Ok(())
}

#[inline]
fn sum_up(
    fields: &Fields,
    out: &mut [f64],
    unfold: impl Fn(u64) -> i64,
    finish: impl Fn(i64) -> f64,
) {
    let &Fields { first, step, origin, divisor, .. } = fields;
    let times = |value: i64| value.wrapping_mul(divisor);
    match fields.mode & ORDER {
        0 => {
            for slot in out {
                *slot = finish(first.wrapping_add(times(unfold(slot.to_bits()))));
            }
        }
        1 => {
            let (mut value, origin) = (first, times(origin));
            out[0] = finish(value);
            for slot in &mut out[1..] {
                value = value.wrapping_add(origin).wrapping_add(times(unfold(slot.to_bits())));
                *slot = finish(value);
            }
        }
        _ => {
            let (mut value, mut step, origin) = (first, times(step), times(origin));
            out[0] = finish(value);
            let Some((second, rest)) = out[1..].split_first_mut() else { return };
            value = value.wrapping_add(step);
            *second = finish(value);
            for slot in rest {
                step = step.wrapping_add(origin).wrapping_add(times(unfold(slot.to_bits())));
                value = value.wrapping_add(step);
                *slot = finish(value);
            }
        }
    }
}

fn decode_blocks(input: &mut Input<'_>, out: &mut [f64]) -> Result<(), CodecError> {
    for block in out.chunks_mut(BLOCK) {
        match Code::decode(input)? {
            Code::Sparse => prefix::read_sparse(input, block)?,
            Code::Classes { shape, k } => {
                let mut bits = BitReader::new(input.rest());
                prefix::read_classes(&mut bits, shape, k, block);
                let truncated = CodecError::Truncated { offset: input.end() };
                let used = bits.finish().map_err(|_| truncated)?;
                input.take(used)?;
            }
        }
    }
    Ok(())
}
