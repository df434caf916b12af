//! Why a definition may not be stored, with the paths and messages of `apiextensions-apiserver`.
//!
//! Kubernetes keeps what all versions have in common once, at the top of the spec; errors show those paths
//! (`spec.validation`, `spec.subresources`), and so do these.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{conditions, validate_conversion::conversion, validate_versions};
use crate::kinds::{FieldError, names};

/// Every reason why `new` may not be stored in place of `old`.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &new["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (plural, group) = (text(&spec["names"]["plural"]), text(&spec["group"]));
    let name = text(&new["metadata"]["name"]);
    if old.is_none() && name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &json!(name), why));
    }
    // What a write leaves alone was checked before.
    let sets_spec = old.is_none_or(|old| old["spec"] != *spec);
    if sets_spec {
        errors.extend(of_spec(spec, old.map(|old| &old["spec"])));
        if let Some(old) = old {
            errors.extend(immutable(new, old));
        }
    }
    errors.extend(of_names("status.acceptedNames", &new["status"]["acceptedNames"]));
    // `/status` may name any stored versions; no other write may leave them so.
    let sets_status = old.is_some_and(|old| is_of_status(new, old));
    if sets_spec || !sets_status && !new["metadata"]["deletionTimestamp"].is_string() {
        errors.extend(stored_versions(new));
    }
    errors.extend(approval(new, old));
    errors
}

fn of_spec(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let group = spec["group"].as_str().unwrap_or_default();
    let why = names::subdomain(group);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !why.is_empty() {
        errors.push(FieldError::invalid("spec.group", &json!(group), why.join(",")));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", &json!(group), "should be a domain with at least one dot"));
    }
    match spec["scope"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        _ => errors.push(FieldError::not_supported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"])),
    }
    let (of_versions, in_common) = validate_versions::versions(spec, old);
    errors.extend(of_versions);
    for field in ["plural", "singular", "kind", "listKind"] {
        if spec["names"][field].as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    errors.extend(of_names("spec.names", &spec["names"]));
    errors.extend(in_common);
    errors.extend(conversion(&spec["conversion"]));
    if spec["preserveUnknownFields"] == true && old.is_none_or(|old| old["preserveUnknownFields"] != true) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &json!(true), why));
    }
    errors
}

fn of_names(path: &str, given: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |field: &str| given[field].as_str().unwrap_or_default();
    let mut label = |path: String, shown: &str, name: &str, before: &str| {
        let why = names::label_1035(name);
        if !shown.is_empty() && !why.is_empty() {
            errors.push(FieldError::invalid(path, &json!(shown), format!("{before}{}", why.join(","))));
        }
    };
    for field in ["plural", "singular"] {
        label(format!("{path}.{field}"), text(field), text(field), "");
    }
    for field in ["kind", "listKind"] {
        let before = "may have mixed case, but should otherwise match: ";
        label(format!("{path}.{field}"), text(field), &text(field).to_lowercase(), before);
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in given[field].as_array().into_iter().flatten().enumerate() {
            let name = name.as_str().unwrap_or_default();
            label(format!("{path}.{field}[{index}]"), name, name, "");
        }
    }
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{path}.listKind"), &given["listKind"], why));
    }
    errors
}

fn immutable(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut fields = vec!["/spec/group", "/spec/names/plural"];
    if conditions::is_true(old, "Established") {
        fields.splice(0..0, ["/spec/scope", "/spec/names/kind"]);
    }
    let changed = fields.into_iter().filter(|field| new.pointer(field) != old.pointer(field));
    let path = |field: &str| field[1..].replace('/', ".");
    changed.map(|field| FieldError::immutable(path(field), new.pointer(field).unwrap_or(&Value::Null))).collect()
}

fn stored_versions(definition: &Value) -> Vec<FieldError> {
    let path = "status.storedVersions";
    let stored = &definition["status"]["storedVersions"];
    let list = stored.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        return vec![FieldError::invalid(path, &Value::Null, "must have at least one stored version")];
    }
    let versions = definition["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut errors = Vec::new();
    let known: HashSet<&Value> = versions.iter().map(|version| &version["name"]).collect();
    let were_stored: HashSet<&Value> = list.iter().collect();
    for version in versions.iter().filter(|version| version["storage"] == true) {
        let name = version["name"].as_str().unwrap_or_default();
        if !were_stored.contains(&version["name"]) {
            errors.push(FieldError::invalid(path, stored, format!("must have the storage version {name}")));
        }
    }
    for (index, name) in list.iter().enumerate() {
        if !known.contains(name) {
            let shown = name.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {shown} was previously a storage version, and must remain in \
                spec.versions \
                 until a storage migration ensures no data remains persisted in {shown} and removes {shown} from \
                 status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("{path}[{index}]"), name, why));
        }
    }
    errors
}

/// Whether a write changes more of the status than what every write does: the storage version is among the stored ones.
fn is_of_status(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut status = object["status"].clone();
        status.as_object_mut().map(|status| status.shift_remove("storedVersions"));
        status
    };
    let stored = |object: &Value| object["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    let (now, before) = (stored(new), stored(old));
    let versions = new["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage: HashSet<&Value> =
        versions.iter().filter(|version| version["storage"] == true).map(|version| &version["name"]).collect();
    let is_extended = now.strip_prefix(&*before).is_some_and(|added| added.iter().all(|name| storage.contains(name)));
    rest(new) != rest(old) || !is_extended
}

const APPROVAL: &str = "api-approved.kubernetes.io";

/// Groups of the Kubernetes community need an approval that is named in an annotation.
fn approval(new: &Value, old: Option<&Value>) -> Option<FieldError> {
    let group = new["spec"]["group"].as_str().unwrap_or_default();
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|community| group.strip_suffix(community).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let state = |definition: &Value| {
        let text = definition["metadata"]["annotations"][APPROVAL].as_str().unwrap_or_default().to_owned();
        let is_url = text.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some());
        (text.is_empty(), text.starts_with("unapproved") || is_url)
    };
    let (missing, approved) = state(new);
    if !is_protected || approved || old.is_some_and(|old| state(old) == (missing, approved)) {
        return None;
    }
    let path = format!("metadata.annotations[{APPROVAL}]");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    Some(match missing {
        true => {
            FieldError::required(path, &format!("protected groups must have approval annotation {APPROVAL:?}, {see}"))
        }
        false => {
            let value = &new["metadata"]["annotations"][APPROVAL];
            let shown = value.as_str().unwrap_or_default();
            let why = format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting \
                 with \"unapproved\", {see}"
            );
            FieldError::invalid(path, &json!(shown), why)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::SentEmpties;

    /// Schemas of a sort: the right keywords with right and wrong values.
    fn schemas() -> impl Strategy<Value = Value> {
        const KEYWORDS: &[&str] = &[
            "type",
            "properties",
            "items",
            "additionalProperties",
            "default",
            "enum",
            "pattern",
            "maximum",
            "minLength",
            "required",
            "allOf",
            "anyOf",
            "not",
            "nullable",
            "format",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-map-type",
            "x-kubernetes-validations",
            "x-kubernetes-int-or-string",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "metadata",
            "spec",
            "rule",
        ];
        const TEXTS: &[&str] =
            &["object", "array", "string", "integer", "map", "set", "atomic", "(", "self.x == 1", "date", ""];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::sample::select(TEXTS).prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(KEYWORDS), inner), 0..6)
                    .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            ]
        })
    }

    #[test]
    fn stored_versions_are_checked_unless_they_are_set() {
        let definition = |stored: &str, label: &str| {
            json!({"metadata": {"name": "as.b.c", "labels": {"a": label}}, "status": {"storedVersions": [stored]},
                "spec": {"versions": [{"name": "v1", "storage": true}]}})
        };
        let paths =
            |new: &Value, old: &Value| validate(new, Some(old)).into_iter().map(|error| error.path).collect::<Vec<_>>();
        let good = definition("v1", "x");
        let (bad, changed) = (definition("v9", "x"), definition("v9", "y"));
        assert!(paths(&good, &good).is_empty());
        assert!(paths(&bad, &good).is_empty(), "through /status");
        assert_eq!(paths(&changed, &bad), ["status.storedVersions", "status.storedVersions[0]"]);
        let mut extended = changed.clone();
        extended["status"]["storedVersions"] = json!(["v9", "v1"]);
        assert_eq!(paths(&extended, &bad), ["status.storedVersions[0]"], "every write adds the storage version");
        let mut deleted = changed;
        deleted["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
        assert!(paths(&deleted, &bad).is_empty());
    }

    proptest! {
        #[test]
        fn any_schema_is_taken_or_refused(schema in schemas(), object in schemas()) {
            let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
            let definition = json!({"metadata": {"name": "as.b.c"}, "status": {"storedVersions": ["v1"]},
                "spec": {"group": "b.c", "scope": "Cluster", "versions": [version],
                    "names": {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"}}});
            if validate(&definition, None).is_empty() {
                let definition = super::super::Definition::read(&definition);
                for kind in crate::custom::kinds::of(&definition, None, false) {
                    if let Ok(decoded) = kind.schema.decode_value(object.clone()) {
                        let mut value = decoded.value;
                        (kind.default)(&mut value);
                        let once = value.clone();
                        (kind.default)(&mut value);
                        prop_assert_eq!(&once, &value);
                        prop_assert!((kind.validate)(&value, Some(&once), &SentEmpties::NONE).len() < 1000);
                        prop_assert_eq!((kind.cells)(&value).len(), kind.columns.len());
                    }
                }
            }
        }
    }
}
