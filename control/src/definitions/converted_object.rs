//! What a conversion webhook made of an object, and whether it is taken.

use serde_json::Value;

use crate::kinds::{FieldError, error_budget, names};

/// Why what a webhook made of an object is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConvertedObjectError {
    #[error("expected {expected}, got {found}")]
    Version { expected: String, found: Value },
    /// A part of the metadata that stays as it is.
    #[error("metadata.{0} was changed")]
    Metadata(&'static str),
    #[error("kind was changed")]
    Kind,
    /// Labels or annotations.
    #[error("metadata.{0} is no map of texts")]
    NoMap(&'static str),
    /// One of them.
    #[error("metadata.{field}[{key}] must be a string")]
    NoText { field: &'static str, key: String },
    /// One that no object can have.
    #[error("{}: {}", .0.path, .0.message)]
    Field(FieldError),
}

/// What a webhook may not change stays: it may set labels and annotations of the metadata, and all beside it.
pub fn accept(original: &Value, mut converted: Value, version: &str) -> Result<Value, ConvertedObjectError> {
    if converted["apiVersion"] != version {
        let (expected, found) = (version.to_owned(), converted["apiVersion"].clone());
        return Err(ConvertedObjectError::Version { expected, found });
    }
    for field in ["name", "namespace", "uid"] {
        if converted["metadata"][field] != original["metadata"][field] {
            return Err(ConvertedObjectError::Metadata(field));
        }
    }
    if converted["kind"] != original["kind"] {
        return Err(ConvertedObjectError::Kind);
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        match &converted["metadata"][field] {
            Value::Null => drop(metadata.as_object_mut().and_then(|map| map.shift_remove(field))),
            own => metadata[field] = texts(field, own)?.clone(),
        }
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

/// Labels or annotations as a webhook made them, which everybody takes for maps of texts.
fn texts<'a>(field: &'static str, map: &'a Value) -> Result<&'a Value, ConvertedObjectError> {
    let entries = map.as_object().ok_or(ConvertedObjectError::NoMap(field))?;
    if let Some((key, _)) = entries.iter().find(|(_, value)| !value.is_string()) {
        return Err(ConvertedObjectError::NoText { field, key: error_budget::cut(key.clone()) });
    }
    let path = format!("metadata.{field}");
    let errors = error_budget::within(|| match field {
        "labels" => names::labels(&path, map),
        _ => names::annotations(&path, map),
    });
    errors.into_iter().next().map_or(Ok(map), |error| Err(ConvertedObjectError::Field(error)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_and_annotations_are_maps_of_texts_whatever_a_webhook_makes_of_them() {
        let object = |field: &str, value: Value| json!({"apiVersion": "a/v1", "kind": "B", "metadata": {"name": "c", field: value}});
        let original = object("labels", json!({"a": "b"}));
        let accepted = |converted: Value| accept(&original, converted, "a/v1");
        assert_eq!(accepted(object("labels", json!({"a": "c"}))).unwrap()["metadata"]["labels"], json!({"a": "c"}));
        assert!(accepted(object("labels", Value::Null)).unwrap()["metadata"]["labels"].is_null());
        for field in ["labels", "annotations"] {
            for value in [json!("x"), json!(["x"]), json!({"a": 1}), json!({"a": {"b": "c"}}), json!({"no good": "x"})]
            {
                let refused = accepted(object(field, value.clone())).unwrap_err().to_string();
                assert!(refused.contains(&format!("metadata.{field}")), "{value}: {refused}");
            }
        }
    }
}
