//! What mutators made of an object, read and defaulted as if a client had sent it.

use serde_json::Value;

use super::attributes::Attributes;
use crate::{
    kinds::Kind,
    schema::{Schema, Types, decode::Decoded},
    status::Status,
};

/// API version and kind of what a request is about.
pub fn named(attributes: &Attributes<'_>, invoked: &Kind) -> (String, String) {
    match attributes.form {
        Some(form) if form.group.is_empty() => (form.version.to_owned(), form.kind.to_owned()),
        Some(form) => (format!("{}/{}", form.group, form.version), form.kind.to_owned()),
        None => (invoked.api_version(), invoked.kind.to_string()),
    }
}

/// What its objects look like; nothing for a form that has no schema, such as the options of a connection.
pub fn schema(attributes: &Attributes<'_>, invoked: &Kind) -> Option<Schema> {
    if attributes.form.is_none() {
        return Some(invoked.schema.clone());
    }
    let (api_version, kind) = named(attributes, invoked);
    let types = Types::builtin();
    let found = types.of_kind(&api_version, &kind).and_then(|id| types.definition(id));
    found.and_then(|definition| Schema::builtin(&definition.name))
}

/// The object; fields that its schema does not have are left out.
pub fn decoded(attributes: &Attributes<'_>, invoked: &Kind, object: Value) -> Result<Value, Status> {
    read(attributes, invoked, object).map(|decoded| decoded.value)
}

/// The object; fields that its schema does not have are refused, but for custom resources.
pub fn decoded_strictly(attributes: &Attributes<'_>, invoked: &Kind, object: Value) -> Result<Value, Status> {
    let Decoded { value, warnings } = read(attributes, invoked, object)?;
    if invoked.custom.is_some() || warnings.is_empty() {
        return Ok(value);
    }
    let unknown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    Err(Status::internal(format!("strict decoding error: {}", unknown.join(", "))))
}

fn read(attributes: &Attributes<'_>, invoked: &Kind, object: Value) -> Result<Decoded, Status> {
    let (api_version, kind) = named(attributes, invoked);
    if object["apiVersion"] != *api_version || object["kind"] != *kind {
        return Err(Status::internal(format!(
            "the object is no longer of {api_version}, Kind={kind}: {}, Kind={}",
            object["apiVersion"], object["kind"]
        )));
    }
    let schema = schema(attributes, invoked).unwrap_or_else(Schema::unstructured);
    let mut decoded = schema.decode_value(object).map_err(|error| Status::internal(error.to_string()))?;
    if attributes.form.is_none() {
        (invoked.default)(&mut decoded.value);
    }
    Ok(decoded)
}
