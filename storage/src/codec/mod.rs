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
mod constant;
mod decimal;
mod input;
mod ints;
mod marks;
mod raw;
mod runs;
mod summary;
#[cfg(test)]
mod tests;

pub use axis::{decode_axis, encode_axis};
pub use runs::{decode_runs, encode_runs};
pub use summary::{SUMMARY_MIN_ROWS, Summary};

use input::Input;

/// Most values of one chunk; longer columns are split by the caller.
pub const MAX_COUNT: usize = 1 << 20;

/// First bytes of chunks. Ranges that are not named are free for later codecs.
mod tag {
    /// Constants: `CONSTANT..CONSTANT_END`.
    pub const CONSTANT: u8 = 0x00;
    pub const CONSTANT_END: u8 = 0x20;
    pub const DECIMAL: u8 = 0x20;
    pub const DECIMAL_END: u8 = 0x40;
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
    /// The chunk builds on its left neighbour, and none of `count` values was given.
    #[error("chunk needs the values of its left neighbour")]
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
    marks: Vec<u8>,
    ints: Vec<i64>,
}

impl Encoder {
    /// An encoder without scratch space yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one chunk of `values` to `out`.
    ///
    /// `sibling` is the column to the left in the same rows, if there is one
    /// that may help (a histogram's bucket); the decoder must be given the same.
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
        let Some(first) = values.first().copied() else { return };
        if values.iter().all(|v| v.to_bits() == first.to_bits()) {
            return constant::encode(first, out);
        }
        self.marks.clear();
        self.plain.clear();
        marks::split(values, &mut self.plain, &mut self.marks);
        if self.marks.is_empty() {
            Self::encode_plain(&mut self.ints, values, 0, out);
        } else {
            let start = out.len();
            out.push(0);
            out.extend_from_slice(&self.marks);
            let payload = out.len();
            match self.plain.first().copied() {
                Some(v) if self.plain.iter().all(|x| x.to_bits() == v.to_bits()) => {
                    constant::encode(v, out);
                }
                Some(_) => Self::encode_plain(&mut self.ints, &self.plain, 0, out),
                None => constant::encode(0.0, out),
            }
            // The payload's tag comes first, so that one byte tells the codec.
            out[start] = out.remove(payload) | tag::MARKS;
        }
    }

    fn encode_plain(ints: &mut Vec<i64>, values: &[f64], _flags: u8, out: &mut Vec<u8>) {
        if !decimal::encode(values, ints, out) {
            raw::encode(values, out);
        }
    }
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
    let _ = sibling;
    let mut input = Input::new(bytes);
    let first = input.byte()?;
    let marks = if first & tag::MARKS == 0 { None } else { Some(marks::read(&mut input, count)?) };
    let plain = count - marks.as_ref().map_or(0, |m| m.len());
    let start = out.len();
    let integral = match first & !tag::MARKS {
        t if (tag::CONSTANT..tag::CONSTANT_END).contains(&t) => {
            let value = constant::decode(t, &mut input)?;
            out.resize(start + plain, value);
            value.fract() == 0.0 && value.abs() <= MAX_INTEGRAL
        }
        t if (tag::DECIMAL..tag::DECIMAL_END).contains(&t) => {
            decimal::decode(t, plain, &mut input, out)?
        }
        tag::RAW => {
            raw::decode(plain, &mut input, out)?;
            false
        }
        tag => return Err(CodecError::UnknownTag { offset: 0, tag }),
    };
    let may_be_stale = match &marks {
        Some(marks) => marks.merge(out, start, count),
        None => out[start..].first().is_some_and(|v| crate::sample::is_stale(*v)),
    };
    Ok(Decoded { used_bytes: input.offset(), integral: integral && marks.is_none(), may_be_stale })
}

/// 2^53: up to here every integer is a float.
const MAX_INTEGRAL: f64 = 9_007_199_254_740_992.0;
