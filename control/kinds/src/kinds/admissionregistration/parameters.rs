//! Parameters of policies: of which kind they are, and which of them a binding names.

use serde_json::Value;

use super::text;
use crate::kinds::{FieldError, api_version::group_and_version, label_selector, names};

const NOT_FOUND_ACTIONS: [&str; 2] = ["Deny", "Allow"];

/// The kind as a row shows it.
pub fn kind_cell(kind: &Value) -> String {
    match kind.is_object() {
        true => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
        false => "<unset>".to_owned(),
    }
}

/// A reference as a row shows it.
pub fn reference_cell(reference: &Value) -> String {
    match (text(reference, "namespace"), text(reference, "name")) {
        ("", "") | (_, "") if reference["selector"].is_object() => label_selector::text(&reference["selector"]),
        (_, "") => "<unset>".to_owned(),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

/// Why the kind may not stand.
pub fn kind_errors(path: &str, kind: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (version_path, kind_path) = (format!("{path}.apiVersion"), format!("{path}.kind"));
    let api_version = text(kind, "apiVersion");
    let (group, version) = group_and_version(api_version);
    if api_version.is_empty() {
        errors.push(FieldError::required(version_path, ""));
    } else if version.contains('/') {
        let why = format!("unexpected GroupVersion string: {api_version}");
        errors.push(FieldError::invalid(version_path, &kind["apiVersion"], why));
    } else {
        let wrong = names::subdomain(group);
        if !group.is_empty() && !wrong.is_empty() {
            errors.push(FieldError::invalid(&version_path, &group.into(), wrong.join(",")));
        }
        let wrong = names::label_1035(version);
        if version.is_empty() {
            errors.push(FieldError::invalid(version_path, &kind["apiVersion"], "version must be specified"));
        } else if !wrong.is_empty() {
            errors.push(FieldError::invalid(version_path, &version.into(), wrong.join(",")));
        }
    }
    let wrong = names::label_1035(&text(kind, "kind").to_lowercase());
    if text(kind, "kind").is_empty() {
        errors.push(FieldError::required(kind_path, ""));
    } else if !wrong.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(FieldError::invalid(kind_path, &kind["kind"], why));
    }
    errors
}

/// Why a reference may not stand.
pub fn reference_errors(path: &str, reference: &Value) -> Vec<FieldError> {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let mut errors = Vec::new();
    let (name, selector) = (text(reference, "name"), &reference["selector"]);
    if !name.is_empty() {
        let path = format!("{path}.name");
        errors.extend(FieldError::invalid_each(&path, &reference["name"], names::path_segment(name)));
        if !selector.is_null() {
            errors.push(FieldError::forbidden(path, EXCLUSIVE));
        }
    }
    if !selector.is_null() {
        let path = format!("{path}.selector");
        errors.extend(label_selector::validate(&path, selector));
        if !name.is_empty() {
            errors.push(FieldError::forbidden(path, EXCLUSIVE));
        }
    }
    if name.is_empty() && selector.is_null() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    let path = format!("{path}.parameterNotFoundAction");
    match text(reference, "parameterNotFoundAction") {
        "" => errors.push(FieldError::required(path, "")),
        action if NOT_FOUND_ACTIONS.contains(&action) => {}
        _ => {
            let value = &reference["parameterNotFoundAction"];
            errors.push(FieldError::not_supported(path, value, &NOT_FOUND_ACTIONS));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_shows_the_parameters() {
        assert_eq!(reference_cell(&Value::Null), "<unset>");
        assert_eq!(reference_cell(&json!({"name": "a"})), "*/a");
        assert_eq!(reference_cell(&json!({"name": "a", "namespace": "n"})), "n/a");
        assert_eq!(reference_cell(&json!({"selector": {"matchLabels": {"a": "b"}}})), "a=b");
    }
}
