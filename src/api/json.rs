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
    push_opening(out, timestamp_ms);
    push_float(out, value);
    out.extend_from_slice(b"\"]");
}

/// Writes samples of a matrix. Its series share their steps, so a time is
/// turned into text once and copied for the other series.
#[derive(Debug, Default)]
pub struct SampleWriter {
    /// Ascending, and where the text of each ends.
    times_ms: Vec<(i64, usize)>,
    text: Vec<u8>,
    next: usize,
}

impl SampleWriter {
    /// Appends the samples of a series, ascending by time, as an array.
    pub fn push_samples(&mut self, out: &mut Vec<u8>, samples: &[(i64, f64)]) {
        self.next = 0;
        out.reserve(samples.len() * 32);
        push_array(out, samples, |out, (time_ms, value)| {
            self.push_opening(out, *time_ms);
            push_float(out, *value);
            out.extend_from_slice(b"\"]");
        });
    }

    /// Appends `[time,"`.
    fn push_opening(&mut self, out: &mut Vec<u8>, time_ms: i64) {
        while self.times_ms.get(self.next).is_some_and(|(known, _)| *known < time_ms) {
            self.next += 1;
        }
        match self.times_ms.get(self.next) {
            Some((known, end)) if *known == time_ms => {
                let start = self.next.checked_sub(1).map_or(0, |before| self.times_ms[before].1);
                out.extend_from_slice(&self.text[start..*end]);
                self.next += 1;
            }
            // A step that the series before lacked.
            Some(_) => push_opening(out, time_ms),
            None => {
                let start = self.text.len();
                push_opening(&mut self.text, time_ms);
                out.extend_from_slice(&self.text[start..]);
                self.times_ms.push((time_ms, self.text.len()));
                self.next = self.times_ms.len();
            }
        }
    }
}

fn push_opening(out: &mut Vec<u8>, time_ms: i64) {
    out.push(b'[');
    push_timestamp(out, time_ms);
    out.extend_from_slice(b",\"");
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_matrix_is_written_as_its_samples_are(
            matrix in proptest::collection::vec(
                proptest::collection::btree_map(-3000i64..3000, -5i32..5, 0..12), 0..6),
        ) {
            let mut writer = SampleWriter::default();
            for series in matrix {
                let samples: Vec<(i64, f64)> =
                    series.into_iter().map(|(t, v)| (t, f64::from(v) / 4.0)).collect();
                let (mut together, mut one_by_one) = (Vec::new(), Vec::new());
                writer.push_samples(&mut together, &samples);
                push_array(&mut one_by_one, &samples, |out, (t, v)| push_sample(out, *t, *v));
                prop_assert_eq!(together, one_by_one);
            }
        }
    }
}
