//! Where in its interval is a group evaluated? Where Prometheus evaluates it.
//!
//! The place is a hash of file and name, so that groups are spread, and each
//! keeps its place over restarts. It is the hash of Prometheus' released
//! binaries: who moves from there, or compares both, finds recorded samples on
//! the same times.

use xxhash_rust::xxh64::xxh64;

/// How far into its interval a group is evaluated, in milliseconds; in
/// `0..interval_ms`. `interval_ms` is above 0.
pub(super) fn offset_ms(file: &str, name: &str, interval_ms: i64) -> i64 {
    let mut labels = Vec::with_capacity(file.len() + name.len() + 16);
    for text in ["file", file, "name", name] {
        push(&mut labels, text);
    }
    // Counted in nanoseconds there; what is left of a millisecond is cut off.
    let interval_ns = u128::from(interval_ms.unsigned_abs()) * 1_000_000;
    let offset_ns = u128::from(xxh64(&labels, 0)) % interval_ns;
    i64::try_from(offset_ns / 1_000_000).expect("less than the interval")
}

/// A text behind its length: one byte, or 255 and three bytes.
fn push(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(len) if len < u8::MAX => out.push(len),
        _ => {
            out.push(u8::MAX);
            out.extend_from_slice(&(text.len() as u64).to_le_bytes()[..3]);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_lie_within_the_interval_and_long_names_are_no_exception() {
        for interval_ms in [1, 7, 15_000, 86_400_000, i64::MAX] {
            for len in [0, 1, 254, 255, 256, 70_000] {
                let offset_ms = offset_ms(&"f".repeat(len), "g", interval_ms);
                assert!((0..interval_ms).contains(&offset_ms), "{offset_ms} {interval_ms}");
            }
        }
    }
}
