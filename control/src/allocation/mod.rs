//! ClusterIPs and NodePorts: who has which, as objects in the store beside the Services themselves.
//!
//! ```text
//! Service ──held()──▶ Held { cluster_ips, node_ports }
//!                       │ what is new, what is given up
//!                       ▼
//!            writes of records, in the transaction that writes the Service
//! ```
//!
//! - **Held**: the addresses and ports in a Service's spec; the port of a Node's agent, if it is in the NodePort range.
//! - **Record**: the stored object that says that one address or port is taken: an `IPAddress` of Kubernetes' API (KEP
//!   1880), or a record of fairlead's own for a port. A key that is there is taken, so two Services can never commit
//!   the same one.
//! - **Audit**: at the start and every few minutes records are compared with Services and Nodes, and what differs is
//!   repaired.
//!
//! | file | what it decides |
//! |---|---|
//! | `cluster_ip`, `node_port` | what is free in a range |
//! | `service` | what one Service needs |
//! | `agent_port` | where the agent of a Node listens |
//! | `records` | what a record looks like |
//! | `held_cache` | which Services and Nodes an audit has to read |
//! | `audit` | what differs between records and what is held |
//! | `repair` | runs the audit, commits its repairs |
//!
//! To inspect: `kubectl get ipaddresses`.

mod agent_port;
mod audit;
mod cluster_ip;
mod held_cache;
mod node_port;
mod records;
mod repair;
mod service;
#[cfg(test)]
mod tests;

use std::{
    net::Ipv4Addr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ipnetwork::Ipv4Network;
use parking_lot::Mutex;
use serde_json::Value;

use cluster_ip::ClusterIps;
use held_cache::HeldCache;
use node_port::{NodePorts, PortHolder};
use records::Records;
#[cfg(test)]
use repair::repair;
pub use repair::{audit_repeatedly, repair_at_start};
use service::{ServiceAllocation, ServiceAllocations, held};

use crate::{
    kinds::Kind,
    status::Status,
    store::{Snapshot, Write},
};

/// Gives Services their addresses and ports, and no port of a node's agent. Who has which, only the store knows; cheap
/// to clone.
#[derive(Clone)]
pub struct Allocator {
    inner: Arc<Inner>,
}

struct Inner {
    cluster_ips: ClusterIps,
    node_ports: NodePorts,
    records: Records,
    /// For the audit alone.
    held: Mutex<HeldCache<ServiceAllocations>>,
    /// On which ports the nodes' agents listen.
    agents: Mutex<HeldCache<u16>>,
    /// The audit of the start could not be completed: records may be missing, so nothing new is given.
    paused: AtomicBool,
}

/// The object that a write is about.
#[derive(Clone, Copy)]
pub struct Claimant<'a> {
    /// Its kind.
    pub kind: &'a Kind,
    /// Its namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
}

impl Allocator {
    /// Takes addresses from `service_cidr` and ports from `node_ports`.
    pub fn new(service_cidr: Ipv4Network, node_ports: RangeInclusive<u16>) -> Self {
        let (cluster_ips, node_ports) = (ClusterIps::new(service_cidr), NodePorts::new(node_ports));
        let paused = AtomicBool::new(false);
        let (held, agents) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { cluster_ips, node_ports, records: Records::new(), held, agents, paused }) }
    }

    fn pause(&self) {
        self.inner.paused.store(true, Ordering::Release);
    }

    fn resume(&self) {
        self.inner.paused.store(false, Ordering::Release);
    }

    fn is_paused(&self) -> bool {
        self.inner.paused.load(Ordering::Acquire)
    }

    /// Fills in what `new` needs and has not, and answers the writes of records that belong into the transaction of
    /// `new`. Without `new` the object goes, and all it held with it. Answers nothing for kinds that hold nothing.
    ///
    /// The writes expect what `snapshot` shows: where another takes the same address first, the transaction conflicts.
    pub fn allocate(
        &self,
        snapshot: &Snapshot,
        claimant: &Claimant<'_>,
        old: Option<&Value>,
        new: Option<&mut Value>,
    ) -> Result<Vec<Write>, Status> {
        match (&*claimant.kind.group, &*claimant.kind.kind) {
            CORE_SERVICE => {}
            CORE_NODE => return self.agent_port(snapshot, claimant.name, old, new.as_deref()),
            _ => return Ok(Vec::new()),
        }
        let Inner { cluster_ips, node_ports, records, .. } = &*self.inner;
        let before = old.map(held).unwrap_or_default();
        let mut now = ServiceAllocations::default();
        if let Some(new) = new {
            let is_ip_taken = |ip: Ipv4Addr| records.of_ip(snapshot, ip).is_some();
            let is_port_taken = |port: u16| records.of_port(snapshot, port).is_some();
            let port_holder = |port: u16| {
                let record = records.of_port(snapshot, port)?;
                Some(if records::is_agents(record.object) { PortHolder::Agents } else { PortHolder::Service })
            };
            let filling = ServiceAllocation {
                cluster_ips,
                node_ports,
                before: &before,
                is_ip_taken: &is_ip_taken,
                is_port_taken: &is_port_taken,
                port_holder: &port_holder,
            };
            filling.fill(claimant.name, new)?;
            now = held(new);
        }
        let owner = records::RecordOwner { namespace: claimant.namespace.unwrap_or_default(), name: claimant.name };
        let mut writes = Vec::new();
        for ip in now.cluster_ips.iter().filter(|ip| !before.cluster_ips.contains(ip)) {
            writes.push(records.take_ip(*ip, owner));
        }
        for port in now.node_ports.iter().filter(|port| !before.node_ports.contains(port)) {
            writes.push(records.take_port(*port, owner));
        }
        if !writes.is_empty() {
            self.must_not_be_paused()?;
        }
        for ip in before.cluster_ips.iter().filter(|ip| !now.cluster_ips.contains(ip)) {
            writes.extend(records.of_ip(snapshot, *ip).and_then(|record| records.release(record, owner)));
        }
        for port in before.node_ports.iter().filter(|port| !now.node_ports.contains(port)) {
            writes.extend(records.of_port(snapshot, *port).and_then(|record| records.release(record, owner)));
        }
        Ok(writes)
    }

    /// The writes for the port of a node's agent where that changes within the range of NodePorts. One that a Service
    /// has stays the Service's: what a Node says takes nothing from Services, and these keep no node from joining. The
    /// node's own agent does not serve such a NodePort, and an audit reports it.
    fn agent_port(
        &self,
        snapshot: &Snapshot,
        node: &str,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Vec<Write>, Status> {
        let Inner { node_ports, records, agents, .. } = &*self.inner;
        let in_range = |node: &Value| agent_port::of_node(node).filter(|port| node_ports.contains(*port));
        let (before, now) = (old.and_then(in_range), new.and_then(in_range));
        let mut writes = Vec::new();
        if before == now {
            return Ok(writes);
        }
        if let Some(port) = now {
            match records.of_port(snapshot, port) {
                None => {
                    self.must_not_be_paused()?;
                    writes.push(records.take_agent_port(port));
                }
                // The last other node may leave it in this moment: see below.
                Some(record) if records::is_agents(record.object) => writes.push(records::renew(record)),
                Some(record) => {
                    let (namespace, name) = records::parent(record.object).unwrap_or_default();
                    tracing::warn!(node, port, service = %format_args!("{namespace}/{name}"),
                        "the agent of a node has the NodePort of a Service: choose another with --port");
                }
            }
        }
        // Where another node takes it in this moment, one of the two transactions conflicts, and is planned anew. Where
        // all that have it leave at once, each sees the others: the next audit removes the record.
        if let Some(record) = before.and_then(|port| records.of_port(snapshot, port))
            && records::is_agents(record.object)
        {
            let mut agents = agents.lock();
            let mut others = agents.update(snapshot, NODES, agent_port::of_stored).iter();
            if !others.any(|(name, reading)| **name != *node && reading.held == before) {
                writes.push(records::remove(record));
            }
        }
        Ok(writes)
    }

    fn must_not_be_paused(&self) -> Result<(), Status> {
        if self.is_paused() {
            return Err(Status::unavailable(
                "no addresses and ports are given yet: their records could not be compared with the Services",
            ));
        }
        Ok(())
    }
}

/// Whether a write through a subresource of the kind may change what is held: a Node's status says where its agent
/// listens.
pub fn is_held_by_status(kind: &Kind) -> bool {
    (&*kind.group, &*kind.kind) == CORE_NODE
}

const CORE_SERVICE: (&str, &str) = ("", "Service");
const CORE_NODE: (&str, &str) = ("", "Node");
const NODES: &str = "nodes";
