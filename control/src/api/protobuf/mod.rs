//! Kubernetes' protobuf: request bodies are turned into the JSON that the same client would have sent otherwise, and
//! JSON into the answers that client-go's typed clients ask for.
//!
//! kubectl since 1.32, client-go's typed clients and Helm send it and do not fall back. Of a body, nothing is validated
//! here beyond that the bytes can be read; fields that are unknown (from a newer client) are dropped, as Kubernetes
//! does.
//!
//! | file | what it knows |
//! |---|---|
//! | `wire` | field numbers and raw values |
//! | `decode` | from a message to JSON, by the schema |
//! | `json`, `encode` | from JSON text to a message, by the schema, without a tree between |
//! | `json_schema` | the values that are one of two types |
//! | `answer` | whole objects, lists and watch frames |

use serde_json::{Map, Value};

use super::Status;
use crate::schema::Types;

pub mod answer;
mod decode;
mod encode;
mod json;
mod json_schema;
mod wire;

pub use encode::CannotEncode;

/// What every body starts with, before a `runtime.Unknown` message.
const MAGIC: &[u8] = b"k8s\0";

/// Reads a body as the object it says it is: of a served kind, or what subresources and deletes are sent (`Scale`,
/// `Binding`, `Eviction`, `TokenRequest`, `DeleteOptions`).
pub fn object(body: &[u8]) -> Result<Value, Status> {
    Unknown::read(body)?.object()
}

/// `runtime.Unknown`: an object's bytes and what they are.
struct Unknown<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Unknown<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Status> {
        let Some(bytes) = body.strip_prefix(MAGIC) else {
            return Err(Status::bad_request(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
            ));
        };
        let mut unknown = Unknown { api_version: String::new(), kind: String::new(), raw: &[] };
        for field in wire::fields(bytes) {
            match field.map_err(unreadable)? {
                (1, wire::Wire::Bytes(type_meta)) => {
                    for field in wire::fields(type_meta) {
                        match field.map_err(unreadable)? {
                            (1, wire::Wire::Bytes(text)) => unknown.api_version = String::from_utf8_lossy(text).into(),
                            (2, wire::Wire::Bytes(text)) => unknown.kind = String::from_utf8_lossy(text).into(),
                            _ => {}
                        }
                    }
                }
                (2, wire::Wire::Bytes(raw)) => unknown.raw = raw,
                _ => {}
            }
        }
        Ok(unknown)
    }

    fn object(self) -> Result<Value, Status> {
        let types = Types::builtin();
        let id = match self.kind.as_str() {
            // They come under the version of whatever is deleted.
            "DeleteOptions" => types.of_kind("meta.k8s.io/v1", "DeleteOptions"),
            kind => types.of_kind(&self.api_version, kind),
        };
        let Some(message) = id.and_then(|id| types.object(id)) else {
            return Err(Status::bad_request(format!(
                "no kind \"{}\" of version \"{}\" can be read as protobuf",
                self.kind, self.api_version
            )));
        };
        let mut object = Map::new();
        object.insert("apiVersion".into(), self.api_version.into());
        object.insert("kind".into(), self.kind.into());
        decode::Reader::new(types).message(message, self.raw, &mut object).map_err(unreadable)?;
        Ok(Value::Object(object))
    }
}

fn unreadable(error: wire::Malformed) -> Status {
    Status::bad_request(format!("the body is not valid protobuf: {error}"))
}

#[cfg(test)]
pub mod tests;
