//! The body of an apply: YAML, or JSON, which is YAML, too. A name that stands twice counts once, the last time.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_yaml::options::DuplicateKeyPolicy;

use super::body::{Decoded, yaml};
use crate::{api::Status, audit::current, request::query::FieldValidation, schema::SentEmpties};

/// Reads a configuration. Names that stand twice are told of or refused, as the client asks.
pub fn configuration(body: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
    let (value, twice) = match json(body) {
        Some((value, twice)) => (value, twice.map(|name| format!("key {name:?} already set in map"))),
        None => match yaml(body, DuplicateKeyPolicy::Error) {
            Ok(value) => (value, None),
            // A name that stands twice, or what the second reading says.
            Err(strict) => match yaml(body, DuplicateKeyPolicy::LastWins) {
                Ok(value) => (value, Some(strict.to_string())),
                Err(error) => {
                    current::request_text(body);
                    return Err(Status::bad_request(format!("error decoding YAML: {error}")));
                }
            },
        },
    };
    current::request_patch(&value);
    if !value.is_object() {
        return Err(Status::bad_request("error decoding YAML: the body of the request is not an object"));
    }
    let twice = twice.map(|error| format!("error strict decoding YAML: {error}"));
    match (validation, twice) {
        (FieldValidation::Strict, Some(error)) => Err(Status::bad_request(error)),
        (FieldValidation::Warn, Some(error)) => {
            Ok(Decoded { value, warnings: vec![error], empties: SentEmpties::NONE })
        }
        (_, _) => Ok(Decoded { value, warnings: Vec::new(), empties: SentEmpties::NONE }),
    }
}

/// Reads JSON, many times faster than as YAML. Answers with the first name that stands twice, too; with nothing where
/// the text is no JSON.
fn json(body: &[u8]) -> Option<(Value, Option<String>)> {
    let mut twice = None;
    let mut text = serde_json::Deserializer::from_slice(body);
    let value = Reader { twice: &mut twice }.deserialize(&mut text).ok()?;
    text.end().ok()?;
    Some((value, twice))
}

struct Reader<'t> {
    twice: &'t mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = list.next_element_seed(Reader { twice: self.twice })? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Reader { twice: self.twice })?;
            if out.contains_key(&name) && self.twice.is_none() {
                *self.twice = Some(name.clone());
            }
            out.insert(name, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_that_stand_twice_count_once_and_are_told_of() {
        for body in ["{\"a\": 1, \"a\": 2}", "a: 1\na: 2\n"] {
            let read = |validation| configuration(body.as_bytes(), validation);
            let warned = read(FieldValidation::Warn).unwrap();
            assert_eq!((warned.value, warned.warnings.len()), (json!({"a": 2}), 1), "{body}");
            assert!(read(FieldValidation::Ignore).unwrap().warnings.is_empty());
            let refused = read(FieldValidation::Strict).err().unwrap();
            assert!(refused.message.starts_with("error strict decoding YAML: "), "{}", refused.message);
        }
        let yaml = "a:\n  unknown: 1\n  foo: 1\n  foo: 2\n";
        let refused = configuration(yaml.as_bytes(), FieldValidation::Strict).err().unwrap();
        assert!(refused.message.ends_with("\n  line 4: key \"foo\" already set in map"), "{}", refused.message);
        assert!(configuration(b"{", FieldValidation::Warn).is_err());
        assert!(configuration(b"[]", FieldValidation::Warn).is_err());
    }
}
