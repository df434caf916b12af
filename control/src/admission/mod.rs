//! What a kind cannot know alone: whether the namespace takes new objects, which ClusterIPs and NodePorts are free, who asks.
//!
//! It runs after a kind's defaults, preparation and validation, on the object as it would be stored. What it hands out is only
//! reserved: the [`Reservation`] is committed after the store's write and gives everything back when it is dropped before.
//! The allocations live in memory; the stored Services are the truth they are [restored](Admission::restore) from.

use std::{ops::RangeInclusive, sync::Arc};

use ipnetwork::Ipv4Network;
use serde_json::Value;

use crate::{
    api::{Status, Subject},
    auth::{Identity, node},
    kinds::Kind,
};

mod certificate_request;
mod cluster_ip;
mod namespace;
mod node_port;
mod pod;
mod service;

use cluster_ip::ClusterIps;
pub use namespace::NamespaceState;
use node_port::NodePorts;

/// Admits writes. One per control service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    pools: Arc<Pools>,
}

/// What Services draw from.
#[derive(Debug)]
struct Pools {
    cluster_ips: ClusterIps,
    node_ports: NodePorts,
}

/// One write to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub verb: Verb,
    /// A stored kind.
    pub kind: &'a Kind,
    /// Of the object; `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    /// Not yet known on a create with `generateName` is an empty name.
    pub name: &'a str,
    /// Path segment.
    pub subresource: Option<&'a str>,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
    pub identity: &'a Identity,
    /// Of `namespace`; not looked at for cluster-scoped kinds and on update and delete.
    pub namespace_state: NamespaceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
    /// The object is to go. Asked before it is marked or removed; committed only when it is removed for good, be it later, by the
    /// update that takes away the last finalizer.
    Delete,
}

/// What a write has taken and will give back. Dropped, it undoes the first; committed, it does the second.
#[must_use = "allocations are given back when the reservation is dropped"]
#[derive(Debug)]
pub struct Reservation {
    pools: Arc<Pools>,
    taken: Allocations,
    freed: Allocations,
}

/// ClusterIPs and NodePorts.
#[derive(Debug, Default)]
struct Allocations {
    cluster_ips: Vec<std::net::Ipv4Addr>,
    node_ports: Vec<u16>,
}

impl Admission {
    pub fn new(service_cidr: Ipv4Network, node_ports: RangeInclusive<u16>) -> Self {
        let pools = Pools { cluster_ips: ClusterIps::new(service_cidr), node_ports: NodePorts::new(node_ports) };
        Self { pools: Arc::new(pools) }
    }

    /// Takes note of what stored Services hold. Addresses and ports outside the ranges (which may have changed) are left alone.
    pub fn restore<'a>(&self, services: impl IntoIterator<Item = &'a Value>) {
        for stored in services {
            let held = service::held(stored);
            self.pools.cluster_ips.restore(&held.cluster_ips);
            self.pools.node_ports.restore(&held.node_ports);
        }
    }

    /// Admits a write of `object`, filling in what the cluster gives. For [`Verb::Delete`], `object` is the stored object and is
    /// not changed.
    pub fn admit(&self, request: &Request, object: &mut Value) -> Result<Reservation, Status> {
        let mut reservation =
            Reservation { pools: self.pools.clone(), taken: Allocations::default(), freed: Allocations::default() };
        if let (Some(node), Verb::Create | Verb::Update) = (request.identity.node(), request.verb) {
            node::check_body(node, &request.kind.plural, request.old, object)
                .map_err(|why| Status::forbidden(request.subject(), &why))?;
        }
        match request.verb {
            Verb::Create if request.kind.namespaced => namespace::takes_new_objects(request)?,
            Verb::Delete => namespace::may_be_deleted(request)?,
            Verb::Create | Verb::Update => {}
        }
        // A subresource changes nothing that is decided here.
        if request.subresource.is_some() {
            return Ok(reservation);
        }
        match (&*request.kind.group, &*request.kind.kind, request.verb) {
            ("", "Pod", Verb::Create) => pod::complete(object),
            ("", "Service", verb) => service::allocate(request, verb, object, &mut reservation)?,
            ("certificates.k8s.io", "CertificateSigningRequest", Verb::Create) => {
                certificate_request::name_requester(object, request.identity);
            }
            _ => {}
        }
        Ok(reservation)
    }
}

impl Reservation {
    /// The write is stored: what was taken stays taken, what was given up is free for others.
    pub fn commit(mut self) {
        self.taken = Allocations::default();
        let freed = std::mem::take(&mut self.freed);
        self.pools.cluster_ips.release(&freed.cluster_ips);
        self.pools.node_ports.release(&freed.node_ports);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pools.cluster_ips.release(&self.taken.cluster_ips);
        self.pools.node_ports.release(&self.taken.node_ports);
    }
}

impl<'a> Request<'a> {
    fn subject(&self) -> Subject<'a> {
        Subject { group: &self.kind.group, resource: &self.kind.plural, name: self.name }
    }
}
