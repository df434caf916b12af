//! Which numbers and names can be a port, and which protocols there are.

use serde_json::Value;

use super::FieldError;

/// Of container ports, Service ports and endpoint ports, in the order in which a refusal names them.
pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Why a value is no port number.
pub fn number(path: impl Into<String>, value: &Value) -> Option<FieldError> {
    let valid = value.as_i64().is_some_and(|n| (1..=65535).contains(&n));
    (!valid).then(|| FieldError::invalid(path, value, "must be between 1 and 65535, inclusive"))
}

/// Why a value is no protocol.
pub fn protocol(path: impl Into<String>, value: &Value) -> Option<FieldError> {
    match value.as_str() {
        None | Some("") => Some(FieldError::required(path, "")),
        Some(text) if PROTOCOLS.contains(&text) => None,
        Some(_) => Some(FieldError::not_supported(path, value, &PROTOCOLS)),
    }
}

/// A `targetPort` or a probe's port.
pub fn number_or_name(path: &str, value: &Value) -> Vec<FieldError> {
    match value.as_str() {
        Some(name) => self::name(path, name),
        None => number(path, value).into_iter().collect(),
    }
}

/// The name of a container's port (`IANA_SVC_NAME`, RFC 6335).
pub fn name(path: &str, name: &str) -> Vec<FieldError> {
    let wrong = [
        (name.len() > 15, "must be no more than 15 characters"),
        (
            name.bytes().any(|b| !(b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!name.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    let wrong = wrong.into_iter().filter(|(is_so, _)| *is_so);
    wrong.map(|(_, why)| FieldError::invalid(path, &Value::from(name), why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_in_range_and_names_are_service_names() {
        assert!(number("p", &json!(1)).is_none() && number("p", &json!(65535)).is_none());
        let error = number("spec.ports[0].port", &json!(70000)).unwrap();
        assert_eq!(error.message, "Invalid value: 70000: must be between 1 and 65535, inclusive");
        assert!(number_or_name("p", &json!("http")).is_empty());
        for name in ["http--x", "-a", "80", "averyveryverylongname", "HTTP"] {
            assert!(!number_or_name("p", &json!(name)).is_empty(), "{name}");
        }
    }
}
