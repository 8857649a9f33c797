//! What is known of a long chunk without decoding it.

use super::CodecError;
use super::input::{Input, push_varint};

/// Chunks below this number of rows carry no summary: decoding them is as quick.
pub const SUMMARY_MIN_ROWS: usize = 256;

/// Facts of a chunk without NaNs and staleness markers.
///
/// Says nothing about samples between this chunk and its neighbours: whether
/// there is a reset across a border follows from last and first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Number of values, at least one.
    pub count: u32,
    /// The first value.
    pub first: f64,
    /// The last value.
    pub last: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The sum, exact, if all values are integers of at most 2^53.
    pub sum: Option<i128>,
    /// How often a value is smaller than the one before it.
    pub resets: u32,
}

impl Summary {
    /// The summary of `values`; `None` if there are none, or a NaN among them.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let (first, last) = (*values.first()?, *values.last()?);
        let mut summary = Self {
            count: values.len() as u32,
            first,
            last,
            min: first,
            max: first,
            sum: None,
            resets: 0,
        };
        let (mut sum, mut integral, mut nan) = (0i128, true, false);
        let mut before = first;
        for &value in values {
            nan |= value.is_nan();
            summary.resets += u32::from(value < before);
            summary.min = if value < summary.min { value } else { summary.min };
            summary.max = if value > summary.max { value } else { summary.max };
            integral &= (value as i64) as f64 == value && value.abs() <= super::MAX_INTEGRAL;
            sum += i128::from(value as i64);
            before = value;
        }
        summary.sum = integral.then_some(sum);
        (!nan).then_some(summary)
    }

    /// Appends the summary to `out`, all but its count.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(u8::from(self.sum.is_some()));
        for (bit, value, known) in [
            (0x02, self.last, self.first),
            (0x04, self.min, self.first),
            (0x08, self.max, self.last),
        ] {
            if value.to_bits() == known.to_bits() {
                out[start] |= bit;
            }
        }
        super::constant::encode(self.first, out);
        for (bit, value) in [(0x02, self.last), (0x04, self.min), (0x08, self.max)] {
            if out[start] & bit == 0 {
                super::constant::encode(value, out);
            }
        }
        if let Some(sum) = self.sum {
            let folded = ((sum << 1) ^ (sum >> 127)) as u128;
            push_varint(folded as u64, out);
            push_varint((folded >> 64) as u64, out);
        }
        push_varint(u64::from(self.resets), out);
    }

    /// The summary of `count` values at the start of `bytes`, and its bytes.
    ///
    /// # Errors
    ///
    /// [`CodecError`].
    pub fn decode(bytes: &[u8], count: u32) -> Result<(Self, usize), CodecError> {
        let mut input = Input::new(bytes);
        let flags = input.byte()?;
        if flags > 0x0f {
            return Err(CodecError::UnknownTag { offset: 0, tag: flags });
        }
        let value = |input: &mut Input<'_>| {
            let tag = input.byte()?;
            super::constant::decode(tag, input)
        };
        let first = value(&mut input)?;
        let last = if flags & 0x02 == 0 { value(&mut input)? } else { first };
        let min = if flags & 0x04 == 0 { value(&mut input)? } else { first };
        let max = if flags & 0x08 == 0 { value(&mut input)? } else { last };
        let sum = if flags & 0x01 == 0 {
            None
        } else {
            let low = input.varint()?;
            let folded = u128::from(input.varint()?) << 64 | u128::from(low);
            Some((folded >> 1) as i128 ^ -((folded & 1) as i128))
        };
        let resets = u32::try_from(input.varint()?).map_err(|_| input.invalid("resets"))?;
        Ok((Self { count, first, last, min, max, sum, resets }, input.offset()))
    }
}
