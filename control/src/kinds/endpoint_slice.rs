//! EndpointSlice: a part of a Service's backends, with the state of each.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::{Cell, Column, FieldError, Kind, Storage, decode::decode, prepare};

pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    decode: decode::<EndpointSlice>,
    default,
    validate,
    prepare: prepare::count_generation,
    columns: &[
        Column::name(),
        Column::text("AddressType", "IPv4, IPv6 or FQDN."),
        Column::text("Ports", "Ports of every endpoint."),
        Column::text("Endpoints", "Addresses, ready or not."),
        Column::age(),
    ],
    cells: |o| {
        let address_type = o["addressType"].as_str().unwrap_or_default();
        vec![Cell::name(o), Cell::text(address_type), Cell::text(ports(o)), Cell::text(addresses(o)), Cell::age(o)]
    },
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
};

const SHOWN: usize = 3;

fn default(object: &mut Value) {
    for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port["name"].is_null() {
            port["name"] = "".into();
        }
        if port["protocol"].is_null() {
            port["protocol"] = "TCP".into();
        }
    }
}

fn ports(object: &Value) -> String {
    let mut all: Vec<String> = Vec::new();
    for port in object["ports"].as_array().into_iter().flatten() {
        all.push(match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) if !name.is_empty() => name.to_owned(),
            _ => "*".to_owned(),
        });
    }
    shortened(&all, "<unset>")
}

fn addresses(object: &Value) -> String {
    let endpoints = object["endpoints"].as_array().into_iter().flatten();
    let all: Vec<String> = endpoints
        .flat_map(|e| e["addresses"].as_array().into_iter().flatten())
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    shortened(&all, "<unset>")
}

fn shortened(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

fn validate(_new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
