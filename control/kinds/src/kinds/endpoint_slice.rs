//! EndpointSlice: a part of a Service's backends, with the state of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde_json::Value;

use super::{BuiltIn, Cell, Column, FieldError, Storage, endpoints, names, port, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
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
    ..BuiltIn::PLAIN
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

/// As in Kubernetes: a slice stays small enough to be sent whole.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
    let mut errors = Vec::new();
    let address_type = new["addressType"].as_str().unwrap_or_default();
    if address_type.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !TYPES.contains(&address_type) {
        errors.push(FieldError::not_supported("addressType", &new["addressType"], &TYPES));
    }
    if old.is_some_and(|old| old["addressType"] != new["addressType"]) {
        errors.push(FieldError::immutable("addressType", &new["addressType"]));
    }
    let endpoints = new["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        errors.extend(endpoint_errors(&format!("endpoints[{i}]"), endpoint, address_type));
    }
    let ports = new["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.len() > MAX_PORTS {
        errors.push(FieldError::too_many("ports", ports.len(), MAX_PORTS));
    }
    let mut seen = BTreeSet::new();
    for (i, entry) in ports.iter().enumerate() {
        let path = format!("ports[{i}]");
        let name = entry["name"].as_str().unwrap_or_default();
        if !name.is_empty() {
            let wrong = names::label(name).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.name"), &entry["name"], why)));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &entry["name"]));
        }
        if !entry["port"].is_null() {
            errors.extend(port::number(format!("{path}.port"), &entry["port"]));
        }
        errors.extend(port::protocol(format!("{path}.protocol"), &entry["protocol"]));
    }
    errors
}

fn endpoint_errors(path: &str, endpoint: &Value, address_type: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses = endpoint["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    if addresses.is_empty() {
        errors.push(FieldError::required(format!("{path}.addresses"), "must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(format!("{path}.addresses"), addresses.len(), MAX_ADDRESSES));
    }
    for (i, address) in addresses.iter().enumerate() {
        let path = format!("{path}.addresses[{i}]");
        let ip = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        match (address_type, ip) {
            ("IPv4", Some(IpAddr::V6(_)) | None) => {
                errors.push(FieldError::invalid(path, address, "must be an IPv4 address"));
            }
            ("IPv6", Some(IpAddr::V4(_)) | None) => {
                errors.push(FieldError::invalid(path, address, "must be an IPv6 address"));
            }
            ("FQDN", _) => {
                let wrong = names::subdomain(address.as_str().unwrap_or_default()).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(&path, address, why)));
            }
            _ => errors.extend(endpoints::address_error(&path, address)),
        }
    }
    if let Some(hostname) = endpoint["hostname"].as_str() {
        let wrong = names::label(hostname).into_iter();
        errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.hostname"), &endpoint["hostname"], why)));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_of_the_type_of_their_slice() {
        let slice = |kind: &str, address: &str| {
            json!({"addressType": kind, "endpoints": [{"addresses": [address]}],
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}]})
        };
        assert_eq!(validate(&slice("IPv4", "10.0.0.1"), None), []);
        assert_eq!(validate(&slice("FQDN", "a.example.org"), None), []);
        for (kind, address) in [("IPv4", "::2"), ("IPv6", "10.0.0.1"), ("IPv4", "127.0.0.1"), ("IPv5", "10.0.0.1")] {
            assert_eq!(validate(&slice(kind, address), None).len(), 1, "{kind} {address}");
        }
        assert_eq!(validate(&slice("IPv6", "fd00::2"), Some(&slice("IPv4", "10.0.0.1"))).len(), 1);
    }
}
