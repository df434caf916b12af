//! One write to one map, and the order of writes in which no client ever sees half of a change.

use std::collections::HashSet;

use proxy_ebpf::{Backend, BackendId, MemberKey, ServiceHead, ServiceKey, SetId, Settings, SlotKey};

use super::{Held, HeldSet, ServiceImage, ids::BackendIds};

/// One write to one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Where a backend is.
    PutBackend(BackendId, Backend),
    /// Which backend a slot names.
    PutSlot(SlotKey, BackendId),
    /// Clients of a set may keep a backend.
    PutMember(MemberKey),
    /// A frontend leads to a set; replaces all of its backends in one write.
    PutHead(ServiceKey, ServiceHead),
    /// A frontend is no more: clients are refused from now on.
    DeleteHead(ServiceKey),
    /// Of a generation that no head names.
    DeleteSlot(SlotKey),
    /// Clients of a set must leave a backend.
    DeleteMember(MemberKey),
    /// Of an id that no slot names.
    DeleteBackend(BackendId),
    /// IPv4 in network order, bits of [`proxy_ebpf::node_address`].
    PutNodeAddress(u32, u32),
    /// IPv4 in network order.
    DeleteNodeAddress(u32),
    /// What the programs know of the node.
    PutSettings(Settings),
}

/// What leads from `held` to `new`, and away from what only `old` used. Backends are removed by [`BackendIds::unused`],
/// last.
pub(super) fn between(old: &ServiceImage, new: &ServiceImage, held: &Held, backends: &BackendIds) -> Vec<Op> {
    let mut ops = Vec::new();
    for id in new.sets.values().flat_map(|set| &set.backends) {
        if let Some(backend) = backends.get(*id).filter(|backend| held.backends.get(id) != Some(backend)) {
            ops.push(Op::PutBackend(*id, backend));
        }
    }
    let none = HeldSet::default();
    for (set, image) in &new.sets {
        let contents = held.sets.get(set).unwrap_or(&none);
        for (slot, backend) in (0u32..).zip(&image.backends) {
            if contents.slots.get(&(image.generation, slot)) != Some(backend) {
                ops.push(Op::PutSlot(SlotKey { set: *set, generation: image.generation, slot }, *backend));
            }
            if !contents.members.contains(backend) {
                ops.push(Op::PutMember(MemberKey { set: *set, backend: *backend }));
            }
        }
    }
    for (key, head) in &new.heads {
        if held.heads.get(key) != Some(head) {
            ops.push(Op::PutHead(*key, *head));
        }
    }
    for key in old.heads.keys().filter(|key| !new.heads.contains_key(key) && held.heads.contains_key(key)) {
        ops.push(Op::DeleteHead(*key));
    }
    for (set, image) in &new.sets {
        let contents = held.sets.get(set).unwrap_or(&none);
        let stale = |&((generation, slot), _): &((u32, u32), BackendId)| {
            generation != image.generation || slot as usize >= image.backends.len()
        };
        let slots = contents.slots.iter().map(|(place, backend)| (*place, *backend)).filter(stale);
        ops.extend(slots.map(|((generation, slot), _)| Op::DeleteSlot(SlotKey { set: *set, generation, slot })));
        let kept: HashSet<BackendId> = image.backends.iter().copied().collect();
        let gone = contents.members.iter().filter(|member| !kept.contains(member));
        ops.extend(gone.map(|backend| Op::DeleteMember(MemberKey { set: *set, backend: *backend })));
    }
    for set in old.sets.keys().filter(|set| !new.sets.contains_key(set)) {
        ops.extend(held.sets.get(set).into_iter().flat_map(|contents| delete_set(*set, contents)));
    }
    ops
}

/// Removal of all of a set; only for one that no head names.
pub(super) fn delete_set(set: SetId, contents: &HeldSet) -> impl Iterator<Item = Op> + '_ {
    let slots = contents
        .slots
        .keys()
        .map(move |(generation, slot)| Op::DeleteSlot(SlotKey { set, generation: *generation, slot: *slot }));
    let members = contents.members.iter().map(move |backend| Op::DeleteMember(MemberKey { set, backend: *backend }));
    slots.chain(members)
}
