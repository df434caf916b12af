//! What this node knows of the cluster, as one immutable snapshot.
//!
//! One writer (`world::writer`, fed by `world::watch`) turns API objects into these small types *at the edge* and
//! publishes a new [`World`] through a `tokio::sync::watch`; everything behind it (proxy table, DNS zone, routes) reads
//! snapshots and never the API. The maps are persistent: a snapshot is one `Arc`, a change copies a path,
//! [`imbl::OrdMap::diff`] walks what differs.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod endpoint_slice;
mod host_port;
mod kept;
mod listing;
mod node;
mod service;
pub mod watch;
mod writer;

use std::sync::Arc;

pub use endpoint_slice::{Endpoint, EndpointSlice, InvalidSlice, SlicePort};
pub use host_port::{HostPort, HostPorts, PodHostPorts};
use imbl::OrdMap;
pub use kept::KeptWorld;
use kube::core::ObjectMeta;
pub use node::Node;
use serde::{Deserialize, Serialize};
pub use service::{
    ExternalTrafficPolicy, InternalTrafficPolicy, InvalidService, Protocol, Service, ServiceKind, ServicePort,
    TrafficDistribution,
};

/// Namespace and name of an object; ordered, so that maps keyed by it give equal bytes for equal input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// Never empty: World holds namespaced objects by this, and nodes by name alone.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name in a namespace, which is empty for kinds that have none.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The namespace is empty where the kind has none.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One snapshot. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// All Services of the cluster, headless ones and ExternalName too.
    pub services: OrdMap<ObjectName, Arc<Service>>,
    /// By Service, then by slice name.
    pub slices: OrdMap<ObjectName, OrdMap<Arc<str>, Arc<EndpointSlice>>>,
    /// By name; this node among them.
    pub nodes: OrdMap<Arc<str>, Arc<Node>>,
    /// Highest resourceVersion this snapshot contains, over all kinds: revisions of one store are comparable.
    pub revision: u64,
    /// Whether each kind's list is complete.
    pub synced: bool,
    /// Whether the API told this, or it was read from this node's disk.
    pub origin: Origin,
}

/// From where a [`World`] comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Lists and watches of the API.
    #[default]
    Api,
    /// What an earlier agent kept on disk: the API was not reached yet. It may be older than what the kernel holds.
    Disk,
}

impl World {
    /// Whether what is not in this snapshot may be removed from the kernel: it is complete and from the API.
    pub fn allows_removal(&self) -> bool {
        self.synced && self.origin == Origin::Api
    }
}

/// The resourceVersion as a number; 0 where the server's is not one (then only readers of `applied` lose).
fn revision_of(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
