//! The kernel's maps, through aya.

use std::io;

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapKeys, PerCpuHashMap},
};
use proxy_ebpf::{
    Backend, BackendId, CounterKey, Counters, MemberKey, SETTINGS_KEY, ServiceHead, ServiceKey, SetId, Settings,
    SlotKey, limits,
};

use super::{BpfMaps, HeldBackend, HeldFrontend, MapError, MapUsage, map_of};
use crate::proxy::image::{Held, Op};

/// The maps in the kernel.
pub struct KernelMaps {
    services: HashMap<MapData, ServiceKey, ServiceHead>,
    slots: HashMap<MapData, SlotKey, BackendId>,
    members: HashMap<MapData, MemberKey, u32>,
    backends: HashMap<MapData, BackendId, Backend>,
    node_addresses: HashMap<MapData, u32, u32>,
    settings: Array<MapData, Settings>,
    counters: PerCpuHashMap<MapData, CounterKey, Counters>,
    clients: HashMap<MapData, u64, u32>,
}

impl KernelMaps {
    /// Takes the maps out of the loaded programs.
    pub fn take(programs: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self {
            services: map(programs, "SERVICES")?,
            slots: map(programs, "SLOTS")?,
            members: map(programs, "MEMBERS")?,
            backends: map(programs, "BACKENDS")?,
            node_addresses: map(programs, "NODE_ADDRESSES")?,
            settings: map(programs, "SETTINGS")?,
            counters: map(programs, "COUNTERS")?,
            clients: map(programs, "CLIENTS")?,
        })
    }

    /// What the kernel does with a frontend now; `None` where it does not know the frontend.
    pub fn frontend(&self, key: &ServiceKey) -> Result<Option<HeldFrontend>, MapError> {
        let Some(head) = present(self.services.get(key, 0), "SERVICES")? else { return Ok(None) };
        let mut backends = Vec::new();
        for slot in 0..head.count {
            let slot_key = SlotKey { set: head.set, generation: head.generation, slot };
            let Some(id) = present(self.slots.get(&slot_key, 0), "SLOTS")? else { continue };
            let Some(backend) = present(self.backends.get(&id, 0), "BACKENDS")? else { continue };
            backends.push(HeldBackend { id, backend, counters: self.counters(head.set, id)? });
        }
        Ok(Some(HeldFrontend { head, backends, unserved: self.counters(head.set, 0)? }))
    }

    /// Sets the address of the clients in a network namespace; network order.
    pub fn put_client(&mut self, netns_cookie: u64, address_be: u32) -> Result<(), MapError> {
        self.clients.insert(netns_cookie, address_be, 0).map_err(|source| MapError::Client { source: source.into() })
    }

    /// How many entries each map holds, with its limit.
    pub fn usage(&self) -> Result<Vec<MapUsage>, MapError> {
        let usage = |map, count: Result<usize, aya::maps::MapError>, limit| {
            count.map(|entries| MapUsage { map, entries, limit }).map_err(|source| read_error(map, source))
        };
        Ok(vec![
            usage("SERVICES", count(self.services.keys()), limits::SERVICES)?,
            usage("SLOTS", count(self.slots.keys()), limits::SLOTS)?,
            usage("MEMBERS", count(self.members.keys()), limits::SLOTS)?,
            usage("BACKENDS", count(self.backends.keys()), limits::BACKENDS)?,
            usage("NODE_ADDRESSES", count(self.node_addresses.keys()), limits::NODE_ADDRESSES)?,
        ])
    }

    /// The counters of `backend` of `set`, summed over all CPUs; `backend` 0 counts what no backend got.
    fn counters(&self, set: SetId, backend: BackendId) -> Result<Counters, MapError> {
        let values = present(self.counters.get(&CounterKey { set, backend }, 0), "COUNTERS")?;
        let Some(values) = values else { return Ok(Counters::default()) };
        Ok(values.iter().fold(Counters::default(), |sum, cpu| Counters {
            picks: sum.picks + cpu.picks,
            affine: sum.affine + cpu.affine,
        }))
    }
}

impl BpfMaps for KernelMaps {
    fn read(&self) -> Result<Held, MapError> {
        let mut held = Held { heads: entries(&self.services, "SERVICES")?, ..Held::default() };
        for (key, backend) in entries::<_, _, Vec<_>>(&self.slots, "SLOTS")? {
            held.sets.entry(key.set).or_default().slots.insert((key.generation, key.slot), backend);
        }
        for (key, _) in entries::<_, _, Vec<_>>(&self.members, "MEMBERS")? {
            held.sets.entry(key.set).or_default().members.insert(key.backend);
        }
        held.backends = entries(&self.backends, "BACKENDS")?;
        held.node_addresses = entries(&self.node_addresses, "NODE_ADDRESSES")?;
        held.settings = self.settings.get(&SETTINGS_KEY, 0).map_err(|source| read_error("SETTINGS", source))?;
        Ok(held)
    }

    fn apply(&mut self, op: &Op) -> Result<(), MapError> {
        const PRESENT: u32 = 1;
        let result = match op {
            Op::PutBackend(id, backend) => self.backends.insert(id, backend, 0),
            Op::PutSlot(key, backend) => self.slots.insert(key, backend, 0),
            Op::PutMember(key) => self.members.insert(key, PRESENT, 0),
            Op::PutHead(key, head) => self.services.insert(key, head, 0),
            Op::DeleteHead(key) => self.services.remove(key),
            Op::DeleteSlot(key) => self.slots.remove(key),
            Op::DeleteMember(key) => {
                let counters = absent_is_fine(self.counters.remove(&CounterKey { set: key.set, backend: key.backend }));
                counters.and_then(|()| self.members.remove(key))
            }
            Op::DeleteBackend(id) => self.backends.remove(id),
            Op::PutNodeAddress(address_be, flags) => self.node_addresses.insert(address_be, flags, 0),
            Op::DeleteNodeAddress(address_be) => self.node_addresses.remove(address_be),
            Op::PutSettings(settings) => self.settings.set(SETTINGS_KEY, settings, 0),
        };
        absent_is_fine(result).map_err(|source| write_error(op, source))
    }
}

fn map<M>(programs: &mut Ebpf, name: &'static str) -> Result<M, MapError>
where
    M: TryFrom<aya::maps::Map>,
{
    programs.take_map(name).and_then(|map| M::try_from(map).ok()).ok_or(MapError::Missing { map: name })
}

fn entries<K: Pod, V: Pod, C: FromIterator<(K, V)>>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<C, MapError> {
    map.iter().collect::<Result<C, _>>().map_err(|source| read_error(name, source))
}

fn present<V>(result: Result<V, aya::maps::MapError>, name: &'static str) -> Result<Option<V>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(aya::maps::MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(read_error(name, source)),
    }
}

fn count<K: Pod>(keys: MapKeys<'_, K>) -> Result<usize, aya::maps::MapError> {
    keys.into_iter().try_fold(0, |count, key| key.map(|_| count + 1))
}

fn absent_is_fine(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_error(map: &'static str, source: aya::maps::MapError) -> MapError {
    MapError::Read { map, source: source.into() }
}

fn write_error(op: &Op, source: aya::maps::MapError) -> MapError {
    let (map, limit) = map_of(op);
    match source {
        aya::maps::MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
            MapError::Full { map, limit }
        }
        source => MapError::Write { map, op: *op, source: source.into() },
    }
}
