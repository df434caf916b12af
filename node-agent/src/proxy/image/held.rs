//! What the maps hold, as far as this agent knows: read once when it starts, then kept by every write that succeeded.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_ebpf::{Backend, BackendId, MemberKey, ServiceHead, ServiceKey, SetId, Settings, SlotKey};

use super::Op;

/// What the maps contain now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Map `SERVICES`.
    pub heads: HashMap<ServiceKey, ServiceHead>,
    /// Maps `SLOTS` and `MEMBERS`, by set.
    pub sets: HashMap<SetId, HeldSet>,
    /// Map `BACKENDS`.
    pub backends: HashMap<BackendId, Backend>,
    /// Map `NODE_ADDRESSES`: addresses in network order, each with bits of [`proxy_ebpf::node_address`].
    pub node_addresses: BTreeMap<u32, u32>,
    /// Map `SETTINGS`.
    pub settings: Settings,
}

/// The slots and members of one set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldSet {
    /// By generation and slot.
    pub slots: BTreeMap<(u32, u32), BackendId>,
    /// Backends that clients of the set may keep.
    pub members: BTreeSet<BackendId>,
}

impl HeldSet {
    /// Whether the slots of `generation` hold exactly `backends`.
    pub fn holds(&self, generation: u32, backends: &[BackendId]) -> bool {
        let mut slots = self.slots.range((generation, 0)..=(generation, u32::MAX));
        backends.iter().enumerate().all(|(slot, backend)| slots.next() == Some((&(generation, slot as u32), backend)))
            && slots.next().is_none()
    }

    /// The highest generation that any slot belongs to.
    pub fn last_generation(&self) -> Option<u32> {
        self.slots.last_key_value().map(|((generation, _), _)| *generation)
    }
}

impl Held {
    /// Takes over the effect of an operation that succeeded.
    pub fn record(&mut self, op: &Op) {
        match *op {
            Op::PutBackend(id, backend) => drop(self.backends.insert(id, backend)),
            Op::PutSlot(key, backend) => {
                self.sets.entry(key.set).or_default().slots.insert((key.generation, key.slot), backend);
            }
            Op::PutMember(key) => drop(self.sets.entry(key.set).or_default().members.insert(key.backend)),
            Op::PutHead(key, head) => drop(self.heads.insert(key, head)),
            Op::DeleteHead(key) => drop(self.heads.remove(&key)),
            Op::DeleteSlot(SlotKey { set, generation, slot }) => self.shrink(set, |contents| {
                contents.slots.remove(&(generation, slot));
            }),
            Op::DeleteMember(MemberKey { set, backend }) => self.shrink(set, |contents| {
                contents.members.remove(&backend);
            }),
            Op::DeleteBackend(id) => drop(self.backends.remove(&id)),
            Op::PutNodeAddress(address_be, flags) => drop(self.node_addresses.insert(address_be, flags)),
            Op::DeleteNodeAddress(address_be) => drop(self.node_addresses.remove(&address_be)),
            Op::PutSettings(settings) => self.settings = settings,
        }
    }

    fn shrink(&mut self, set: SetId, remove: impl FnOnce(&mut HeldSet)) {
        if let Some(contents) = self.sets.get_mut(&set) {
            remove(contents);
            if contents.slots.is_empty() && contents.members.is_empty() {
                self.sets.remove(&set);
            }
        }
    }
}
