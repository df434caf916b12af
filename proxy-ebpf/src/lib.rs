//! What the kernel and userspace halves of the datapath share: map keys and values, and the decisions taken on them.
//!
//! Nothing here does I/O or knows a BPF helper, so that all of it is tested on the host. Layouts are part of the pinned
//! state: changing one means a new [`LAYOUT_VERSION`].
#![cfg_attr(not(test), no_std)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod affinity;
mod backend;
mod client;
mod counter;
mod flow;
#[cfg(test)]
mod layout;
pub mod node_address;
mod pick;
mod reverse_nat;
mod service;
mod settings;

pub use affinity::{Affinity, AffinityKey};
pub use backend::{Backend, BackendId, MemberKey, SetId, SlotKey, backend_flags};
pub use client::UnknownClient;
pub use counter::{CounterKey, Counters};
pub use flow::{FlowKey, FragmentKey, FragmentPorts, Rewrite, flow_flags, nat_port};
pub use pick::{hash, slot_for};
pub use reverse_nat::{REFUSING_SET, TRANSLATIONS, Translation, Translations};
pub use service::{ServiceHead, ServiceKey, THIS_NODE, head_flags, scope};
pub use settings::{SETTINGS_KEY, Settings};

/// Version of every layout in this crate; part of the pin path, so that two versions never share a map.
///
/// `layout.rs` fails when an offset changes without it.
pub const LAYOUT_VERSION: u32 = 2;

/// `IPPROTO_TCP`
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`
pub const UDP: u8 = 17;

/// Most entries each map takes. The agent names the map and the limit when one is full.
pub mod limits {
    /// Frontends: address, port, protocol and scope.
    pub const SERVICES: usize = 1 << 18;
    /// Places in backend sets, over all sets; during a change both generations of one set count.
    pub const SLOTS: usize = 1 << 20;
    /// Distinct backends: address, port and protocol.
    pub const BACKENDS: usize = 1 << 18;
    /// Clients remembered for session affinity; the least recently seen is forgotten first.
    pub const AFFINITIES: usize = 1 << 16;
    /// Addresses of nodes.
    pub const NODE_ADDRESSES: usize = 1 << 14;
    /// Network namespaces whose pod address is known; the least recently used one is evicted, and looked up again when
    /// needed.
    pub const CLIENTS: usize = 1 << 14;
    /// Bytes of the queue of namespaces whose address is asked for; a page at least.
    pub const UNKNOWN_CLIENTS_BYTES: usize = 1 << 14;
    /// Connected UDP sockets that can be closed when their backend leaves; the least recently connected is forgotten
    /// first.
    pub const CONNECTED_DATAGRAMS: usize = 1 << 15;
    /// Two for each connection of clients outside; the least recently used is forgotten first.
    pub const FLOWS: usize = 1 << 17;
    /// Fragmented packets on their way.
    pub const FRAGMENTS: usize = 1 << 12;
    /// Backends of sets that were picked at least once.
    pub const COUNTERS: usize = 1 << 18;
}

#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($kind:ty)*) => {$(
            // SAFETY: all are `repr(C)`, `Copy`, made of integers, with every padding byte named.
            unsafe impl aya::Pod for $kind {}
        )*};
    }

    pod! {
        ServiceKey ServiceHead SlotKey MemberKey Backend AffinityKey Affinity FlowKey
        Rewrite CounterKey Counters Settings Translation Translations
    }
}
