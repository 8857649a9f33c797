//! Whose file is it, and how old is its format?
//!
//! ```text
//! header = four letters, u8 version, three bytes: the lowest of the CRC-32 of
//!          the five bytes before; zero in files of version 1
//! ```
//!
//! The check tells a file of a newer version, which is refused and left as it
//! is, from a damaged header, which costs nothing: what follows has checksums
//! of its own.

/// Bytes at the start of every file.
pub(crate) const BYTES: usize = 8;

/// What the start of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A version that can be read.
    Known,
    /// A version that cannot.
    Newer,
    /// No header.
    Damaged,
}

/// The header of a file.
pub(crate) fn of(letters: [u8; 4], version: u8) -> [u8; BYTES] {
    let [a, b, c, d] = letters;
    let check = match version {
        1 => [0; 4],
        _ => crc32fast::hash(&[a, b, c, d, version]).to_le_bytes(),
    };
    [a, b, c, d, version, check[0], check[1], check[2]]
}

/// Looks at the start of a file whose newest known version is `newest`.
pub(crate) fn check(start: &[u8], letters: [u8; 4], newest: u8) -> Found {
    let Some(start) = start.first_chunk::<BYTES>() else { return Found::Damaged };
    let version = start[4];
    if *start != of(letters, version) || version == 0 {
        Found::Damaged
    } else if version > newest {
        Found::Newer
    } else {
        Found::Known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flipped_bit_is_damage_and_never_another_version() {
        for version in [1, 2, 3, 200] {
            let header = of(*b"NXWL", version);
            let expected = if version > 2 { Found::Newer } else { Found::Known };
            assert_eq!(check(&header, *b"NXWL", 2), expected);
            for bit in 0..64 {
                let mut flipped = header;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(check(&flipped, *b"NXWL", 2), Found::Damaged, "{version}: bit {bit}");
            }
        }
        assert_eq!(check(b"NXW", *b"NXWL", 2), Found::Damaged);
    }
}
