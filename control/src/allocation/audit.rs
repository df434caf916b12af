//! What differs between the stored records and what the stored Services and Nodes hold, and how it is repaired.
//!
//! Transactions keep the two together; they differ only after an upgrade from a store without records, or when somebody
//! deleted or made an IPAddress by hand. A repairing write requires that the Service is still as it was when it was
//! looked at.

use std::collections::BTreeMap;

use super::{
    Allocator, NODES, agent_port,
    records::{self, RecordOwner},
    service::held,
};
use crate::store::{Condition, Key, Requirement, Snapshot, Transaction};

/// What an audit found.
#[derive(Debug, Default)]
pub struct AuditFindings {
    /// One transaction for each difference that can be repaired.
    pub repairs: Vec<Transaction>,
    /// What only people can repair, in words.
    pub conflicts: Vec<String>,
}

/// Who has to have a record.
enum RecordClaim<'a> {
    /// A stored Service, as of this revision.
    Service { key: &'a str, revision: u64 },
    /// Agents of nodes.
    Agents,
}

/// Compares all Services and Nodes with all records. Cost: O(Services + Nodes + records), and a parse of each Service
/// and Node that was changed since the last audit.
pub fn audit(allocator: &Allocator, snapshot: &Snapshot) -> AuditFindings {
    let inner = &*allocator.inner;
    let mut found = AuditFindings::default();
    // (resource, key of the record) → who holds it.
    let mut claims: BTreeMap<(&'static str, String), RecordClaim<'_>> = BTreeMap::new();
    let mut cache = inner.held.lock();
    let read = |json: &[u8]| serde_json::from_slice(json).ok().map(|service| held(&service));
    for (key, reading) in cache.update(snapshot, "services", read) {
        let Some(held) = &reading.held else {
            found.conflicts.push(format!("Service {key} is not readable"));
            continue;
        };
        let ips = held
            .cluster_ips
            .iter()
            .filter(|ip| inner.cluster_ips.contains(**ip))
            .map(|ip| (records::IPS, ip.to_string()));
        let ports = held.node_ports.iter().filter(|port| inner.node_ports.contains(**port));
        for record in ips.chain(ports.map(|port| (records::PORTS, port.to_string()))) {
            match claims.get(&record) {
                Some(RecordClaim::Service { key: first, .. }) => {
                    found.conflicts.push(format!("Services {first} and {key} both hold {}", record.1));
                }
                _ => drop(claims.insert(record, RecordClaim::Service { key, revision: reading.revision })),
            }
        }
    }
    let mut agents = inner.agents.lock();
    for (node, reading) in agents.update(snapshot, NODES, agent_port::of_stored) {
        let Some(port) = reading.held.filter(|port| inner.node_ports.contains(*port)) else { continue };
        let record = (records::PORTS, port.to_string());
        // Both were there before ports of agents had records.
        if let Some(RecordClaim::Service { key, .. }) = claims.get(&record) {
            found.conflicts.push(format!(
                "node port {port} of Service {key} is the port of node {node}'s agent, which the control service \
                 cannot reach where its own host is a node"
            ));
        } else {
            claims.insert(record, RecordClaim::Agents);
        }
    }
    for record in inner.records.own(snapshot) {
        let owner = records::parent(record.object).map(|(namespace, name)| format!("{namespace}/{name}"));
        let is_right = match claims.get(&(record.resource, record.key.to_string())) {
            Some(RecordClaim::Service { key, .. }) => owner.as_deref() == Some(key),
            Some(RecordClaim::Agents) => records::is_agents(record.object),
            None => false,
        };
        if is_right {
            continue;
        }
        // The record's own Service, as it was seen, holds nothing of the kind.
        let require = owner.map(|owner| {
            let revision = snapshot.get("services", &owner).map(|service| service.revision);
            let condition = revision.map_or(Condition::Absent, Condition::At);
            Requirement { key: Key { resource: "services".into(), name: owner.into() }, condition }
        });
        found
            .repairs
            .push(Transaction { require: require.into_iter().collect(), writes: vec![records::remove(record)] });
    }
    for ((resource, name), claim) in &claims {
        let stored = snapshot.get(resource, name);
        if let Some(stored) = stored {
            // A wrong record of our own is removed above, and made anew by the next audit.
            if let RecordClaim::Service { key, .. } = claim
                && !records::is_own(resource, stored)
            {
                found.conflicts.push(format!("Service {key} holds {name}, but an IPAddress says that another does"));
            }
            continue;
        }
        let (key, revision) = match (claim, name.parse()) {
            (RecordClaim::Service { key, revision }, _) => (*key, *revision),
            (RecordClaim::Agents, Ok(port)) => {
                // A Node that goes meanwhile leaves a record to the next audit.
                let writes = vec![inner.records.take_agent_port(port)];
                found.repairs.push(Transaction { require: Vec::new(), writes });
                continue;
            }
            (RecordClaim::Agents, Err(_)) => continue,
        };
        let Some((namespace, service)) = key.split_once('/') else { continue };
        let owner = RecordOwner { namespace, name: service };
        let write = match (*resource, name.parse(), name.parse()) {
            (records::IPS, Ok(ip), _) => inner.records.take_ip(ip, owner),
            (_, _, Ok(port)) => inner.records.take_port(port, owner),
            _ => continue,
        };
        let key = Key { resource: "services".into(), name: key.into() };
        let require = vec![Requirement { key, condition: Condition::At(revision) }];
        found.repairs.push(Transaction { require, writes: vec![write] });
    }
    found
}
