//! How is an answer written? JSON straight into bytes, without a tree.

use narthex_storage::histogram::Histogram;
use narthex_storage::labels::Labels;

use super::number::{push_float, push_timestamp};

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a label set as an object.
pub fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, name);
        out.push(b':');
        push_string(out, value);
    }
    out.push(b'}');
}

/// Appends `items` as an array, each written by `push`.
pub fn push_array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}

/// Appends `[time,"value"]`.
pub fn push_sample(out: &mut Vec<u8>, timestamp_ms: i64, value: f64) {
    out.push(b'[');
    push_timestamp(out, timestamp_ms);
    out.extend_from_slice(b",\"");
    push_float(out, value);
    out.extend_from_slice(b"\"]");
}

/// Appends `[time,{"count":...}]`.
pub fn push_histogram_sample(out: &mut Vec<u8>, timestamp_ms: i64, histogram: &Histogram) {
    out.push(b'[');
    push_timestamp(out, timestamp_ms);
    out.push(b',');
    push_histogram(out, histogram);
    out.push(b']');
}

fn push_quoted_float(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    push_float(out, value);
    out.push(b'"');
}

/// Appends a native histogram: count, sum and the buckets that are not empty,
/// each with its boundary rule (0 open left, 1 open right, 2 open both, 3
/// closed both).
fn push_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    out.extend_from_slice(b"{\"count\":");
    push_quoted_float(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    push_quoted_float(out, histogram.sum);
    let buckets = histogram.api_buckets();
    if !buckets.is_empty() {
        out.extend_from_slice(b",\"buckets\":");
        push_array(out, buckets, |out, bucket| {
            out.extend_from_slice(&[b'[', b'0' + bucket.boundary_rule(), b',']);
            push_quoted_float(out, bucket.lower);
            out.push(b',');
            push_quoted_float(out, bucket.upper);
            out.push(b',');
            push_quoted_float(out, bucket.count);
            out.push(b']');
        });
    }
    out.push(b'}');
}
