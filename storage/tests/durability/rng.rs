//! Small random numbers that a seed repeats.

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Yes, once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number in `1..=max`, small ones more often.
    pub const fn rather_small(&mut self, max: u64) -> u64 {
        let bits = 64 - max.leading_zeros() as u64;
        let bound = 1u64 << self.below(bits + 1);
        let bound = if bound > max { max } else { bound };
        1 + self.below(bound)
    }
}
