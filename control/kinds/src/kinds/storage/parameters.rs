//! What StorageClass and VolumeAttributesClass share: a driver and the parameters that it is given.

use serde_json::Value;

use crate::kinds::{FieldError, names};

/// How many parameters there may be.
const MAX_PARAMETERS: usize = 512;
/// Bytes of all keys and values together.
const MAX_SIZE: usize = 256 << 10;

/// Why the parameters of a class may not stand.
pub fn validate(parameters: &Value, may_be_empty: bool) -> Vec<FieldError> {
    const PATH: &str = "parameters";
    let all = parameters.as_object();
    let count = all.map_or(0, |all| all.len());
    if count > MAX_PARAMETERS {
        return vec![FieldError::too_long(PATH, MAX_PARAMETERS)];
    }
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in all.into_iter().flatten() {
        if key.is_empty() {
            errors.push(FieldError::invalid(PATH, &"".into(), "field can not be empty."));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_SIZE {
        errors.push(FieldError::too_long(PATH, MAX_SIZE));
    }
    if !may_be_empty && count == 0 {
        errors.push(FieldError::required(PATH, "must contain at least one key/value pair"));
    }
    errors
}

/// Why a text is no name of a provisioner or driver.
pub fn driver(path: &str, value: &Value) -> Vec<FieldError> {
    let text = value.as_str().unwrap_or_default().to_lowercase();
    if text.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    FieldError::invalid_each(path, &text.as_str().into(), names::qualified_name(&text)).collect()
}

/// Something, if the field at the top of an object has another value than before. One that is empty is the same as
/// none.
pub fn changed(field: &str, new: &Value, old: &Value) -> Option<FieldError> {
    let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
    let same = new[field] == old[field] || empty(&new[field]) && empty(&old[field]);
    (!same).then(|| forbidden(field))
}

/// What is said of a field that does not change.
pub fn forbidden(field: &str) -> FieldError {
    FieldError::forbidden(field, &format!("updates to {field} are forbidden."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn parameters_are_few_and_small() {
        assert_eq!(validate(&Value::Null, true), []);
        assert_eq!(validate(&json!({}), false)[0].message, "Required value: must contain at least one key/value pair");
        assert_eq!(validate(&json!({"": "a"}), true)[0].message, "Invalid value: \"\": field can not be empty.");
        assert_eq!(validate(&json!({"a": "x".repeat(MAX_SIZE)}), true).len(), 1);
        let many: Map<String, Value> = (0..=MAX_PARAMETERS).map(|n| (n.to_string(), json!(""))).collect();
        assert_eq!(validate(&Value::Object(many), true), [FieldError::too_long("parameters", MAX_PARAMETERS)]);
    }

    #[test]
    fn a_driver_has_a_qualified_name() {
        assert_eq!(driver("p", &json!("Example.com/Driver")), []);
        assert_eq!(driver("p", &Value::Null), [FieldError::required("p", "")]);
        assert_eq!(driver("p", &json!("a b")).len(), 1);
    }
}
