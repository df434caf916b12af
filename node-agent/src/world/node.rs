//! A Node as routing and NodePorts need it.

use std::{net::Ipv4Addr, sync::Arc};

use ipnetwork::Ipv4Network;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: Arc<str>,
    /// `InternalIP`; without one no pod of that node can be reached.
    pub internal_ip: Option<Ipv4Addr>,
    /// `ExternalIP`s: NodePorts answer there too.
    pub external_ips: Vec<Ipv4Addr>,
    pub pod_cidr: Option<Ipv4Network>,
    /// `topology.kubernetes.io/zone`
    pub zone: Option<Arc<str>>,
    pub revision: u64,
}
