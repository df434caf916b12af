//! The endpoints of a Service's pods, grouped by address family and ports.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{ObjectReference, Pod, Service},
    discovery::v1::{Endpoint, EndpointConditions},
};

use super::ports::{self, Port};
use crate::objects::pod_state::{is_finished, is_ready, is_terminating, node_name};

/// Endpoints that can share slices: those of one family with the same ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointGroup {
    /// `IPv4` or `IPv6`.
    pub address_type: String,
    /// In a fixed order.
    pub ports: Vec<Port>,
}

/// Whether the Service's endpoints are made from pods.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether the Service has no ClusterIP by its own wish.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods count as ready whatever they report.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false)
}

/// Address families of the Service; IPv4 where it names none.
pub fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".into()] } else { families }
}

/// The endpoints of `service` from the pods it selects, in the order of the pods. `zone_of` knows the zones of nodes.
pub fn desired<'p>(
    service: &Service,
    pods: impl Iterator<Item = &'p Pod> + Clone,
    zone_of: impl Fn(&str) -> Option<String>,
) -> BTreeMap<EndpointGroup, Vec<Endpoint>> {
    let mut groups: BTreeMap<EndpointGroup, Vec<Endpoint>> = BTreeMap::new();
    for address_type in families(service) {
        for pod in pods.clone() {
            if is_finished(pod) {
                continue;
            }
            let addresses = addresses(pod, &address_type);
            if addresses.is_empty() {
                continue;
            }
            let group = EndpointGroup { address_type: address_type.clone(), ports: ports::of_pod(service, pod) };
            groups.entry(group).or_default().push(endpoint(service, pod, addresses, &zone_of));
        }
    }
    groups
}

/// Addresses of a pod in one family.
pub fn addresses(pod: &Pod, family: &str) -> Vec<String> {
    let status = pod.status.as_ref();
    let several = status.and_then(|s| s.pod_ips.as_deref()).unwrap_or_default();
    let mut addresses: Vec<&str> = several.iter().map(|ip| ip.ip.as_str()).collect();
    if addresses.is_empty() {
        addresses.extend(status.and_then(|s| s.pod_ip.as_deref()));
    }
    let of_family = |address: &&str| !address.is_empty() && address.contains(':') == (family == "IPv6");
    addresses.into_iter().filter(of_family).map(str::to_owned).collect()
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    addresses: Vec<String>,
    zone_of: impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    let node = node_name(pod);
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(target(pod)),
        zone: node.and_then(zone_of),
        ..Default::default()
    }
}

/// A pod that names itself within this Service is found under that name.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_deref().unwrap_or_default();
    let same =
        service.metadata.name.as_deref() == Some(subdomain) && service.metadata.namespace == pod.metadata.namespace;
    spec.hostname.clone().filter(|hostname| same && !hostname.is_empty())
}

/// A reference to the pod behind an endpoint.
pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
            .expect("a valid service")
    }

    fn pod(name: &str, ip: &str, extra: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n1",
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True"}]}});
        for (path, value) in extra.as_object().into_iter().flatten() {
            *pod.pointer_mut(path.rsplit_once('/').map_or("", |p| p.0))
                .expect("a path")
                .as_object_mut()
                .expect("an object")
                .entry(path.rsplit('/').next().unwrap_or(""))
                .or_insert(Value::Null) = value.clone();
        }
        serde_json::from_value(pod).expect("a valid pod")
    }

    fn only(groups: BTreeMap<EndpointGroup, Vec<Endpoint>>) -> (EndpointGroup, Vec<Endpoint>) {
        assert_eq!(groups.len(), 1, "{groups:?}");
        groups.into_iter().next().expect("one group")
    }

    #[test]
    fn a_ready_pod_is_an_endpoint_with_its_place_and_its_named_port() {
        let service = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let pods = [pod("a", "10.0.0.1", json!({}))];
        let (group, endpoints) = only(desired(&service, pods.iter(), |_| Some("z1".into())));
        assert_eq!((group.address_type.as_str(), group.ports[0].port), ("IPv4", Some(8080)));
        let endpoint = &endpoints[0];
        assert_eq!(endpoint.addresses, ["10.0.0.1"]);
        assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("n1"), Some("z1")));
        assert_eq!(endpoint.target_ref.as_ref().and_then(|t| t.name.as_deref()), Some("a"));
    }

    #[test]
    fn conditions_tell_not_ready_terminating_and_published_pods_apart() {
        let not_ready = json!({"/status/conditions": [{"type": "Ready", "status": "False"}]});
        let going = json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"});
        let pods = [pod("a", "10.0.0.1", not_ready), pod("b", "10.0.0.2", going)];
        let flags = |service: &Service| -> Vec<(bool, bool, bool)> {
            let (_, endpoints) = only(desired(service, pods.iter(), |_| None));
            let flag = |value: Option<bool>| value == Some(true);
            let conditions = endpoints.iter().filter_map(|e| e.conditions.as_ref());
            conditions.map(|c| (flag(c.ready), flag(c.serving), flag(c.terminating))).collect()
        };
        let plain = service(json!({"ports": [{"port": 80}]}));
        assert_eq!(flags(&plain), [(false, false, false), (false, true, true)]);
        let publishing = service(json!({"ports": [{"port": 80}], "publishNotReadyAddresses": true}));
        assert_eq!(flags(&publishing), [(true, false, false), (true, true, true)]);
    }

    #[test]
    fn finished_pods_and_pods_without_address_are_no_endpoints() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let pods = [pod("a", "10.0.0.1", json!({"/status/phase": "Succeeded"})), pod("b", "", json!({}))];
        assert!(desired(&service, pods.iter(), |_| None).is_empty());
    }

    #[test]
    fn pods_whose_named_port_differs_are_grouped_apart() {
        let service = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let other = json!({"/spec/containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}]});
        let none = json!({"/spec/containers": [{"name": "c"}]});
        let pods = [pod("a", "10.0.0.1", json!({})), pod("b", "10.0.0.2", other), pod("c", "10.0.0.3", none)];
        let groups = desired(&service, pods.iter(), |_| None);
        let ports: Vec<Option<i32>> = groups.keys().map(|g| g.ports.first().and_then(|p| p.port)).collect();
        assert_eq!(ports, [None, Some(8080), Some(9090)]);
    }

    #[test]
    fn a_headless_service_without_ports_has_endpoints_and_hostnames() {
        let service = service(json!({"clusterIP": "None"}));
        let pods = [pod("a", "10.0.0.1", json!({"/spec/hostname": "first", "/spec/subdomain": "web"}))];
        let (group, endpoints) = only(desired(&service, pods.iter(), |_| None));
        assert!(group.ports.is_empty() && is_headless(&service));
        assert_eq!(endpoints[0].hostname.as_deref(), Some("first"));
    }

    #[test]
    fn external_names_and_services_without_selector_are_not_ours() {
        assert!(selector(&service(json!({"type": "ExternalName", "selector": {"a": "b"}}))).is_none());
        assert!(selector(&service(json!({"selector": {}}))).is_none());
        assert!(selector(&service(json!({"selector": {"a": "b"}}))).is_some());
    }
}
