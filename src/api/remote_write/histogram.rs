//! What is a native histogram on the wire? Integer or float, with differences
//! or counts; either way one histogram of ours, checked.

use std::sync::Arc;

use narthex_storage::histogram::{CounterResetHint, Histogram, IntegerHistogram, Span};

use super::wire::{Field, Fields, WireError, packed_doubles, packed_varints, unzigzag};

/// Reads a `Histogram` message: its timestamp in milliseconds, and the
/// histogram; `None` if it contradicts itself.
///
/// It is a float histogram if its count is a float. Finer schemas than are
/// kept are reduced.
///
/// # Errors
///
/// [`WireError`] if the message is not protobuf.
pub fn read(message: &[u8]) -> Result<Option<(i64, Histogram)>, WireError> {
    let mut integer = IntegerHistogram::default();
    let mut float = Histogram::default();
    let (mut is_float, mut timestamp_ms, mut bounds) = (false, 0, Vec::new());
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => integer.count = field.integer(),
            2 => {
                float.count = field.double();
                is_float = true;
            }
            3 => integer.sum = field.double(),
            4 => match i32::try_from(field.zigzag()) {
                Ok(schema) => integer.schema = schema,
                Err(_) => return Ok(None),
            },
            5 => integer.zero_threshold = field.double(),
            6 => integer.zero_count = field.integer(),
            7 => float.zero_count = field.double(),
            8 => integer.negative_spans.push(span(field.bytes())?),
            9 => deltas(field, &mut integer.negative_deltas)?,
            10 => counts(field, &mut float.negative_buckets)?,
            11 => integer.positive_spans.push(span(field.bytes())?),
            12 => deltas(field, &mut integer.positive_deltas)?,
            13 => counts(field, &mut float.positive_buckets)?,
            14 => integer.counter_reset_hint = reset_hint(field.integer()),
            15 => timestamp_ms = super::signed(field),
            16 => counts(field, &mut bounds)?,
            _ => {}
        }
    }
    integer.custom_values = Arc::from(bounds);
    let checked = if is_float {
        float.counter_reset_hint = integer.counter_reset_hint;
        float.schema = integer.schema;
        float.zero_threshold = integer.zero_threshold;
        float.sum = integer.sum;
        float.positive_spans = integer.positive_spans;
        float.negative_spans = integer.negative_spans;
        float.custom_values = integer.custom_values;
        float.into_valid()
    } else {
        integer.into_histogram()
    };
    Ok(checked.ok().map(|histogram| (timestamp_ms, histogram)))
}

/// Differences, packed or one by one.
fn deltas(field: Field<'_>, out: &mut Vec<i64>) -> Result<(), WireError> {
    match field {
        Field::Bytes(bytes) => packed_varints(bytes, |n| out.push(unzigzag(n))),
        field => {
            out.push(field.zigzag());
            Ok(())
        }
    }
}

/// Doubles, packed or one by one.
fn counts(field: Field<'_>, out: &mut Vec<f64>) -> Result<(), WireError> {
    match field {
        Field::Bytes(bytes) => out.extend(packed_doubles(bytes)?),
        field => out.push(field.double()),
    }
    Ok(())
}

fn span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span::default();
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            // What does not fit is refused by the check of the histogram.
            1 => span.offset = i32::try_from(field.zigzag()).unwrap_or(i32::MAX),
            2 => span.length = u32::try_from(field.integer()).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    Ok(span)
}

const fn reset_hint(number: u64) -> CounterResetHint {
    match number {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(number: u8, value: f64) -> Vec<u8> {
        [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
    }

    /// Schema 0, sum 5, time 7, zero bucket 1, buckets 2 and 3 from index -1.
    fn integer(count: u8) -> Vec<u8> {
        let mut out = vec![1 << 3, count, 4 << 3, 0, 6 << 3, 1];
        out.extend(double(3, 5.0));
        out.extend([11 << 3 | 2, 4, 1 << 3, 1, 2 << 3, 2]);
        out.extend([12 << 3 | 2, 2, 4, 2]);
        out.extend([14 << 3, 3, 15 << 3, 7]);
        out
    }

    #[test]
    fn differences_become_counts() {
        let (timestamp_ms, h) = read(&integer(6)).unwrap().unwrap();
        assert_eq!(timestamp_ms, 7);
        assert_eq!(h.to_string(), "{count:6, sum:5, [-0,0]:1, (0.25,0.5]:2, (0.5,1]:3}");
        assert_eq!(h.counter_reset_hint, CounterResetHint::Gauge);
    }

    #[test]
    fn a_count_that_is_not_that_of_the_buckets_is_refused() {
        assert_eq!(read(&integer(7)), Ok(None));
    }

    #[test]
    fn a_float_count_makes_a_float_histogram() {
        let mut message = double(2, 2.5);
        message.extend(double(3, f64::from_bits(0x7ff0_0000_0000_0002)));
        assert!(read(&message).unwrap().unwrap().1.is_stale());
        let mut message = double(2, 2.5);
        message.extend([4 << 3, 105]);
        message.extend([11 << 3 | 2, 2, 2 << 3, 2]);
        for count in [0.5, 2.0] {
            message.extend(double(13, count));
        }
        // Field 16 takes two bytes: 16 << 3 | 1.
        message.extend([0x81, 0x01]);
        message.extend(9.5f64.to_le_bytes());
        let (_, h) = read(&message).unwrap().unwrap();
        assert_eq!(h.to_string(), "{count:2.5, sum:0, [-Inf,9.5]:0.5, (9.5,+Inf]:2}");
    }

    #[test]
    fn a_cut_message_is_no_histogram() {
        let message = integer(6);
        for end in 1..message.len() {
            let _ = read(&message[..end]);
        }
        assert!(read(&message[..message.len() - 1]).is_err());
    }
}
