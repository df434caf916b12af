//! ValidatingAdmissionPolicyBinding: where a policy applies, with which parameters, and what a violation does.

use std::collections::BTreeSet;

use serde_json::Value;

use super::binding;
use crate::kinds::{BuiltIn, FieldError};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    validate,
    schema: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    ..binding::BINDING
};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = binding::errors(spec);
    errors.extend(actions("spec.validationActions", &spec["validationActions"]));
    errors
}

fn actions(path: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, action) in value.as_array().into_iter().flatten().enumerate() {
        let name = action.as_str().unwrap_or_default();
        if !ACTIONS.contains(&name) {
            errors.push(FieldError::not_supported(format!("{path}[{i}]"), action, &ACTIONS));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                   response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, value, why));
    }
    if seen.is_empty() {
        errors.push(FieldError::required(path, "at least one validation action is required"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(spec: Value) -> Vec<String> {
        let mut binding = json!({"spec": spec});
        (KIND.default)(&mut binding);
        validate(&binding, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_binding_names_its_policy_parameters_and_actions() {
        let reference = json!({"name": "limits", "parameterNotFoundAction": "Deny"});
        let good = json!({"policyName": "p.example.com", "paramRef": reference, "validationActions": ["Deny", "Audit"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"env": "test"}}}});
        assert_eq!(words(good), Vec::<String>::new());
        let both = json!({"name": "a", "selector": {}});
        assert_eq!(
            words(json!({"paramRef": both, "validationActions": ["Deny", "Warn", "Deny", "Log"]})),
            [
                "spec.policyName: Required value",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Required value",
                "spec.validationActions[2]: Duplicate value: \"Deny\"",
                "spec.validationActions[3]: Unsupported value: \"Log\": supported values: \"Audit\", \"Deny\", \
                 \"Warn\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\",\"Log\"]: must not contain both \
                 Deny and Warn (repeating the same validation failure information in the API response and headers \
                 serves no purpose)",
            ]
        );
        assert_eq!(
            words(json!({"policyName": "p"})),
            ["spec.validationActions: Required value: at least one validation action is required"]
        );
    }
}
