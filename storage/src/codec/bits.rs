//! Bit streams, least significant bit first.

use super::CodecError;

/// Appends bits to bytes.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    word: u64,
    /// Bits of `word` in use, below 64.
    filled: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, word: 0, filled: 0 }
    }

    /// Appends the low `len` bits of `bits` (at most 64); the others are zero.
    #[inline]
    pub(super) fn push(&mut self, bits: u64, len: u32) {
        self.word |= bits << self.filled;
        let filled = self.filled + len;
        if filled < 64 {
            self.filled = filled;
            return;
        }
        self.out.extend_from_slice(&self.word.to_le_bytes());
        self.filled = filled - 64;
        // What did not fit; nothing, if `bits` just fitted.
        self.word = bits.checked_shr(len - self.filled).unwrap_or(0);
    }

    /// Writes the last bits, filled up with zeros to a byte.
    pub(super) fn finish(self) {
        let len = self.filled.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.word.to_le_bytes()[..len]);
    }
}

/// Reads bits; behind the end there are zeros, until [`BitReader::finish`].
#[derive(Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// At least 57 bits from the current position.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        let byte = self.at >> 3;
        let word = match self.bytes.get(byte..).and_then(|b| b.first_chunk::<8>()) {
            Some(word) => u64::from_le_bytes(*word),
            None => self.peek_end(byte),
        };
        word >> (self.at & 7)
    }

    #[cold]
    fn peek_end(&self, byte: usize) -> u64 {
        let mut word = [0; 8];
        let rest = self.bytes.get(byte..).unwrap_or_default();
        let len = rest.len().min(8);
        word[..len].copy_from_slice(&rest[..len]);
        u64::from_le_bytes(word)
    }

    #[inline]
    pub(super) const fn skip(&mut self, len: u32) {
        self.at += len as usize;
    }

    /// Up to 64 bits.
    #[inline]
    pub(super) fn take(&mut self, len: u32) -> u64 {
        let low_len = if len > 32 { 32 } else { len };
        let low = self.peek() & ((1 << low_len) - 1);
        self.skip(low_len);
        let high_len = len - low_len;
        let high = self.peek() & ((1 << high_len) - 1);
        self.skip(high_len);
        low | high << low_len
    }

    /// The number of bytes read from, the last perhaps in part.
    pub(super) const fn finish(self) -> Result<usize, CodecError> {
        let used = self.at.div_ceil(8);
        if used > self.bytes.len() {
            return Err(CodecError::Truncated { offset: self.bytes.len() });
        }
        Ok(used)
    }
}
