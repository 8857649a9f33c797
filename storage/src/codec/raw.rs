//! Eight bytes per value, little-endian: what no other codec makes smaller.

use super::input::Input;
use super::{CodecError, tag};

pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    out.push(tag::RAW);
    out.extend(values.iter().flat_map(|v| v.to_bits().to_le_bytes()));
}

pub(super) fn decode(
    count: usize,
    input: &mut Input<'_>,
    out: &mut Vec<f64>,
) -> Result<(), CodecError> {
    let (words, _) = input.take(count * 8)?.as_chunks::<8>();
    out.extend(words.iter().map(|w| f64::from_bits(u64::from_le_bytes(*w))));
    Ok(())
}
