//! The pod network of this node.

use std::{net::Ipv4Addr, path::Path};

/// What the pod lifecycle needs of the pod network. Both calls are idempotent: repeated after a crash they end in the same state.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync {
    /// Gives the network namespace at `netns` (`/proc/PID/ns/net`) its veth, address and routes, and returns the address.
    /// The same `pod_uid` gets the same address as long as it is attached, over restarts of the agent too.
    async fn attach(&self, pod_uid: &str, netns: &Path) -> Result<Ipv4Addr, AttachError>;

    /// Takes the veth away and gives the address back. Not an error where nothing is attached.
    async fn detach(&self, pod_uid: &str) -> Result<(), AttachError>;

    /// Detaches every pod that is not in `keep`: called once at start, after the running pods are known.
    async fn retain(&self, keep: &[String]) -> Result<(), AttachError>;
}

/// Why a pod could not be given, or rid of, its network.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct AttachError {
    pub operation: String,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
