//! The maps, shared by all programs and pinned by the agent, which finds them by these names.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuHashMap, RingBuf, SkStorage},
    macros::btf_map,
};
use proxy_ebpf::*;

/// Memory is taken for entries that exist, not for the limits.
const LAZY: usize = BPF_F_NO_PREALLOC as usize;

/// Frontend → its head: policy, backend set, and number of backends.
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, ServiceHead, { limits::SERVICES }, LAZY> = HashMap::new();

/// Set, generation and slot → backend. A client is sent to the backend in one slot.
#[btf_map]
pub static SLOTS: HashMap<SlotKey, BackendId, { limits::SLOTS }, LAZY> = HashMap::new();

/// Set and backend: present while clients of the set may keep the backend (affinity, UDP sockets).
#[btf_map]
pub static MEMBERS: HashMap<MemberKey, u32, { limits::SLOTS }, LAZY> = HashMap::new();

/// Backend → address, port and protocol.
#[btf_map]
pub static BACKENDS: HashMap<BackendId, Backend, { limits::BACKENDS }, LAZY> = HashMap::new();

/// Set and client → the backend that session affinity keeps.
#[btf_map]
pub static AFFINITY: LruHashMap<AffinityKey, Affinity, { limits::AFFINITIES }> = LruHashMap::new();

/// IPv4 in network order → `node_address` bits.
#[btf_map]
pub static NODE_ADDRESSES: HashMap<u32, u32, { limits::NODE_ADDRESSES }, LAZY> = HashMap::new();

/// Network namespace cookie → the pod's IPv4 in network order.
#[btf_map]
pub static CLIENTS: LruHashMap<u64, u32, { limits::CLIENTS }> = LruHashMap::new();

/// Clients whose address the programs do not know. Not pinned: each agent reads what its own programs write.
#[btf_map]
pub static UNKNOWN_CLIENTS: RingBuf<UnknownClient, { limits::UNKNOWN_CLIENTS_BYTES }> = RingBuf::new();

/// Set and backend → how often it was picked, per CPU.
#[btf_map]
pub static COUNTERS: PerCpuHashMap<CounterKey, Counters, { limits::COUNTERS }, LAZY> = PerCpuHashMap::new();

/// Socket cookie → the backend of a connected UDP socket. Beside socket storage, since sock_diag reports socket storage
/// only for TCP.
#[btf_map]
pub static CONNECTED_DATAGRAMS: LruHashMap<u64, MemberKey, { limits::CONNECTED_DATAGRAMS }> = LruHashMap::new();

/// Connection through an uplink → how its packets are rewritten.
#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, Rewrite, { limits::FLOWS }> = LruHashMap::new();

/// Fragmented packet → the ports of its first fragment.
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { limits::FRAGMENTS }> = LruHashMap::new();

/// What the programs know of their node: one entry.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Socket storage: the Service addresses that a socket connected to, and its backends.
#[btf_map]
pub static SOCKETS: SkStorage<Translations> = SkStorage::new();
