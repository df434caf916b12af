//! What bindings of validating and mutating policies have in common: which policy they put to work, where, and with
//! which parameters.

use serde_json::Value;

use super::{match_resources, parameters, text};
use crate::kinds::{FieldError, names};

/// Fills in what a binding does not say.
pub fn default(binding: &mut Value) {
    if let Some(resources) = binding.get_mut("spec").and_then(|spec| spec.get_mut("matchResources")) {
        match_resources::default(resources);
    }
}

/// Why it may not stand.
pub fn errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(spec, "policyName") {
        "" => errors.push(FieldError::required("spec.policyName", "")),
        name => errors.extend(FieldError::invalid_each("spec.policyName", &spec["policyName"], names::subdomain(name))),
    }
    if spec["paramRef"].is_object() {
        errors.extend(parameters::reference_errors("spec.paramRef", &spec["paramRef"]));
    }
    if spec["matchResources"].is_object() {
        errors.extend(match_resources::validate("spec.matchResources", &spec["matchResources"]));
    }
    errors
}
