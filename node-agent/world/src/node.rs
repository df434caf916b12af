//! A Node as routing and NodePorts need it.

use std::{net::Ipv4Addr, sync::Arc};

use ipnetwork::Ipv4Network;
use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};

use super::revision_of;

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The Node object's; pods and endpoints name their node by it.
    pub name: Arc<str>,
    /// `InternalIP`; without one no pod of that node can be reached.
    pub internal_ip: Option<Ipv4Addr>,
    /// `ExternalIP`s: NodePorts answer there too.
    pub external_ips: Vec<Ipv4Addr>,
    /// Where the node's pods have their addresses; `None` until the control plane has assigned it.
    pub pod_cidr: Option<Ipv4Network>,
    /// `topology.kubernetes.io/zone`
    pub zone: Option<Arc<str>>,
    /// The Node's resourceVersion when one of these facts last changed: heartbeats leave it alone.
    pub revision: u64,
}

impl Node {
    /// Whether `other` means the same to routing and the datapath. Heartbeats change nothing else than the revision.
    pub fn same_but_for_revision(&self, other: &Self) -> bool {
        Self { revision: 0, ..self.clone() } == Self { revision: 0, ..other.clone() }
    }
}

impl From<&core::Node> for Node {
    fn from(object: &core::Node) -> Self {
        let status = object.status.iter();
        let addresses: Vec<_> = status.flat_map(|status| status.addresses.iter().flatten()).collect();
        let of_type = |wanted: &'static str| {
            addresses.iter().filter(move |a| a.type_ == wanted).filter_map(|a| a.address.parse::<Ipv4Addr>().ok())
        };
        let labels = object.metadata.labels.as_ref();
        Self {
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            internal_ip: of_type("InternalIP").next(),
            external_ips: of_type("ExternalIP").collect(),
            pod_cidr: object.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).and_then(|cidr| cidr.parse().ok()),
            zone: labels.and_then(|labels| labels.get("topology.kubernetes.io/zone")).map(|zone| zone.as_str().into()),
            revision: revision_of(&object.metadata),
        }
    }
}
