//! ServiceAccount: an identity for pods.

use std::collections::BTreeMap;

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
    subresources: &[],
    storage: Storage::Stored,
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    columns: &[Column::name(), Column::integer("Secrets", "Number of secrets pods may use."), Column::age()],
    cells: |o| {
        let secrets = o["secrets"].as_array().map_or(0, |s| s.len() as i64);
        vec![Cell::name(o), Cell::integer(secrets), Cell::age(o)]
    },
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ServiceAccount",
    ..BuiltIn::PLAIN
};
