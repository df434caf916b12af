//! Services, Endpoints, Ingresses and network policies.

use serde_json::Value;

use super::addresses;
use crate::kinds::reading::{as_text, is_empty, items, text};

/// Of a Service: fields that its type makes meaningless, and old addresses.
pub fn service(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let kind = text(spec, "type");
    let mut all = Vec::new();
    if service["metadata"]["annotations"].get("service.kubernetes.io/topology-aware-hints").is_some() {
        all.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
            service.kubernetes.io/topology-mode instead"
                .to_owned(),
        );
    }
    let cluster_ip = text(spec, "clusterIP");
    if !matches!(cluster_ip, "" | "None") {
        for (i, ip) in items(&spec["clusterIPs"]).map(as_text).enumerate() {
            all.extend(addresses::ip(&format!("spec.clusterIPs[{i}]"), ip));
        }
    }
    let (ips, balancer) = (&spec["externalIPs"], text(spec, "loadBalancerIP"));
    if kind == "ClusterIP" && cluster_ip == "None" {
        for (field, set) in [
            ("loadBalancerIP", !balancer.is_empty()),
            ("externalIPs", !is_empty(ips)),
            ("SessionAffinity", text(spec, "sessionAffinity") != "None"),
        ] {
            all.extend(set.then(|| format!("spec.{field} is ignored for headless services")));
        }
    }
    for (i, ip) in items(ips).map(as_text).enumerate() {
        all.extend(addresses::ip(&format!("spec.externalIPs[{i}]"), ip));
    }
    all.extend(addresses::ip("spec.loadBalancerIP", balancer));
    for (i, range) in items(&spec["loadBalancerSourceRanges"]).map(as_text).enumerate() {
        all.extend(addresses::cidr(&format!("spec.loadBalancerSourceRanges[{i}]"), range));
    }
    let external = kind == "ExternalName";
    if external && !is_empty(ips) {
        all.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external && !text(spec, "externalName").is_empty() {
        all.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        all.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    all
}

/// Of Endpoints that no controller keeps.
pub fn endpoints(endpoints: &Value) -> Vec<String> {
    let manager = text(&endpoints["metadata"]["labels"], "endpoints.kubernetes.io/managed-by");
    let mut all = Vec::new();
    for (s, subset) in items(&endpoints["subsets"]).enumerate().filter(|_| manager != "endpoint-controller") {
        for list in ["addresses", "notReadyAddresses"] {
            for (i, address) in items(&subset[list]).enumerate() {
                all.extend(addresses::ip(&format!("subsets[{s}].{list}[{i}].ip"), text(address, "ip")));
            }
        }
    }
    all
}

/// Of an Ingress that names its class by an annotation.
pub fn ingress(ingress: &Value) -> Vec<String> {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let annotated = ingress["metadata"]["annotations"].get(CLASS).is_some_and(|class| !class.is_null());
    let warned = annotated && ingress["spec"]["ingressClassName"].is_null();
    let warning = || format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
    warned.then(warning).into_iter().collect()
}

/// Of the ranges of a NetworkPolicy.
pub fn policy(spec: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (r, rule) in items(&spec[direction]).enumerate() {
            for (p, peer) in items(&rule[peers]).enumerate().filter(|(_, peer)| !peer["ipBlock"].is_null()) {
                let path = format!("spec.{direction}[{r}].{peers}[{p}].ipBlock");
                all.extend(addresses::cidr(&format!("{path}.cidr"), text(&peer["ipBlock"], "cidr")));
                for (e, range) in items(&peer["ipBlock"]["except"]).map(as_text).enumerate() {
                    all.extend(addresses::cidr(&format!("{path}.except[{e}]"), range));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_told_what_its_type_ignores() {
        let headless = json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP",
            "externalIPs": ["010.0.0.1"], "externalName": "x"}});
        assert_eq!(
            service(&headless),
            [
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
                "spec.externalIPs[0]: non-standard IP address \"010.0.0.1\" will be considered invalid in a future \
                Kubernetes release: use \"10.0.0.1\"",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ]
        );
        let plain = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "sessionAffinity": "None"}});
        assert!(service(&plain).is_empty());
        let close =
            json!({"spec": {"type": "ExternalName", "externalIPs": ["1.1.1.1"], "trafficDistribution": "PreferClose"}});
        assert_eq!(service(&close).len(), 2);
    }

    #[test]
    fn old_forms_of_networks_are_told() {
        let old = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {}});
        assert_eq!(
            ingress(&old),
            ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
        );
        let block = json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8", "except": ["10.0.0.0/16"]}}]}]});
        assert!(policy(&block)[0].starts_with("spec.egress[0].to[0].ipBlock.cidr: CIDR value"));
        let subsets = json!({"subsets": [{"addresses": [{"ip": "01.1.1.1"}]}]});
        assert!(endpoints(&subsets)[0].starts_with("subsets[0].addresses[0].ip: non-standard IP address"));
    }
}
