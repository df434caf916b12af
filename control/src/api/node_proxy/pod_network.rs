//! Connections of the control service into the cluster: to pods through the agents of their nodes, since the control
//! service's own host need not be a node and has no route to pods then; to everything else by its own host.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;

use super::{
    Agents,
    agent::{AgentAddress, AgentError},
    agent_address, decoded, with_sources,
};
use crate::{
    store::{Snapshot, Store},
    webhook::{Dial, Network, Stream},
};

/// The network that webhooks and extension API servers are in.
pub struct PodNetwork {
    store: Arc<dyn Store>,
    agents: Agents,
}

impl PodNetwork {
    /// `store` holds the Nodes, whose pod subnets say where a pod is.
    pub fn new(store: Arc<dyn Store>, agents: Agents) -> Self {
        Self { store, agents }
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
            let node = node_of_pod(&self.store.snapshot(), address.ip());
            let Some(agent) = node.transpose().map_err(io::Error::other)? else {
                return Network.connect(address).await;
            };
            match self.agents.connect_to_pod(&agent, address).await {
                Ok(Ok(stream)) => Ok(Stream::Node(stream)),
                // An older agent, a kubelet, or one that is being started again: this host may have a route of its own.
                Ok(Err((http::StatusCode::NOT_FOUND, _)))
                | Err(AgentError::Unreachable { .. } | AgentError::TimedOut { .. }) => Network.connect(address).await,
                Ok(Err((_, refusal))) => Err(io::Error::other(refusal)),
                Err(error) => Err(io::Error::other(with_sources(&error))),
            }
        })
    }
}

/// What says which pods a node has; all else of a Node is passed over unread.
#[derive(Deserialize)]
struct Subnets {
    #[serde(default)]
    spec: SubnetsSpec,
}

#[derive(Default, Deserialize)]
struct SubnetsSpec {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: String,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

/// The agent of the node whose pod subnet has the address. `None` where it is no pod's; an error where the node does
/// not say where its agent is.
fn node_of_pod(snapshot: &Snapshot, address: IpAddr) -> Option<Result<AgentAddress, String>> {
    let address = address.to_canonical();
    let has = |cidr: &String| cidr.parse().is_ok_and(|network: ipnetwork::IpNetwork| network.contains(address));
    let (name, node) = snapshot.list("nodes", "", None).find(|(_, node)| {
        let subnets: Option<Subnets> = serde_json::from_slice(node.json()).ok();
        subnets.is_some_and(|Subnets { spec }| has(&spec.pod_cidr) || spec.pod_cidrs.iter().any(has))
    })?;
    let agent = decoded::<Node>(node.json())
        .map_err(|error| format!("node {name:?}: {error}"))
        .and_then(|node| agent_address(name, &node, None).map_err(|status| status.message));
    Some(agent)
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
    fn a_pod_is_on_the_node_whose_subnet_has_its_address() {
        let mut snapshot = Snapshot::default();
        let internal = |address: &serde_json::Value| json!({"type": "InternalIP", "address": address});
        for (name, spec, addresses) in [
            ("a", json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}), json!(["192.0.2.10"])),
            ("b", json!({"podCIDR": "10.244.1.0/24"}), json!(["192.0.2.11"])),
            ("c", json!({"podCIDRs": ["10.244.2.0/24"]}), json!([])),
            ("d", json!({}), json!(["192.0.2.13"])),
        ] {
            let addresses: Vec<_> = addresses.as_array().unwrap().iter().map(internal).collect();
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec,
                "status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 7000}}}});
            let object = Arc::new(Object::new(encode::unserved(&node), 1, EventType::Added));
            snapshot.load(Key { resource: "nodes".into(), name: name.into() }, object);
        }
        let of = |address: &str| node_of_pod(&snapshot, address.parse().unwrap());
        let agent = of("10.244.1.9").unwrap().unwrap();
        assert_eq!((&*agent.node, agent.ip, agent.port), ("b", "192.0.2.11".parse().unwrap(), 7000));
        assert_eq!(of("::ffff:10.244.0.9").unwrap().unwrap().node, "a");
        assert!(of("10.244.2.1").unwrap().unwrap_err().contains("InternalIP"));
        assert!(of("10.244.3.1").is_none() && of("192.0.2.10").is_none() && of("2001:db8::1").is_none());
    }
}
