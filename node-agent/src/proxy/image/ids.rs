//! Ids of backends: one for each address, port and protocol, counted by use, never assigned to another while anything
//! may still refer to it.

use std::collections::HashMap;

use proxy_ebpf::{Backend, BackendId};

use super::{Held, Op};

/// Ids of backends by address, port and protocol, with how often each is used.
#[derive(Debug, Default)]
pub(super) struct BackendIds {
    by_address: HashMap<Address, BackendId>,
    used: HashMap<BackendId, UseCount>,
    last: BackendId,
}

/// What makes two backends the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address {
    address_be: u32,
    port_be: u16,
    protocol: u8,
}

#[derive(Debug)]
struct UseCount {
    backend: Backend,
    count: usize,
}

impl BackendIds {
    /// Continues with the ids that the maps hold.
    pub(super) fn adopt(held: &HashMap<BackendId, Backend>) -> Self {
        let last = held.keys().copied().max().unwrap_or(0);
        Self {
            by_address: held.iter().map(|(id, backend)| (address(backend), *id)).collect(),
            used: HashMap::new(),
            last,
        }
    }

    /// Records one more use of the id of `backend`, assigning an id if it has none.
    pub(super) fn take(&mut self, backend: Backend) -> BackendId {
        let id = match self.by_address.get(&address(&backend)) {
            Some(id) => *id,
            None => self.fresh(),
        };
        self.by_address.insert(address(&backend), id);
        let used = self.used.entry(id).or_insert(UseCount { backend, count: 0 });
        used.backend = backend;
        used.count += 1;
        id
    }

    /// Records one more use of the id that a backend already has, from this agent or an earlier one; `None` for a
    /// backend that has none.
    pub(super) fn keep(&mut self, address_be: u32, port_be: u16, protocol: u8, held: &Held) -> Option<BackendId> {
        let id = *self.by_address.get(&Address { address_be, port_be, protocol })?;
        match self.used.get_mut(&id) {
            Some(used) => used.count += 1,
            None => drop(self.used.insert(id, UseCount { backend: *held.backends.get(&id)?, count: 1 })),
        }
        Some(id)
    }

    /// Records one use less.
    pub(super) fn release(&mut self, id: BackendId) {
        if let Some(used) = self.used.get_mut(&id) {
            used.count = used.count.saturating_sub(1);
        }
    }

    /// What an id in use stands for.
    pub(super) fn get(&self, id: BackendId) -> Option<Backend> {
        self.used.get(&id).map(|used| used.backend)
    }

    /// Whether a backend has this id.
    pub(super) fn contains(&self, id: BackendId) -> bool {
        self.used.contains_key(&id)
    }

    /// Forgets those of `ids` that nothing uses, and says how to remove them.
    pub(super) fn unused(&mut self, ids: impl Iterator<Item = BackendId>, held: &Held) -> Vec<Op> {
        let mut ops = Vec::new();
        for id in ids {
            if let Some(UseCount { backend, count: 0 }) = self.used.get(&id) {
                self.by_address.remove(&address(backend));
                self.used.remove(&id);
                // An operation of this plan that writes the backend comes before this removal.
                if held.backends.contains_key(&id) {
                    ops.push(Op::DeleteBackend(id));
                }
            }
        }
        ops
    }

    fn fresh(&mut self) -> BackendId {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.used.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

fn address(backend: &Backend) -> Address {
    Address { address_be: backend.address_be, port_be: backend.port_be, protocol: backend.protocol }
}
