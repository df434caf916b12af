//! Rules of Kubernetes that follow from how Go holds objects in memory: it tells an empty list from none, and two
//! fields can be one map. Clients see them in what is refused and counted, so they are kept; each kind says which hold.

use serde_json::{Value, json};

use super::{FieldError, pod::containers::EPHEMERAL, reading::is_empty};
use crate::schema::SentEmpties;

/// What of it shows in a kind.
#[derive(Clone, Copy, Debug)]
pub struct GoMemory {
    /// Lists that may not be set, not even to nothing: Kubernetes asks whether each field has its zero value.
    pub unset_lists: &'static [&'static str],
    /// Maps that an update may not change, which also means from none to an empty one.
    pub fixed_maps: &'static [FixedMap],
    /// Whether `metadata.generation` counts a list or map that a client sends empty as a change: Kubernetes compares
    /// with `reflect.DeepEqual`, and what it reads from its storage has no empty ones.
    pub counts_empties: bool,
    /// Whether an object that is created without labels has one map of labels with its template, so that what is
    /// added to those of the template is added to its own.
    pub shares_labels: bool,
}

/// A map of an object that may not change.
#[derive(Clone, Copy, Debug)]
pub struct FixedMap {
    /// `parameters`
    pub field: &'static str,
    /// What is said of a change.
    pub why: &'static str,
    /// Whether it is so in a stored object.
    pub is_fixed: fn(&Value) -> bool,
}

impl GoMemory {
    /// Nothing.
    pub const PLAIN: Self = Self { unset_lists: &[], fixed_maps: &[], counts_empties: false, shares_labels: false };

    /// Reasons against lists and maps that were sent empty.
    pub fn refused(&self, empties: &SentEmpties, old: Option<&Value>) -> Vec<FieldError> {
        let sent = self.unset_lists.iter().filter(|path| empties.at(path).is_some());
        let mut errors: Vec<FieldError> = sent.map(|path| FieldError::forbidden(*path, "cannot be set")).collect();
        errors.extend(empties.paths().filter_map(unset_in_pods));
        errors.dedup();
        if let Some(old) = old {
            let begins = |map: &&FixedMap| empties.at(map.field).is_some() && old[map.field].is_null();
            let fixed = self.fixed_maps.iter().filter(begins).filter(|map| (map.is_fixed)(old));
            errors.extend(fixed.map(|map| FieldError::forbidden(map.field, map.why)));
        }
        errors
    }

    /// Counts a change of nothing but empty lists and maps of the content. `new` was prepared.
    pub fn count(&self, empties: &SentEmpties, new: &mut Value, old: &Value) {
        let counted = |object: &Value| object["metadata"]["generation"].as_i64().unwrap_or(0);
        if self.counts_empties && counted(new) == counted(old) && empties.paths().any(is_of_content) {
            new["metadata"]["generation"] = json!(counted(old).saturating_add(1));
        }
    }

    /// Whether a new object, before and after it was defaulted, has one map of labels with its template.
    pub fn begins_sharing(&self, had_labels: bool, defaulted: &Value) -> bool {
        self.shares_labels && !had_labels && has_same_labels(defaulted)
    }
}

/// A reason against a list or map that may not be set in a pod spec, wherever that is.
fn unset_in_pods(path: &str) -> Option<FieldError> {
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

/// Whether the labels of an object are those of its template, and there are some.
pub fn has_same_labels(object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    !is_empty(labels) && *labels == object["spec"]["template"]["metadata"]["labels"]
}

/// Writes the labels of an object's template as its own.
pub fn share_labels(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    object["metadata"]["labels"] = labels;
}

fn is_of_content(path: &str) -> bool {
    !matches!(path.split(['.', '[']).next(), Some("metadata" | "status"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn taken(group: &str, plural: &str, mut object: Value) -> (GoMemory, SentEmpties, Value) {
        let kind = Kinds::built_in().by_path(group, "v1", plural).unwrap();
        let empties = kind.schema.take_empties(&mut object);
        (kind.go_memory, empties, object)
    }

    #[test]
    fn an_empty_list_is_set_where_only_labels_and_annotations_may_be() {
        let template = json!({"spec": {"metadata": {"labels": {}, "finalizers": [], "ownerReferences": []}}});
        let (memory, empties, left) = taken("resource.k8s.io", "resourceclaimtemplates", template);
        let refused = memory.refused(&empties, None);
        let paths: Vec<&str> = refused.iter().map(|error| &*error.path).collect();
        assert_eq!(paths, ["spec.metadata.ownerReferences", "spec.metadata.finalizers"]);
        assert_eq!(refused[0].message, "Forbidden: cannot be set");
        assert_eq!(left["spec"]["metadata"], json!({}));
    }

    #[test]
    fn an_empty_list_is_set_where_a_pod_may_not_have_one() {
        let claim = json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"finalizers": [], "labels": {}}}}});
        let debug = json!({"ports": [], "args": [], "resources": {"limits": {}, "requests": {}}});
        let spec = json!({"volumes": [claim], "containers": [{"ports": []}], "ephemeralContainers": [{}, debug]});
        let (memory, empties, _) = taken("", "podtemplates", json!({"template": {"spec": spec}}));
        let refused = memory.refused(&empties, None);
        let paths: Vec<&str> = refused.iter().filter_map(|error| error.path.strip_prefix("template.spec.")).collect();
        assert_eq!(
            paths,
            [
                "volumes[0].ephemeral.volumeClaimTemplate.metadata.finalizers",
                "ephemeralContainers[1].ports",
                "ephemeralContainers[1].resources"
            ]
        );
    }

    #[test]
    fn an_empty_map_is_a_change_of_one_that_is_fixed() {
        let refused = |group: &str, plural: &str, field: &str, old: Value| {
            let (memory, empties, _) = taken(group, plural, json!({field: {}}));
            memory.refused(&empties, Some(&old)).pop().map(|error| format!("{}: {}", error.path, error.message))
        };
        let classes = |old: Value| refused("storage.k8s.io", "storageclasses", "parameters", old);
        let words = "parameters: Forbidden: updates to parameters are forbidden.";
        assert_eq!(classes(json!({})).as_deref(), Some(words));
        assert_eq!(classes(json!({"parameters": {"a": "b"}})), None, "told by the class's own validation");
        let words = "data: Forbidden: field is immutable when `immutable` is set";
        for plural in ["configmaps", "secrets"] {
            assert_eq!(refused("", plural, "data", json!({"immutable": true})).as_deref(), Some(words));
            assert_eq!(refused("", plural, "data", json!({"immutable": false})), None);
        }
    }

    #[test]
    fn an_empty_list_is_a_new_generation_where_go_compares_memory() {
        let counted = |group: &str, plural: &str, object: Value| {
            let (memory, empties, _) = taken(group, plural, object);
            let (mut new, old) = (json!({"metadata": {"generation": 1}}), json!({"metadata": {"generation": 1}}));
            memory.count(&empties, &mut new, &old);
            new["metadata"]["generation"].clone()
        };
        let hooks = |selector: Value| json!({"metadata": {"labels": {}}, "webhooks": [{"objectSelector": selector}]});
        let group = "admissionregistration.k8s.io";
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            assert_eq!(counted(group, plural, hooks(json!({"matchExpressions": []}))), 2);
            assert_eq!(counted(group, plural, hooks(json!({}))), 1);
        }
        assert_eq!(counted("networking.k8s.io", "networkpolicies", json!({"spec": {"ingress": []}})), 2);
        assert_eq!(counted("networking.k8s.io", "ingresses", json!({"spec": {"rules": []}})), 1);
    }
}
