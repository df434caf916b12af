//! NetworkPolicy: which traffic the selected pods may have.

use serde_json::{Value, json};

use super::GROUP;
use crate::kinds::{BuiltIn, Cell, Column, FieldError, cidr, label_selector, port, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    default,
    validate,
    prepare_sent: Some(prepare::count_sent_generation),
    columns: &[Column::name(), Column::text("Pod-Selector", "The pods to which the policy applies."), Column::age()],
    cells: |object| {
        let selector = label_selector::text(&object["spec"]["podSelector"]);
        vec![Cell::name(object), Cell::text(selector), Cell::age(object)]
    },
    schema: "io.k8s.api.networking.v1.NetworkPolicy",
    ..BuiltIn::PLAIN
};

/// Both directions: the list of rules, and in each rule the list of peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    for (rules, _) in DIRECTIONS {
        for rule in spec.get_mut(rules).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in rule.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if port.is_object() && port["protocol"].is_null() {
                    port["protocol"] = json!("TCP");
                }
            }
        }
    }
    if items(spec, "policyTypes").is_empty() {
        let types = if items(spec, "egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec["policyTypes"] = types;
    }
}

fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn validate(new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = label_selector::validate("spec.podSelector", &spec["podSelector"]);
    for (rules, peers) in DIRECTIONS {
        for (i, rule) in items(spec, rules).iter().enumerate() {
            let path = format!("spec.{rules}[{i}]");
            for (i, port) in items(rule, "ports").iter().enumerate() {
                errors.extend(port_errors(&format!("{path}.ports[{i}]"), port));
            }
            for (i, one) in items(rule, peers).iter().enumerate() {
                errors.extend(peer(&format!("{path}.{peers}[{i}]"), one));
            }
        }
    }
    let types = items(spec, "policyTypes");
    if types.len() > 2 {
        let why = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid("spec.policyTypes", &spec["policyTypes"], why));
        return errors;
    }
    for (i, name) in types.iter().enumerate().filter(|(_, name)| *name != "Ingress" && *name != "Egress") {
        errors.push(FieldError::not_supported(format!("spec.policyTypes[{i}]"), name, &["Ingress", "Egress"]));
    }
    errors
}

fn port_errors(path: &str, entry: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (number, end) = (&entry["port"], &entry["endPort"]);
    let end_path = format!("{path}.endPort");
    if entry["protocol"].as_str().is_some_and(|protocol| !port::PROTOCOLS.contains(&protocol)) {
        let path = format!("{path}.protocol");
        errors.push(FieldError::not_supported(path, &entry["protocol"], &["TCP", "UDP", "SCTP"]));
    }
    if number.is_null() {
        if !end.is_null() {
            errors.push(FieldError::invalid(end_path, end, "may not be specified when `port` is not specified"));
        }
        return errors;
    }
    if let Some(name) = number.as_str() {
        if !end.is_null() {
            errors.push(FieldError::invalid(end_path, end, "may not be specified when `port` is non-numeric"));
        }
        errors.extend(port::name(&format!("{path}.port"), name));
        return errors;
    }
    errors.extend(port::number(format!("{path}.port"), number));
    if !end.is_null() {
        if end.as_i64() < number.as_i64() {
            // Kubernetes shows the port here.
            errors.push(FieldError::invalid(&end_path, number, "must be greater than or equal to `port`"));
        }
        errors.extend(port::number(end_path, end));
    }
    errors
}

fn peer(path: &str, peer: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if !peer[field].is_null() {
            selectors += 1;
            errors.extend(label_selector::validate(&format!("{path}.{field}"), &peer[field]));
        }
    }
    let block = &peer["ipBlock"];
    if !block.is_null() {
        errors.extend(ip_block(&format!("{path}.ipBlock"), block));
    }
    match (selectors, block.is_null()) {
        (0, true) => errors.push(FieldError::required(path, "must specify a peer")),
        (1.., false) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
    errors
}

fn ip_block(path: &str, block: &Value) -> Vec<FieldError> {
    if block["cidr"].as_str().is_none_or(str::is_empty) {
        return vec![FieldError::required(format!("{path}.cidr"), "")];
    }
    let range = match cidr::lenient(&format!("{path}.cidr"), &block["cidr"]) {
        Ok(range) => range,
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    for (i, except) in items(block, "except").iter().enumerate() {
        let path = format!("{path}.except[{i}]");
        match cidr::lenient(&path, except) {
            Ok(inner) if cidr::is_strict_subset(&inner, &range) => {}
            Ok(_) => errors.push(FieldError::invalid(path, except, "must be a strict subset of `cidr`")),
            Err(error) => errors.push(error),
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(spec: Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        default(&mut object);
        validate(&object, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn what_is_not_said_is_filled_in() {
        let mut object = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        default(&mut object);
        assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(object["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let mut object = json!({"spec": {"podSelector": {}}});
        default(&mut object);
        assert_eq!(object["spec"]["policyTypes"], json!(["Ingress"]));
    }

    #[test]
    fn a_peer_is_selected_or_a_range() {
        let from = |peer: Value| words(json!({"podSelector": {}, "ingress": [{"from": [peer]}]}));
        assert!(from(json!({"podSelector": {}, "namespaceSelector": {}})).is_empty());
        assert!(from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})).is_empty());
        assert_eq!(from(json!({})), ["spec.ingress[0].from[0]: Required value: must specify a peer"]);
        assert_eq!(
            from(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            ["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"]
        );
        assert_eq!(
            from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "x"]}})),
            [
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of \
                 `cidr`",
                "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. \
                 10.9.8.0/24 or 2001:db8::/64)"
            ]
        );
    }

    #[test]
    fn ports_are_numbers_ranges_or_names() {
        let ports = |port: Value| words(json!({"podSelector": {}, "egress": [{"ports": [port]}]}));
        assert!(ports(json!({"port": 80, "endPort": 90})).is_empty());
        assert!(ports(json!({"port": "http"})).is_empty());
        assert_eq!(
            ports(json!({"port": 80, "endPort": 70})),
            ["spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"]
        );
        assert_eq!(
            ports(json!({"port": "http", "endPort": 90})),
            ["spec.egress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric"]
        );
        assert_eq!(ports(json!({"endPort": 90})).len(), 1);
        assert!(ports(json!({"port": 80, "protocol": "ICMP"}))[0].contains("\"TCP\", \"UDP\", \"SCTP\""));
        assert!(words(json!({"podSelector": {}, "policyTypes": ["In"]}))[0].starts_with("spec.policyTypes[0]: Uns"));
    }
}
