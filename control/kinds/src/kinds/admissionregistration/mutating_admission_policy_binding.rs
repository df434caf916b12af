//! MutatingAdmissionPolicyBinding: where a mutating policy applies, and with which parameters.

use serde_json::Value;

use super::{binding, match_resources};
use crate::kinds::{BuiltIn, BuiltInAs, FieldError, Storage};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    version: "v1beta1",
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    validate,
    schema: "io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicyBinding",
    ..binding::BINDING
};

/// `v1alpha1`: the same, stored as `v1beta1`.
pub static ALPHA: BuiltIn = BuiltIn {
    version: "v1alpha1",
    storage: Storage::As(&BuiltInAs {
        kind: &KIND,
        to_stored: |object| object["apiVersion"] = "admissionregistration.k8s.io/v1beta1".into(),
        from_stored: |object, served| object["apiVersion"] = served.api_version().into(),
        deprecation: None,
    }),
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    schema: "io.k8s.api.admissionregistration.v1alpha1.MutatingAdmissionPolicyBinding",
    ..KIND
};

fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let mut errors = binding::errors(&new["spec"]);
    errors.extend(match_resources::no_deletions("spec.matchResources", &new["spec"]["matchResources"]));
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
    fn a_binding_names_its_policy_and_parameters() {
        let reference = json!({"name": "limits", "parameterNotFoundAction": "Deny"});
        let good = json!({"policyName": "p.example.com", "paramRef": reference, "matchResources": {}});
        assert_eq!(words(good), Vec::<String>::new());
        let rule = json!({"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        assert_eq!(
            words(json!({"paramRef": {"name": "a"}, "matchResources": {"resourceRules": [rule]}})),
            [
                "spec.policyName: Required value",
                "spec.paramRef.parameterNotFoundAction: Required value",
                "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \
                 \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ]
        );
    }
}
