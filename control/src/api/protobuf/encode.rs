//! From the JSON text of an object to its protobuf message, by the schema's field numbers, in one pass.
//!
//! Fields that the schema does not know are left out, and so is `null`. Zero values are written where the JSON has
//! them: a reader takes an absent field for zero, and for nothing where the two differ.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;

use super::{
    json::{JsonReader, NotJson},
    json_schema::SchemaOr,
};
use crate::schema::{Object, Type, TypeId, Types, decode::MAX_LEVELS};

/// Why a text has no protobuf form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotEncode {
    /// The text is damaged.
    #[error(transparent)]
    Text(#[from] NotJson),
    /// A value has another type than its schema says.
    #[error("{0:?} is no {1}")]
    Value(String, &'static str),
    /// Objects within objects without end.
    #[error("it is nested too deeply")]
    Nesting,
}

/// Writes messages by the types of one arena.
#[derive(Clone, Copy)]
pub struct Encoder<'t> {
    types: &'t Types,
    /// How many messages may still stand within this one.
    levels: usize,
}

impl<'t> Encoder<'t> {
    /// An encoder without open messages.
    pub fn new(types: &'t Types) -> Self {
        Self { types, levels: MAX_LEVELS }
    }

    /// The arena.
    pub fn types(self) -> &'t Types {
        self.types
    }

    /// Writes the next value of `json`, an `object`.
    pub fn message(self, object: &Object, json: &mut JsonReader, out: &mut Vec<u8>) -> Result<(), CannotEncode> {
        let inner = Self { levels: self.levels.checked_sub(1).ok_or(CannotEncode::Nesting)?, ..self };
        json.object(|name, json| {
            let Some((field, number)) = object.numbered(name).filter(|(_, number)| number.number != 0) else {
                json.raw()?;
                return Ok(());
            };
            let mut write = |out: &mut Vec<u8>| inner.field(field.r#type, number.number, json, out);
            match number.embedded {
                [0, _] => write(out),
                [outer, 0] => nested(out, outer, write),
                [outermost, outer] => nested(out, outermost, |out| nested(out, outer, write)),
            }
        })
    }

    fn field(self, id: TypeId, number: u32, json: &mut JsonReader, out: &mut Vec<u8>) -> Result<(), CannotEncode> {
        if json.peek()? == b'n' {
            json.word()?;
            return Ok(());
        }
        match *self.types.get(id) {
            Type::List(item) => json.list(|json| self.value(item, number, json, out)),
            Type::Map(value) => json.object(|key, json| {
                nested(out, number, |out| {
                    bytes(out, 1, key.as_bytes());
                    self.value(value, 2, json, out)
                })
            }),
            _ => self.value(id, number, json, out),
        }
    }

    fn value(self, id: TypeId, number: u32, json: &mut JsonReader, out: &mut Vec<u8>) -> Result<(), CannotEncode> {
        match self.types.get(id) {
            Type::String => bytes(out, number, json.string()?.as_bytes()),
            Type::Bytes => {
                let text = json.string()?;
                let decoded = BASE64_STANDARD.decode(text.as_bytes());
                bytes(out, number, &decoded.map_err(|_| CannotEncode::Value(text.into_owned(), "base64"))?);
            }
            Type::Time => time(out, number, &json.string()?, |at| (at.as_second(), 0))?,
            Type::MicroTime => {
                time(out, number, &json.string()?, |at| (at.as_second(), at.subsec_nanosecond() / 1000 * 1000))?;
            }
            Type::Quantity => {
                let text = if json.peek()? == b'"' { json.string()? } else { json.word()?.into() };
                text_message(out, number, text.as_bytes());
            }
            Type::IntOrString if json.peek()? == b'"' => {
                let text = json.string()?;
                int_or_string(out, number, 1, 0, &text)?;
            }
            Type::IntOrString => {
                let value = integer(json)?;
                int_or_string(out, number, 0, value, "")?;
            }
            Type::Int32 | Type::Int64 => {
                let value = integer(json)?;
                varint(out, number, value);
            }
            Type::Double => {
                let word = json.word()?;
                let value: f64 = word.parse().map_err(|_| CannotEncode::Value(word.to_owned(), "number"))?;
                raw_varint(out, u64::from(number) << 3 | 1);
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Type::Bool => varint(out, number, u64::from(json.word()? == "true")),
            Type::Any => match SchemaOr::of(self.types, id) {
                Some(part) => nested(out, number, |out| part.write(self, json, out))?,
                // JSON text in a message of its own.
                None => text_message(out, number, json.raw()?),
            },
            // A list within a map is a message of its own.
            Type::List(item) => {
                nested(out, number, |out| json.list(|json| self.value(*item, 1, json, out)))?;
            }
            Type::Map(_) => {
                json.raw()?;
            }
            Type::Object(object) => nested(out, number, |out| self.message(object, json, out))?,
        }
        Ok(())
    }
}

/// Writes a field that is a message with one text.
fn text_message(out: &mut Vec<u8>, number: u32, text: &[u8]) {
    bytes_header(out, number, field_length(text.len()));
    bytes(out, 1, text);
}

/// `IntOrString { type, intVal, strVal }`: type 0 is the number, 1 the text.
fn int_or_string(out: &mut Vec<u8>, number: u32, kind: u64, value: u64, text: &str) -> Result<(), CannotEncode> {
    nested(out, number, |out| {
        varint(out, 1, kind);
        varint(out, 2, value);
        bytes(out, 3, text.as_bytes());
        Ok(())
    })
}

fn integer(json: &mut JsonReader) -> Result<u64, CannotEncode> {
    let word = json.word()?;
    let value = word.parse::<i64>().map(i64::cast_unsigned);
    value.or_else(|_| word.parse()).map_err(|_| CannotEncode::Value(word.to_owned(), "integer"))
}

/// `Timestamp { seconds, nanos }`; Go's zero time is an empty message.
fn time(out: &mut Vec<u8>, number: u32, text: &str, parts: fn(Timestamp) -> (i64, i32)) -> Result<(), CannotEncode> {
    if text.starts_with("0001-01-01T00:00:00") {
        bytes(out, number, b"");
        return Ok(());
    }
    let at: Timestamp = text.parse().map_err(|_| CannotEncode::Value(text.to_owned(), "time"))?;
    let (seconds, nanos) = parts(at);
    nested(out, number, |out| {
        varint(out, 1, seconds.cast_unsigned());
        varint(out, 2, i64::from(nanos).cast_unsigned());
        Ok(())
    })
}

/// Writes a field that is a message.
pub fn nested<E>(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    raw_varint(out, u64::from(number) << 3 | 2);
    // The length comes first and is known last. One byte is enough for most messages; the others are moved.
    let at = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - at - 1;
    let more = varint_length(length as u64) - 1;
    if more > 0 {
        out.resize(out.len() + more, 0);
        out.copy_within(at + 1..at + 1 + length, at + 1 + more);
    }
    let mut rest = length;
    for byte in &mut out[at..at + more] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[at + more] = rest as u8;
    Ok(())
}

/// Writes a field that is text or bytes.
pub fn bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    bytes_header(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes what stands before `length` bytes of a field.
pub fn bytes_header(out: &mut Vec<u8>, number: u32, length: usize) {
    raw_varint(out, u64::from(number) << 3 | 2);
    raw_varint(out, length as u64);
}

/// How many bytes a field of `length` bytes has, if its number is below 16.
pub fn field_length(length: usize) -> usize {
    1 + varint_length(length as u64) + length
}

/// Writes a field that is a number.
pub fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
    raw_varint(out, u64::from(number) << 3);
    raw_varint(out, value);
}

fn raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
