//! One message to JSON, by the schema's field numbers.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    json_schema::SchemaOr,
    wire::{self, Malformed, Wire},
};
use crate::schema::{Field, Numbered, Numbers, Object, Type, TypeId, Types, Zero, decode::MAX_LEVELS};

/// Reads messages by the types of one arena.
#[derive(Clone, Copy)]
pub struct Reader<'t> {
    types: &'t Types,
    /// How many messages may still stand within this one: types that hold themselves must not recurse without bound.
    levels: usize,
}

impl<'t> Reader<'t> {
    /// A reader without open messages.
    pub fn new(types: &'t Types) -> Self {
        Self { types, levels: MAX_LEVELS }
    }

    /// The arena.
    pub fn types(self) -> &'t Types {
        self.types
    }

    fn deeper(self) -> Result<Self, Malformed> {
        let levels = self.levels.checked_sub(1).ok_or(Malformed::Nesting)?;
        Ok(Self { levels, ..self })
    }

    /// Reads `bytes` as an `object` into `out`.
    pub fn message(self, object: &Object, bytes: &[u8], out: &mut Map<String, Value>) -> Result<(), Malformed> {
        self.fields(object, object.numbers(), bytes, out)
    }

    /// Reads the fields that have `numbers`: the object's own, or those of a message embedded in it.
    fn fields(
        self,
        object: &Object,
        numbers: &Numbers,
        bytes: &[u8],
        out: &mut Map<String, Value>,
    ) -> Result<(), Malformed> {
        for raw in wire::fields(bytes) {
            let (number, raw) = raw?;
            match (numbers.get(&number), raw) {
                (None, _) => {}
                (Some(Numbered::Field(at)), raw) => self.field(&object.fields()[*at], number, raw, out)?,
                (Some(Numbered::Embedded(inner)), Wire::Bytes(bytes)) => {
                    self.deeper()?.fields(object, inner, bytes, out)?;
                }
                (Some(Numbered::Embedded(_)), _) => return Err(Malformed::WrongType(number)),
            }
        }
        Ok(())
    }

    fn field(self, field: &Field, number: u32, raw: Wire, out: &mut Map<String, Value>) -> Result<(), Malformed> {
        let name = &*field.name;
        match *self.types.get(field.r#type) {
            Type::List(item) => {
                let Some(list) = out.entry(name).or_insert_with(|| json!([])).as_array_mut() else { return Ok(()) };
                match (self.types.get(item), raw) {
                    (Type::Int32 | Type::Int64, Wire::Bytes(packed)) => {
                        for number in wire::varints(packed) {
                            list.push(json!(number?.cast_signed()));
                        }
                    }
                    _ => list.push(self.value(item, number, raw)?),
                }
            }
            Type::Map(value) => {
                let Wire::Bytes(entry) = raw else { return Err(Malformed::WrongType(number)) };
                let (key, value) = self.map_entry(value, number, entry)?;
                if let Some(map) = out.entry(name).or_insert_with(|| json!({})).as_object_mut() {
                    map.insert(key, value);
                }
            }
            _ => {
                if let Some(value) = self.one(field, number, raw)? {
                    merge(out, name, value);
                }
            }
        }
        Ok(())
    }

    /// The value of a single field, or `None` if its zero means that it is absent.
    fn one(self, field: &Field, number: u32, raw: Wire) -> Result<Option<Value>, Malformed> {
        let value = self.value(field.r#type, number, raw)?;
        let absent = match &value {
            Value::Null => true,
            _ if field.zero != Zero::Absent => false,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => {
                text.is_empty() || (text == "0" && matches!(self.types.get(field.r#type), Type::Quantity))
            }
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
        };
        Ok((!absent).then_some(value))
    }

    fn map_entry(self, id: TypeId, number: u32, entry: &[u8]) -> Result<(String, Value), Malformed> {
        let mut key = String::new();
        let mut value = None;
        for part in wire::fields(entry) {
            match part? {
                (1, Wire::Bytes(bytes)) => key = text(bytes)?,
                (2, raw) => value = Some(self.value(id, number, raw)?),
                _ => {}
            }
        }
        Ok((key, value.unwrap_or_else(|| self.types.zero(id))))
    }

    fn value(self, id: TypeId, number: u32, raw: Wire) -> Result<Value, Malformed> {
        match (self.types.get(id), raw) {
            (Type::String, Wire::Bytes(bytes)) => Ok(Value::String(text(bytes)?)),
            (Type::Int32 | Type::Int64, Wire::Varint(n)) => Ok(json!(n.cast_signed())),
            (Type::Double, Wire::Fixed64(bits)) => Ok(json!(f64::from_bits(bits))),
            (Type::Bool, Wire::Varint(n)) => Ok(json!(n != 0)),
            (Type::Bytes, Wire::Bytes(bytes)) => Ok(json!(BASE64_STANDARD.encode(bytes))),
            (Type::Time, Wire::Bytes(bytes)) => time(bytes, |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            (Type::MicroTime, Wire::Bytes(bytes)) => {
                time(bytes, |at| at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
            }
            (Type::Quantity, Wire::Bytes(bytes)) => Ok(Value::String(first_text(bytes)?)),
            (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes),
            (Type::Any, Wire::Bytes(bytes)) => match SchemaOr::of(self.types, id) {
                Some(part) => part.read(self.deeper()?, bytes),
                // JSON text in a message of its own.
                None => {
                    let json = first_text(bytes)?;
                    let value = || serde_json::from_str(&json).map_err(|_| Malformed::Json);
                    if json.is_empty() { Ok(Value::Null) } else { value() }
                }
            },
            // A list within a map is a message of its own.
            (Type::List(_), Wire::Bytes(bytes)) => texts(bytes),
            (Type::Object(object), Wire::Bytes(bytes)) => {
                let mut out = Map::new();
                self.deeper()?.message(object, bytes, &mut out)?;
                Ok(Value::Object(out))
            }
            _ => Err(Malformed::WrongType(number)),
        }
    }
}

/// A message that comes in parts is one message.
fn merge(object: &mut Map<String, Value>, name: &str, value: Value) {
    match (object.get_mut(name), value) {
        (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
        (_, value) => {
            object.insert(name.to_owned(), value);
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Text)
}

/// Field 1 of a message with one text.
fn first_text(bytes: &[u8]) -> Result<String, Malformed> {
    for field in wire::fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            return text(bytes);
        }
    }
    Ok(String::new())
}

fn texts(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut list = Vec::new();
    for field in wire::fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            list.push(Value::String(text(bytes)?));
        }
    }
    Ok(Value::Array(list))
}

/// `IntOrString { type, intVal, strVal }`: type 0 is the number, 1 the text.
fn int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for field in wire::fields(bytes) {
        match field? {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(string) } else { json!(number) })
}

/// `Timestamp { seconds, nanos }`; without fields it is no time at all.
fn time(bytes: &[u8], write: impl Fn(Timestamp) -> String) -> Result<Value, Malformed> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for field in wire::fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => seconds = n.cast_signed(),
            (2, Wire::Varint(n)) => nanos = i32::try_from(n).map_err(|_| Malformed::Time)?,
            _ => {}
        }
    }
    let at = Timestamp::new(seconds, nanos).map_err(|_| Malformed::Time)?;
    Ok(json!(write(at)))
}
