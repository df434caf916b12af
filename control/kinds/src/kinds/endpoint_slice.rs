//! EndpointSlice: a part of a Service's backends, with the state of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde_json::Value;

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, endpoints, ip, names, port, prepare,
    reading::{as_text, entries, same, text},
};

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
    prepare: |new, old| {
        prepare::count_generation(new, old);
        drop_topology(new, old);
        // Labels count as content here.
        let Some(old) = old else { return };
        let counted = &old["metadata"]["generation"];
        if new["metadata"]["generation"] == *counted && !same(&old["metadata"]["labels"], &new["metadata"]["labels"]) {
            new["metadata"]["generation"] = counted.as_i64().unwrap_or(1).saturating_add(1).into();
        }
    },
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

/// `v1` does not write `deprecatedTopology`: it goes, unless the endpoints are as they were.
fn drop_topology(new: &mut Value, old: Option<&Value>) {
    if old.is_some_and(|old| same(&old["endpoints"], &new["endpoints"])) {
        return;
    }
    for endpoint in new.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = endpoint.as_object_mut() {
            fields.shift_remove("deprecatedTopology");
        }
    }
}

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
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
    let mut errors = Vec::new();
    let address_type = new["addressType"].as_str().unwrap_or_default();
    if address_type.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !TYPES.contains(&address_type) {
        errors.push(FieldError::not_supported("addressType", &new["addressType"], &TYPES));
    }
    errors.extend(port_errors(&new["ports"]));
    // What was stored before its rule was made stays.
    if old.is_none_or(|old| !same(&old["endpoints"], &new["endpoints"])) {
        let endpoints = new["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(FieldError::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
        } else {
            let each = endpoints.iter().enumerate();
            errors.extend(each.flat_map(|(i, one)| endpoint_errors(&format!("endpoints[{i}]"), one, address_type)));
        }
    }
    if old.is_some_and(|old| old["addressType"] != new["addressType"]) {
        errors.push(FieldError::immutable("addressType", &new["addressType"]));
    }
    errors
}

fn port_errors(ports: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ports = ports.as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.len() > MAX_PORTS {
        return vec![FieldError::too_many("ports", ports.len(), MAX_PORTS)];
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
        errors.extend(port::protocol(format!("{path}.protocol"), &entry["protocol"]));
        if entry["appProtocol"].is_string() {
            errors.extend(FieldError::each(
                format!("{path}.appProtocol"),
                &entry["appProtocol"],
                names::qualified_name,
            ));
        }
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
        let (all, path) = (format!("{path}.addresses"), format!("{path}.addresses[{i}]"));
        let text = as_text(address);
        let read = match address_type {
            "IPv4" => ip::parse(text),
            _ => text.parse::<IpAddr>().ok(),
        };
        // Kubernetes names the whole list where the family is wrong.
        match (address_type, read) {
            ("IPv4" | "IPv6", None) => errors.push(FieldError::invalid(path, address, ip::NOT_AN_ADDRESS)),
            ("IPv4", Some(address_read)) => {
                if address_read.is_ipv6() {
                    errors.push(FieldError::invalid(all, address, "must be an IPv4 address"));
                }
                errors.extend(
                    endpoints::special_address(address_read).map(|why| FieldError::invalid(path, address, why)),
                );
            }
            ("IPv6", Some(address_read)) => {
                if address_read.is_ipv4() {
                    errors.push(FieldError::invalid(all, address, "must be an IPv6 address"));
                }
                errors.extend(
                    endpoints::special_address(address_read).map(|why| FieldError::invalid(path, address, why)),
                );
            }
            ("FQDN", _) => {
                let wrong = names::subdomain(address.as_str().unwrap_or_default()).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(&path, address, why)));
            }
            _ => {}
        }
    }
    if endpoint["nodeName"].is_string() {
        errors.extend(FieldError::each(format!("{path}.nodeName"), &endpoint["nodeName"], names::subdomain));
    }
    let topology = entries(&endpoint["deprecatedTopology"]).count();
    if topology > MAX_TOPOLOGY {
        errors.push(FieldError::too_many(format!("{path}.deprecatedTopology"), topology, MAX_TOPOLOGY));
    }
    errors.extend(names::labels(&format!("{path}.deprecatedTopology"), &endpoint["deprecatedTopology"]));
    if endpoint["hostname"].is_string() {
        errors.extend(FieldError::each(format!("{path}.hostname"), &endpoint["hostname"], names::label));
    }
    for (field, check) in [("forZones", names::label_value as fn(&str) -> Vec<String>), ("forNodes", names::subdomain)]
    {
        let path = format!("{path}.hints.{field}");
        let hints = endpoint["hints"][field].as_array().map(Vec::as_slice).unwrap_or_default();
        if hints.len() > MAX_HINTS {
            errors.push(FieldError::too_many(path, hints.len(), MAX_HINTS));
            break;
        }
        let mut seen = BTreeSet::new();
        for (i, hint) in hints.iter().enumerate() {
            let path = format!("{path}[{i}].name");
            if !seen.insert(text(hint, "name")) {
                errors.push(FieldError::duplicate(&*path, &hint["name"]));
            }
            errors.extend(FieldError::each(path, &hint["name"], check));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn deprecated_topology_is_not_written() {
        let stored = json!({"metadata": {}, "endpoints": [{"addresses": ["a"], "deprecatedTopology": {"k": "v"}}]});
        let mut new = stored.clone();
        (KIND.prepare)(&mut new, None);
        assert_eq!(new["endpoints"], json!([{"addresses": ["a"]}]));
        let mut same = stored.clone();
        (KIND.prepare)(&mut same, Some(&stored));
        assert_eq!(same["endpoints"], stored["endpoints"]);
    }

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
        let path_and_words = |kind: &str, address: &str| {
            let error = validate(&slice(kind, address), None).remove(0);
            format!("{}: {}", error.path, error.message)
        };
        let no_address = format!("endpoints[0].addresses[0]: Invalid value: \"\": {}", ip::NOT_AN_ADDRESS);
        assert_eq!(path_and_words("IPv4", ""), no_address);
        let family = "endpoints[0].addresses: Invalid value: \"::2\": must be an IPv4 address";
        assert_eq!(path_and_words("IPv4", "::2"), family);
        assert_eq!(validate(&slice("IPv6", "fd00::2"), Some(&slice("IPv4", "10.0.0.1"))).len(), 1);
    }

    #[test]
    fn labels_of_a_slice_count_as_content() {
        let of = |label: &str| json!({"metadata": {"generation": 1, "labels": {"a": label}}, "addressType": "IPv4"});
        for (label, generation) in [("b", 1), ("c", 2)] {
            let mut new = of(label);
            (KIND.prepare)(&mut new, Some(&of("b")));
            assert_eq!(new["metadata"]["generation"], generation, "{label}");
        }
    }

    #[test]
    fn nodes_and_hints_are_named_as_nodes_and_zones_are() {
        let endpoint = json!({"addresses": ["10.0.0.1"], "nodeName": "Node", "hostname": "a.b",
            "deprecatedTopology": {"-": "x"}, "hints": {"forZones": [{"name": "a"}, {"name": "a"}, {"name": "-"}]}});
        let paths: Vec<String> = endpoint_errors("e", &endpoint, "IPv4").into_iter().map(|error| error.path).collect();
        assert_eq!(
            paths,
            [
                "e.nodeName",
                "e.deprecatedTopology",
                "e.hostname",
                "e.hints.forZones[1].name",
                "e.hints.forZones[2].name"
            ]
        );
        let slice = |node: &str| json!({"addressType": "IPv4", "endpoints": [{"addresses": ["a"], "nodeName": node}]});
        assert_eq!(validate(&slice("N"), Some(&slice("N"))), [], "it was stored before");
    }
}
