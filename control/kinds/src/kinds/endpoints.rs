//! Endpoints: the old form of a Service's backends, kept beside EndpointSlices.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::Value;

use super::{BuiltIn, Cell, Column, FieldError, Storage, ip, names, port};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
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
    default,
    validate,
    prepare: |_, _| {},
    columns: &[Column::name(), Column::text("Endpoints", "Addresses and ports that are ready."), Column::age()],
    cells: |o| vec![Cell::name(o), Cell::text(ready(o)), Cell::age(o)],
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.core.v1.Endpoints",
    warning: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    creates_on_update: true,
    ..BuiltIn::PLAIN
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
    let (mut shown, mut count) = (Vec::new(), 0_usize);
    for subset in object["subsets"].as_array().into_iter().flatten() {
        let addresses = || subset["addresses"].as_array().into_iter().flatten().filter_map(|a| a["ip"].as_str());
        let ports = subset["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Counted, not written out: a subset stands for each of its addresses with each of its ports.
        count = count.saturating_add(addresses().count().saturating_mul(ports.len().max(1)));
        let with_ports = ports.iter().flat_map(|port| {
            let number = port["port"].as_i64().unwrap_or_default();
            addresses().map(move |ip| match ip.contains(':') {
                true => format!("[{ip}]:{number}"),
                false => format!("{ip}:{number}"),
            })
        });
        let alone = addresses().filter(|_| ports.is_empty()).map(str::to_owned);
        let room = SHOWN - shown.len();
        shown.extend(with_ports.chain(alone).take(room));
    }
    match count {
        0 => "<none>".to_owned(),
        n if n > SHOWN => format!("{} + {} more...", shown.join(","), n - SHOWN),
        _ => shown.join(","),
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.is_some_and(|old| old["subsets"] == new["subsets"]) {
        return errors;
    }
    for (i, subset) in new["subsets"].as_array().into_iter().flatten().enumerate() {
        let path = format!("subsets[{i}]");
        let list = |field: &str| subset[field].as_array().map(Vec::as_slice).unwrap_or_default();
        if list("addresses").is_empty() && list("notReadyAddresses").is_empty() {
            errors.push(FieldError::required(path.clone(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (j, address) in list(field).iter().enumerate() {
                let at = format!("{path}.{field}[{j}].ip");
                errors.extend(ip::validate(&*at, &address["ip"]));
                // Asked of what is no address as well.
                let why = match address["ip"].as_str().and_then(ip::parse) {
                    Some(ip) => special_address(ip),
                    None => Some("must be a valid IP address"),
                };
                errors.extend(why.map(|why| FieldError::invalid(at, &address["ip"], why)));
                if let Some(node) = address["nodeName"].as_str() {
                    let path = format!("{path}.{field}[{j}].nodeName");
                    errors.extend(FieldError::invalid_each(path, &address["nodeName"], names::subdomain(node)));
                }
                if let Some(hostname) = address["hostname"].as_str().filter(|h| !h.is_empty()) {
                    let path = format!("{path}.{field}[{j}].hostname");
                    let wrong = names::label(hostname).into_iter();
                    errors.extend(wrong.map(|why| FieldError::invalid(&path, &address["hostname"], why)));
                }
            }
        }
        let ports = list("ports");
        for (j, port) in ports.iter().enumerate() {
            let path = format!("{path}.ports[{j}]");
            match port["name"].as_str() {
                None | Some("") if ports.len() > 1 => errors.push(FieldError::required(format!("{path}.name"), "")),
                None | Some("") => {}
                Some(name) => {
                    let wrong = names::label(name).into_iter();
                    errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.name"), &port["name"], why)));
                }
            }
            errors.extend(port::number(format!("{path}.port"), &port["port"]));
            errors.extend(port::protocol(format!("{path}.protocol"), &port["protocol"]));
            if let Some(protocol) = port["appProtocol"].as_str() {
                let wrong = names::qualified_name(protocol);
                errors.extend(FieldError::invalid_each(format!("{path}.appProtocol"), &port["appProtocol"], wrong));
            }
        }
    }
    errors
}

/// Why an address leads to no other host.
pub fn special_address(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let link_local_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] == 0xff02,
    };
    if ip.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if ip.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_and_ports_are_counted_and_not_written_out() {
        let addresses = |count: u16| -> Vec<Value> {
            (0..count).map(|n| json!({"ip": format!("10.0.{}.{}", n / 256, n % 256)})).collect()
        };
        let of = |addresses: Vec<Value>, ports: Vec<u16>| {
            let ports: Vec<Value> = ports.into_iter().map(|port| json!({"port": port})).collect();
            ready(&json!({"subsets": [{"addresses": addresses, "ports": ports}, {"addresses": [{"ip": "::1"}]}]}))
        };
        assert_eq!(of(addresses(1), vec![80, 81]), "10.0.0.0:80,10.0.0.0:81,::1");
        assert_eq!(of(addresses(2), vec![80, 81]), "10.0.0.0:80,10.0.0.1:80,10.0.0.0:81 + 2 more...");
        assert_eq!(of(addresses(2), vec![]), "10.0.0.0,10.0.0.1,::1");
        // Written out, these took tens of gigabytes.
        let many = of(addresses(30_000), (1..=30_000).collect());
        assert_eq!(many, "10.0.0.0:1,10.0.0.1:1,10.0.0.2:1 + 899999998 more...");
    }

    #[test]
    fn an_endpoint_is_another_host() {
        let endpoints =
            |ip: &str| json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 80, "protocol": "TCP"}]}]});
        assert_eq!(validate(&endpoints("192.0.2.42"), None), []);
        assert_eq!(validate(&endpoints("010.1.2.3"), None), [], "an old field takes zeros");
        assert_eq!(validate(&endpoints("1.2.3"), None).len(), 2);
        for ip in ["127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "::1"] {
            let errors = validate(&endpoints(ip), None);
            assert_eq!((errors.len(), errors[0].path.as_str()), (1, "subsets[0].addresses[0].ip"), "{ip}");
        }
    }

    #[test]
    fn the_cell_shows_three_addresses() {
        let addresses: Vec<Value> = (1..=5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let object = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(ready(&object), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
    }
}
