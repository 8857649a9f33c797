//! Eight bytes per value, little-endian: what no other codec makes smaller.

use super::input::Input;
use super::{CodecError, tag};

pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    out.push(tag::RAW);
    out.extend(values.iter().flat_map(|v| v.to_bits().to_le_bytes()));
}

pub(super) fn decode(input: &mut Input<'_>, out: &mut [f64]) -> Result<(), CodecError> {
    let (words, _) = input.take(out.len() * 8)?.as_chunks::<8>();
    for (slot, word) in out.iter_mut().zip(words) {
        *slot = f64::from_bits(u64::from_le_bytes(*word));
    }
    Ok(())
}

pub(super) const fn size_bytes(count: usize) -> usize {
    1 + 8 * count
}
