//! Embedded resources (`x-kubernetes-embedded-resource`) say what they are, as whole objects do.

use serde_json::{Value, json};

use crate::{custom::structural::Structural, kinds::FieldError};

/// Every embedded resource without type.
pub fn check(path: &str, schema: &Structural, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(path, schema, value, &mut errors);
    errors
}

fn walk(path: &str, schema: &Structural, value: &Value, errors: &mut Vec<FieldError>) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => {
            if schema.embedded {
                for field in ["apiVersion", "kind"] {
                    match map.get(field) {
                        None => errors.push(FieldError::required(child(field), "must not be empty")),
                        Some(Value::String(text)) if text.is_empty() => {
                            errors.push(FieldError::invalid(child(field), &json!(""), "must not be empty"));
                        }
                        Some(_) => {}
                    }
                }
            }
            for (key, value) in map {
                if let Some(of_key) = schema.of_key(key) {
                    walk(&child(key), of_key, value, errors);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items.as_deref() {
                list.iter().enumerate().for_each(|(at, item)| walk(&format!("{path}[{at}]"), items, item, errors));
            }
        }
        _ => {}
    }
}
