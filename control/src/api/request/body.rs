//! From a body to a JSON value that has the shape of its kind: media types, strict decoding, unknown and duplicate fields.

use serde_json::Value;

use crate::{
    api::{Status, protobuf},
    kinds::{DecodeError, FieldWarning, Kind},
    request::{content_type::ContentType, query::FieldValidation},
};

/// A body that was read, and what the client should be warned of.
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// Reads a body as an object of `kind`: types are checked, unknown fields refused or dropped, as the client asks.
pub fn object(
    kind: &Kind,
    content_type: &ContentType,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let value = value(content_type, body)?;
    check_type(kind, &value)?;
    let text;
    let json = if *content_type == ContentType::Json {
        body
    } else {
        text = value.to_string();
        text.as_bytes()
    };
    let found = (kind.decode)(json).map_err(|error| cannot_be_handled(kind, &error))?;
    checked(kind, value, found, validation)
}

/// Checks a value that was made from a stored object, by a patch.
pub fn recheck(kind: &Kind, value: Value, validation: FieldValidation) -> Result<Decoded, Status> {
    let found = (kind.decode)(value.to_string().as_bytes()).map_err(|error| cannot_be_handled(kind, &error))?;
    checked(kind, value, found, validation)
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

fn checked(
    kind: &Kind,
    mut value: Value,
    found: Vec<FieldWarning>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if found.is_empty() {
        return Ok(Decoded { value, warnings: Vec::new() });
    }
    let words: Vec<String> = found.iter().map(ToString::to_string).collect();
    if validation == FieldValidation::Strict {
        return Err(Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: {2}",
            kind.kind,
            kind.version,
            words.join(", ")
        )));
    }
    for warning in &found {
        if let FieldWarning::Unknown { path } = warning {
            drop_field(&mut value, path);
        }
    }
    let warnings = if validation == FieldValidation::Warn { words } else { Vec::new() };
    Ok(Decoded { value, warnings })
}

/// Takes the field at `spec.containers[0].image` out. Unknown fields are not stored, as in Kubernetes.
fn drop_field(value: &mut Value, path: &str) {
    let (parent, field) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = value;
    for part in parent.split('.').filter(|part| !part.is_empty()) {
        let mut steps = part.split('[');
        let name = steps.next().unwrap_or_default();
        let Some(next) = at.get_mut(name) else { return };
        at = next;
        for index in steps {
            let Some(next) = index.trim_end_matches(']').parse::<usize>().ok().and_then(|i| at.get_mut(i)) else {
                return;
            };
            at = next;
        }
    }
    if let Some(map) = at.as_object_mut() {
        map.shift_remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_field_is_dropped_by_its_path() {
        let mut value = json!({"spec": {"containers": [{"name": "a", "nope": 1}], "x": 2}});
        drop_field(&mut value, "spec.containers[0].nope");
        drop_field(&mut value, "spec.x");
        drop_field(&mut value, "spec.absent.y");
        assert_eq!(value, json!({"spec": {"containers": [{"name": "a"}]}}));
    }
}
