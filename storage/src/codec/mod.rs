//! How does a column of one stripe become a few bytes, and exactly itself again?
//!
//! A *chunk* is the floats of one series in one stripe or merged day: the rows
//! in which it is present, in order, staleness markers included. [`encode`]
//! appends one self-describing chunk, in whichever codec is smallest:
//!
//! - *constant*: one value, 1 to 9 bytes in all;
//! - *decimal*: mantissas over a common power of ten, as differences;
//! - *sibling*: a histogram's bucket as differences to its left neighbour;
//! - *pco*: real floats; *raw*: the bits as they are.
//!
//! Staleness markers and other values that do not fit are kept beside the
//! payload, as positions.
//!
//! Invariants: `decode(encode(x))` is `x` bit by bit, for all 2^64 patterns;
//! the number of values is not in the chunk, the caller knows it; decoders are
//! total: any bytes give values or a [`CodecError`], and they reserve no more
//! than the caller's count asks for.

mod axis;
mod bits;
mod constant;
mod form;
mod input;
mod ints;
mod marks;
mod numbers;
mod prefix;
mod raw;
mod runs;
mod steps;
mod summary;
#[cfg(test)]
mod tests;

pub use axis::{decode_axis, encode_axis};
pub use runs::{decode_runs, encode_runs};
pub use summary::{SUMMARY_MIN_ROWS, Summary};

use crate::sample;
use input::Input;

/// Most values of one chunk; longer columns are split by the caller.
pub const MAX_COUNT: usize = 1 << 20;

/// First bytes of chunks. Those that are not named are free for later codecs.
mod tag {
    /// Constants: `CONSTANT..CONSTANT_END`.
    pub const CONSTANT: u8 = 0x00;
    pub const CONSTANT_END: u8 = 0x20;
    pub const RAW: u8 = 0x78;
    /// Set: a list of marks stands before the payload.
    pub const MARKS: u8 = 0x80;
}

/// Why a chunk cannot be decoded. Offsets are in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A codec of a later version, or damage.
    #[error("unknown codec tag {tag:#04x} at byte {offset}")]
    UnknownTag {
        /// Where the tag is.
        offset: usize,
        /// What it is.
        tag: u8,
    },
    /// The chunk ends too early.
    #[error("chunk ends at byte {offset}")]
    Truncated {
        /// Where more was expected.
        offset: usize,
    },
    /// A field is out of its range.
    #[error("{field} is out of range at byte {offset}")]
    Invalid {
        /// Where the field ends.
        offset: usize,
        /// Its name on the format page.
        field: &'static str,
    },
    /// More values are asked for than a chunk can hold.
    #[error("{count} values are more than a chunk can hold")]
    TooMany {
        /// The number asked for.
        count: usize,
    },
    /// The chunk builds on its sibling, and none of as many values was given.
    #[error("chunk needs the values of its sibling")]
    NoSibling,
}

/// What decoding found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the chunk.
    pub used_bytes: usize,
    /// All floats are integers of at most 2^53; `false` promises nothing.
    pub integral: bool,
    /// Some float may be a staleness marker; `false` says that none is.
    pub may_be_stale: bool,
}

/// Encodes chunks; keeps its scratch space from chunk to chunk.
#[derive(Debug, Default)]
pub struct Encoder {
    plain: Vec<f64>,
    plain_sibling: Vec<f64>,
    numbers: numbers::Scratch,
}

impl Encoder {
    /// An encoder without scratch space yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one chunk of `values` to `out`; nothing for no values.
    ///
    /// `sibling` is another column in the same rows that may resemble this one:
    /// of a histogram's bucket its left neighbour, of the count the last bucket.
    /// It is used if that makes the chunk smaller; the decoder must then be
    /// given the same.
    ///
    /// # Panics
    ///
    /// If there are more than [`MAX_COUNT`] values, or the sibling has another
    /// length.
    pub fn encode(&mut self, values: &[f64], sibling: Option<&[f64]>, out: &mut Vec<u8>) {
        assert!(values.len() <= MAX_COUNT, "BUG: {} values in a chunk", values.len());
        if let Some(sibling) = sibling {
            assert_eq!(sibling.len(), values.len(), "BUG: sibling of another length");
        }
        if values.is_empty() || encode_constant(values, out) {
            return;
        }
        let start = out.len();
        if marks::any(values) {
            self.encode_marked(values, sibling, out);
        } else {
            numbers::encode(values, sibling, &mut self.numbers, out);
        }
        if out.len() - start > raw::size_bytes(values.len()) {
            out.truncate(start);
            raw::encode(values, out);
        }
    }

    #[cold]
    fn encode_marked(&mut self, values: &[f64], sibling: Option<&[f64]>, out: &mut Vec<u8>) {
        let Self { plain, plain_sibling, numbers } = self;
        let start = out.len();
        out.push(0);
        marks::split(values, sibling, plain, plain_sibling, out);
        let payload = out.len();
        if plain.is_empty() {
            plain.push(0.0);
        }
        if !encode_constant(plain, out) {
            numbers::encode(plain, sibling.map(|_| &plain_sibling[..]), numbers, out);
        }
        // The payload's tag comes first, so that one byte tells the codec.
        out[start] = out.remove(payload) | tag::MARKS;
    }
}

/// Appends a chunk if all values are the same; says whether.
fn encode_constant(values: &[f64], out: &mut Vec<u8>) -> bool {
    let first = values[0];
    let all = values.iter().all(|v| v.to_bits() == first.to_bits());
    if all {
        constant::encode(first, out);
    }
    all
}

/// Appends one chunk of `values` to `out`; see [`Encoder::encode`], which
/// saves the allocations.
pub fn encode(values: &[f64], sibling: Option<&[f64]>, out: &mut Vec<u8>) {
    Encoder::new().encode(values, sibling, out);
}

/// Appends the `count` values of the chunk at the start of `bytes` to `out`,
/// and says how many bytes the chunk had.
///
/// # Errors
///
/// [`CodecError`]; `out` is then as it was.
pub fn decode(
    bytes: &[u8],
    count: usize,
    sibling: Option<&[f64]>,
    out: &mut Vec<f64>,
) -> Result<usize, CodecError> {
    decode_chunk(bytes, count, sibling, out).map(|d| d.used_bytes)
}

/// As [`decode`], and says more about the values.
///
/// # Errors
///
/// [`CodecError`]; `out` is then as it was.
pub fn decode_chunk(
    bytes: &[u8],
    count: usize,
    sibling: Option<&[f64]>,
    out: &mut Vec<f64>,
) -> Result<Decoded, CodecError> {
    let start = out.len();
    decode_parts(bytes, count, sibling, out).inspect_err(|_| out.truncate(start))
}

/// Whether the chunk at the start of `bytes` can only be decoded with its sibling.
/// Looks at one byte.
#[must_use]
pub fn needs_sibling(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|tag| numbers::needs_sibling(tag & !tag::MARKS))
}

/// Whether no value of the chunk at the start of `bytes` can be a staleness
/// marker. `false` promises nothing. Looks at two bytes at most.
#[must_use]
pub fn has_no_marks(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|tag| numbers::are_numbers(*tag, bytes.get(1).copied()))
}

/// Whether the chunk at the start of `bytes` holds varying integers without marks.
/// Looks at one byte.
///
/// The nearest such column to the left is the best sibling to offer: constants
/// teach nothing, and between the last bucket of a histogram and its count
/// stands a sum of real floats.
#[must_use]
pub fn suits_as_sibling(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|tag| numbers::holds_integers(*tag))
}

fn decode_parts(
    bytes: &[u8],
    count: usize,
    sibling: Option<&[f64]>,
    out: &mut Vec<f64>,
) -> Result<Decoded, CodecError> {
    if count > MAX_COUNT {
        return Err(CodecError::TooMany { count });
    }
    if count == 0 {
        return Ok(Decoded { used_bytes: 0, integral: true, may_be_stale: false });
    }
    if sibling.is_some_and(|s| s.len() != count) {
        return Err(CodecError::NoSibling);
    }
    let mut input = Input::new(bytes);
    let first = input.byte()?;
    let start = out.len();
    if first & tag::MARKS == 0 {
        out.resize(start + count, 0.0);
        let integral = decode_payload(first, &mut input, sibling, &mut out[start..])?;
        // Marks can be without a list in constant, raw and hand-made chunks only.
        let may_be_stale = !integral && out[start..].iter().any(|v| sample::is_stale(*v));
        return Ok(Decoded { used_bytes: input.offset(), integral, may_be_stale });
    }
    let marks = marks::read(&mut input, count)?;
    let plain_sibling = sibling.map(|s| marks.without(s));
    out.resize(start + count, 0.0);
    let column = &mut out[start..];
    let plain = count - marks.len();
    let payload = first & !tag::MARKS;
    decode_payload(payload, &mut input, plain_sibling.as_deref(), &mut column[..plain])?;
    let may_be_stale = marks.merge(column);
    Ok(Decoded { used_bytes: input.offset(), integral: false, may_be_stale })
}

/// Fills `out` with the values behind the tag; says whether they are integral.
fn decode_payload(
    payload: u8,
    input: &mut Input<'_>,
    sibling: Option<&[f64]>,
    out: &mut [f64],
) -> Result<bool, CodecError> {
    match payload {
        tag::CONSTANT..tag::CONSTANT_END => {
            let value = constant::decode(payload, input)?;
            out.fill(value);
            Ok(value.fract() == 0.0 && value.abs() <= MAX_INTEGRAL)
        }
        numbers::INTEGERS..numbers::END if out.is_empty() => Err(input.invalid("number of marks")),
        numbers::INTEGERS..numbers::END => numbers::decode(payload, input, sibling, out),
        tag::RAW => raw::decode(input, out).map(|()| false),
        _ => Err(CodecError::UnknownTag { offset: 0, tag: payload }),
    }
}

/// 2^53: up to here every integer is a float.
const MAX_INTEGRAL: f64 = 9_007_199_254_740_992.0;
