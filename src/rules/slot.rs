//! Where in its interval is a group evaluated? Where Prometheus evaluates it.
//!
//! The place is a hash of file and name, so that groups are spread, and each
//! keeps its place over restarts. It is the hash of Prometheus' released
//! binaries: who moves from there, or compares both, finds recorded samples on
//! the same times.

/// How far into its interval a group is evaluated, in milliseconds; in
/// `0..interval_ms`. `interval_ms` is above 0.
pub(super) fn offset_ms(file: &str, name: &str, interval_ms: i64) -> i64 {
    let mut labels = Vec::with_capacity(file.len() + name.len() + 16);
    for text in ["file", file, "name", name] {
        push(&mut labels, text);
    }
    // Counted in nanoseconds there; what is left of a millisecond is cut off.
    let interval_ns = u128::from(interval_ms.unsigned_abs()) * 1_000_000;
    let offset_ns = u128::from(xxh64(&labels)) % interval_ns;
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

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

fn read_u64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// XXH64 with seed 0, after the specification of xxHash (section XXH64).
pub(super) fn xxh64(bytes: &[u8]) -> u64 {
    let (mut hash, rest) = if bytes.len() >= 32 {
        let mut lanes =
            [PRIMES[0].wrapping_add(PRIMES[1]), PRIMES[1], 0, 0_u64.wrapping_sub(PRIMES[0])];
        let stripes = bytes.chunks_exact(32);
        let rest = stripes.remainder();
        for stripe in stripes {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, read_u64(input));
            }
        }
        let turns = lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
        let joined = turns.fold(0, u64::wrapping_add);
        let merge = |hash: u64, &lane: &u64| {
            (hash ^ round(0, lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
        };
        (lanes.iter().fold(joined, merge), rest)
    } else {
        (PRIMES[4], bytes)
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let words = rest.chunks_exact(8);
    let mut tail = words.remainder();
    for word in words {
        hash ^= round(0, read_u64(word));
        hash = hash.rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
    }
    if let Some((half, after)) = tail.split_at_checked(4) {
        hash ^= read_u64(half).wrapping_mul(PRIMES[0]);
        hash = hash.rotate_left(23).wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
        tail = after;
    }
    for &byte in tail {
        hash ^= u64::from(byte).wrapping_mul(PRIMES[4]);
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(PRIMES[1]);
    hash = (hash ^ hash >> 29).wrapping_mul(PRIMES[2]);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_reference() {
        for (text, hash) in [
            ("", 0xEF46_DB37_51D8_E999),
            ("a", 0xD24E_C4F1_A98C_6E5B),
            ("abc", 0x44BC_2CF5_AD77_0999),
            ("Nobody inspects the spammish repetition", 0xFBCE_A83C_8A37_8BF1),
        ] {
            assert_eq!(xxh64(text.as_bytes()), hash, "{text}");
        }
    }

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
