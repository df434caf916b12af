//! Protobuf's wire format: field numbers with raw values. Knows nothing of what they mean.

/// One raw value. 32-bit values are not used by Kubernetes and are skipped with the unknown fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Signed numbers are two's complement in 64 bits, whatever their type.
    Varint(u64),
    /// Eight bytes, little endian.
    Fixed64(u64),
    /// Texts, bytes and messages.
    Bytes(&'a [u8]),
    /// Four bytes, little endian.
    Fixed32(u32),
}

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message ends in the middle of a value.
    #[error("it ends within a value")]
    Truncated,
    /// More than ten bytes, or more than 64 bits.
    #[error("a number is longer than 64 bits")]
    LongVarint,
    /// A kind of value that protobuf does not have.
    #[error("wire type {0} is unknown")]
    WireType(u64),
    /// 0, or beyond 29 bits.
    #[error("field number {0} is impossible")]
    FieldNumber(u64),
    /// The field is of another kind.
    #[error("field {0} holds another type than its message says")]
    WrongType(u32),
    /// Bytes that are not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A time that no calendar has.
    #[error("a point in time is out of range")]
    Time,
    /// JSON within the message that is none.
    #[error("embedded JSON is malformed")]
    Json,
    /// Deeper than any object of the API.
    #[error("messages are nested too deeply")]
    Nesting,
}

/// The fields of a message in the order of its bytes.
pub fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Wire<'_>), Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_err() {
            // What follows a malformed value cannot be found again.
            rest = &[];
        }
        Some(field)
    })
}

/// Every number of a packed list.
pub fn varints(bytes: &[u8]) -> impl Iterator<Item = Result<u64, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let number = varint(&mut rest);
        if number.is_err() {
            rest = &[];
        }
        Some(number)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Wire<'a>), Malformed> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|n| *n != 0).ok_or(Malformed::FieldNumber(tag >> 3))?;
    let value = match tag & 7 {
        0 => Wire::Varint(varint(rest)?),
        1 => Wire::Fixed64(u64::from_le_bytes(array(rest)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed::Truncated)?;
            let (value, after) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
            *rest = after;
            Wire::Bytes(value)
        }
        5 => Wire::Fixed32(u32::from_le_bytes(array(rest)?)),
        other => return Err(Malformed::WireType(other)),
    };
    Ok((number, value))
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(Malformed::Truncated)?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed::LongVarint)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (value, after) = rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
    *rest = after;
    Ok(*value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_and_truncation_is_told() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i'];
        let read: Vec<_> = fields(&bytes).collect();
        assert_eq!(read, [Ok((1, Wire::Varint(150))), Ok((2, Wire::Bytes(b"hi")))]);
        assert_eq!(fields(&bytes[..6]).last(), Some(Err(Malformed::Truncated)));
        assert_eq!(fields(&[0x0b]).last(), Some(Err(Malformed::WireType(3))));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(fields(&bytes).count() <= bytes.len());
        }
    }
}
