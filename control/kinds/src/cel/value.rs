//! Values of expressions. Data of objects stays where it is: a value refers to it, with the schema that types it.

use std::{fmt, net::IpAddr, rc::Rc};

use jiff::Timestamp;
use serde_json::Value as Json;

use super::{
    declare::unescape,
    list::List,
    message::{JSON_PATCH, Message, OBJECT},
    operators::equal,
};
use crate::custom::structural::Structural;

/// A value.
#[derive(Clone)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// 64 bits, signed
    Int(i64),
    /// 64 bits, unsigned
    Uint(u64),
    /// 64 bits, floating
    Double(f64),
    /// Text in Unicode
    String(Rc<str>),
    /// Octets
    Bytes(Rc<[u8]>),
    /// A moment
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    /// By name.
    Type(&'static str),
    /// Made by an expression, or part of an object
    List(List<'v>),
    /// With keys, or with fields
    Map(Map<'v>),
    /// A value, or none
    Optional(Option<Rc<Value<'v>>>),
    /// Of a library
    Opaque(Opaque),
    /// Made by an expression, with fields
    Message(Message<'v>),
}

/// A map, or an object with fields.
#[derive(Clone)]
pub enum Map<'v> {
    /// By an expression: keys and values in order.
    Made(Rc<Vec<(Value<'v>, Value<'v>)>>),
    /// Part of an object, with its schema where there is one.
    Data(&'v serde_json::Map<String, Json>, Option<&'v Structural>),
}

/// A value of a library.
#[derive(Clone)]
pub enum Opaque {
    /// `url()`
    Url(Rc<super::library::url::Url>),
    /// `quantity()`
    Quantity(super::library::quantity::Quantity),
    /// `ip()`
    Ip(IpAddr),
    /// `cidr()`: the address and its prefix length
    Cidr(IpAddr, u8),
    /// `format.NAME()`
    Format(&'static str),
    /// `semver()`
    Semver(Rc<super::library::semver::Semver>),
    /// `authorizer`, and what it is asked
    Authz(super::library::authz::Authz),
}

impl<'v> Value<'v> {
    /// Data as a value. Without a schema, it is what JSON says.
    pub fn of(data: &'v Json, schema: Option<&'v Structural>) -> Self {
        let text = |text: &str| Value::String(text.into());
        match data {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => {
                let as_double = schema.is_some_and(|schema| schema.r#type == "number");
                match (number.as_i64(), number.as_f64()) {
                    (Some(whole), _) if !as_double => Value::Int(whole),
                    (_, Some(float)) if schema.is_some_and(|s| s.r#type == "integer") => Value::Int(float as i64),
                    (_, float) => Value::Double(float.unwrap_or_default()),
                }
            }
            Json::String(found) => match schema.filter(|schema| schema.r#type == "string").map(|s| s.format.as_str()) {
                Some("byte") => super::convert::base64(found).map_or_else(|| text(found), Value::Bytes),
                Some("duration") => super::convert::duration(found).map_or_else(|| text(found), Value::Duration),
                Some("date") => super::convert::timestamp(&format!("{found}T00:00:00Z"))
                    .map_or_else(|| text(found), Value::Timestamp),
                Some("date-time") => super::convert::timestamp(found).map_or_else(|| text(found), Value::Timestamp),
                _ => text(found),
            },
            Json::Array(list) => Value::List(List::Data(list, schema)),
            Json::Object(map) => Value::Map(Map::Data(map, schema)),
        }
    }

    /// A text.
    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Value::String(text.into())
    }

    /// A list that holds these values.
    pub fn list(items: Vec<Value<'v>>) -> Self {
        Value::List(List::Made(Rc::new(items)))
    }

    /// The name of its type: what `type(x)` answers.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Type(_) => "type",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Opaque(opaque) => opaque.type_name(),
            Value::Message(message) if message.name() == JSON_PATCH => JSON_PATCH,
            Value::Message(_) => OBJECT,
        }
    }

    /// How much there is of it, for what it costs: characters, items, keys; 1 of all others.
    pub fn size(&self) -> u64 {
        match self {
            Value::String(text) => text.len() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Opaque(Opaque::Ip(address)) => {
                if address.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            Value::Opaque(Opaque::Cidr(address, _)) => {
                if address.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            _ => 1,
        }
    }

    /// Its length as `size()` answers it: characters of a text.
    pub fn length(&self) -> Option<i64> {
        Some(match self {
            Value::String(text) => text.chars().count() as i64,
            Value::Bytes(bytes) => bytes.len() as i64,
            Value::List(list) => list.len() as i64,
            Value::Map(map) => map.len() as i64,
            _ => return None,
        })
    }
}

impl<'v> Map<'v> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        match self {
            Map::Made(entries) => entries.len(),
            Map::Data(map, _) => map.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a key. Fields of objects have the names that expressions write.
    pub fn get(&self, key: &Value<'v>) -> Option<Value<'v>> {
        match self {
            Map::Made(entries) => entries.iter().find(|(known, _)| equal(known, key)).map(|(_, value)| value.clone()),
            Map::Data(..) => match key {
                Value::String(name) => self.field(name),
                _ => None,
            },
        }
    }

    /// The value under a key as it is in the data, without the names that expressions write.
    pub fn exactly(&self, key: &Value<'v>) -> Option<Value<'v>> {
        match (self, key) {
            (Map::Data(map, schema), Value::String(name)) => {
                map.get(&**name).map(|found| Value::of(found, schema.and_then(|schema| schema.of_key(name))))
            }
            _ => self.get(key),
        }
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<Value<'v>> {
        match self {
            Map::Made(_) => self.get(&Value::text(name)),
            Map::Data(map, schema) => {
                let is_object = schema.is_some_and(|schema| !schema.properties.is_empty());
                let found = match map.get(name) {
                    Some(found) => Some((name.to_owned(), found)),
                    None if is_object => {
                        let name = unescape(name);
                        map.get(&name).map(|found| (name, found))
                    }
                    None => None,
                };
                found.map(|(name, found)| Value::of(found, schema.and_then(|schema| schema.of_key(&name))))
            }
        }
    }

    /// The keys with their values.
    pub fn entries(&self) -> Vec<(Value<'v>, Value<'v>)> {
        match self {
            Map::Made(entries) => entries.to_vec(),
            Map::Data(map, schema) => {
                let schema_of = |key: &str| schema.and_then(|schema| schema.of_key(key));
                map.iter().map(|(key, value)| (Value::text(key.as_str()), Value::of(value, schema_of(key)))).collect()
            }
        }
    }

    /// The keys.
    pub fn keys(&self) -> Vec<Value<'v>> {
        match self {
            Map::Made(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
            Map::Data(map, _) => map.keys().map(|key| Value::text(key.as_str())).collect(),
        }
    }
}

impl Opaque {
    fn type_name(&self) -> &'static str {
        match self {
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(..) => "net.CIDR",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Authz(authz) => authz.type_name(),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}u"),
            Value::Double(value) => write!(f, "{value:?}"),
            Value::String(value) => write!(f, "{value:?}"),
            Value::Bytes(value) => write!(f, "{value:?}"),
            Value::Timestamp(value) => write!(f, "{value}"),
            Value::Duration(value) => write!(f, "{value}ns"),
            Value::Type(name) => f.write_str(name),
            Value::List(list) => f.debug_list().entries(list.iter()).finish(),
            Value::Map(map) => f.debug_map().entries(map.entries()).finish(),
            Value::Optional(inner) => write!(f, "optional({inner:?})"),
            Value::Opaque(opaque) => f.write_str(opaque.type_name()),
            Value::Message(message) => {
                f.write_str(message.name())?;
                f.debug_map().entries(message.fields().iter().map(|(name, value)| (name, value))).finish()
            }
        }
    }
}
