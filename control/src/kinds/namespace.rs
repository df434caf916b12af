//! Namespace: a scope for names. It goes away in two steps: deletion marks it Terminating, and when the finalizers in
//! its spec are gone (through `/finalize`), so is it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{BuiltIn, Cell, Column, Deletion, Storage, names, prepare};

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
    validate: |_, _| Vec::new(),
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
        begin: |o| o["status"]["phase"] = "Terminating".into(),
        ..Deletion::PLAIN
    },
    ..BuiltIn::PLAIN
};

/// The label by which a NetworkPolicy can name a namespace.
fn default(object: &mut Value) {
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

/// The finalizer `kubernetes` is there from the start; afterwards only `/finalize` changes `spec.finalizers`.
fn prepare_namespace(new: &mut Value, old: Option<&Value>) {
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
