//! Bytes that are written as a list of numbers: Go reads `[65, 66]` into a field of bytes as it reads any list, and
//! writes it as base64 afterwards.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    restore::ValueKind,
    walk::{PathStep, Walk},
};

/// Reads the items of a list, to its end. Answers with base64.
pub fn list<'de, A: SeqAccess<'de>>(walk: &mut Walk<'_>, mut list: A) -> Result<String, A::Error> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let step = PathStep::Index(bytes.len());
        let (byte, _) = walk.within(step, |walk| list.next_element_seed(Byte { walk }))?;
        let Some(byte) = byte else { return Ok(BASE64_STANDARD.encode(bytes)) };
        bytes.push(byte);
    }
}

/// Reads one item. What is no byte is noted, and read as 0.
struct Byte<'w, 't> {
    walk: &'w mut Walk<'t>,
}

impl Byte<'_, '_> {
    fn wrong<E>(self, found: &str, value: ValueKind) -> Result<u8, E> {
        self.walk.wrong_byte(found, value);
        Ok(0)
    }
}

impl<'de> DeserializeSeed<'de> for Byte<'_, '_> {
    type Value = u8;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u8, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Byte<'_, '_> {
    type Value = u8;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a byte")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u8, E> {
        match u8::try_from(number) {
            Ok(byte) => Ok(byte),
            Err(_) => self.wrong(&format!("number {number}"), ValueKind::Integer),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u8, E> {
        match u8::try_from(number) {
            Ok(byte) => Ok(byte),
            Err(_) => self.wrong(&format!("number {number}"), ValueKind::Integer),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u8, E> {
        self.wrong(&format!("number {number:?}"), ValueKind::Fraction)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<u8, E> {
        self.wrong("string", ValueKind::String)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<u8, E> {
        self.wrong("bool", ValueKind::Bool)
    }

    /// `null` sets nothing.
    fn visit_unit<E: Error>(self) -> Result<u8, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u8, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.wrong("array", ValueKind::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u8, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.wrong("object", ValueKind::Object)
    }
}
