//! The timestamps of an axis.

use super::input::Input;
use super::{CodecError, MAX_COUNT, ints};

/// Appends timestamps (milliseconds since the Unix epoch, in any order) to
/// `out`. A regular axis takes a few bytes, jitter of some milliseconds about
/// as many bits as it has.
///
/// # Panics
///
/// If there are more than [`MAX_COUNT`] timestamps.
pub fn encode_axis(timestamps_ms: &[i64], out: &mut Vec<u8>) {
    assert!(timestamps_ms.len() <= MAX_COUNT, "BUG: {} timestamps", timestamps_ms.len());
    if !timestamps_ms.is_empty() {
        ints::encode(timestamps_ms, out);
    }
}

/// Appends the `count` timestamps at the start of `bytes` to `out`; says how
/// many bytes they had.
///
/// # Errors
///
/// [`CodecError`]; `out` is then as it was.
pub fn decode_axis(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<usize, CodecError> {
    if count > MAX_COUNT {
        return Err(CodecError::TooMany { count });
    }
    let start = out.len();
    let mut input = Input::new(bytes);
    if count > 0 {
        ints::decode(&mut input, count, out).inspect_err(|_| out.truncate(start))?;
    }
    Ok(input.offset())
}
