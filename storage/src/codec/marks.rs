//! Staleness markers and NaNs, kept beside the payload as positions.
//!
//! ```text
//! varint        number of marks
//! per mark:     varint  rows since the mark before << 1 | kind
//! ```
//!
//! Kind 0 is the staleness marker, 1 the normal NaN. The payload holds the
//! other values only.

use super::CodecError;
use super::input::{Input, push_varint};
use crate::sample::{NORMAL_NAN_BITS, STALE_NAN_BITS};

const KINDS: [u64; 2] = [STALE_NAN_BITS, NORMAL_NAN_BITS];

/// Copies the plain values to `plain` and writes the list of the others to
/// `list`; writes nothing if there are none.
pub(super) fn split(values: &[f64], plain: &mut Vec<f64>, list: &mut Vec<u8>) {
    let kind_of =
        |v: &f64| if v.is_nan() { KINDS.iter().position(|k| *k == v.to_bits()) } else { None };
    let total = values.iter().filter(|v| kind_of(v).is_some()).count();
    if total == 0 {
        return;
    }
    push_varint(total as u64, list);
    let mut next = 0;
    for (at, value) in values.iter().enumerate() {
        match kind_of(value) {
            None => plain.push(*value),
            Some(kind) => {
                push_varint(((at - next) as u64) << 1 | kind as u64, list);
                next = at + 1;
            }
        }
    }
}

/// A list of marks whose positions have been checked.
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
        next = next.saturating_add(input.varint()? >> 1).saturating_add(1);
        if next > count as u64 {
            return Err(input.invalid("position of a mark"));
        }
    }
    Ok(marks)
}

impl Marks<'_> {
    pub(super) const fn len(&self) -> usize {
        self.total
    }

    /// Puts the marks between the plain values `out[start..]`, so that they
    /// become `count`; says whether a staleness marker is among them.
    pub(super) fn merge(&self, out: &mut Vec<f64>, start: usize, count: usize) -> bool {
        out.resize(start + count, 0.0);
        let column = &mut out[start..];
        // From the front: the plain values move to the end, then back one by one.
        column.copy_within(..count - self.total, self.total);
        let (mut list, mut at, mut from, mut stale) = (self.list.clone(), 0, self.total, false);
        for _ in 0..self.total {
            let mark = list.varint().expect("checked by `read`");
            let gap = (mark >> 1) as usize;
            column.copy_within(from..from + gap, at);
            (at, from) = (at + gap, from + gap);
            column[at] = f64::from_bits(KINDS[(mark & 1) as usize]);
            stale |= mark & 1 == 0;
            at += 1;
        }
        stale
    }
}
