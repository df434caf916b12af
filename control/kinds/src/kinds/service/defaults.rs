//! What Kubernetes fills in for a Service, without knowing which addresses are free.

use serde_json::{Value, json};

use crate::kinds::pod::defaults::{fill, fill_text};

/// Three hours: how long a client stays with its pod under `ClientIP` affinity.
const AFFINITY_TIMEOUT_SECONDS: i64 = 10_800;

/// Fills in defaults of a Service, also of one without a spec.
pub fn service(object: &mut Value) {
    fill(object, "spec", || json!({}));
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    fill_text(spec, "type", "ClusterIP");
    fill_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": AFFINITY_TIMEOUT_SECONDS}});
        }
    } else if let Some(spec) = spec.as_object_mut().filter(|s| s["sessionAffinity"] == "None") {
        spec.shift_remove("sessionAffinityConfig");
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if !port.is_object() {
            continue;
        }
        fill_text(port, "protocol", "TCP");
        let target = &port["targetPort"];
        if target.is_null() || target == "" || target.as_i64() == Some(0) {
            port["targetPort"] = port["port"].clone();
        }
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let external_ips = spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external_ips) {
        fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        fill_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", || json!(true));
    }
}

/// Fills in the families of a Service's addresses. They are chosen with the addresses: nobody owns them.
pub fn families(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if spec["type"] != "ExternalName" {
        let v6 = spec["clusterIP"].as_str().is_some_and(|ip| ip.contains(':'));
        fill(spec, "ipFamilies", || json!([if v6 { "IPv6" } else { "IPv4" }]));
        fill_text(spec, "ipFamilyPolicy", "SingleStack");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_gets_what_kubernetes_gives_it() {
        let mut object =
            json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}});
        service(&mut object);
        families(&mut object);
        let expected = json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [
                {"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]});
        assert_eq!(object["spec"], expected);
    }

    #[test]
    fn a_service_without_a_spec_has_one() {
        for mut object in [json!({}), json!({"spec": null})] {
            service(&mut object);
            assert_eq!(object["spec"]["type"], "ClusterIP");
        }
    }

    #[test]
    fn affinity_by_client_lasts_three_hours_unless_said() {
        let mut object = json!({"spec": {"type": "NodePort", "sessionAffinity": "ClientIP"}});
        service(&mut object);
        assert_eq!(object["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
        assert_eq!(object["spec"]["externalTrafficPolicy"], "Cluster");
    }

    #[test]
    fn an_external_name_has_no_address_families() {
        let mut object = json!({"spec": {"type": "ExternalName", "externalName": "example.org"}});
        service(&mut object);
        families(&mut object);
        assert!(object["spec"]["ipFamilies"].is_null());
    }
}
