//! Keeps the maps equal to the table: plans each changed Service against what is held, and writes what differs.
//!
//! It decides nothing about Services. A failed write is recorded, reported as a problem and retried on the next call.

use std::collections::{BTreeMap, BTreeSet};

use proxy_ebpf::{Settings, THIS_NODE, UDP, node_address, scope};
use tracing::{info, warn};

use super::{
    image::{Held, Images, Op, address_be},
    maps::{BpfMaps, MapError},
    sockets::{LOOPBACK, RemovedBackend, ServedAddress},
    table::{FrontendOwner, ServiceTable},
};

/// Keeps one set of maps equal to the table.
pub struct MapReconciler<M> {
    maps: M,
    held: Held,
    images: Images,
    /// Services that are not yet as the table says, and why.
    failed: BTreeMap<FrontendOwner, String>,
    /// Failures outside any Service: node addresses, settings, leftovers.
    failed_node: Option<String>,
    /// Every Service was worked on once.
    started: bool,
    /// Nothing is held that belongs to no Service.
    swept: bool,
    /// UDP addresses that have backends now and had none, since this was asked for.
    served: BTreeSet<ServedAddress>,
}

impl<M: BpfMaps> MapReconciler<M> {
    /// Adopts what the maps hold; nothing is written yet.
    pub fn adopt(maps: M) -> Result<Self, MapError> {
        let held = maps.read()?;
        info!(frontends = held.heads.len(), backends = held.backends.len(), "adopted what the maps held");
        let images = Images::adopt(&held);
        Ok(Self {
            maps,
            held,
            images,
            failed: BTreeMap::new(),
            failed_node: None,
            started: false,
            swept: false,
            served: BTreeSet::new(),
        })
    }

    /// Whether nothing is held: no earlier agent left a Service that removals could hit.
    pub fn holds_nothing(&self) -> bool {
        self.held.heads.is_empty()
    }

    /// Brings the maps to `table`, of which `changed` differs from last time. Returns which backends clients lost.
    ///
    /// The first call works on every Service and removes what is left of an earlier agent: the table must be complete.
    pub fn apply(
        &mut self,
        table: &ServiceTable,
        changed: &BTreeSet<FrontendOwner>,
        settings: Settings,
    ) -> Vec<RemovedBackend> {
        let mut removed = Vec::new();
        self.apply_node(table, settings);
        let mut todo: BTreeSet<FrontendOwner> =
            if self.started { changed.clone() } else { table.services.keys().cloned().collect() };
        self.started = true;
        todo.extend(std::mem::take(&mut self.failed).into_keys());
        while !todo.is_empty() {
            for name in &todo {
                self.apply_service(name, table, &mut removed);
            }
            todo = self.images.owners_to_retry().into_iter().filter(|name| !self.failed.contains_key(name)).collect();
        }
        if !self.swept {
            self.sweep(&mut removed);
        }
        removed
    }

    /// The UDP addresses that [`Self::apply`] gave their first backend, since the last call of this.
    pub fn take_served(&mut self) -> BTreeSet<ServedAddress> {
        std::mem::take(&mut self.served)
    }

    /// Whether the maps are as the table says.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.failed_node.is_none() && self.swept
    }

    /// Why the maps are not as the table says; empty when they are.
    pub fn problems(&self) -> Vec<String> {
        let services = self.failed.iter().map(|(name, problem)| format!("{name}: {problem}"));
        self.failed_node.iter().cloned().chain(services).collect()
    }

    /// The maps, for reading back.
    pub fn maps(&self) -> &M {
        &self.maps
    }

    /// The maps, for entries that no table names.
    pub fn maps_mut(&mut self) -> &mut M {
        &mut self.maps
    }

    fn apply_service(&mut self, name: &FrontendOwner, table: &ServiceTable, removed: &mut Vec<RemovedBackend>) {
        let ops = self.images.plan(name, table.services.get(name).map(|entry| &**entry), &self.held);
        let mut lost = Vec::new();
        let written = self.write(&ops, &mut lost);
        // Deleting a Service says nothing about its pods: streams go on, as through any proxy of the field. When a pod
        // with host ports is gone, its streams end too.
        let deleted = !name.is_pod() && !table.services.contains_key(name);
        removed.extend(lost.into_iter().filter(|backend| !(deleted && backend.set.is_none())));
        if let Err(error) = written {
            let problem = crate::error_chain(&error);
            warn!(service = %name, problem, "a Service could not be written");
            self.failed.insert(name.clone(), problem);
            // What the plan did not reach may belong to no Service any more.
            self.swept = false;
        }
    }

    fn apply_node(&mut self, table: &ServiceTable, settings: Settings) {
        let wanted: BTreeMap<u32, u32> = table
            .node_addresses
            .iter()
            .map(|(address, local)| (address_be(*address), if *local { node_address::LOCAL } else { 0 }))
            .collect();
        let changed = wanted.iter().filter(|(address, flags)| self.held.node_addresses.get(address) != Some(flags));
        let mut ops: Vec<Op> = changed.map(|(address, flags)| Op::PutNodeAddress(*address, *flags)).collect();
        ops.extend(
            self.held
                .node_addresses
                .keys()
                .filter(|address| !wanted.contains_key(address))
                .map(|address| Op::DeleteNodeAddress(*address)),
        );
        if self.held.settings != settings {
            ops.push(Op::PutSettings(settings));
        }
        self.failed_node = self.write(&ops, &mut Vec::new()).err().map(|error| crate::error_chain(&error));
    }

    fn sweep(&mut self, removed: &mut Vec<RemovedBackend>) {
        let ops = self.images.sweep(&self.held);
        if !ops.is_empty() {
            info!(entries = ops.len(), "removing what belongs to no Service");
        }
        match self.write(&ops, removed) {
            Ok(()) => self.swept = self.failed.is_empty(),
            Err(error) => self.failed_node = Some(crate::error_chain(&error)),
        }
    }

    fn removed_backend(&self, op: &Op) -> Option<RemovedBackend> {
        let id = match op {
            Op::DeleteMember(key) => key.backend,
            Op::DeleteBackend(id) => *id,
            _ => return None,
        };
        let backend = *self.held.backends.get(&id)?;
        let set = if let Op::DeleteMember(key) = op { Some(key.set) } else { None };
        Some(RemovedBackend { set, id, backend })
    }

    /// Notes what clients on this node could not reach before `op`.
    fn note_served(&mut self, op: &Op) {
        let Op::PutHead(key, head) = op else { return };
        let was_served = self.held.heads.get(key).is_some_and(|before| before.count > 0);
        if head.count == 0 || was_served || key.protocol != UDP || key.scope != scope::INTERNAL {
            return;
        }
        let node_addresses = self.held.node_addresses.iter();
        let loopback = std::iter::once(address_be(LOOPBACK));
        let addresses: Vec<u32> = match key.address_be {
            0 => node_addresses.map(|(address, _)| *address).chain(loopback).collect(),
            THIS_NODE => {
                let local = node_addresses.filter(|(_, flags)| **flags & node_address::LOCAL != 0);
                local.map(|(address, _)| *address).chain(loopback).collect()
            }
            address => vec![address],
        };
        self.served.extend(addresses.into_iter().map(|address_be| ServedAddress { address_be, port_be: key.port_be }));
    }

    fn write(&mut self, ops: &[Op], removed: &mut Vec<RemovedBackend>) -> Result<(), MapError> {
        for op in ops {
            self.maps.apply(op)?;
            removed.extend(self.removed_backend(op));
            self.note_served(op);
            self.held.record(op);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
