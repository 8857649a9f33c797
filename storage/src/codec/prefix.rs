//! How do small integers, some of them not so small, become few bits?
//!
//! A value falls into a class: a run of 2^width values that starts where the
//! class before ends. Class `j` is written as `j` zeros and a one, then the
//! position in the class in `width` bits. How widths grow from class to class
//! is a *shape*, chosen per block of values together with the width `k` to
//! start with: shape 0 is the Rice code for a bell or a geometric tail, the
//! others begin wider or grow faster, for heavier tails. Fifteen zeros stand
//! for a value in 64 bits.
//!
//! Measured on pages of real exporters this is within a percent of choosing
//! four free widths and their prefixes per chunk, for one byte of header; the
//! classes start where the one before ends, as in Golomb's and Rice's codes
//! (Rice, *Some practical universal noiseless coding techniques*, 1979) and
//! their exponential kin (Teuhola 1978).
//!
//! A block in which nearly all values are zero is a list of the others.

use super::CodecError;
use super::bits::{BitReader, BitWriter};
use super::input::{Input, push_varint};

/// Classes of a code, the last of which is the escape.
const CLASSES: usize = 16;
const ESCAPE: usize = CLASSES - 1;
const SHAPES: usize = 8;

/// Width of class `j` less `k`; [`ZERO`] is a class of one value.
const GROWTH: [[u8; ESCAPE]; SHAPES] = [
    [0; ESCAPE],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7],
    [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
    [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21],
    [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28],
    [ZERO, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];
const ZERO: u8 = u8::MAX;

/// Header byte: shape in the top 3 bits, `k` below; `k` = 31 says that the
/// real one follows in a byte of its own.
const LONG_K: u8 = 31;
/// Header byte of a block that lists its values other than zero.
const SPARSE: u8 = 0xff;
const MAX_K: u8 = 63;

/// A shape and a width, or the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Classes { shape: u8, k: u8 },
    Sparse,
}

/// What a code costs on a block, estimated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) code: Code,
    pub(super) bits: u64,
}

const fn width(shape: u8, k: u8, class: usize) -> u32 {
    match GROWTH[shape as usize][class] {
        ZERO => 0,
        growth => {
            let width = k as u32 + growth as u32;
            if width > 63 { 63 } else { width }
        }
    }
}

/// Where the classes start, and how wide they are.
struct Table {
    base: [u64; CLASSES],
    width: [u32; CLASSES],
}

impl Table {
    fn new(shape: u8, k: u8) -> Self {
        let mut table = Self { base: [0; CLASSES], width: [64; CLASSES] };
        let mut base = 0u64;
        for class in 0..ESCAPE {
            table.base[class] = base;
            table.width[class] = width(shape, k, class);
            base = base.saturating_add(1 << table.width[class]);
        }
        table.base[ESCAPE] = base;
        table
    }
}

/// Numbers of values by size, in quarters of octaves: enough to see what
/// any code would cost, without looking at the values again.
pub(super) struct Sizes {
    /// `below[b]` values fall into bins before `b`.
    below: [u32; BINS + 1],
    /// Sum of `value + 1` bytes as a varint over values other than zero.
    varint_bytes: u32,
    total: u32,
    /// Bins from here on are empty.
    end: usize,
}

const BINS: usize = 252;

#[inline]
const fn bin(value: u64) -> usize {
    if value < 4 {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros();
    (exponent as usize - 1) * 4 + ((value >> (exponent - 2)) & 3) as usize
}

impl Sizes {
    pub(super) fn of(values: &[u64]) -> Self {
        let mut sizes = Self { below: [0; BINS + 1], varint_bytes: 0, total: 0, end: 0 };
        for &value in values {
            let bin = bin(value);
            sizes.below[bin + 1] += 1;
            sizes.end = sizes.end.max(bin + 1);
        }
        sizes.total = values.len() as u32;
        for bin in 1..=sizes.end {
            if bin > 1 {
                sizes.varint_bytes += sizes.below[bin] * ((bin as u32 / 4 + 1) / 7 + 1);
            }
            sizes.below[bin] += sizes.below[bin - 1];
        }
        sizes
    }

    /// About how many values are below `value`.
    #[inline]
    fn below(&self, value: u64) -> u32 {
        let bin = bin(value);
        if bin >= self.end {
            return self.total;
        }
        let (low, high) = (self.below[bin], self.below[bin + 1]);
        if bin < 8 || low == high {
            return low;
        }
        // Within a bin of 2^width values, as if they lay evenly.
        let width = bin as u32 / 4 - 1;
        let inside = value & ((1 << width) - 1);
        low + ((u64::from(high - low) * (inside >> width.saturating_sub(16))) >> width.min(16))
            as u32
    }

    /// The length in bits of the value of this rank.
    fn bits_of_rank(&self, rank: u32) -> u32 {
        let bin = self.below[1..=self.end].partition_point(|n| *n <= rank);
        if bin < 4 { bin as u32 / 2 } else { bin as u32 / 4 + 1 }
    }

    fn median_bits(&self) -> u32 {
        self.bits_of_rank(self.total / 2)
    }

    /// As [`Sizes::median_bits`], of the values other than zero.
    fn upper_bits(&self) -> u32 {
        let zeros = self.below[1.min(self.end)];
        self.bits_of_rank(zeros + (self.total - zeros) / 2)
    }

    /// Bits with these classes, or some number of at least `limit`.
    fn cost(&self, shape: u8, k: u8, limit: u64) -> u64 {
        let (mut bits, mut base, mut below) = (0u64, 0u64, 0);
        for class in 0..ESCAPE {
            let width = width(shape, k, class);
            base = base.saturating_add(1 << width);
            let next = self.below(base);
            bits += u64::from(next - below) * u64::from(class as u32 + 1 + width);
            below = next;
            if below == self.total || bits >= limit {
                return bits;
            }
        }
        bits + u64::from(self.total - below) * (ESCAPE as u64 + 64)
    }

    /// The best code, by estimate.
    pub(super) fn choose(&self) -> Choice {
        let zeros = self.below[1.min(self.end)];
        let others = self.total - zeros;
        let listed = u64::from(others + self.varint_bytes + 1) * 8;
        let mut best = Choice { code: Code::Sparse, bits: listed };
        if others * 16 < self.total && listed < u64::from(self.total) {
            return best;
        }
        let middle = self.median_bits() as u8;
        for shape in 0..SHAPES as u8 {
            // Where half of the values are zero, the others say little here.
            let start = if shape == 7 { self.upper_bits() as u8 } else { middle }.saturating_sub(1);
            let start = start.min(if shape == 7 { LONG_K - 1 } else { MAX_K });
            let mut down = start;
            let mut bits = self.cost(shape, start, best.bits);
            loop {
                if bits < best.bits {
                    best = Choice { code: Code::Classes { shape, k: down }, bits };
                }
                if down == 0 {
                    break;
                }
                let next = self.cost(shape, down - 1, best.bits);
                if next >= bits {
                    break;
                }
                (down, bits) = (down - 1, next);
            }
            if down < start {
                continue;
            }
            let mut k = start;
            let top = if shape == 7 { LONG_K - 1 } else { MAX_K };
            while k < top {
                k += 1;
                let next = self.cost(shape, k, best.bits);
                if next >= best.bits {
                    break;
                }
                best = Choice { code: Code::Classes { shape, k }, bits: next };
            }
        }
        best
    }
}

impl Code {
    /// Appends the header.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Sparse => out.push(SPARSE),
            Self::Classes { shape, k } if k < LONG_K => out.push(shape << 5 | k),
            Self::Classes { shape, k } => out.extend([shape << 5 | LONG_K, k]),
        }
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self, CodecError> {
        let header = input.byte()?;
        if header == SPARSE {
            return Ok(Self::Sparse);
        }
        let (shape, mut k) = (header >> 5, header & 0x1f);
        if k == LONG_K {
            k = input.byte()?;
            if !(LONG_K..=MAX_K).contains(&k) {
                return Err(input.invalid("width"));
            }
        }
        Ok(Self::Classes { shape, k })
    }
}

/// Appends the values of one block in classes.
pub(super) fn write_classes(values: &[u64], shape: u8, k: u8, bits: &mut BitWriter<'_>) {
    let table = Table::new(shape, k);
    for &value in values {
        let mut class = 0;
        while class < ESCAPE && value >= table.base[class + 1] {
            class += 1;
        }
        if class == ESCAPE {
            bits.push(1 << ESCAPE, CLASSES as u32);
            bits.push(value, 64);
        } else {
            let (prefix, width) = (class as u32 + 1, table.width[class]);
            let inside = value - table.base[class];
            if width + prefix <= 64 {
                bits.push((inside << 1 | 1) << class, prefix + width);
            } else {
                bits.push(1 << class, prefix);
                bits.push(inside, width);
            }
        }
    }
}

/// Bits that one look at a stream gives for sure.
const PEEKED: u32 = 57;

/// Fills `out` with the values of one block in classes.
///
/// The hot loop of decoding: a count of zeros, a table look-up and a shift wait
/// for each other, some ten cycles per value.
pub(super) fn read_classes(bits: &mut BitReader<'_>, shape: u8, k: u8, out: &mut [f64]) {
    let table = Table::new(shape, k);
    if table.width[ESCAPE - 1] + ESCAPE as u32 > PEEKED {
        return read_wide_classes(bits, &table, out);
    }
    let (mut step, mut mask) = ([0u32; CLASSES], [0u64; CLASSES]);
    for class in 0..ESCAPE {
        step[class] = class as u32 + 1 + table.width[class];
        mask[class] = (1 << table.width[class]) - 1;
    }
    // More than any word has, so that the escape is met in the rare branch.
    step[ESCAPE] = 64;
    let mut reader = bits.clone();
    let (mut word, mut left) = (reader.peek(), PEEKED);
    for value in out {
        let mut class = class_of(word);
        if step[class] > left {
            (word, left) = (reader.peek(), PEEKED);
            class = class_of(word);
            if class == ESCAPE {
                *value = f64::from_bits(read_escaped(&mut reader));
                (word, left) = (reader.peek(), PEEKED);
                continue;
            }
        }
        let inside = (word >> (class + 1)) & mask[class];
        *value = f64::from_bits(table.base[class].wrapping_add(inside));
        reader.skip(step[class]);
        left -= step[class];
        word >>= step[class];
    }
    *bits = reader;
}

#[inline]
const fn class_of(word: u64) -> usize {
    (word | 1 << ESCAPE).trailing_zeros() as usize & ESCAPE
}

/// As [`read_classes`], where a value may be longer than one look.
fn read_wide_classes(bits: &mut BitReader<'_>, table: &Table, out: &mut [f64]) {
    for value in out {
        let word = bits.peek();
        let class = class_of(word);
        let width = table.width[class];
        *value = f64::from_bits(if class == ESCAPE {
            read_escaped(bits)
        } else if class as u32 + 1 + width <= PEEKED {
            bits.skip(class as u32 + 1 + width);
            table.base[class].wrapping_add((word >> (class + 1)) & ((1 << width) - 1))
        } else {
            bits.skip(class as u32 + 1);
            table.base[class].wrapping_add(bits.take(width))
        });
    }
}

#[cold]
fn read_escaped(bits: &mut BitReader<'_>) -> u64 {
    bits.skip(CLASSES as u32);
    bits.take(64)
}

/// Appends the values other than zero with the number of zeros before each.
pub(super) fn write_sparse(values: &[u64], out: &mut Vec<u8>) {
    push_varint(values.iter().filter(|v| **v != 0).count() as u64, out);
    let mut zeros = 0;
    for &value in values {
        if value == 0 {
            zeros += 1;
        } else {
            push_varint(zeros, out);
            push_varint(value, out);
            zeros = 0;
        }
    }
}

/// Fills `out` with a list that [`write_sparse`] wrote.
pub(super) fn read_sparse(input: &mut Input<'_>, out: &mut [f64]) -> Result<(), CodecError> {
    out.fill(f64::from_bits(0));
    let total = input.varint()?;
    let mut at = 0u64;
    for _ in 0..total {
        at = at.saturating_add(input.varint()?);
        let value = input.varint()?;
        match out.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) {
            Some(slot) => *slot = f64::from_bits(value),
            None => return Err(input.invalid("position in a sparse block")),
        }
        at += 1;
    }
    Ok(())
}
