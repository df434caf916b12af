//! ServiceAccount: an identity for pods.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{BuiltIn, Cell, Column, Storage};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    subresources: &["token"],
    storage: Storage::Stored,
    default: |_| {},
    validate: |_, _| Vec::new(),
    // Of a Secret, its name alone is kept.
    prepare: |new, _| {
        for secret in new.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(reference) = secret.as_object_mut() {
                reference.retain(|field, _| field == "name");
            }
        }
    },
    columns: &[Column::name(), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ServiceAccount",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_named_and_nothing_else() {
        let mut account = json!({"secrets": [{"name": "s", "namespace": "n", "kind": "Secret"}]});
        (KIND.prepare)(&mut account, None);
        assert_eq!(account, json!({"secrets": [{"name": "s"}]}));
    }
}
