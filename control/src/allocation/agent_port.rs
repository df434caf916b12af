//! The ports of nodes' agents inside the NodePort range. No Service gets one, and no agent one that a Service has.
//!
//! A NodePort answers at the addresses of all nodes, on every node's host: with that of another node's agent, the
//! control service on such a host would have no logs and no exec of it. Kubernetes has this gap; by default it does not
//! show, as agents listen on 10250, outside the range.
//!
//! Many agents have the same port, so that a record of one names no node: it goes with the last of them.

use serde::Deserialize;
use serde_json::Value;

/// Where a Node says that its agent listens; all else of it is passed over unread.
#[derive(Deserialize)]
struct NodeEndpoints {
    status: Option<EndpointsStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointsStatus {
    daemon_endpoints: Option<AgentEndpoints>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgentEndpoints {
    kubelet_endpoint: Option<AgentEndpoint>,
}

#[derive(Deserialize)]
struct AgentEndpoint {
    #[serde(rename = "Port")]
    port: Option<u16>,
}

/// The port that a Node says. None where it says none, or no number that is one.
pub fn of_node(node: &Value) -> Option<u16> {
    port(NodeEndpoints::deserialize(node))
}

/// As [`of_node`], of a stored one.
pub fn of_stored(json: &[u8]) -> Option<u16> {
    port(serde_json::from_slice(json))
}

fn port(node: serde_json::Result<NodeEndpoints>) -> Option<u16> {
    let endpoints = node.ok()?.status?.daemon_endpoints?;
    endpoints.kubelet_endpoint?.port.filter(|port| *port != 0)
}
