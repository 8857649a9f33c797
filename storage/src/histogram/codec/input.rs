//! Reads the fields of a histogram chunk.

use crate::codec::CodecError;

/// A position in bytes from outside.
#[derive(Debug)]
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

    pub(super) const fn invalid(&self, field: &'static str) -> CodecError {
        CodecError::Invalid { offset: self.at, field }
    }

    pub(super) const fn truncated(&self) -> CodecError {
        CodecError::Truncated { offset: self.bytes.len() }
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    pub(super) fn skip(&mut self, len: usize) -> Result<(), CodecError> {
        if len > self.rest().len() {
            return Err(self.truncated());
        }
        self.at += len;
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        let byte = *self.rest().first().ok_or_else(|| self.truncated())?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn bits(&mut self) -> Result<f64, CodecError> {
        let bytes = *self.rest().first_chunk::<8>().ok_or_else(|| self.truncated())?;
        self.at += 8;
        Ok(f64::from_bits(u64::from_le_bytes(bytes)))
    }

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

    /// A varint that is a number of things of at least one byte each.
    pub(super) fn length(&mut self, field: &'static str) -> Result<usize, CodecError> {
        let length = self.varint()?;
        usize::try_from(length)
            .ok()
            .filter(|l| *l <= self.rest().len())
            .ok_or_else(|| self.invalid(field))
    }

    pub(super) fn signed(&mut self, field: &'static str) -> Result<i32, CodecError> {
        let value = self.varint()?;
        let value = (value >> 1) as i64 ^ -((value & 1) as i64);
        i32::try_from(value).map_err(|_| self.invalid(field))
    }
}

pub(super) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn push_signed(value: i32, out: &mut Vec<u8>) {
    let value = i64::from(value);
    push_varint(((value << 1) ^ (value >> 63)) as u64, out);
}
