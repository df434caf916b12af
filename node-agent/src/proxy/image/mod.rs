//! From a Service's entry in the table to the exact map entries that serve it.
//!
//! Pure: ids that must outlive the agent come from what the maps already [`Held`]. A backend set is immutable: another
//! list of backends is another generation, and the head changes over in one write.

mod held;
mod ids;
mod ops;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
};

pub use held::{Held, HeldSet};
use ids::BackendIds;
pub use ops::Op;
use proxy_ebpf::{Backend, BackendId, ServiceHead, ServiceKey, SetId, THIS_NODE, backend_flags, head_flags, scope};

use super::table::{
    Candidate, Frontend, FrontendAddress, FrontendOwner, Scope, Selection, SelectionName, TableService,
};
use crate::world::Protocol;

/// What one Service asks of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceImage {
    /// One per frontend.
    pub heads: BTreeMap<ServiceKey, ServiceHead>,
    /// One per selection; frontends with the same selection share one.
    pub sets: BTreeMap<SetId, SetImage>,
}

/// One backend set: slot `n` of `generation` is `backends[n]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetImage {
    /// The selection that it was compiled from: keeps the set's id over changes.
    pub name: SelectionName,
    /// Counts the set's contents: another list of backends is another generation.
    pub generation: u32,
    /// In slot order.
    pub backends: Vec<BackendId>,
    /// No longer picked, but still there for the connections that they have.
    pub draining: Vec<BackendId>,
}

/// The images of all Services, and the ids they use.
#[derive(Debug, Default)]
pub struct Images {
    services: HashMap<FrontendOwner, ServiceImage>,
    backends: BackendIds,
    next_set: SetId,
    /// The Service that each set belongs to, so that two Services never share one.
    sets: HashSet<SetId>,
    /// Which Service a frontend leads to; of two that claim the same, the first.
    claims: HashMap<ServiceKey, FrontendOwner>,
    /// Frontends that a Service did not get, because another has them.
    contested: BTreeMap<ServiceKey, BTreeSet<FrontendOwner>>,
}

impl Images {
    /// Continues with the ids that are in the maps.
    pub fn adopt(held: &Held) -> Self {
        let next_set = held.sets.keys().copied().chain(held.heads.values().map(|head| head.set)).max().unwrap_or(0);
        Self { backends: BackendIds::adopt(&held.backends), next_set, ..Self::default() }
    }

    /// What has to be written for `service` to be served as its entry says (`None`: not at all), in the order in which
    /// it must be written: backends, slots, members, heads; then what nothing names any more, heads first.
    ///
    /// Repeated after a failure it gives what is still missing.
    pub fn plan(&mut self, name: &FrontendOwner, entry: Option<&TableService>, held: &Held) -> Vec<Op> {
        let old = self.services.remove(name).unwrap_or_default();
        // `compile` re-adds keys that it still cannot get.
        self.contested.retain(|_, services| {
            services.remove(name);
            !services.is_empty()
        });
        let new = entry.map(|entry| self.compile(entry, &old, held)).unwrap_or_default();
        let mut ops = ops::between(&old, &new, held, &self.backends);
        self.release(&old, &new);
        ops.extend(self.backends.unused(old_backends(&old), held));
        if !new.heads.is_empty() || !new.sets.is_empty() {
            self.services.insert(name.clone(), new);
        }
        ops
    }

    /// Services to plan again, because another Service released a frontend that they also claim.
    pub fn owners_to_retry(&self) -> BTreeSet<FrontendOwner> {
        let free = self.contested.iter().filter(|(key, _)| !self.claims.contains_key(key));
        free.flat_map(|(_, services)| services.iter().cloned()).collect()
    }

    /// Removal of what is held and belongs to no Service: left by an earlier agent, or by drift. Only for a complete
    /// World.
    pub fn sweep(&self, held: &Held) -> Vec<Op> {
        let mut ops: Vec<Op> =
            held.heads.keys().filter(|key| !self.claims.contains_key(key)).map(|key| Op::DeleteHead(*key)).collect();
        for (set, contents) in held.sets.iter().filter(|(set, _)| !self.sets.contains(set)) {
            ops.extend(ops::delete_set(*set, contents));
        }
        ops.extend(held.backends.keys().filter(|id| !self.backends.contains(**id)).map(|id| Op::DeleteBackend(*id)));
        ops
    }

    fn compile(&mut self, entry: &TableService, old: &ServiceImage, held: &Held) -> ServiceImage {
        let affinity_timeout_s =
            entry.affinity.map_or(0, |timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1));
        let mut image = ServiceImage::default();
        let mut known: BTreeMap<SelectionName, SetId> = BTreeMap::new();
        for frontend in &entry.frontends {
            let key = key_of(frontend);
            if self.claims.get(&key).is_some_and(|owner| *owner != entry.owner) {
                self.contested.entry(key).or_default().insert(entry.owner.clone());
                continue;
            }
            self.claims.insert(key, entry.owner.clone());
            let set = match known.get(&frontend.selection.name) {
                Some(set) => *set,
                None => {
                    let set = self.set_for(&frontend.selection.name, key, old, held);
                    known.insert(frontend.selection.name.clone(), set);
                    image.sets.insert(set, self.set_image(set, key, &frontend.selection, old, held));
                    set
                }
            };
            let contents = &image.sets[&set];
            image.heads.insert(
                key,
                ServiceHead {
                    set,
                    generation: contents.generation,
                    count: contents.backends.len() as u32,
                    affinity_timeout_s,
                    flags: flags_of(frontend),
                    _pad: 0,
                },
            );
        }
        image
    }

    /// The id this selection has: since the last plan, or in the maps since an earlier agent; else a new one.
    fn set_for(&mut self, name: &SelectionName, key: ServiceKey, old: &ServiceImage, held: &Held) -> SetId {
        if let Some((set, _)) = old.sets.iter().find(|(_, contents)| contents.name == *name) {
            return *set;
        }
        let adopted = held.heads.get(&key).map(|head| head.set).filter(|set| *set != 0 && !self.sets.contains(set));
        let set = adopted.unwrap_or_else(|| self.fresh_set());
        self.sets.insert(set);
        set
    }

    fn fresh_set(&mut self) -> SetId {
        loop {
            self.next_set = self.next_set.wrapping_add(1);
            if self.next_set != 0 && !self.sets.contains(&self.next_set) {
                return self.next_set;
            }
        }
    }

    fn set_image(
        &mut self,
        set: SetId,
        key: ServiceKey,
        selection: &Selection,
        old: &ServiceImage,
        held: &Held,
    ) -> SetImage {
        let protocol = protocol_number(selection.name.protocol);
        let backends: Vec<BackendId> =
            selection.backends.iter().map(|candidate| self.backends.take(backend_of(candidate, protocol))).collect();
        let contents = held.sets.get(&set);
        let head = held.heads.get(&key).filter(|head| head.set == set).map(|head| head.generation);
        let current = old.sets.get(&set).map(|image| image.generation).or(head);
        let is_held =
            |generation| contents.map_or(backends.is_empty(), |contents| contents.holds(generation, &backends));
        let generation = match current {
            Some(current) if is_held(current) => current,
            // Above every generation that the maps hold, half-written ones included.
            _ => current.max(contents.and_then(HeldSet::last_generation)).unwrap_or(0).wrapping_add(1),
        };
        let draining = selection.excluded.iter().filter(|excluded| excluded.reason.keeps_connections());
        let draining = draining
            .filter_map(|excluded| {
                self.backends.keep(address_be(excluded.address), excluded.port?.to_be(), protocol, held)
            })
            .collect();
        SetImage { name: selection.name.clone(), generation, backends, draining }
    }

    /// Gives up what only the old image used.
    fn release(&mut self, old: &ServiceImage, new: &ServiceImage) {
        for key in old.heads.keys().filter(|key| !new.heads.contains_key(key)) {
            self.claims.remove(key);
        }
        for set in old.sets.keys().filter(|set| !new.sets.contains_key(set)) {
            self.sets.remove(set);
        }
        for backend in old_backends(old) {
            self.backends.release(backend);
        }
    }
}

fn old_backends(image: &ServiceImage) -> impl Iterator<Item = BackendId> {
    image.sets.values().flat_map(|set| set.backends.iter().chain(&set.draining).copied())
}

/// The map key of a frontend.
pub fn key_of(frontend: &Frontend) -> ServiceKey {
    let address = match frontend.address {
        FrontendAddress::ClusterIp(address) | FrontendAddress::External(address) | FrontendAddress::HostIp(address) => {
            address
        }
        FrontendAddress::EveryNode => Ipv4Addr::UNSPECIFIED,
        FrontendAddress::ThisNode => address_from_be(THIS_NODE),
    };
    ServiceKey {
        address_be: address_be(address),
        port_be: frontend.port.to_be(),
        protocol: protocol_number(frontend.protocol),
        scope: match frontend.scope {
            Scope::Internal => scope::INTERNAL,
            Scope::External => scope::EXTERNAL,
        },
    }
}

fn flags_of(frontend: &Frontend) -> u32 {
    let drops = frontend.scope == Scope::External && frontend.selection.elsewhere;
    if drops { head_flags::DROP_WITHOUT_BACKENDS } else { 0 }
}

fn backend_of(candidate: &Candidate, protocol: u8) -> Backend {
    Backend {
        address_be: address_be(candidate.address),
        port_be: candidate.port.to_be(),
        protocol,
        flags: if candidate.local { backend_flags::LOCAL } else { 0 },
    }
}

/// An address as the maps hold it: the bytes in network order.
pub fn address_be(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// The address that [`address_be`] made.
pub fn address_from_be(address_be: u32) -> Ipv4Addr {
    Ipv4Addr::from(address_be.to_ne_bytes())
}

fn protocol_number(protocol: Protocol) -> u8 {
    const SCTP: u8 = 132;
    match protocol {
        Protocol::Tcp => proxy_ebpf::TCP,
        Protocol::Udp => proxy_ebpf::UDP,
        Protocol::Sctp => SCTP,
    }
}
