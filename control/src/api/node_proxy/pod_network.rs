//! Connections of the control service into the cluster: to pods through the agents of their nodes, since the control
//! service's own host need not be a node and has no route to pods then; to everything else by its own host.

use std::{io, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;

use super::{
    Agents,
    agent::{AgentAddress, AgentError},
    agent_address, decoded,
    pod_subnets::PodSubnets,
    with_sources,
};
use crate::{
    status::Status,
    store::{Snapshot, Store},
    webhook::{Dial, Network, RemoteConnectError, Stream},
};

/// The network that webhooks and extension API servers are in.
pub struct PodNetwork {
    store: Arc<dyn Store>,
    subnets: PodSubnets,
    agents: Agents,
}

impl PodNetwork {
    /// `store` holds the Nodes, whose pod subnets say where a pod is.
    pub fn new(store: Arc<dyn Store>, agents: Agents) -> Self {
        Self { subnets: PodSubnets::new(store.clone()), store, agents }
    }
}

impl std::fmt::Debug for PodNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodNetwork").finish_non_exhaustive()
    }
}

impl Dial for PodNetwork {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Network.resolve(host, port)
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let Some(node) = self.subnets.node_of(address.ip()) else {
                return Network.connect(address).await;
            };
            let agent = agent_of(&self.store.snapshot(), &node).map_err(io::Error::other)?;
            match self.agents.connect_to_pod(&agent, address).await {
                Ok(Ok(stream)) => Ok(Stream::Node(stream)),
                // An older agent, a kubelet, or one that is being started again: this host may have a route of its own.
                Ok(Err((http::StatusCode::NOT_FOUND, _)))
                | Err(AgentError::Unreachable { .. } | AgentError::TimedOut { .. }) => Network.connect(address).await,
                // The agent tried.
                Ok(Err((http::StatusCode::BAD_GATEWAY | http::StatusCode::GATEWAY_TIMEOUT, words))) => {
                    Err(io::Error::other(RemoteConnectError(words)))
                }
                Ok(Err((_, refusal))) => Err(io::Error::other(refusal)),
                Err(error) => Err(io::Error::other(with_sources(&error))),
            }
        })
    }
}

/// Why the agent of a node cannot be found.
#[derive(Debug, thiserror::Error)]
enum NodeError {
    /// The node was deleted in this moment.
    #[error("node {0:?} not found")]
    NotFound(String),
    /// What the store has is no Node.
    #[error("node {name:?}: {error}")]
    Unreadable { name: String, error: serde_json::Error },
    /// The Node does not say where it is.
    #[error(transparent)]
    NoAddress(Status),
}

/// Where the agent of a node is, going by its Node.
fn agent_of(snapshot: &Snapshot, name: &str) -> Result<AgentAddress, NodeError> {
    let node = snapshot.get("nodes", name).ok_or_else(|| NodeError::NotFound(name.to_owned()))?;
    let node: Node = decoded(&node.json()).map_err(|error| NodeError::Unreadable { name: name.to_owned(), error })?;
    agent_address(name, &node, None).map_err(NodeError::NoAddress)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        encode,
        store::{EventType, Key, Object},
    };

    #[test]
    fn the_agent_of_a_node_is_where_its_node_says() {
        let mut snapshot = Snapshot::default();
        let internal = |address: &serde_json::Value| json!({"type": "InternalIP", "address": address});
        for (name, addresses) in [("b", json!(["192.0.2.11"])), ("c", json!([]))] {
            let addresses: Vec<_> = addresses.as_array().unwrap().iter().map(internal).collect();
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 7000}}}});
            let object = Arc::new(Object::new(encode::unserved(&node), 1, EventType::Added));
            snapshot.load(Key { resource: "nodes".into(), name: name.into() }, object);
        }
        let agent = agent_of(&snapshot, "b").unwrap();
        assert_eq!((&*agent.node, agent.ip, agent.port), ("b", "192.0.2.11".parse().unwrap(), 7000));
        assert!(agent_of(&snapshot, "c").unwrap_err().to_string().contains("InternalIP"));
        assert_eq!(agent_of(&snapshot, "d").unwrap_err().to_string(), "node \"d\" not found");
    }
}
