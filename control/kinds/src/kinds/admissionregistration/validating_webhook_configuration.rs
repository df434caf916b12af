//! ValidatingWebhookConfiguration: webhooks that may refuse a write.

use super::{CATEGORIES, GROUP, items, webhook};
use crate::kinds::{BuiltIn, Cell, Column, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    categories: CATEGORIES,
    namespaced: false,
    default: |object| webhook::default(object, false),
    validate: |new, old| webhook::validate(new, old, false),
    prepare: prepare::count_generation,
    columns: &[
        Column::name(),
        Column::integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
        Column::age(),
    ],
    cells: |object| {
        let count = i64::try_from(items(object, "webhooks").len()).unwrap_or(i64::MAX);
        vec![Cell::name(object), Cell::integer(count), Cell::age(object)]
    },
    schema: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    updates_name_version: true,
    ..BuiltIn::PLAIN
};
