//! What differs between the stored records and what the stored Services hold, and how it is repaired.
//!
//! Transactions keep the two together; they differ only after an upgrade from a store without records, or when somebody
//! deleted or made an IPAddress by hand. A repairing write requires that the Service is still as it was when it was
//! looked at.

use std::collections::BTreeMap;

use super::{
    Allocator,
    records::{self, RecordOwner},
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

/// A claim of a stored Service.
struct RecordClaim<'a> {
    key: &'a str,
    revision: u64,
}

/// Compares all Services with all records. Cost: O(Services + records), and a parse of each Service that was changed
/// since the last audit.
pub fn audit(allocator: &Allocator, snapshot: &Snapshot) -> AuditFindings {
    let inner = &*allocator.inner;
    let mut found = AuditFindings::default();
    // (resource, key of the record) → the Service that holds it.
    let mut claims: BTreeMap<(&'static str, String), RecordClaim<'_>> = BTreeMap::new();
    let mut cache = inner.held.lock();
    for (key, reading) in cache.update(snapshot) {
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
                Some(first) => found.conflicts.push(format!("Services {} and {key} both hold {}", first.key, record.1)),
                None => drop(claims.insert(record, RecordClaim { key, revision: reading.revision })),
            }
        }
    }
    for record in inner.records.own(snapshot) {
        let owner = records::parent(record.object).map(|(namespace, name)| format!("{namespace}/{name}"));
        let claim = claims.get(&(record.resource, record.key.to_string()));
        if claim.is_some_and(|claim| owner.as_deref() == Some(claim.key)) {
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
            if !records::is_own(resource, stored) {
                let key = claim.key;
                found.conflicts.push(format!("Service {key} holds {name}, but an IPAddress says that another does"));
            }
            continue;
        }
        let Some((namespace, service)) = claim.key.split_once('/') else { continue };
        let owner = RecordOwner { namespace, name: service };
        let write = match (*resource, name.parse(), name.parse()) {
            (records::IPS, Ok(ip), _) => inner.records.take_ip(ip, owner),
            (_, _, Ok(port)) => inner.records.take_port(port, owner),
            _ => continue,
        };
        let key = Key { resource: "services".into(), name: claim.key.into() };
        let require = vec![Requirement { key, condition: Condition::At(claim.revision) }];
        found.repairs.push(Transaction { require, writes: vec![write] });
    }
    found
}
