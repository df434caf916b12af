//! Namespace: a scope for names. It goes away in two steps: deletion marks it Terminating, and when the finalizers in
//! its spec are gone (through `/finalize`), so is it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, Deletion, FieldError, Storage, names, prepare,
    reading::{as_text, items, same, text},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    subresources: &["finalize", "status"],
    storage: Storage::Stored,
    default,
    validate,
    prepare: prepare_namespace,
    columns: &[Column::name(), Column::text("Status", "Active or Terminating."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::text(o["status"]["phase"].as_str().unwrap_or_default()), Cell::age(o)],
    selectable: |o| BTreeMap::from([("status.phase", o["status"]["phase"].as_str().unwrap_or_default().to_owned())]),
    schema: "io.k8s.api.core.v1.Namespace",
    object_name: names::label,
    // As in Kubernetes, namespaces are never deleted in bulk, and are shown as terminating while they are emptied.
    deletion: Deletion {
        bulk: false,
        spec_finalizers: true,
        sets_time_alone: true,
        begin: |o| o["status"]["phase"] = "Terminating".into(),
        ..Deletion::RETURNING
    },
    ..BuiltIn::PLAIN
};

fn default(object: &mut Value) {
    // A name that is generated is known later, and so the label is nobody's.
    if text(&object["metadata"], "generateName").is_empty() {
        label(object);
    }
    if text(&object["status"], "phase").is_empty() {
        object["status"]["phase"] = "Active".into();
    }
}

/// Sets the label by which a NetworkPolicy can name a namespace.
fn label(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if let (Some(metadata), true) = (object.get_mut("metadata").and_then(Value::as_object_mut), name.is_string()) {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if labels.is_null() {
            *labels = json!({});
        }
        if let Some(labels) = labels.as_object_mut() {
            labels.insert("kubernetes.io/metadata.name".into(), name);
        }
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let finalizers = &new["spec"]["finalizers"];
    if old.is_none_or(|old| !same(&old["spec"]["finalizers"], finalizers)) {
        for (i, name) in items(finalizers).enumerate() {
            // Only a finalized namespace is told which of them it is.
            let path = if old.is_some() { format!("spec.finalizers[{i}]") } else { "spec.finalizers".to_owned() };
            errors.extend(FieldError::each(&*path, name, names::qualified_name));
            if !as_text(name).contains('/') && !names::STANDARD_FINALIZERS.contains(&as_text(name)) {
                let why = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(FieldError::invalid(path, name, why));
            }
        }
    }
    let phase = &new["status"]["phase"];
    if old.is_some_and(|old| !same(&old["status"], &new["status"])) {
        let (expected, why) = match text(&new["metadata"], "deletionTimestamp") {
            "" => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
            _ => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        };
        if phase != expected {
            errors.push(FieldError::invalid("status.Phase", phase, why));
        }
    }
    errors
}

/// The finalizer `kubernetes` is there from the start; afterwards only `/finalize` changes `spec.finalizers`.
fn prepare_namespace(new: &mut Value, old: Option<&Value>) {
    label(new);
    prepare::keep_status(new, old, json!({"phase": "Active"}));
    match old {
        None => {
            let mut finalizers = new["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.contains(&json!("kubernetes")) {
                finalizers.push(json!("kubernetes"));
            }
            new["spec"] = json!({"finalizers": finalizers});
        }
        Some(old) => new["spec"] = old["spec"].clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_says_of_itself_what_its_deletion_says() {
        let active = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        assert_eq!(validate(&active, None), []);
        let mut other = active.clone();
        other["status"]["phase"] = json!("Terminating");
        assert_eq!(validate(&other, Some(&active))[0].path, "status.Phase");
        other["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        assert_eq!(validate(&other, Some(&active)), []);
    }

    #[test]
    fn a_namespace_is_active_unless_it_says_something_else() {
        let mut namespace = json!({"metadata": {"name": "n"}, "status": {}});
        default(&mut namespace);
        assert_eq!(namespace["status"]["phase"], "Active");
    }

    #[test]
    fn the_label_with_a_generated_name_is_set_by_the_server_itself() {
        let mut namespace = json!({"metadata": {"name": "n-abcde", "generateName": "n-"}});
        default(&mut namespace);
        assert_eq!(namespace["metadata"]["labels"], json!(null), "the writer would own it");
        prepare_namespace(&mut namespace, None);
        assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n-abcde"}));
    }

    #[test]
    fn finalizers_are_standard_or_have_a_prefix() {
        let errors = |name: &str| validate(&json!({"spec": {"finalizers": [name]}}), None).len();
        assert_eq!(["kubernetes", "orphan", "example.com/mine", "mine"].map(errors), [0, 0, 0, 1]);
    }
}
