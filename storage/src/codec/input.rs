//! Reads the fields of a chunk, and says where it ends too early.

use super::CodecError;

/// A position in bytes from outside.
#[derive(Debug, Clone)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn offset(&self) -> usize {
        self.at
    }

    /// The number of bytes, read or not.
    pub(super) const fn end(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn invalid(&self, field: &'static str) -> CodecError {
        CodecError::Invalid { offset: self.at, field }
    }

    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        let byte = *self.bytes.get(self.at).ok_or(CodecError::Truncated { offset: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let truncated = CodecError::Truncated { offset: self.bytes.len() };
        let slice = self.rest().get(..len).ok_or(truncated)?;
        self.at += len;
        Ok(slice)
    }

    /// A little-endian integer of `len` bytes, at most 8.
    pub(super) fn uint(&mut self, len: usize) -> Result<u64, CodecError> {
        let slice = self.take(len)?;
        let mut word = [0; 8];
        word[..len].copy_from_slice(slice);
        Ok(u64::from_le_bytes(word))
    }

    /// A LEB128 integer of at most 10 bytes.
    pub(super) fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.invalid("varint"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, CodecError> {
        self.varint().map(unzigzag)
    }
}

pub(super) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn push_signed(value: i64, out: &mut Vec<u8>) {
    push_varint(zigzag(value), out);
}

pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
