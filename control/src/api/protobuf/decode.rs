//! One message to JSON, by the table of messages.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    messages::{Field, Form, Message, Messages, Scalar, Zero},
    wire::{self, Malformed, Wire},
};

/// Reads `bytes` as a `message` into `object`.
///
/// Messages of the table nest to a fixed depth, so the input cannot make this recurse without bound.
pub fn message(message: &Message, bytes: &[u8], object: &mut Map<String, Value>) -> Result<(), Malformed> {
    for raw in wire::fields(bytes) {
        let (number, raw) = raw?;
        let Some(field) = message.fields.get(&number) else { continue };
        let wrong = || Malformed::WrongType(number);
        match (field.name, field.form) {
            (None, _) => {
                let (Scalar::Message(name), Wire::Bytes(inner)) = (field.scalar, raw) else { return Err(wrong()) };
                if let Some(inner_message) = Messages::all().by_name(name) {
                    self::message(inner_message, inner, object)?;
                }
            }
            (Some(name), Form::One) => {
                if let Some(value) = one(field, number, raw)? {
                    merge(object, name, value);
                }
            }
            (Some(name), Form::List) => {
                let Some(list) = object.entry(name).or_insert_with(|| json!([])).as_array_mut() else { continue };
                match (field.scalar, raw) {
                    (Scalar::Int, Wire::Bytes(packed)) => {
                        for item in wire::varints(packed) {
                            list.push(json!(item? as i64));
                        }
                    }
                    _ => list.push(scalar(field.scalar, number, raw)?),
                }
            }
            (Some(name), Form::Map) => {
                let Wire::Bytes(entry) = raw else { return Err(wrong()) };
                let (key, value) = map_entry(field, number, entry)?;
                if let Some(map) = object.entry(name).or_insert_with(|| json!({})).as_object_mut() {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
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

/// The value of a single field, or `None` if its zero means that it is absent.
fn one(field: &Field, number: u32, raw: Wire) -> Result<Option<Value>, Malformed> {
    let value = scalar(field.scalar, number, raw)?;
    let absent = match &value {
        Value::Null => true,
        _ if field.zero == Zero::Kept => false,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty() || (field.scalar == Scalar::Quantity && text == "0"),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    Ok((!absent).then_some(value))
}

fn map_entry(field: &Field, number: u32, entry: &[u8]) -> Result<(String, Value), Malformed> {
    let mut key = String::new();
    let mut value = None;
    for part in wire::fields(entry) {
        match part? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, raw) => value = Some(scalar(field.scalar, number, raw)?),
            _ => {}
        }
    }
    let value = value.unwrap_or_else(|| match field.scalar {
        Scalar::Message(_) => json!({}),
        Scalar::Texts => json!([]),
        Scalar::Quantity => json!("0"),
        _ => json!(""),
    });
    Ok((key, value))
}

fn scalar(scalar: Scalar, number: u32, raw: Wire) -> Result<Value, Malformed> {
    match (scalar, raw) {
        (Scalar::Text, Wire::Bytes(bytes)) => Ok(Value::String(text(bytes)?)),
        (Scalar::Int, Wire::Varint(n)) => Ok(json!(n as i64)),
        (Scalar::Bool, Wire::Varint(n)) => Ok(json!(n != 0)),
        (Scalar::Bytes, Wire::Bytes(bytes)) => Ok(json!(BASE64_STANDARD.encode(bytes))),
        (Scalar::Time, Wire::Bytes(bytes)) => time(bytes, |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        (Scalar::MicroTime, Wire::Bytes(bytes)) => time(bytes, |at| at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()),
        (Scalar::Quantity, Wire::Bytes(bytes)) => Ok(Value::String(first_text(bytes)?)),
        (Scalar::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes),
        (Scalar::Raw, Wire::Bytes(bytes)) => {
            let json = first_text(bytes)?;
            if json.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&json).map_err(|_| Malformed::Json) }
        }
        (Scalar::Texts, Wire::Bytes(bytes)) => texts(bytes),
        (Scalar::Message(name), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            if let Some(inner) = Messages::all().by_name(name) {
                message(inner, bytes, &mut object)?;
            }
            Ok(Value::Object(object))
        }
        _ => Err(Malformed::WrongType(number)),
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
            (2, Wire::Varint(n)) => number = n as i64,
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
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    let at = Timestamp::new(seconds, nanos).map_err(|_| Malformed::Time)?;
    Ok(json!(write(at)))
}
