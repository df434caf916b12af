//! Reasons why a Service may not be stored. Whether an address or port is free is admission's to say.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use crate::kinds::{FieldError, ip, names, port};

/// Why `new` may not be stored in the place of `old`.
pub fn service(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    // Addresses are prepared before anything else is looked at.
    let early = unprepared(new);
    if !early.is_empty() {
        return early;
    }
    let mut errors = ports(spec);
    errors.extend(names::labels("spec.selector", &spec["selector"]));
    errors.extend(of_type(spec));
    errors.extend(affinity(spec));
    if spec["type"] == "ExternalName" {
        errors.extend(cluster_ips(spec));
    }
    if let Some(old) = old {
        errors.extend(stays(spec, &old["spec"]));
    }
    for (i, ip) in spec["externalIPs"].as_array().into_iter().flatten().enumerate() {
        errors.extend(external_ip(&format!("spec.externalIPs[{i}]"), ip));
    }
    errors.extend(not_of_type(spec));
    errors.extend(one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"]));
    errors.extend(one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"]));
    errors.extend(one_of(spec, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]));
    let near = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    errors.extend(one_of(spec, "trafficDistribution", &near));
    if let Some(old) = old.filter(|old| old["status"] != new["status"]) {
        errors.extend(super::status::validate(new, old));
    }
    errors
}

/// Why nothing but its addresses is looked at in a Service; nothing where they can be prepared.
pub fn unprepared(service: &Value) -> Vec<FieldError> {
    families(&service["spec"])
}

/// Why addresses and their families cannot be prepared.
fn families(spec: &Value) -> Vec<FieldError> {
    const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
    const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if spec["type"] == "ExternalName" {
        return Vec::new();
    }
    let (mut errors, rest): (Vec<FieldError>, Vec<FieldError>) =
        cluster_ips(spec).into_iter().partition(|error| error.path == "spec.clusterIPs");
    let mut seen = BTreeSet::new();
    for (i, family) in spec["ipFamilies"].as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.ipFamilies[{i}]");
        let name = family.as_str().unwrap_or_default();
        if !FAMILIES.contains(&name) {
            errors.push(FieldError::not_supported(&*path, family, &FAMILIES));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, family));
        }
    }
    errors.extend(one_of(spec, "ipFamilyPolicy", &POLICIES));
    errors.extend(rest);
    errors
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn one_of(spec: &Value, field: &str, supported: &[&str]) -> Option<FieldError> {
    let known = spec[field].as_str().is_none_or(|value| value.is_empty() || supported.contains(&value));
    (!known).then(|| FieldError::not_supported(format!("spec.{field}"), &spec[field], supported))
}

fn ports(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let list = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() && spec["clusterIP"] != "None" && spec["type"] != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let (mut by_name, mut by_port, mut by_node_port) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, entry) in list.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let protocol = text(entry, "protocol");
        match text(entry, "name") {
            "" if list.len() > 1 => errors.push(FieldError::required(format!("{path}.name"), "")),
            "" => {}
            name => {
                let wrong = names::label(name).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(format!("{path}.name"), &entry["name"], why)));
                if !by_name.insert(name) {
                    errors.push(FieldError::duplicate(format!("{path}.name"), &entry["name"]));
                }
            }
        }
        errors.extend(port::number(format!("{path}.port"), &entry["port"]));
        errors.extend(port::protocol(format!("{path}.protocol"), &entry["protocol"]));
        if !entry["targetPort"].is_null() {
            errors.extend(port::number_or_name(&format!("{path}.targetPort"), &entry["targetPort"]));
        }
        if let Some(protocol) = entry["appProtocol"].as_str() {
            let wrong = names::qualified_name(protocol).into_iter();
            errors.extend(
                wrong.map(|why| FieldError::invalid(format!("{path}.appProtocol"), &entry["appProtocol"], why)),
            );
        }
        if let Some(node_port) = entry["nodePort"].as_i64().filter(|n| *n != 0) {
            if !matches!(text(spec, "type"), "NodePort" | "LoadBalancer") {
                let why = format!("may not be used when `type` is '{}'", text(spec, "type"));
                errors.push(FieldError::forbidden(format!("{path}.nodePort"), &why));
            }
            if !by_node_port.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(format!("{path}.nodePort"), &entry["nodePort"]));
            }
        }
        if !by_port.insert((protocol, entry["port"].as_i64())) {
            errors.push(FieldError::duplicate(path, &json!({"port": entry["port"], "protocol": entry["protocol"]})));
        }
    }
    errors
}

fn of_type(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(spec, "type");
    match kind {
        "NodePort" | "LoadBalancer" if spec["clusterIP"] == "None" => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", &spec["clusterIP"], why));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec[field].is_null() && spec[field] != json!([""]) {
                    let why = "may not be set for ExternalName services";
                    errors.push(FieldError::forbidden(format!("spec.{field}"), why));
                }
            }
            match text(spec, "externalName").trim_end_matches('.') {
                "" => errors.push(FieldError::required("spec.externalName", "")),
                name => {
                    let wrong = names::subdomain(name).into_iter();
                    errors
                        .extend(wrong.map(|why| FieldError::invalid("spec.externalName", &spec["externalName"], why)));
                }
            }
        }
        _ => {}
    }
    errors
}

/// What a Service of its type cannot have, whatever else is wrong with it.
fn not_of_type(spec: &Value) -> Vec<FieldError> {
    const KINDS: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let mut errors = Vec::new();
    let kind = text(spec, "type");
    if !KINDS.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", &spec["type"], &KINDS));
    }
    if kind != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if !spec[field].is_null() {
                let why = "may only be used when `type` is 'LoadBalancer'";
                errors.push(FieldError::forbidden(format!("spec.{field}"), why));
            }
        }
    }
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty()));
    if !external && !text(spec, "externalTrafficPolicy").is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"], why));
    }
    errors
}

fn affinity(spec: &Value) -> Vec<FieldError> {
    const DAY: i64 = 86_400;
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    match text(spec, "sessionAffinity") {
        "None" => Vec::new(),
        "ClientIP" if timeout.as_i64().is_some_and(|n| (1..=DAY).contains(&n)) => Vec::new(),
        "ClientIP" => {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            vec![FieldError::invalid(path, timeout, format!("must be greater than 0 and less than {DAY}"))]
        }
        _ => vec![FieldError::not_supported("spec.sessionAffinity", &spec["sessionAffinity"], &["ClientIP", "None"])],
    }
}

fn cluster_ips(spec: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = disagreement(spec).into_iter().collect();
    let list = spec["clusterIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (i, ip) in list.iter().enumerate() {
        match ip.as_str() {
            Some("None") if i == 0 => {
                if list.len() > 1 {
                    let why = "'None' must be the first and only value";
                    errors.push(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], why));
                }
            }
            Some(ip) if ip.parse::<IpAddr>().is_ok() => {}
            _ => errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), ip, NOT_AN_ADDRESS)),
        }
    }
    errors
}

/// Why `clusterIP` and `clusterIPs` do not belong together.
fn disagreement(spec: &Value) -> Option<FieldError> {
    let first = spec["clusterIPs"].as_array().and_then(|list| list.first())?;
    let why = match text(spec, "clusterIP") {
        "" => "must be empty when `clusterIP` is not specified",
        ip if first != ip => "first value must match `clusterIP`",
        _ => return None,
    };
    Some(FieldError::invalid("spec.clusterIPs", &spec["clusterIPs"], why))
}

const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// The address of a Service that has one does not change.
fn stays(spec: &Value, old: &Value) -> Option<FieldError> {
    let fixed = old["type"] != "ExternalName" && spec["type"] != "ExternalName" && !text(old, "clusterIP").is_empty();
    let changed = fixed && spec["clusterIP"] != old["clusterIP"];
    changed.then(|| FieldError::invalid("spec.clusterIPs[0]", &spec["clusterIPs"], "may not change once set"))
}

fn external_ip(path: &str, value: &Value) -> Option<FieldError> {
    let Some(ip) = value.as_str().and_then(ip::parse) else {
        return Some(FieldError::invalid(path, value, NOT_AN_ADDRESS));
    };
    crate::kinds::endpoints::special_address(ip).map(|why| FieldError::invalid(path, value, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::service::KIND;

    fn words(spec: Value, old: Option<Value>) -> Vec<String> {
        let mut new = json!({"spec": spec});
        let old = old.map(|spec| json!({"spec": spec}));
        (KIND.default)(&mut new);
        (KIND.prepare)(&mut new, old.as_ref());
        service(&new, old.as_ref()).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn clusterips_belong_to_their_first() {
        let ports = json!([{"port": 80}]);
        let told = |ip: Value, list: Value| words(json!({"clusterIP": ip, "clusterIPs": list, "ports": ports}), None);
        assert_eq!(
            told(json!(null), json!(["Valid", "None"])),
            [
                "spec.clusterIPs: Invalid value: [\"Valid\",\"None\"]: must be empty when `clusterIP` is not specified",
                "spec.clusterIPs[0]: Invalid value: \"Valid\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "spec.clusterIPs[1]: Invalid value: \"None\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ]
        );
        assert_eq!(
            told(json!("a"), json!(["None", "IPs"])),
            [
                "spec.clusterIPs: Invalid value: [\"None\",\"IPs\"]: first value must match `clusterIP`",
                "spec.clusterIPs: Invalid value: [\"None\",\"IPs\"]: 'None' must be the first and only value",
                "spec.clusterIPs[1]: Invalid value: \"IPs\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ]
        );
    }

    #[test]
    fn families_are_told_before_anything_else() {
        let told = words(json!({"ports": [], "ipFamilies": ["IPv5", "IPv4"], "ipFamilyPolicy": "x"}), None);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("spec.ipFamilies[0]: Unsupported value: \"IPv5\""));
        assert!(told[1].starts_with("spec.ipFamilyPolicy: Unsupported value: \"x\""));
    }

    #[test]
    fn usual_services_are_valid() {
        for spec in [
            json!({"ports": [{"port": 80}]}),
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "targetPort": "http"}]}),
            json!({"type": "LoadBalancer", "ports": [{"port": 80}]}),
            json!({"clusterIP": "None"}),
            json!({"type": "ExternalName", "externalName": "example.org."}),
            json!({"sessionAffinity": "ClientIP", "ports": [{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53}]}),
        ] {
            assert_eq!(words(spec.clone(), None), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        assert_eq!(words(json!({}), None), ["spec.ports: Required value"]);
        assert_eq!(
            words(json!({"ports": [{"port": 70000}]}), None),
            [
                "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ]
        );
        assert_eq!(
            words(json!({"ports": [{"port": 80}, {"port": 80}]}), None),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1].name: Required value",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ]
        );
        assert_eq!(
            words(json!({"ports": [{"port": 80, "nodePort": 30080}]}), None),
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
        );
        assert_eq!(
            words(json!({"type": "Nodeport", "ports": [{"port": 80}]}), None),
            [
                "spec.type: Unsupported value: \"Nodeport\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""
            ]
        );
        assert_eq!(words(json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}), None).len(), 1);
        assert_eq!(words(json!({"clusterIP": "10.0.0", "ports": [{"port": 80}]}), None).len(), 1);
    }

    #[test]
    fn no_external_address_is_of_the_host_itself_or_of_its_link() {
        for address in ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "fe80::1"] {
            let told = words(json!({"ports": [{"port": 80}], "externalIPs": [address]}), None);
            assert!(
                matches!(told.as_slice(), [one] if one.starts_with("spec.externalIPs[0]: ")),
                "{address}: {told:?}"
            );
        }
        assert!(words(json!({"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}), None).is_empty());
    }

    #[test]
    fn external_addresses_are_told_before_what_another_type_may_have() {
        let spec = json!({"ports": [{"port": 80}], "externalIPs": ["80"], "loadBalancerClass": "http"});
        let told = words(spec, None);
        assert!(told[0].starts_with("spec.externalIPs[0]: Invalid value"), "{told:?}");
        assert!(told[1].starts_with("spec.loadBalancerClass: Forbidden"), "{told:?}");
        assert_eq!(words(Value::Null, None), ["spec.ports: Required value"]);
    }

    #[test]
    fn the_address_of_a_service_does_not_change() {
        let old = json!({"type": "ClusterIP", "clusterIP": "10.96.0.4", "clusterIPs": ["10.96.0.4"], "ports": [{"port": 80}]});
        let new = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]});
        assert_eq!(
            words(new, Some(old.clone())),
            ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.5\"]: may not change once set"]
        );
        assert!(words(json!({"type": "ExternalName", "externalName": "a.b"}), Some(old)).is_empty());
    }
}
