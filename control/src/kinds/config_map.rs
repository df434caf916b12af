//! ConfigMap: text and binary data by key.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{Cell, Column, FieldError, Kind, Storage, decode::decode};

pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    decode: decode::<ConfigMap>,
    default: |_| {},
    validate,
    prepare: |_, _| {},
    columns: &[Column::name(), Column::integer("Data", "Number of keys, text and binary."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::integer(count(&o["data"]) + count(&o["binaryData"])), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.ConfigMap",
};

fn count(map: &Value) -> i64 {
    map.as_object().map_or(0, |m| m.len() as i64)
}

fn validate(_new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
