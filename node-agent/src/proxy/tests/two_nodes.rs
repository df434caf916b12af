//! What NodePorts need around one node: another node with a pod, and a host outside.

use std::net::Ipv4Addr;

use super::{
    namespace::Namespace,
    node::{BACKEND_PORT, Node, Pod, endpoint, serve},
};
use crate::world::Endpoint;

/// An external IP of the Service.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Address of the host outside.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// Address of the other node.
pub const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Address of the other node's pod.
pub const OTHER_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);

/// This node with a pod, another with one, and a host outside.
pub struct TwoNodes {
    /// The node under test.
    pub node: Node,
    /// Its pod.
    pub pod: Pod,
    /// The host outside.
    pub outside: Namespace,
    _other: Namespace,
}

impl TwoNodes {
    /// `None`, saying why, where the kernel cannot be used.
    pub fn new() -> Option<Self> {
        let mut node = Node::new()?;
        let pod = node.backend();
        let outside = node.neighbour(STRANGER);
        let other = node.neighbour(OTHER_NODE);
        other.ip(&format!("addr add {OTHER_POD}/32 dev lo"));
        node.host.ip(&format!("route add {OTHER_POD}/32 via {OTHER_NODE} dev up1 onlink"));
        serve(&other, OTHER_POD, BACKEND_PORT);
        Some(Self { node, pod, outside, _other: other })
    }

    /// The pod of the node under test, as an endpoint.
    pub fn here(&self) -> Endpoint {
        self.pod.endpoint()
    }
}

/// The pod of the other node, as an endpoint.
pub fn there() -> Endpoint {
    Endpoint { node_name: Some("there".into()), ..endpoint(OTHER_POD) }
}
