//! Secret: bytes by key, of a type.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::{Cell, Column, FieldError, Kind, Storage, decode::decode};

pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    decode: decode::<Secret>,
    default,
    validate,
    prepare: |_, _| {},
    columns: &[
        Column::name(),
        Column::text("Type", "What the data is for."),
        Column::integer("Data", "Number of keys."),
        Column::age(),
    ],
    cells: |o| {
        let keys = o["data"].as_object().map_or(0, |m| m.len() as i64);
        vec![Cell::name(o), Cell::text(o["type"].as_str().unwrap_or_default()), Cell::integer(keys), Cell::age(o)]
    },
    selectable: |o| BTreeMap::from([("type", o["type"].as_str().unwrap_or_default().to_owned())]),
    schema: "io.k8s.api.core.v1.Secret",
};

fn default(object: &mut Value) {
    if object["type"].as_str().is_none_or(str::is_empty) {
        object["type"] = "Opaque".into();
    }
}

fn validate(_new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
