//! Fields of a pod spec that may not be set, not even to an empty list or map: Kubernetes asks whether each has its
//! zero value. What is in them otherwise is refused where the field is validated.

use super::containers::EPHEMERAL;
use crate::{kinds::FieldError, schema::SentEmpties};

/// Reasons against what was sent empty in an object with pod specs, before the other reasons against it.
pub fn refused_with(errors: Vec<FieldError>, empties: &SentEmpties) -> Vec<FieldError> {
    let mut refused: Vec<FieldError> = empties.paths().filter_map(refused).collect();
    refused.dedup();
    refused.extend(errors);
    refused
}

/// A reason against what is empty at a path, wherever the pod spec is.
fn refused(path: &str) -> Option<FieldError> {
    const CLAIM: &str = ".ephemeral.volumeClaimTemplate.metadata";
    let (parent, field) = path.rsplit_once('.')?;
    if parent.ends_with(CLAIM) && matches!(field, "ownerReferences" | "finalizers") {
        return Some(FieldError::forbidden(path, "cannot be set"));
    }
    let is_ephemeral =
        |path: &str| path.rsplit_once('[').is_some_and(|(list, _)| list.ends_with("spec.ephemeralContainers"));
    match (parent.strip_suffix(".resources"), field) {
        (None, "ports" | "resizePolicy" | "restartPolicyRules") if is_ephemeral(parent) => {
            Some(FieldError::forbidden(path, EPHEMERAL))
        }
        (Some(container), "limits" | "requests" | "claims") if is_ephemeral(container) => {
            Some(FieldError::forbidden(parent, EPHEMERAL))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kinds::Kinds;

    #[test]
    fn an_empty_list_is_set_where_a_pod_may_not_have_one() {
        let claim = json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"finalizers": [], "labels": {}}}}});
        let debug = json!({"ports": [], "args": [], "resources": {"limits": {}, "requests": {}}});
        let spec = json!({"volumes": [claim], "containers": [{"ports": []}], "ephemeralContainers": [{}, debug]});
        let template = json!({"spec": spec});
        for (group, plural, path, object) in [
            ("", "pods", "spec", template.clone()),
            ("", "podtemplates", "template.spec", json!({"template": template})),
            ("", "replicationcontrollers", "spec.template.spec", json!({"spec": {"template": template}})),
            ("apps", "daemonsets", "spec.template.spec", json!({"spec": {"template": template}})),
            ("apps", "deployments", "spec.template.spec", json!({"spec": {"template": template}})),
            ("apps", "replicasets", "spec.template.spec", json!({"spec": {"template": template}})),
            ("apps", "statefulsets", "spec.template.spec", json!({"spec": {"template": template}})),
            ("batch", "jobs", "spec.template.spec", json!({"spec": {"template": template}})),
            (
                "batch",
                "cronjobs",
                "spec.jobTemplate.spec.template.spec",
                json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
            ),
        ] {
            let kind = Kinds::built_in().by_path(group, "v1", plural).unwrap();
            let (mut decoded, empties) = kind.schema.decode_sent_value(object).unwrap();
            (kind.default)(&mut decoded.value);
            let errors = (kind.validate)(&decoded.value, None, &empties);
            let forbidden = errors.iter().take(3).filter(|error| error.message.starts_with("Forbidden: cannot be set"));
            let found: Vec<&str> = forbidden.map(|error| &*error.path).collect();
            let at = |field: &str| format!("{path}.{field}");
            let expected = [
                at("volumes[0].ephemeral.volumeClaimTemplate.metadata.finalizers"),
                at("ephemeralContainers[1].ports"),
                at("ephemeralContainers[1].resources"),
            ];
            assert_eq!(found, expected, "{plural}");
        }
    }
}
