//! A Node as routing, NodePorts and the admission of pods need it.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use fairlead_client::placement::NO_EXECUTE;
use ipnetwork::Ipv4Network;
use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};

use super::revision_of;

/// One node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The Node object's; pods and endpoints name their node by it.
    pub name: Arc<str>,
    /// `InternalIP`; without one no pod of that node can be reached.
    pub internal_ip: Option<Ipv4Addr>,
    /// `ExternalIP`s: NodePorts answer there too.
    pub external_ips: Vec<Ipv4Addr>,
    /// Where the node's pods have their addresses; `None` until the control plane has assigned it.
    pub pod_cidr: Option<Ipv4Network>,
    /// Where its agent listens for the control service: `daemonEndpoints.kubeletEndpoint`.
    #[serde(default)]
    pub agent_port: Option<u16>,
    /// `topology.kubernetes.io/zone`
    pub zone: Option<Arc<str>>,
    /// Pods select nodes by them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints that keep also those pods away that are bound to the node already.
    #[serde(default)]
    pub no_execute_taints: Vec<core::Taint>,
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
        let endpoints = object.status.as_ref().and_then(|status| status.daemon_endpoints.as_ref());
        let agent = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref());
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let taints = object.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        Self {
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            internal_ip: of_type("InternalIP").next(),
            external_ips: of_type("ExternalIP").collect(),
            pod_cidr: object.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).and_then(|cidr| cidr.parse().ok()),
            agent_port: agent.and_then(|agent| u16::try_from(agent.port).ok()).filter(|port| *port != 0),
            zone: labels.get("topology.kubernetes.io/zone").map(|zone| zone.as_str().into()),
            no_execute_taints: taints.filter(|taint| taint.effect == NO_EXECUTE).cloned().collect(),
            labels,
            revision: revision_of(&object.metadata),
        }
    }
}
