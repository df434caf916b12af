//! The objects that every cluster has, and whether a stored one matches them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{
            EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace, Service, ServicePort, ServiceSpec,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::Advertised;
use crate::Config;

/// Comparison of a stored object with the desired one. Fields that others added are ignored.
pub trait MatchesDesired {
    /// Whether the object is as `wanted` says.
    fn is_as(&self, wanted: &Self) -> bool;

    /// Whether an update can get there. A ClusterIP, for one, never changes.
    fn can_become(&self, _wanted: &Self) -> bool {
        true
    }
}

/// The namespaces of every cluster.
pub fn namespaces() -> impl Iterator<Item = Namespace> {
    ["default", "kube-system", "kube-public", "kube-node-lease"].into_iter().map(|name| Namespace {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        ..Namespace::default()
    })
}

/// The Service `default/kubernetes`.
pub fn kubernetes_service(config: &Config, advertised: Option<Advertised>) -> Service {
    let target = advertised.map_or(config.bind.port(), |a| a.port);
    let ports = vec![port("https", "TCP", 443, target)];
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    service("default", "kubernetes", &labels, config.kubernetes_service_address(), ports)
}

/// The Service of the cluster's DNS.
pub fn dns_service(config: &Config) -> Service {
    let ports = vec![port("dns", "UDP", 53, 53), port("dns-tcp", "TCP", 53, 53)];
    let labels =
        [("k8s-app", "kube-dns"), ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")];
    service("kube-system", "kube-dns", &labels, config.cluster_dns, ports)
}

/// The Endpoints of `default/kubernetes`: the API at its advertised address.
pub fn kubernetes_endpoints(at: Advertised) -> Endpoints {
    Endpoints {
        // The slice is written beside it, so mirroring would make a second one.
        metadata: meta("default", "kubernetes", &[("endpointslice.kubernetes.io/skip-mirror", "true")]),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(vec![EndpointAddress { ip: at.address.to_string(), ..EndpointAddress::default() }]),
            ports: Some(vec![EndpointPort {
                name: Some("https".into()),
                port: at.port.into(),
                protocol: Some("TCP".into()),
                ..EndpointPort::default()
            }]),
            ..EndpointSubset::default()
        }]),
    }
}

/// The EndpointSlice of `default/kubernetes`.
pub fn kubernetes_slice(at: Advertised) -> EndpointSlice {
    EndpointSlice {
        metadata: meta("default", "kubernetes", &[("kubernetes.io/service-name", "kubernetes")]),
        address_type: "IPv4".into(),
        endpoints: vec![Endpoint {
            addresses: vec![at.address.to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            ..Endpoint::default()
        }],
        ports: Some(vec![SlicePort {
            name: Some("https".into()),
            port: Some(at.port.into()),
            protocol: Some("TCP".into()),
            ..SlicePort::default()
        }]),
    }
}

fn service(
    namespace: &str,
    name: &str,
    labels: &[(&str, &str)],
    cluster_ip: std::net::Ipv4Addr,
    ports: Vec<ServicePort>,
) -> Service {
    Service {
        metadata: meta(namespace, name, labels),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some(cluster_ip.to_string()),
            cluster_ips: Some(vec![cluster_ip.to_string()]),
            ports: Some(ports),
            session_affinity: Some("None".into()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn meta(namespace: &str, name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace.into()),
        labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        ..ObjectMeta::default()
    }
}

fn port(name: &str, protocol: &str, port: u16, target: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: port.into(),
        target_port: Some(IntOrString::Int(target.into())),
        ..ServicePort::default()
    }
}

fn has_labels(stored: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let none = BTreeMap::new();
    let stored = stored.labels.as_ref().unwrap_or(&none);
    wanted.labels.iter().flatten().all(|(k, v)| stored.get(k) == Some(v))
}

impl MatchesDesired for Namespace {
    fn is_as(&self, _: &Self) -> bool {
        true
    }
}

impl MatchesDesired for Service {
    fn is_as(&self, wanted: &Self) -> bool {
        self.can_become(wanted) && port_list(self) == port_list(wanted) && has_labels(&self.metadata, &wanted.metadata)
    }

    fn can_become(&self, wanted: &Self) -> bool {
        let address = |s: &Self| s.spec.as_ref().and_then(|s| s.cluster_ip.clone());
        address(self) == address(wanted)
    }
}

fn port_list(service: &Service) -> Vec<(Option<&str>, i32, Option<&IntOrString>)> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports.map(|p| (p.name.as_deref(), p.port, p.target_port.as_ref())).collect()
}

impl MatchesDesired for Endpoints {
    fn is_as(&self, wanted: &Self) -> bool {
        self.subsets == wanted.subsets && has_labels(&self.metadata, &wanted.metadata)
    }
}

impl MatchesDesired for EndpointSlice {
    fn is_as(&self, wanted: &Self) -> bool {
        let addresses = |s: &Self| s.endpoints.iter().map(|e| e.addresses.clone()).collect::<Vec<_>>();
        let ports = |s: &Self| s.ports.iter().flatten().map(|p| (p.name.clone(), p.port)).collect::<Vec<_>>();
        addresses(self) == addresses(wanted)
            && ports(self) == ports(wanted)
            && has_labels(&self.metadata, &wanted.metadata)
    }

    fn can_become(&self, wanted: &Self) -> bool {
        self.address_type == wanted.address_type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_behind_the_first_address_of_the_service_range() {
        let config = Config::new("/nowhere");
        let at = Advertised { address: [192, 0, 2, 1].into(), port: 6443 };
        let service = kubernetes_service(&config, Some(at));
        assert_eq!(service.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
        assert_eq!(kubernetes_slice(at).endpoints[0].addresses, ["192.0.2.1"]);
    }

    #[test]
    fn what_others_add_is_no_difference_and_another_port_is() {
        let at = Advertised { address: [192, 0, 2, 1].into(), port: 6443 };
        let wanted = kubernetes_slice(at);
        let mut stored = wanted.clone();
        stored.metadata.resource_version = Some("5".into());
        stored.metadata.labels.as_mut().unwrap().insert("added".into(), "yes".into());
        assert!(stored.is_as(&wanted));
        assert!(!stored.is_as(&kubernetes_slice(Advertised { port: 7443, ..at })));
    }
}
