//! From a body to a JSON value that has the shape of its kind: media types, strict decoding, unknown and duplicate fields.

use serde_json::Value;

use super::query::FieldValidation;
use crate::{
    api::{Status, protobuf},
    kinds::Kind,
    schema::{self, DecodeError},
};

/// What a request body is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Also when the client names none.
    Json,
    Yaml,
    Protobuf,
    JsonPatch,
    MergePatch,
    StrategicMergePatch,
    ApplyPatch,
    Other(String),
}

impl ContentType {
    pub fn of(header: &str) -> Self {
        let name = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "application/json" | "*/*" => Self::Json,
            "application/yaml" => Self::Yaml,
            "application/vnd.kubernetes.protobuf" => Self::Protobuf,
            "application/json-patch+json" => Self::JsonPatch,
            "application/merge-patch+json" => Self::MergePatch,
            "application/strategic-merge-patch+json" => Self::StrategicMergePatch,
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Self::ApplyPatch,
            _ => Self::Other(name),
        }
    }
}

/// A body that was read, and what the client should be warned of.
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// Reads a body as an object of `kind`: types are checked, unknown fields refused or dropped, as the client asks.
pub fn object(
    kind: &'static Kind,
    content_type: &ContentType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if *content_type != ContentType::Json {
        let value = value(content_type, body)?;
        check_type(kind, &value)?;
        return recheck(kind, value, validation);
    }
    match kind.object_schema().decode(body) {
        Ok(decoded) => {
            check_type(kind, &decoded.value)?;
            checked(kind, decoded, validation)
        }
        Err(error) => {
            // An object of another kind is told so, and not which of its fields this kind lacks.
            check_type(kind, &value(content_type, body)?)?;
            Err(cannot_be_handled(kind, &error))
        }
    }
}

/// Checks a value by the kind's schema: one that was made from a stored object by a patch, or read from another form than JSON.
pub fn recheck(kind: &'static Kind, value: Value, validation: FieldValidation) -> Result<Decoded, Status> {
    let decoded = kind.object_schema().decode_value(value).map_err(|error| cannot_be_handled(kind, &error))?;
    checked(kind, decoded, validation)
}

/// Reads a body without a known kind.
pub fn value(content_type: &ContentType, body: &[u8]) -> Result<Value, Status> {
    let value: Value = match content_type {
        ContentType::Yaml => {
            let text =
                std::str::from_utf8(body).map_err(|e| Status::bad_request(format!("the body is not UTF-8: {e}")))?;
            serde_yaml::from_str(text)
                .map_err(|e| Status::bad_request(format!("error converting YAML to JSON: {e}")))?
        }
        ContentType::Protobuf => protobuf::object(body)?,
        ContentType::Other(name) => return Err(Status::unsupported_media_type(name)),
        _ => serde_json::from_slice(body)
            .map_err(|e| Status::bad_request(format!("the body of the request is not valid JSON: {e}")))?,
    };
    if !value.is_object() {
        return Err(Status::bad_request("the body of the request is not an object"));
    }
    Ok(value)
}

/// Refuses another kind or version than the path says; fills in nothing.
fn check_type(kind: &Kind, value: &Value) -> Result<(), Status> {
    let given_version = value["apiVersion"].as_str().unwrap_or_default();
    let given_kind = value["kind"].as_str().unwrap_or_default();
    if given_kind.is_empty() {
        return Err(Status::bad_request("Object 'Kind' is missing in the body of the request"));
    }
    if given_version.is_empty() {
        return Err(Status::bad_request("Object 'apiVersion' is missing in the body of the request"));
    }
    let api_version = kind.api_version();
    if given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if given_kind != kind.kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({given_kind}) does not match the expected kind ({})",
            kind.kind
        )));
    }
    Ok(())
}

fn cannot_be_handled(kind: &Kind, error: &DecodeError) -> Status {
    Status::bad_request(format!("{0} in version {1:?} cannot be handled as a {0}: {error}", kind.kind, kind.version))
}

/// What becomes of unknown and duplicate fields: they refuse the object, are told of, or are left out silently. Unknown fields are
/// never stored, as in Kubernetes.
fn checked(kind: &Kind, decoded: schema::Decoded, validation: FieldValidation) -> Result<Decoded, Status> {
    let schema::Decoded { value, warnings } = decoded;
    let words = warnings.iter().map(ToString::to_string);
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => Err(Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: {2}",
            kind.kind,
            kind.version,
            words.collect::<Vec<_>>().join(", ")
        ))),
        FieldValidation::Warn => Ok(Decoded { value, warnings: words.collect() }),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
    }
}
