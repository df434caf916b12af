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
    subresources: &["token"],
    storage: Storage::Stored,
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare: |_, _| {},
    columns: &[Column::name(), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ServiceAccount",
    deletion: crate::kinds::Deletion::RETURNING,
    ..BuiltIn::PLAIN
};
