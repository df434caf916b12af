//! Values of expressions as JSON: what a policy puts into an object.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Number, Value as Json};

use super::{MAX_REQUEST, convert::shown_duration, value::Value};
use crate::schema::decode::MAX_LEVELS;

/// Why a value is nothing that an object could hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// A type, a quantity, a number that is not finite.
    #[error("unsupported conversion from '{0}' to a JSON value")]
    Type(&'static str),
    /// Keys are texts.
    #[error("map key {key} is of type {found}, not string")]
    Key {
        /// As expressions write it.
        key: String,
        /// Its type.
        found: &'static str,
    },
    /// Parts of a value can be shared: it may be much larger than what made it.
    #[error("the value is larger than a request may be")]
    TooLarge,
    /// Variables can put values into each other without end.
    #[error("the value has more than {MAX_LEVELS} levels")]
    TooDeep,
}

/// The value as JSON, of about the size of a request at most.
pub fn to_json(value: &Value<'_>) -> Result<Json, NotJson> {
    to_json_within(value, &mut MAX_REQUEST.clone())
}

/// The same; what it takes, in bytes, is taken off `room`.
pub fn to_json_within(value: &Value<'_>, room: &mut u64) -> Result<Json, NotJson> {
    converted(value, room, MAX_LEVELS)
}

fn converted(value: &Value<'_>, room: &mut u64, levels: usize) -> Result<Json, NotJson> {
    let levels = levels.checked_sub(1).ok_or(NotJson::TooDeep)?;
    let own = match value {
        Value::String(text) => text.len() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    };
    *room = room.checked_sub(own.saturating_add(1)).ok_or(NotJson::TooLarge)?;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Uint(value) => Json::from(*value),
        Value::Double(value) => Json::Number(Number::from_f64(*value).ok_or(NotJson::Type("double"))?),
        Value::String(text) => Json::from(&**text),
        Value::Bytes(bytes) => Json::from(BASE64_STANDARD.encode(bytes)),
        Value::Timestamp(at) => Json::from(at.to_string()),
        Value::Duration(nanos) => Json::from(shown_duration(*nanos)),
        Value::List(list) => {
            let items: Result<Vec<Json>, NotJson> = list.iter().map(|item| converted(&item, room, levels)).collect();
            Json::Array(items?)
        }
        Value::Map(map) => {
            let mut fields = Map::new();
            for (key, value) in map.entries() {
                let Value::String(name) = &key else {
                    return Err(NotJson::Key { key: format!("{key:?}"), found: key.type_name() });
                };
                *room = room.checked_sub(name.len() as u64).ok_or(NotJson::TooLarge)?;
                fields.insert(name.to_string(), converted(&value, room, levels)?);
            }
            Json::Object(fields)
        }
        Value::Message(message) => {
            let mut fields = Map::new();
            for (name, value) in message.fields() {
                *room = room.checked_sub(name.len() as u64).ok_or(NotJson::TooLarge)?;
                fields.insert(name.to_string(), converted(value, room, levels)?);
            }
            Json::Object(fields)
        }
        Value::Type(_) | Value::Optional(_) | Value::Opaque(_) => return Err(NotJson::Type(value.type_name())),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cel::{Activation, Scope, Type, compile};

    fn made(text: &str) -> Result<Json, String> {
        let data = json!({"a": {"b": [1, null, true, 1.5]}});
        let scope = Scope::default().with("object", Type::Dyn).with_patch_types();
        let program = compile(text, &scope, &Type::Dyn).unwrap();
        let activation = Activation::default().with("object", Value::of(&data, None));
        to_json(&program.evaluate(&activation).value.unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_become_what_json_says() {
        assert_eq!(
            made("Object{a: object.a, b: [1, dyn(2u)], c: {'k': 'v'}, d: null, e: [Object.e{f: true}]}"),
            Ok(json!({"a": {"b": [1, null, true, 1.5]}, "b": [1, 2], "c": {"k": "v"}, "d": null, "e": [{"f": true}]}))
        );
        let times = "[dyn(timestamp('2024-01-02T03:04:05Z')), duration('90s'), b'hi']";
        assert_eq!(made(times), Ok(json!(["2024-01-02T03:04:05Z", "90s", "aGk="])));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        assert_eq!(made("{1: 'a'}").unwrap_err(), "map key 1 is of type int, not string");
        assert_eq!(
            made("quantity('1')").unwrap_err(),
            "unsupported conversion from 'kubernetes.Quantity' to a JSON value"
        );
        assert!(made("0.0 / 0.0").is_err());
    }

    #[test]
    fn a_value_has_no_more_levels_than_an_object_may_have() {
        let nested = |levels: usize| (1..levels).fold(Value::Int(1), |inner, _| Value::list(vec![inner]));
        assert!(to_json(&nested(MAX_LEVELS)).is_ok());
        assert_eq!(to_json(&nested(MAX_LEVELS + 1)), Err(NotJson::TooDeep));
    }

    #[test]
    fn a_value_that_shares_its_parts_is_bounded() {
        // Lists of eight, each of the same one.
        let shared = (0..8).fold(Value::Int(1), |inner, _| Value::list(vec![inner; 8]));
        assert_eq!(to_json(&shared), Err(NotJson::TooLarge));
    }
}
