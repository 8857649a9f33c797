//! The timestamps of an axis: integers behind one byte of mode.

use super::input::Input;
use super::{CodecError, MAX_COUNT, ints};

/// Appends timestamps (milliseconds since the Unix epoch, in any order) to
/// `out`. A regular axis takes some ten bytes, jitter of some milliseconds about
/// as many bits as it has. Allocates scratch space.
///
/// # Panics
///
/// If there are more than [`MAX_COUNT`] timestamps.
pub fn encode_axis(timestamps_ms: &[i64], out: &mut Vec<u8>) {
    assert!(timestamps_ms.len() <= MAX_COUNT, "BUG: {} timestamps", timestamps_ms.len());
    if timestamps_ms.is_empty() {
        return;
    }
    let mode_at = out.len();
    out.push(0);
    out[mode_at] = ints::encode(timestamps_ms, &mut ints::Scratch::default(), out);
}

/// Appends the `count` timestamps at the start of `bytes` to `out`; says how
/// many bytes they had. Allocates scratch space.
///
/// # Errors
///
/// [`CodecError`]; `out` is then as it was.
pub fn decode_axis(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<usize, CodecError> {
    if count > MAX_COUNT {
        return Err(CodecError::TooMany { count });
    }
    let mut input = Input::new(bytes);
    if count > 0 {
        let mode = input.byte()?;
        if mode >= ints::MODES {
            return Err(CodecError::UnknownTag { offset: 0, tag: mode });
        }
        let mut slots = vec![0.0; count];
        ints::decode(mode, &mut input, &mut slots, |t| f64::from_bits(t as u64))?;
        out.extend(slots.iter().map(|s| s.to_bits() as i64));
    }
    Ok(input.offset())
}
