//! A Service as the datapath and DNS need it: parsed and valid.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::ObjectName;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// How clients reach the Service by its name and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Has ClusterIPs (also for NodePort and LoadBalancer Services).
    ClusterIp(Vec<Ipv4Addr>),
    /// `clusterIP: None`: names only.
    Headless,
    /// A CNAME.
    ExternalName(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where the only port is unnamed.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InternalTrafficPolicy {
    Cluster,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalTrafficPolicy {
    Cluster,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDistribution {
    PreferSameZone,
    PreferSameNode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    pub kind: ServiceKind,
    pub ports: Vec<ServicePort>,
    /// LoadBalancer ingress addresses and `externalIPs`.
    pub external_ips: Vec<Ipv4Addr>,
    /// `sessionAffinity: ClientIP` with its timeout.
    pub session_affinity: Option<Duration>,
    pub internal_traffic_policy: InternalTrafficPolicy,
    pub external_traffic_policy: ExternalTrafficPolicy,
    pub health_check_node_port: Option<u16>,
    pub publish_not_ready_addresses: bool,
    pub traffic_distribution: Option<TrafficDistribution>,
    pub revision: u64,
}
