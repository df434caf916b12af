//! Kinds of `networking.k8s.io`. IPAddress is in [`super::ip_address`].

pub mod ingress;
pub mod ingress_class;
pub mod network_policy;
pub mod service_cidr;

use serde_json::Value;

use super::{FieldError, names};

/// The name of the API group.
const GROUP: &str = "networking.k8s.io";

/// Why a reference to an object of any kind means nothing: `{"apiGroup": …, "kind": …, "name": …}`.
fn typed_reference(path: &str, reference: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(group) = reference["apiGroup"].as_str() {
        let wrong = names::subdomain(group);
        errors.extend(FieldError::invalid_each(format!("{path}.apiGroup"), &reference["apiGroup"], wrong));
    }
    for field in ["kind", "name"] {
        let path = format!("{path}.{field}");
        match reference[field].as_str().unwrap_or_default() {
            "" => errors.push(FieldError::required(path, "")),
            text => errors.extend(FieldError::invalid_each(path, &reference[field], names::path_segment(text))),
        }
    }
    errors
}
