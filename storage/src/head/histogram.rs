//! How is one native histogram written on its own?
//!
//! Plain: hint, schema, floats as bits where they are no small integers.

use std::sync::Arc;

use crate::engine::varint;
use crate::histogram::{CounterResetHint, Histogram, Span};

/// Most buckets or bounds of one side.
const MAX_BUCKETS: usize = 1 << 16;

/// Appends `histogram`.
pub(crate) fn encode(histogram: &Histogram, out: &mut Vec<u8>) {
    out.push(match histogram.counter_reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    });
    varint::put_signed(out, i64::from(histogram.schema));
    for value in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
        put_float(out, value);
    }
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        varint::put(out, spans.len() as u64);
        for span in spans {
            varint::put_signed(out, i64::from(span.offset));
            varint::put(out, u64::from(span.length));
        }
    }
    for values in
        [&histogram.positive_buckets[..], &histogram.negative_buckets, &histogram.custom_values]
    {
        varint::put(out, values.len() as u64);
        for &value in values {
            put_float(out, value);
        }
    }
}

/// Decodes what [`encode`] wrote off the front of `input`; `None` if it is
/// damaged.
pub(crate) fn decode(input: &mut &[u8]) -> Option<Histogram> {
    let counter_reset_hint = match varint::take_byte(input)? {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => return None,
    };
    let schema = i32::try_from(varint::take_signed(input)?).ok()?;
    let (zero_threshold, zero_count) = (take_float(input)?, take_float(input)?);
    let (count, sum) = (take_float(input)?, take_float(input)?);
    let (positive_spans, negative_spans) = (take_spans(input)?, take_spans(input)?);
    let (positive_buckets, negative_buckets) = (take_floats(input)?, take_floats(input)?);
    let custom_values = Arc::from(take_floats(input)?);
    Some(Histogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values,
    })
}

/// Small integers as varint << 1, others as 1 and their bits.
fn put_float(out: &mut Vec<u8>, value: f64) {
    let whole = value as u64;
    if whole < 1 << 50 && (whole as f64).to_bits() == value.to_bits() {
        varint::put(out, whole << 1);
    } else {
        out.push(1);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn take_float(input: &mut &[u8]) -> Option<f64> {
    let value = varint::take(input)?;
    if value & 1 == 0 {
        Some((value >> 1) as f64)
    } else {
        varint::take_u64(input).map(f64::from_bits)
    }
}

fn take_floats(input: &mut &[u8]) -> Option<Vec<f64>> {
    let count = varint::take_at_most(input, MAX_BUCKETS.min(input.len()))?;
    (0..count).map(|_| take_float(input)).collect()
}

fn take_spans(input: &mut &[u8]) -> Option<Vec<Span>> {
    let count = varint::take_at_most(input, MAX_BUCKETS.min(input.len()))?;
    (0..count)
        .map(|_| {
            let offset = i32::try_from(varint::take_signed(input)?).ok()?;
            let length = u32::try_from(varint::take(input)?).ok()?;
            Some(Span { offset, length })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn histograms_come_back(
            buckets in proptest::collection::vec(prop_oneof![(0u32..9000).prop_map(f64::from), any::<f64>()], 0..20),
            sum in any::<u64>(), schema in -53i32..9, offset in any::<i32>(),
        ) {
            let h = Histogram {
                counter_reset_hint: CounterResetHint::Gauge,
                schema,
                zero_threshold: 1e-128,
                zero_count: 3.0,
                count: 17.5,
                sum: f64::from_bits(sum),
                positive_spans: vec![Span { offset, length: buckets.len() as u32 }],
                positive_buckets: buckets.clone(),
                custom_values: buckets.into(),
                ..Histogram::default()
            };
            let mut out = Vec::new();
            encode(&h, &mut out);
            let mut input = out.as_slice();
            let back = decode(&mut input).expect("just written");
            prop_assert!(input.is_empty());
            prop_assert_eq!(format!("{h:?}"), format!("{back:?}"));
            prop_assert_eq!(back.sum.to_bits(), sum);
            for cut in 0..out.len() {
                let _ = decode(&mut &out[..cut]);
            }
        }
    }
}
