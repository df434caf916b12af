//! What the status of a Service may say: the addresses at which a load balancer serves it.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::kinds::{FieldError, ip, names, pod::defaults::fill};

const IP_MODES: [&str; 2] = ["Proxy", "VIP"];

fn ingress(service: &Value) -> &[Value] {
    service["status"]["loadBalancer"]["ingress"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// An address of a load balancer is one that traffic keeps on its way to the node.
pub fn default(service: &mut Value) {
    if service["spec"]["type"] != "LoadBalancer" {
        return;
    }
    let entries = service.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if entry["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
            fill(entry, "ipMode", || json!("VIP"));
        }
    }
}

/// Why the status of `new` may not stand in the place of that of `old`.
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    const PATH: &str = "status.loadBalancer.ingress";
    let entries = ingress(new);
    if new["spec"]["type"] != "LoadBalancer" {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        return (!entries.is_empty()).then(|| FieldError::forbidden(PATH, why)).into_iter().collect();
    }
    let mut errors = Vec::new();
    let before: HashSet<&Value> = ingress(old).iter().map(|before| &before["ip"]).collect();
    for (i, entry) in entries.iter().enumerate() {
        let at = |field: &str| format!("{PATH}[{i}].{field}");
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let (address, hostname) = (text("ip"), text("hostname"));
        if !address.is_empty() && !before.contains(&entry["ip"]) {
            errors.extend(ip::validate(at("ip"), &entry["ip"]));
        }
        match entry["ipMode"].as_str() {
            None if address.is_empty() => {}
            None => errors.push(FieldError::required(at("ipMode"), "must be specified when `ip` is set")),
            Some(_) if address.is_empty() => {
                errors.push(FieldError::forbidden(at("ipMode"), "may not be specified when `ip` is not set"));
            }
            Some(_) => errors.extend(FieldError::unsupported(at("ipMode"), &entry["ipMode"], &IP_MODES)),
        }
        if !hostname.is_empty() {
            errors.extend(FieldError::each(at("hostname"), &entry["hostname"], names::subdomain));
            if ip::parse(hostname).is_some() {
                let why = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(at("hostname"), &entry["hostname"], why));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(kind: &str, ingress: Value) -> Value {
        let mut service = json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": ingress}}});
        default(&mut service);
        service
    }

    fn words(kind: &str, ingress: Value) -> Vec<String> {
        let errors = validate(&service(kind, ingress), &json!({}));
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn only_a_load_balancer_has_addresses_in_its_status() {
        let why = "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'";
        assert_eq!(words("NodePort", json!([{"ip": "192.0.2.1"}])), [why]);
        assert_eq!(
            words("LoadBalancer", json!([{"ip": "192.0.2.1"}, {"hostname": "a.example.com"}])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn addresses_and_names_of_a_load_balancer_are_checked() {
        let told = words(
            "LoadBalancer",
            json!([{"ip": "x"}, {"ipMode": "VIP"}, {"ip": "192.0.2.1", "ipMode": "Other"}, {"hostname": "192.0.2.1"}]),
        );
        assert_eq!(
            told,
            [
                "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
                "status.loadBalancer.ingress[1].ipMode: Forbidden: may not be specified when `ip` is not set",
                "status.loadBalancer.ingress[2].ipMode: Unsupported value: \"Other\": supported values: \"Proxy\", \"VIP\"",
                "status.loadBalancer.ingress[3].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address",
            ]
        );
        let old = service("LoadBalancer", json!([{"ip": "x"}]));
        assert_eq!(validate(&old, &old), []);
    }
}
