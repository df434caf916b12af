//! What an update of a Service may leave out, and what it takes away by changing the type.
//!
//! A manifest rarely names the ClusterIP and NodePorts it was given, so `replace` would lose them; and a change of type
//! leaves fields behind that the new type may not have. Source: `patchAllocatedValues` and `dropTypeDependentFields` of
//! Kubernetes.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

/// Completes `new` from `old`, or for a create (`old` is none) brings `clusterIP` and `clusterIPs` together.
pub fn complete(new: &mut Value, old: Option<&Value>) {
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let nothing = Value::Null;
    let old_spec = old.map_or(&nothing, |old| &old["spec"]);
    if old.is_some() {
        keep_cluster_ip(spec, old_spec);
        keep_node_ports(spec, old_spec);
    }
    agree_on_cluster_ip(spec, old_spec);
    if old.is_some() {
        drop_what_the_type_has_not(spec, old_spec);
        if spec.get("type") != Some(&json!("LoadBalancer")) {
            new["status"]["loadBalancer"] = json!({});
        }
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

fn needs_node_port(spec: &Value) -> bool {
    matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

fn is_unset(spec: &Map<String, Value>, field: &str) -> bool {
    spec.get(field).is_none_or(|v| v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty))
}

fn keep_cluster_ip(spec: &mut Map<String, Value>, old: &Value) {
    if !needs_cluster_ip(&Value::Object(spec.clone())) || !needs_cluster_ip(old) {
        return;
    }
    if is_unset(spec, "clusterIP") && is_unset(spec, "clusterIPs") {
        for field in ["clusterIP", "clusterIPs"] {
            if !old[field].is_null() {
                spec.insert(field.into(), old[field].clone());
            }
        }
    }
}

/// A port without a NodePort keeps the one that the same port and protocol had.
fn keep_node_ports(spec: &mut Map<String, Value>, old: &Value) {
    if !needs_node_port(&Value::Object(spec.clone())) || !needs_node_port(old) {
        return;
    }
    let number = |port: &Value| port["nodePort"].as_i64().unwrap_or_default();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    let Some(ports) = ports else { return };
    let mut taken: BTreeSet<i64> = ports.iter().map(number).filter(|n| *n != 0).collect();
    let mut before: HashMap<[&Value; 2], &Value> = HashMap::new();
    for port in old["ports"].as_array().into_iter().flatten().filter(|port| number(port) != 0) {
        before.entry([&port["port"], &port["protocol"]]).or_insert(port);
    }
    for port in ports.iter_mut().filter(|p| number(p) == 0 && p.is_object()) {
        if let Some(same) = before.get(&[&port["port"], &port["protocol"]])
            && taken.insert(number(same))
        {
            port["nodePort"] = same["nodePort"].clone();
        }
    }
}

/// Who says `clusterIP` says `clusterIPs`, and not the other way round: see Kubernetes' `NormalizeClusterIPs`.
fn agree_on_cluster_ip(spec: &mut Map<String, Value>, old: &Value) {
    let one = spec.get("clusterIP").cloned().unwrap_or_default();
    let list = spec.get("clusterIPs").and_then(Value::as_array).cloned().unwrap_or_default();
    let changed = |field: &str, now: &Value| !old.is_null() && old[field] != *now;
    if is_unset(spec, "clusterIP") && !list.is_empty() && !changed("clusterIPs", &json!(list)) && !old.is_null() {
        // The single address was cleared on purpose: the list goes with it.
        spec.shift_remove("clusterIPs");
    } else if !is_unset(spec, "clusterIP")
        && (list.is_empty()
            || (changed("clusterIP", &one) && list.first() != Some(&one) && !changed("clusterIPs", &json!(list))))
    {
        spec.insert("clusterIPs".into(), json!([one]));
    }
}

fn drop_what_the_type_has_not(spec: &mut Map<String, Value>, old: &Value) {
    let new = Value::Object(spec.clone());
    let mut drop = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(&new) {
        drop.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if old["type"] == "LoadBalancer" && new["type"] != "LoadBalancer" {
        drop.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"]);
    }
    let external = |s: &Value| needs_node_port(s) || s["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    if external(old) && !external(&new) {
        drop.push("externalTrafficPolicy");
    }
    for field in drop {
        // What was changed at the same time is no remnant: validation will say that it does not belong here.
        if spec.get(field) == old.get(field) {
            spec.shift_remove(field);
        }
    }
    let node_ports = |s: &Value| -> BTreeSet<i64> {
        s["ports"].as_array().into_iter().flatten().filter_map(|p| p["nodePort"].as_i64()).filter(|n| *n != 0).collect()
    };
    if needs_node_port(old) && !needs_node_port(&new) && node_ports(&new).is_subset(&node_ports(old)) {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.shift_remove("nodePort");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: &str) -> Value {
        json!({"spec": {"type": kind, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}})
    }

    #[test]
    fn a_manifest_without_addresses_keeps_those_that_were_given() {
        let old = stored("NodePort");
        let mut new = json!({"spec": {"type": "NodePort", "ports": [
            {"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        complete(&mut new, Some(&old));
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(new["spec"]["ports"][1]["nodePort"].is_null());
    }

    #[test]
    fn a_change_of_type_drops_what_the_new_type_has_not() {
        let old = stored("NodePort");
        let mut new = stored("ClusterIP");
        complete(&mut new, Some(&old));
        assert!(new["spec"]["ports"][0]["nodePort"].is_null());
        assert!(new["spec"]["externalTrafficPolicy"].is_null());
        let mut new = stored("ExternalName");
        complete(&mut new, Some(&old));
        assert!(new["spec"]["clusterIP"].is_null() && new["spec"]["clusterIPs"].is_null());
    }

    #[test]
    fn one_address_and_the_list_of_addresses_agree() {
        let mut new = json!({"spec": {"clusterIP": "None"}});
        complete(&mut new, None);
        assert_eq!(new["spec"]["clusterIPs"], json!(["None"]));
        let mut new = json!({"spec": {"clusterIPs": ["10.96.0.9"]}});
        complete(&mut new, None);
        assert_eq!(new["spec"]["clusterIP"], Value::Null, "validation refuses it");
        let mut new = stored("ClusterIP");
        new["spec"]["clusterIP"] = "10.96.0.8".into();
        complete(&mut new, Some(&stored("ClusterIP")));
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.8"]));
    }
}
