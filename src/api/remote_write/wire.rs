//! Protobuf's wire format, read in place: fields as slices of the request.

/// A request that is not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf at byte {offset}")]
pub struct WireError {
    /// Where, counted from the start of the message it is in.
    pub offset: usize,
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// Integers, booleans, enumerations.
    Varint(u64),
    /// Doubles.
    Fixed64(u64),
    /// Strings, bytes, messages, packed lists.
    Bytes(&'a [u8]),
    /// Floats.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes; empty for other kinds.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The integer; 0 for other kinds.
    #[must_use]
    pub const fn integer(self) -> u64 {
        match self {
            Self::Varint(n) => n,
            _ => 0,
        }
    }

    /// The double; 0 for other kinds.
    #[must_use]
    pub const fn double(self) -> f64 {
        match self {
            Self::Fixed64(bits) => f64::from_bits(bits),
            _ => 0.0,
        }
    }

    /// The zigzag-coded integer.
    #[must_use]
    #[allow(clippy::cast_possible_wrap, reason = "zigzag coding")]
    pub const fn zigzag(self) -> i64 {
        unzigzag(self.integer())
    }
}

/// Undoes zigzag coding.
#[must_use]
#[allow(clippy::cast_possible_wrap, reason = "zigzag coding")]
pub const fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Iterates over the fields of one message.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// The next field's number and value; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the message is cut or uses groups.
    #[inline]
    pub fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, WireError> {
        if self.at == self.message.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| self.error())?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| self.error())?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(self.error()),
        };
        Ok(Some((number, field)))
    }

    /// Where the next field starts.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    const fn error(&self) -> WireError {
        WireError { offset: self.at }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(length).ok_or_else(|| self.error())?;
        let bytes = self.message.get(self.at..end).ok_or_else(|| self.error())?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let error = self.error();
        self.take(N)?.try_into().map_err(|_| error)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        let (value, length) =
            varint(&self.message[self.at..]).ok_or(WireError { offset: self.at })?;
        self.at += length;
        Ok(value)
    }
}

/// Reads a varint; gives its value and length.
#[inline]
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    if let [first, ..] = bytes
        && *first < 0x80
    {
        return Some((u64::from(*first), 1));
    }
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

/// The integers of a packed list.
///
/// # Errors
///
/// [`WireError`] if it is cut.
pub fn packed_varints(bytes: &[u8], mut take: impl FnMut(u64)) -> Result<(), WireError> {
    let mut at = 0;
    while at < bytes.len() {
        let (value, length) = varint(&bytes[at..]).ok_or(WireError { offset: at })?;
        take(value);
        at += length;
    }
    Ok(())
}

/// The doubles of a packed list.
///
/// # Errors
///
/// [`WireError`] if its length is no multiple of eight.
pub fn packed_doubles(bytes: &[u8]) -> Result<Vec<f64>, WireError> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError { offset: bytes.len() - rest.len() });
    }
    Ok(chunks.iter().map(|c| f64::from_le_bytes(*c)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_read_in_order() {
        // 1: varint 300, 2: "ab", 3: double 1.0
        let message = [0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x19, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        let mut fields = Fields::new(&message);
        assert_eq!(fields.next(), Ok(Some((1, Field::Varint(300)))));
        assert_eq!(fields.next(), Ok(Some((2, Field::Bytes(b"ab")))));
        assert_eq!(fields.next().expect("valid").expect("there").1.double(), 1.0);
        assert_eq!(fields.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let mut fields = Fields::new(&bytes);
            while let Ok(Some(_)) = fields.next() {}
            let _ = packed_varints(&bytes, |_| ());
            let _ = packed_doubles(&bytes);
        }
    }
}
