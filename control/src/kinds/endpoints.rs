//! Endpoints: the old form of a Service's backends, kept beside EndpointSlices.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;

use super::{Cell, Column, FieldError, Kind, Storage, decode::decode};

pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    decode: decode::<Endpoints>,
    default,
    validate,
    prepare: |_, _| {},
    columns: &[Column::name(), Column::text("Endpoints", "Addresses and ports that are ready."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::text(ready(o)), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.Endpoints",
};

fn default(object: &mut Value) {
    for subset in object.get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten() {
        for port in subset.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if port["protocol"].as_str().is_none_or(str::is_empty) {
                port["protocol"] = "TCP".into();
            }
        }
    }
}

/// `10.0.0.1:80,10.0.0.2:80 + 4 more...`
fn ready(object: &Value) -> String {
    const SHOWN: usize = 3;
    let mut all = Vec::new();
    for subset in object["subsets"].as_array().into_iter().flatten() {
        let addresses: Vec<&str> =
            subset["addresses"].as_array().into_iter().flatten().filter_map(|a| a["ip"].as_str()).collect();
        match subset["ports"].as_array() {
            Some(ports) if !ports.is_empty() => {
                for port in ports {
                    let number = port["port"].as_i64().unwrap_or_default();
                    all.extend(addresses.iter().map(|ip| match ip.contains(':') {
                        true => format!("[{ip}]:{number}"),
                        false => format!("{ip}:{number}"),
                    }));
                }
            }
            _ => all.extend(addresses.iter().map(|ip| (*ip).to_owned())),
        }
    }
    match all.len() {
        0 => "<none>".to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

fn validate(_new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
