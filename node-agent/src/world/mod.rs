//! What this node knows of the cluster, as one immutable snapshot.
//!
//! One writer (`world::writer`, fed by `world::watch`) turns API objects into these small types *at the edge* and publishes a new [`World`] through a
//! `tokio::sync::watch`; everything behind it (proxy table, DNS zone, routes) reads snapshots and never the API. The maps are
//! persistent: a snapshot is one `Arc`, a change copies a path, [`imbl::OrdMap::diff`] walks what differs.

mod endpoint_slice;
mod host_port;
mod listing;
mod node;
mod service;
pub mod watch;
mod writer;

use std::sync::Arc;

pub use endpoint_slice::{Endpoint, EndpointSlice, InvalidSlice, SlicePort};
pub use host_port::{HostPort, HostPorts, PodHostPorts};
use imbl::OrdMap;
use kube::core::ObjectMeta;
pub use node::Node;
pub use service::{
    ExternalTrafficPolicy, InternalTrafficPolicy, InvalidService, Protocol, Service, ServiceKind, ServicePort,
    TrafficDistribution,
};

/// Namespace and name of an object; ordered, so that maps keyed by it give equal bytes for equal input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
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
    pub services: OrdMap<ObjectName, Arc<Service>>,
    /// By Service, then by slice name.
    pub slices: OrdMap<ObjectName, OrdMap<Arc<str>, Arc<EndpointSlice>>>,
    pub nodes: OrdMap<Arc<str>, Arc<Node>>,
    /// Highest resourceVersion this snapshot contains, over all kinds: revisions of one store are comparable.
    pub revision: u64,
    /// Whether each kind's first list is complete. Until then nothing may be removed from the kernel.
    pub synced: bool,
}

/// The resourceVersion as a number; 0 where the server's is not one (then only readers of `applied` lose).
fn revision_of(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
