//! Reads an object by its schema: one pass over JSON text, or over a value, gives the object and what is wrong with it.
//!
//! As lenient and as strict as Kubernetes' Go decoding: no field has to be there, `null` is the same as absent, names
//! are case sensitive, types are not converted. Unknown fields are left out of the object; where a name stands twice,
//! the last one counts. Nothing is defaulted or validated here.
//!
//! The code is compiled once for text and once for values, for all kinds together.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    Empty, Field, Object, Schema, SentEmpties, Type, TypeId, Types,
    alternatives::{Alternative, NEITHER},
    scalar,
};

mod bytes;
mod restore;
mod walk;

use restore::ValueKind;
pub use walk::{DecodeError, FieldWarning};
use walk::{PathStep, Walk};

/// An object that was read.
#[derive(Debug)]
pub struct Decoded {
    /// With zero values dropped or filled in as the schema says, and texts in their canonical form.
    pub value: Value,
    /// In the order of the text.
    pub warnings: Vec<FieldWarning>,
}

/// Deepest nesting that is read. The built-in kinds nest to about 20 levels.
pub const MAX_LEVELS: usize = 128;
/// Whole numbers below it are exact as floats: 2^53.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl Schema {
    /// Reads JSON text.
    pub fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        decode_text(Walk::new(&self.types), self.root, json).map(|(decoded, _)| decoded)
    }

    /// The same of what a client sent to be stored, beside the lists and maps that it sent empty.
    pub fn decode_sent(&self, json: &[u8]) -> Result<(Decoded, SentEmpties), DecodeError> {
        decode_text(Walk::noting_empties(&self.types), self.root, json)
    }

    /// Reads a value, whose fields cannot stand twice.
    pub fn decode_value(&self, value: Value) -> Result<Decoded, DecodeError> {
        decode_value(Walk::new(&self.types), self.root, value).map(|(decoded, _)| decoded)
    }

    /// The same of what is to be stored, as [`Schema::decode_sent`].
    pub fn decode_sent_value(&self, value: Value) -> Result<(Decoded, SentEmpties), DecodeError> {
        decode_value(Walk::noting_empties(&self.types), self.root, value)
    }
}

fn decode_text(mut walk: Walk<'_>, root: TypeId, json: &[u8]) -> Result<(Decoded, SentEmpties), DecodeError> {
    let mut text = serde_json::Deserializer::from_slice(json);
    let read = Reader { walk: &mut walk, id: root }.deserialize(&mut text);
    let read = read.and_then(|value| text.end().map(|()| value));
    decoded(walk, read)
}

fn decode_value(mut walk: Walk<'_>, root: TypeId, value: Value) -> Result<(Decoded, SentEmpties), DecodeError> {
    let read = Reader { walk: &mut walk, id: root }.deserialize(value);
    decoded(walk, read)
}

/// What came of reading the root.
fn decoded(walk: Walk, read: serde_json::Result<Option<Value>>) -> Result<(Decoded, SentEmpties), DecodeError> {
    let (warnings, empties, error) = walk.finish();
    match (read, error) {
        (_, Some(error)) => Err(error),
        (Ok(Some(value)), None) => Ok((Decoded { value, warnings }, empties)),
        (Ok(None), None) => Err(DecodeError::new("the object is null".to_owned())),
        (Err(syntax), None) => Err(DecodeError::new(syntax.to_string())),
    }
}

/// Reads one value of the type `id`. `None` is a value that means "absent".
struct Reader<'w, 't> {
    walk: &'w mut Walk<'t>,
    id: TypeId,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Reader<'_, 't> {
    fn r#type(&self) -> &'t Type {
        let types: &'t Types = self.walk.types;
        types.get(self.id)
    }

    fn wrong<E: Error>(self, found: &str, value: ValueKind) -> Result<Option<Value>, E> {
        self.walk.wrong_type(found, value, self.id).map(|()| None)
    }

    /// Whether a value of another type is kept.
    fn is_lenient(&self) -> bool {
        self.walk.types.is_lenient(self.id)
    }

    /// Whether a value is dropped for its being zero. An empty list or map in an item of a list stays for now: it is a
    /// change of the list to Kubernetes, although it is not stored.
    fn is_left_out(&self, field: &Field, value: &Value) -> bool {
        let is_empty = self.walk.types.is_left_out(field, value);
        is_empty && !((value.is_array() || value.is_object()) && self.walk.is_in_item())
    }

    /// What may stand here in the place of a schema, and the schema's type.
    fn alternative(&self) -> Option<(Alternative, TypeId)> {
        matches!(self.r#type(), Type::Any).then(|| self.walk.types.alternative(self.id)).flatten()
    }

    /// A value in the place of a schema that is neither that nor its alternative.
    fn neither<E: Error>(self, alternative: Alternative) -> Result<Option<Value>, E> {
        match alternative {
            Alternative::Bool => Err(self.walk.unreadable(NEITHER)),
            Alternative::Schemas | Alternative::Texts => Ok(None),
        }
    }

    /// `number` is what is left of a whole number in the range of 64 bits.
    fn integer<E: Error>(self, number: Option<i64>, text: Number) -> Result<Option<Value>, E> {
        if let Some((alternative, _)) = self.alternative() {
            return self.neither(alternative);
        }
        let value = if number.is_some() { ValueKind::Integer } else { ValueKind::Fraction };
        let fits = match self.r#type() {
            _ if self.is_lenient() => true,
            Type::Int32 | Type::IntOrString => number.is_some_and(|n| i32::try_from(n).is_ok()),
            Type::Int64 => number.is_some(),
            Type::Double | Type::Any => true,
            Type::Quantity => return self.text(text.to_string()),
            _ => return self.wrong("number", value),
        };
        if fits { Ok(Some(Value::Number(text))) } else { self.wrong(&format!("number {text}"), value) }
    }

    fn object<'de, A: MapAccess<'de>>(mut self, object: &'t Object, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut out = Map::with_capacity(map.size_hint().unwrap_or_default().min(object.fields().len()));
        // Fields that were there as null: not in `out`, and yet given once.
        let mut nulls: Vec<&str> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(field @ Field { name, r#type, .. }) = object.field(&key) else {
                self.other(object, key, &mut map, &mut out)?;
                continue;
            };
            let is_again = out.contains_key(&key) || nulls.contains(&&**name);
            if is_again {
                self.walk.warn(&key, |path| FieldWarning::Duplicate { path });
            }
            let (value, _) = self.walk.within(PathStep::Field { object: self.id, name }, |walk| {
                if is_again {
                    walk.forget_empties();
                }
                map.next_value_seed(Reader { walk, id: *r#type })
            })?;
            match value {
                Some(value) if !self.is_lenient() && self.is_left_out(field, &value) => {
                    // Taken out at the end, once: a field may be there as often as the text has room for it.
                    if let Some(before) = out.get_mut(&key) {
                        *before = Value::Null;
                    }
                    note(&mut nulls, name);
                }
                Some(value) => drop(out.insert(key, value)),
                None => note(&mut nulls, name),
            }
        }
        for name in nulls {
            if out.get(name).is_some_and(Value::is_null) {
                out.shift_remove(name);
            }
        }
        Ok(Some(Value::Object(out)))
    }

    /// A field that the type does not name: unknown, or of the type that all others have.
    fn other<'de, A: MapAccess<'de>>(
        &mut self,
        object: &Object,
        key: String,
        map: &mut A,
        out: &mut Map<String, Value>,
    ) -> Result<(), A::Error> {
        let Some(id) = object.others else {
            self.walk.warn(&key, |path| FieldWarning::Unknown { path });
            return map.next_value::<IgnoredAny>().map(drop);
        };
        let (value, step) = self.walk.within(PathStep::Key(key), |walk| map.next_value_seed(Reader { walk, id }))?;
        if let (Some(PathStep::Key(key)), Some(value)) = (step, value) {
            if out.contains_key(&key) {
                self.walk.warn(&key, |path| FieldWarning::Duplicate { path });
            }
            out.insert(key, value);
        }
        Ok(())
    }

    /// A map from free keys to values of `value`, or free JSON, where names that stand twice are nobody's business.
    fn map<'de, A: MapAccess<'de>>(self, value: Option<TypeId>, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut out = Map::with_capacity(map.size_hint().unwrap_or_default());
        let id = value.unwrap_or(self.id);
        while let Some(key) = map.next_key::<String>()? {
            let is_again = value.is_some() && out.contains_key(&key);
            if is_again {
                self.walk.warn(&key, |path| FieldWarning::Duplicate { path });
            }
            let (item, step) = self.walk.within(PathStep::Key(key), |walk| {
                if is_again {
                    walk.forget_empties();
                }
                map.next_value_seed(Reader { walk, id })
            })?;
            let Some(PathStep::Key(key)) = step else { continue };
            let item = item.unwrap_or_else(|| self.walk.types.zero(id));
            out.insert(key, item);
        }
        if value.is_some() && out.is_empty() {
            self.walk.note_empty(Empty::Map);
        }
        Ok(Some(Value::Object(out)))
    }

    fn list<'de, A: SeqAccess<'de>>(self, id: TypeId, mut list: A) -> Result<Option<Value>, A::Error> {
        let mut out = Vec::new();
        loop {
            let step = PathStep::Index(out.len());
            let (item, _) = self.walk.within(step, |walk| list.next_element_seed(Reader { walk, id }))?;
            let Some(item) = item else { break };
            out.push(item.unwrap_or_else(|| self.walk.types.zero(id)));
        }
        if out.is_empty() && matches!(self.r#type(), Type::List(_)) {
            self.walk.note_empty(Empty::List);
        }
        Ok(Some(Value::Array(out)))
    }

    fn text<E: Error>(self, text: String) -> Result<Option<Value>, E> {
        if let Some((alternative, _)) = self.alternative() {
            return self.neither(alternative);
        }
        let checked = match self.r#type() {
            _ if self.is_lenient() => Ok(None),
            Type::String | Type::IntOrString | Type::Any => Ok(None),
            Type::Bytes => scalar::base64(&text),
            Type::Time => scalar::time(&text),
            Type::MicroTime => scalar::micro_time(&text),
            Type::Quantity => scalar::quantity(&text),
            _ => return self.wrong("string", ValueKind::String),
        };
        match checked {
            Ok(canonical) => Ok(Some(Value::String(canonical.unwrap_or(text)))),
            Err(reason) => self.walk.wrong_text(&reason, self.id).map(|()| None),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        if let Some((_, id)) = self.alternative() {
            return self.walk.silently(|walk| Reader { walk, id }.visit_map(map));
        }
        match self.r#type() {
            Type::Object(object) => self.object(object, map),
            Type::Map(value) => self.map(Some(*value), map),
            Type::Any => self.map(None, map),
            _ if self.is_lenient() => self.map(None, map),
            _ => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                self.wrong("object", ValueKind::Object)
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Value>, A::Error> {
        if let Some((alternative, schema)) = self.alternative() {
            let Some(item) = self.walk.types.alternative_item(alternative, schema) else {
                return self.neither(alternative);
            };
            let read = self.walk.silently(|walk| Reader { walk, id: self.id }.list(item, list))?;
            return Ok(read.filter(|list| list.as_array().is_none_or(|list| !list.is_empty())));
        }
        match self.r#type() {
            Type::List(item) => self.list(*item, list),
            Type::Bytes if !self.is_lenient() => bytes::list(self.walk, list).map(|text| Some(Value::String(text))),
            Type::Any => {
                let id = self.id;
                self.list(id, list)
            }
            _ if self.is_lenient() => {
                let id = self.id;
                self.list(id, list)
            }
            _ => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                self.wrong("array", ValueKind::Array)
            }
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<Value>, E> {
        self.text(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Option<Value>, E> {
        self.text(text)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Option<Value>, E> {
        if let Some((alternative, _)) = self.alternative().filter(|(alternative, _)| *alternative != Alternative::Bool)
        {
            return self.neither(alternative);
        }
        match self.r#type() {
            Type::Bool | Type::Any => Ok(Some(Value::Bool(value))),
            _ if self.is_lenient() => Ok(Some(Value::Bool(value))),
            _ => self.wrong("bool", ValueKind::Bool),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<Value>, E> {
        self.integer(Some(number), number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<Value>, E> {
        self.integer(i64::try_from(number).ok(), number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<Value>, E> {
        // A whole number of a custom object is stored as one, however it was written.
        if self.is_lenient() && number.fract() == 0.0 && number.abs() < MAX_EXACT {
            return self.integer(Some(number as i64), (number as i64).into());
        }
        match Number::from_f64(number) {
            Some(text) => self.integer(None, text),
            None => self.wrong("number", ValueKind::Fraction),
        }
    }

    /// `null`
    fn visit_unit<E: Error>(self) -> Result<Option<Value>, E> {
        let is_any = matches!(self.r#type(), Type::Any) && self.alternative().is_none();
        Ok((self.is_lenient() || is_any).then_some(Value::Null))
    }
}

/// Adds a name that is not there.
fn note<'a>(names: &mut Vec<&'a str>, name: &'a str) {
    if !names.contains(&name) {
        names.push(name);
    }
}
