//! Names of attributes and capacities of devices: a C identifier, with or without a domain.

use serde_json::Value;

use crate::kinds::{FieldError, names};

/// Bytes of the part after the domain.
const MAX_ID: usize = 32;

/// Why a name may not stand.
pub fn validate(path: &str, name: &str) -> Vec<FieldError> {
    let Some((domain, id)) = name.split_once('/') else { return identifier(path, name) };
    if id.contains('/') {
        // Not looked at in Kubernetes either.
        return Vec::new();
    }
    let mut errors = Vec::new();
    match domain {
        "" => errors.push(FieldError::invalid(path, &"".into(), "the domain must not be empty")),
        domain => errors.extend(names::csi_driver(path, &domain.into())),
    }
    match id {
        "" => errors.push(FieldError::invalid(path, &"".into(), "the name must not be empty")),
        id => errors.extend(identifier(path, id)),
    }
    errors
}

/// Why a name with a domain may not stand.
pub fn validate_full(path: &str, value: &Value) -> Vec<FieldError> {
    let name = value.as_str().unwrap_or_default();
    let mut errors = validate(path, name);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, value, why));
    }
    errors
}

fn identifier(path: &str, id: &str) -> Vec<FieldError> {
    const SHAPE: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                         alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                         validation is '[A-Za-z_][A-Za-z0-9_]*')";
    let shaped = id.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && id.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    let long = (id.len() > MAX_ID).then(|| FieldError::too_long(path, MAX_ID));
    let wrong = (!shaped).then(|| FieldError::invalid(path, &id.into(), SHAPE));
    long.into_iter().chain(wrong).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_an_identifier_that_may_have_a_domain() {
        for name in ["model", "gpu.example.com/model", "_a1"] {
            assert_eq!(validate("p", name), [], "{name}");
        }
        for name in ["", "1a", "a-b", "/a", "a.b/", &"a".repeat(33)] {
            assert_eq!(validate("p", name).len(), 1, "{name}");
        }
        assert_eq!(validate_full("p", &json!("a.b/c")), []);
        assert_eq!(validate_full("p", &json!("c")).len(), 1);
    }
}
