//! The parts of a custom resource's JSON schema that are one of two types in JSON: a schema or a list of them, a schema
//! or a boolean, a schema or texts. In protobuf they are a message with a field for each.

use serde_json::{Map, Value};

use super::{
    decode,
    encode::{CannotEncode, Encoder, bytes, nested, varint},
    json,
    wire::{self, Malformed, Wire},
};
use crate::schema::{Object, TypeId, Types};

/// What stands in the place of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaOr {
    /// `JSONSchemaPropsOrArray { schema = 1, jSONSchemas = 2 }`
    Schemas,
    /// `JSONSchemaPropsOrBool { allows = 1, schema = 2 }`
    Bool,
    /// `JSONSchemaPropsOrStringArray { schema = 1, property = 2 }`
    Texts,
}

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

impl SchemaOr {
    /// What a type is, if it is such a part.
    pub fn of(types: &Types, id: TypeId) -> Option<Self> {
        match types.definition(id)?.name.strip_prefix(SCHEMA)? {
            "OrArray" => Some(Self::Schemas),
            "OrBool" => Some(Self::Bool),
            "OrStringArray" => Some(Self::Texts),
            _ => None,
        }
    }

    fn schema_number(self) -> u32 {
        if self == Self::Bool { 2 } else { 1 }
    }

    /// Writes the next value of `json` as the inside of the message.
    pub fn write(self, encoder: Encoder, json: &mut json::JsonReader, out: &mut Vec<u8>) -> Result<(), CannotEncode> {
        let schema = schema(encoder.types()).ok_or(CannotEncode::Nesting)?;
        match (self, json.peek()?) {
            (_, b'{') => {
                if self == Self::Bool {
                    varint(out, 1, 1);
                }
                nested(out, self.schema_number(), |out| encoder.message(schema, json, out))
            }
            (Self::Bool, _) => {
                varint(out, 1, u64::from(json.word()? == "true"));
                Ok(())
            }
            (Self::Schemas, _) => json.list(|json| nested(out, 2, |out| encoder.message(schema, json, out))),
            (Self::Texts, _) => json.list(|json| {
                bytes(out, 2, json.string()?.as_bytes());
                Ok(())
            }),
        }
    }

    /// Reads the inside of the message.
    pub fn read(self, reader: decode::Reader, message: &[u8]) -> Result<Value, Malformed> {
        let definition = schema(reader.types()).ok_or(Malformed::Json)?;
        let (mut one, mut list, mut allows) = (None, Vec::new(), false);
        for field in wire::fields(message) {
            match field? {
                (1, Wire::Varint(value)) if self == Self::Bool => allows = value != 0,
                (number, Wire::Bytes(bytes)) if number == self.schema_number() => {
                    let mut out = Map::new();
                    reader.message(definition, bytes, &mut out)?;
                    one = Some(Value::Object(out));
                }
                (2, Wire::Bytes(bytes)) if self == Self::Schemas => {
                    let mut out = Map::new();
                    reader.message(definition, bytes, &mut out)?;
                    list.push(Value::Object(out));
                }
                (2, Wire::Bytes(bytes)) => {
                    list.push(String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Text)?.into());
                }
                _ => {}
            }
        }
        Ok(match one {
            Some(schema) => schema,
            None if self == Self::Bool => allows.into(),
            None => list.into(),
        })
    }
}

fn schema(types: &Types) -> Option<&Object> {
    types.object(types.by_name(SCHEMA)?)
}
