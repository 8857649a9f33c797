//! How are integers written? Little-endian base 128, signed ones zigzag.
//!
//! Readers take the slice that is left and advance it; they return `None` at
//! its end or on a number that does not fit, and never panic.

/// Appends `value`, 7 bits per byte, lowest first.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps signed to unsigned so that small magnitudes stay small.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Appends a signed number.
#[inline]
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// Takes a number off the front of `input`.
#[inline]
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = input.split_first()?;
    if first < 0x80 {
        *input = rest;
        return Some(u64::from(first));
    }
    take_long(input)
}

fn take_long(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            *input = &input[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes a signed number off the front of `input`.
#[inline]
pub(crate) fn take_signed(input: &mut &[u8]) -> Option<i64> {
    take(input).map(unzigzag)
}

/// Takes a number that must be at most `max`.
#[inline]
pub(crate) fn take_at_most(input: &mut &[u8], max: usize) -> Option<usize> {
    let value = take(input)?;
    usize::try_from(value).ok().filter(|&v| v <= max)
}

/// Takes a length and then so many bytes.
#[inline]
pub(crate) fn take_sized<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let rest = input.len();
    let len = take_at_most(input, rest)?;
    take_bytes(input, len)
}

/// Takes a number of things that have at least one byte each.
#[inline]
pub(crate) fn take_count(input: &mut &[u8]) -> Option<usize> {
    let rest = input.len();
    take_at_most(input, rest)
}

/// Takes `count` bytes off the front of `input`.
#[inline]
pub(crate) fn take_bytes<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    if count > input.len() {
        return None;
    }
    let (head, rest) = input.split_at(count);
    *input = rest;
    Some(head)
}

/// Takes one byte off the front of `input`.
#[inline]
pub(crate) fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    Some(byte)
}

/// Takes four bytes, little-endian.
#[inline]
pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    let bytes = take_bytes(input, 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Takes eight bytes, little-endian.
#[inline]
pub(crate) fn take_u64(input: &mut &[u8]) -> Option<u64> {
    let bytes = take_bytes(input, 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Appends ascending or any ids as runs of consecutive ones: the number of
/// runs, then for each the signed distance to the end of the run before and
/// its length.
pub(crate) fn put_id_runs(out: &mut Vec<u8>, ids: &[u32]) {
    let runs = || ids.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    put(out, runs().count() as u64);
    let mut expected = 0i64;
    for run in runs() {
        put_signed(out, i64::from(run[0]) - expected);
        put(out, run.len() as u64);
        expected = i64::from(run[0]) + run.len() as i64;
    }
}

/// Takes what [`put_id_runs`] wrote; at most `max` ids.
pub(crate) fn take_id_runs(input: &mut &[u8], max: usize, ids: &mut Vec<u32>) -> Option<()> {
    let runs = take_at_most(input, max)?;
    let (mut expected, mut count) = (0i64, 0usize);
    for _ in 0..runs {
        let first = expected.checked_add(take_signed(input)?)?;
        let len = take_at_most(input, max - count)?;
        count += len;
        expected = first.checked_add(len as i64)?;
        let (first, end) = (u32::try_from(first).ok()?, u32::try_from(expected).ok()?);
        ids.extend(first..end);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(values in proptest::collection::vec(any::<u64>(), 0..20)) {
            let mut out = Vec::new();
            for &v in &values {
                put(&mut out, v >> (v % 64));
                put_signed(&mut out, v as i64);
            }
            let mut input = out.as_slice();
            for &v in &values {
                prop_assert_eq!(take(&mut input), Some(v >> (v % 64)));
                prop_assert_eq!(take_signed(&mut input), Some(v as i64));
            }
            prop_assert!(input.is_empty());
        }

        #[test]
        fn id_runs_come_back(ids in proptest::collection::vec(0u32..40, 0..60)) {
            let mut out = Vec::new();
            put_id_runs(&mut out, &ids);
            let mut back = Vec::new();
            prop_assert_eq!(take_id_runs(&mut out.as_slice(), 4096, &mut back), Some(()));
            prop_assert_eq!(back, ids);
        }

        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = take(&mut bytes.as_slice());
            let _ = take_id_runs(&mut bytes.as_slice(), 100, &mut Vec::new());
        }
    }
}
