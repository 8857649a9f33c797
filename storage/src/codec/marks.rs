//! Staleness markers and other values that are no numbers, kept beside the
//! payload as positions.
//!
//! ```text
//! varint        number of marks
//! per mark:     varint  rows since the mark before << 3 | kind
//!               8 bytes the bits, if the kind is 7
//! ```
//!
//! Kinds 0 to 5 stand for the staleness marker, the normal NaN, the quiet NaN
//! 0x7ff8000000000000, +Inf, -Inf and -0. The payload holds the other values only.

use super::CodecError;
use super::input::{Input, push_varint};
use crate::sample::{NORMAL_NAN_BITS, STALE_NAN_BITS};

const STALE: u64 = 0;
const ANY: u64 = 7;
const KINDS: [u64; 6] = [
    STALE_NAN_BITS,
    NORMAL_NAN_BITS,
    0x7ff8 << 48,
    f64::INFINITY.to_bits(),
    f64::NEG_INFINITY.to_bits(),
    (-0.0f64).to_bits(),
];

/// Whether a value is kept as a mark.
#[inline]
fn is_mark(value: f64) -> bool {
    !value.is_finite() || value.to_bits() == (-0.0f64).to_bits()
}

/// Whether there is any mark in a column.
pub(super) fn any(values: &[f64]) -> bool {
    values.iter().fold(false, |any, v| any | is_mark(*v))
}

/// Copies the values that are no marks to `plain`, those of the sibling in the
/// same rows to `plain_sibling`, and writes the marks to `list`.
pub(super) fn split(
    values: &[f64],
    sibling: Option<&[f64]>,
    plain: &mut Vec<f64>,
    plain_sibling: &mut Vec<f64>,
    list: &mut Vec<u8>,
) {
    plain.clear();
    plain_sibling.clear();
    push_varint(values.iter().filter(|v| is_mark(**v)).count() as u64, list);
    let mut next = 0;
    for (at, value) in values.iter().enumerate() {
        if !is_mark(*value) {
            plain.push(*value);
            plain_sibling.extend(sibling.map(|s| s[at]));
            continue;
        }
        let kind = KINDS.iter().position(|k| *k == value.to_bits()).map_or(ANY, |k| k as u64);
        push_varint(((at - next) as u64) << 3 | kind, list);
        if kind == ANY {
            list.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        next = at + 1;
    }
}

/// A list of marks that has been checked.
pub(super) struct Marks<'a> {
    total: usize,
    list: Input<'a>,
}

/// Reads the list of marks of a chunk of `count` values.
pub(super) fn read<'a>(input: &mut Input<'a>, count: usize) -> Result<Marks<'a>, CodecError> {
    let total = input.varint()?;
    if total > count as u64 {
        return Err(input.invalid("number of marks"));
    }
    let marks = Marks { total: total as usize, list: input.clone() };
    let mut next = 0u64;
    for _ in 0..total {
        let (gap, _) = read_mark(input)?;
        next = next.saturating_add(gap).saturating_add(1);
        if next > count as u64 {
            return Err(input.invalid("position of a mark"));
        }
    }
    Ok(marks)
}

fn read_mark(input: &mut Input<'_>) -> Result<(u64, u64), CodecError> {
    let mark = input.varint()?;
    let bits = match mark & 7 {
        ANY => input.uint(8)?,
        kind => *KINDS.get(kind as usize).ok_or_else(|| input.invalid("kind of a mark"))?,
    };
    Ok((mark >> 3, bits))
}

impl Marks<'_> {
    pub(super) const fn len(&self) -> usize {
        self.total
    }

    /// Calls `each` with every mark's position and bits.
    fn for_each(&self, mut each: impl FnMut(usize, u64)) {
        let (mut list, mut at) = (self.list.clone(), 0);
        for _ in 0..self.total {
            let (gap, bits) = read_mark(&mut list).expect("checked by `read`");
            at += gap as usize;
            each(at, bits);
            at += 1;
        }
    }

    /// The values of a sibling in the rows without marks.
    pub(super) fn without(&self, sibling: &[f64]) -> Vec<f64> {
        let (mut plain, mut next) = (Vec::with_capacity(sibling.len()), 0);
        self.for_each(|at, _| {
            plain.extend_from_slice(&sibling[next..at]);
            next = at + 1;
        });
        plain.extend_from_slice(&sibling[next..]);
        plain
    }

    /// Puts the marks between the plain values at the start of `column`; says
    /// whether a staleness marker is among them.
    pub(super) fn merge(&self, column: &mut [f64]) -> bool {
        // The plain values move to the end, then back run by run.
        column.copy_within(..column.len() - self.total, self.total);
        let (mut next, mut from, mut stale) = (0, self.total, false);
        self.for_each(|at, bits| {
            column.copy_within(from..from + at - next, next);
            from += at - next;
            column[at] = f64::from_bits(bits);
            stale |= bits == KINDS[STALE as usize];
            next = at + 1;
        });
        stale
    }
}
