//! A Service as the datapath and DNS need it: parsed and valid.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};

use super::{ObjectName, revision_of};

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Served by both datapaths.
    Tcp,
    /// Served by both datapaths.
    Udp,
    /// Known to the API, and served by no datapath.
    Sctp,
}

/// How clients reach the Service by its name and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Has ClusterIPs (also for NodePort and LoadBalancer Services).
    ClusterIp(Vec<Ipv4Addr>),
    /// `clusterIP: None`: names only.
    Headless,
    /// A CNAME.
    ExternalName(Arc<str>),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Empty where the only port is unnamed.
    pub name: Arc<str>,
    /// Together with the number unique in its Service.
    pub protocol: Protocol,
    /// Where the Service's addresses answer; endpoints have a port of their own, in their slices.
    pub port: u16,
    /// Where every node answers (NodePort and LoadBalancer Services).
    pub node_port: Option<u16>,
}

/// Which endpoints clients on nodes and in pods may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InternalTrafficPolicy {
    /// Endpoints on every node.
    Cluster,
    /// Endpoints on the client's node alone.
    Local,
}

/// Which endpoints clients outside the cluster may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalTrafficPolicy {
    /// Endpoints on every node; the client's address may be replaced on the way.
    Cluster,
    /// Endpoints on the node that the packet reached; it keeps the client's address.
    Local,
}

/// Which endpoints are preferred; others are used where those are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficDistribution {
    /// Endpoints in the client's zone (KEP 4444).
    PreferSameZone,
    /// Endpoints on the client's node (KEP 3015).
    PreferSameNode,
}

/// One Service. Fields without a doc are those of its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Slices name their Service by it, and DNS its records.
    pub name: ObjectName,
    /// Decides which addresses and DNS records it has.
    pub kind: ServiceKind,
    /// None for a headless Service without ports.
    pub ports: Vec<ServicePort>,
    /// LoadBalancer ingress addresses and `externalIPs`.
    pub external_ips: Vec<Ipv4Addr>,
    /// `sessionAffinity: ClientIP` with its timeout.
    pub session_affinity: Option<Duration>,
    /// `spec.internalTrafficPolicy`, `Cluster` by default.
    pub internal_traffic_policy: InternalTrafficPolicy,
    /// `spec.externalTrafficPolicy`, `Cluster` by default.
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// Where load balancers ask whether this node has an endpoint (external policy `Local`).
    pub health_check_node_port: Option<u16>,
    /// Endpoints get DNS records before they are ready.
    pub publish_not_ready_addresses: bool,
    /// `spec.trafficDistribution`; no preference where absent.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Its resourceVersion.
    pub revision: u64,
}

impl Service {
    /// A Service with the API's defaults for all else, of revision 0.
    pub fn new(name: ObjectName, kind: ServiceKind, ports: Vec<ServicePort>) -> Self {
        Self {
            name,
            kind,
            ports,
            external_ips: Vec::new(),
            session_affinity: None,
            internal_traffic_policy: InternalTrafficPolicy::Cluster,
            external_traffic_policy: ExternalTrafficPolicy::Cluster,
            health_check_node_port: None,
            publish_not_ready_addresses: false,
            traffic_distribution: None,
            revision: 0,
        }
    }
}

impl TryFrom<&core::Service> for Service {
    type Error = InvalidService;

    fn try_from(object: &core::Service) -> Result<Self, InvalidService> {
        let name = ObjectName::of(&object.metadata);
        let spec = object.spec.as_ref().ok_or(InvalidService::Missing { field: "spec" })?;
        let is_external = spec.type_.as_deref() == Some("ExternalName");
        let kind = if is_external {
            let host = spec.external_name.as_deref().ok_or(InvalidService::Missing { field: "spec.externalName" })?;
            ServiceKind::ExternalName(host.trim_end_matches('.').into())
        } else {
            cluster_ips(spec)?
        };
        let exposes_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
        let ports = spec
            .ports
            .iter()
            .flatten()
            .map(|port| ServicePort::parse(port, exposes_node_ports))
            .collect::<Result<_, _>>()?;
        let ingress = object.status.iter().flat_map(|status| status.load_balancer.iter());
        let ingress = ingress.flat_map(|balancer| balancer.ingress.iter().flatten());
        // `ipMode: Proxy` asks that clients inside go through the load balancer itself.
        let ingress =
            ingress.filter(|point| point.ip_mode.as_deref() != Some("Proxy")).filter_map(|point| point.ip.as_ref());
        let external_ips = spec.external_ips.iter().flatten().chain(ingress);
        Ok(Self {
            name,
            kind,
            ports,
            external_ips: external_ips.filter_map(|ip| ip.parse().ok()).collect(),
            session_affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| affinity_timeout(spec)),
            internal_traffic_policy: match spec.internal_traffic_policy.as_deref() {
                Some("Local") => InternalTrafficPolicy::Local,
                _ => InternalTrafficPolicy::Cluster,
            },
            external_traffic_policy: match spec.external_traffic_policy.as_deref() {
                Some("Local") => ExternalTrafficPolicy::Local,
                _ => ExternalTrafficPolicy::Cluster,
            },
            health_check_node_port: spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()),
            publish_not_ready_addresses: spec.publish_not_ready_addresses.unwrap_or(false),
            traffic_distribution: match spec.traffic_distribution.as_deref() {
                Some("PreferClose" | "PreferSameZone") => Some(TrafficDistribution::PreferSameZone),
                Some("PreferSameNode") => Some(TrafficDistribution::PreferSameNode),
                _ => None,
            },
            revision: revision_of(&object.metadata),
        })
    }
}

/// ClusterIPs of the IPv4 family, or `Headless`. A Service without any address yet is an error: it is not usable yet.
fn cluster_ips(spec: &core::ServiceSpec) -> Result<ServiceKind, InvalidService> {
    let first = spec.cluster_ip.as_deref().unwrap_or_default();
    if first == "None" {
        return Ok(ServiceKind::Headless);
    }
    let all = spec.cluster_ips.iter().flatten().map(String::as_str);
    let mut addresses: Vec<Ipv4Addr> = all.chain([first]).filter_map(|ip| ip.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(InvalidService::Missing { field: "spec.clusterIP" });
    }
    Ok(ServiceKind::ClusterIp(addresses))
}

/// `sessionAffinityConfig.clientIP.timeoutSeconds`, three hours by default as in the API.
fn affinity_timeout(spec: &core::ServiceSpec) -> Duration {
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client_ip| client_ip.timeout_seconds).and_then(|s| u64::try_from(s).ok());
    Duration::from_secs(seconds.unwrap_or(10800))
}

impl ServicePort {
    fn parse(port: &core::ServicePort, exposes_node_ports: bool) -> Result<Self, InvalidService> {
        let number = |field, value: i32| {
            u16::try_from(value).ok().filter(|p| *p != 0).ok_or(InvalidService::Port { field, value })
        };
        let node_port = port.node_port.filter(|p| exposes_node_ports && *p != 0);
        Ok(Self {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: number("spec.ports.port", port.port)?,
            node_port: node_port.map(|p| number("spec.ports.nodePort", p)).transpose()?,
        })
    }
}

impl Protocol {
    /// Kubernetes' names; absent is TCP.
    pub(super) fn parse(name: Option<&str>) -> Result<Self, InvalidService> {
        match name {
            None | Some("TCP") => Ok(Self::Tcp),
            Some("UDP") => Ok(Self::Udp),
            Some("SCTP") => Ok(Self::Sctp),
            Some(other) => Err(InvalidService::Protocol { value: other.to_owned() }),
        }
    }
}

/// Why a Service of the API cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidService {
    /// A field that the API always fills in.
    #[error("{field} is missing")]
    Missing {
        /// Path within the Service.
        field: &'static str,
    },
    /// A number that no packet can carry.
    #[error("{field} is {value}, not a port number from 1 to 65535")]
    Port {
        /// Path within the Service.
        field: &'static str,
        /// As the Service has it.
        value: i32,
    },
    /// Another protocol than the API knows.
    #[error("protocol {value:?} is none of TCP, UDP, SCTP")]
    Protocol {
        /// As the Service has it.
        value: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: serde_json::Value) -> Result<Service, InvalidService> {
        let object = serde_json::json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec});
        Service::try_from(&serde_json::from_value::<core::Service>(object).expect("a Service"))
    }

    #[test]
    fn a_node_port_counts_only_where_the_type_exposes_it() {
        let ports = serde_json::json!([{"port": 80, "nodePort": 30080}]);
        let open =
            parse(serde_json::json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports})).expect("valid");
        assert_eq!(open.ports[0].node_port, Some(30080));
        let inner =
            parse(serde_json::json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": ports})).expect("valid");
        assert_eq!(inner.ports[0].node_port, None);
    }

    #[test]
    fn a_service_is_headless_external_or_has_addresses() {
        let headless = parse(serde_json::json!({"clusterIP": "None"})).expect("valid");
        assert_eq!(headless.kind, ServiceKind::Headless);
        let external =
            parse(serde_json::json!({"type": "ExternalName", "externalName": "db.example.org."})).expect("valid");
        assert_eq!(external.kind, ServiceKind::ExternalName("db.example.org".into()));
        assert_eq!(parse(serde_json::json!({})), Err(InvalidService::Missing { field: "spec.clusterIP" }));
    }

    #[test]
    fn client_ip_affinity_lasts_three_hours_unless_told() {
        let spec = serde_json::json!({"clusterIP": "10.96.0.9", "sessionAffinity": "ClientIP"});
        assert_eq!(parse(spec).expect("valid").session_affinity, Some(Duration::from_secs(10800)));
    }
}
