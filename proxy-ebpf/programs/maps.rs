//! The maps, shared by all programs and pinned by the agent, which finds them by these names.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuHashMap, RingBuf, SkStorage},
    macros::btf_map,
};
use proxy_ebpf::*;

/// Memory is taken for entries that exist, not for the limits.
const LAZY: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static SERVICES: HashMap<ServiceKey, ServiceHead, { limits::SERVICES }, LAZY> = HashMap::new();

#[btf_map]
pub static SLOTS: HashMap<SlotKey, BackendId, { limits::SLOTS }, LAZY> = HashMap::new();

#[btf_map]
pub static MEMBERS: HashMap<MemberKey, u32, { limits::SLOTS }, LAZY> = HashMap::new();

#[btf_map]
pub static BACKENDS: HashMap<BackendId, Backend, { limits::BACKENDS }, LAZY> = HashMap::new();

#[btf_map]
pub static AFFINITY: LruHashMap<AffinityKey, Affinity, { limits::AFFINITIES }> = LruHashMap::new();

/// IPv4 in network order → `node_address` bits.
#[btf_map]
pub static NODE_ADDRESSES: HashMap<u32, u32, { limits::NODE_ADDRESSES }, LAZY> = HashMap::new();

/// Network namespace cookie → the pod's IPv4 in network order.
#[btf_map]
pub static CLIENTS: LruHashMap<u64, u32, { limits::CLIENTS }> = LruHashMap::new();

/// Not pinned: each agent listens to its own programs.
#[btf_map]
pub static UNKNOWN_CLIENTS: RingBuf<UnknownClient, { limits::UNKNOWN_CLIENTS_BYTES }> = RingBuf::new();

#[btf_map]
pub static COUNTERS: PerCpuHashMap<CounterKey, Counters, { limits::COUNTERS }, LAZY> = PerCpuHashMap::new();

/// Socket cookie → where a connected UDP socket was led. Beside socket storage, since sock_diag tells the storage of
/// streams only.
#[btf_map]
pub static CONNECTED_DATAGRAMS: LruHashMap<u64, MemberKey, { limits::CONNECTED_DATAGRAMS }> = LruHashMap::new();

#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, Rewrite, { limits::FLOWS }> = LruHashMap::new();

#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { limits::FRAGMENTS }> = LruHashMap::new();

#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map]
pub static SOCKETS: SkStorage<Translations> = SkStorage::new();
