//! CustomResourceDefinition: a kind whose objects make further kinds. What its fields mean is in [`crate::custom`].

use super::{BuiltIn, Cell, Column, Deletion};
use crate::custom::definition::{self, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &["status"],
    deletion: Deletion {
        finalizer: Some(definition::FINALIZER),
        begin: prepare::begin_deletion,
        has_no_dependents: true,
        sets_time_alone: true,
        ..Deletion::PLAIN
    },
    default: prepare::default,
    prepare: prepare::prepare,
    validate: definition::validate,
    columns: &[Column::name(), Column::date("Created At", "When the definition was created.")],
    cells: |object| vec![Cell::name(object), Cell::Fixed(object["metadata"]["creationTimestamp"].clone())],
    schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};
