//! ResourceClaimTemplate: from which each pod that names it gets a ResourceClaim of its own.

use serde_json::Value;

use super::{GROUP, claim_spec};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, reading::same};
use crate::schema::SentEmpties;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    default: |object| {
        if let Some(spec) = claim(object) {
            claim_spec::default(spec);
        }
    },
    validate_sent: Some(validate),
    prepare: |new, _| {
        if let Some(spec) = claim(new) {
            claim_spec::drop_disabled(spec);
        }
    },
    columns: &[Column::name(), Column::age()],
    cells: |object| vec![Cell::name(object), Cell::age(object)],
    schema: "io.k8s.api.resource.v1.ResourceClaimTemplate",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

/// The spec of the claims.
fn claim(template: &mut Value) -> Option<&mut Value> {
    template.get_mut("spec")?.get_mut("spec")
}

fn validate(new: &Value, old: Option<&Value>, empties: &SentEmpties) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = names::annotations("spec.metadata.annotations", &spec["metadata"]["annotations"]);
    errors.extend(names::labels("spec.metadata.labels", &spec["metadata"]["labels"]));
    errors.extend(names::only_labels_and_annotations("spec.metadata", &spec["metadata"], empties));
    errors.extend(claim_spec::validate("spec.spec", &spec["spec"]));
    if old.is_some_and(|old| !same(&old["spec"], spec)) {
        errors.push(FieldError::immutable("spec", spec));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schema;

    #[test]
    fn a_template_is_checked_once_and_never_changes() {
        let template = |class: &str| {
            let mut template = json!({"spec": {"spec": {"devices": {"requests": [
                {"name": "a", "exactly": {"deviceClassName": class}}]}}}});
            (KIND.default)(&mut template);
            template
        };
        assert_eq!(validate(&template("gpu"), None, &SentEmpties::NONE), []);
        let bad = validate(&template(""), None, &SentEmpties::NONE);
        assert_eq!(bad[0].path, "spec.spec.devices.requests[0].exactly.deviceClassName");
        assert_eq!(validate(&template("gpu"), Some(&template("gpu")), &SentEmpties::NONE), []);
        assert_eq!(validate(&template("b"), Some(&template("a")), &SentEmpties::NONE)[0].path, "spec");
        let mut named = template("gpu");
        named["spec"]["metadata"] = json!({"labels": {"a": "b"}, "uid": "x", "finalizers": ["a/b"]});
        let paths: Vec<String> = validate(&named, None, &SentEmpties::NONE).into_iter().map(|e| e.path).collect();
        assert_eq!(paths, ["spec.metadata.uID", "spec.metadata.finalizers"]);
    }

    #[test]
    fn what_a_template_may_not_have_may_not_be_sent_empty() {
        let sent = json!({"spec": {"metadata": {"labels": {}, "finalizers": [], "ownerReferences": []},
            "spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu"}}]}}}});
        let (mut sent, empties) = Schema::builtin(KIND.schema).unwrap().decode_sent_value(sent).unwrap();
        (KIND.default)(&mut sent.value);
        assert_eq!(sent.value["spec"]["metadata"], json!({}));
        let words: Vec<String> =
            validate(&sent.value, None, &empties).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        let set = |field: &str| format!("spec.metadata.{field}: Forbidden: cannot be set");
        assert_eq!(words, [set("ownerReferences"), set("finalizers")]);
    }
}
