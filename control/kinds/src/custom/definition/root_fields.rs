//! What may stand at the root of a definition's schema where the status is a subresource.

use serde_json::Value;

use crate::kinds::FieldError;

/// Why a schema's root may not stand.
pub fn validate(path: &str, text: &Value) -> Vec<FieldError> {
    const ALLOWED: &[&str] = &[
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    let r#type = text["type"].as_str().unwrap_or_default();
    // Looked at before the type, in the order of Go's fields.
    let has_earlier =
        ["id", "$schema", "$ref"].iter().any(|field| text[*field].as_str().is_some_and(|text| !text.is_empty()));
    if !has_earlier && !r#type.is_empty() && r#type != "object" {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return vec![FieldError::invalid(format!("{path}.type"), &text["type"], why)];
    }
    let is_zero = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let given = text.as_object().into_iter().flatten().filter(|(_, value)| !is_zero(value));
    let other = given.map(|(field, _)| field.as_str()).find(|field| !ALLOWED.contains(field));
    let why = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
    MinLength \
        Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example \
        XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is \
        enabled";
    other.map(|_| FieldError::invalid(path, text, why)).into_iter().collect()
}
