//! The maps as the map reconciler sees them: one write at a time, each with an error that names the map and its limit.

mod kernel;
#[cfg(test)]
pub mod recording;

pub use kernel::KernelMaps;
use proxy_ebpf::{Backend, BackendId, Counters, ServiceHead, limits};

use super::image::{Held, Op};

/// Where a plan is carried out.
pub trait BpfMaps: Send {
    /// All that is held now.
    fn read(&self) -> Result<Held, MapError>;

    /// Carries out one operation; removing what is not there is no error.
    fn apply(&mut self, op: &Op) -> Result<(), MapError>;
}

/// A frontend as a datapath serves it at the moment of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFrontend {
    /// Its entry in `SERVICES`.
    pub head: ServiceHead,
    /// In slot order.
    pub backends: Vec<HeldBackend>,
    /// What got no backend.
    pub unserved: Counters,
}

/// A backend that the datapath serves, with its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBackend {
    /// As in the map's slots; in the userspace datapath its place in the rotation, from 1.
    pub id: BackendId,
    /// Where it is.
    pub backend: Backend,
    /// Summed over the CPUs.
    pub counters: Counters,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// Its name in the programs.
    pub map: &'static str,
    /// How many it holds now.
    pub entries: usize,
    /// How many it takes.
    pub limit: usize,
}

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The cluster has more Services or endpoints than the map takes: see `proxy_ebpf::limits`.
    #[error("map {map} is full: it takes {limit} entries")]
    Full {
        /// Its name in the programs.
        map: &'static str,
        /// How many entries it takes.
        limit: usize,
    },
    /// The kernel refused a write.
    #[error("cannot write {op:?} to map {map}")]
    Write {
        /// Its name in the programs.
        map: &'static str,
        /// What was to be written.
        op: Op,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel refused the address of a client's namespace: affinity stays by namespace.
    #[error("cannot write map CLIENTS")]
    Client {
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel refused to show an entry.
    #[error("cannot read map {map}")]
    Read {
        /// Its name in the programs.
        map: &'static str,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The agent and its BPF programs are not of one build.
    #[error("map {map} is not in the programs, or of another type")]
    Missing {
        /// Its name in the agent.
        map: &'static str,
    },
}

/// The map an operation writes to, and its limit.
pub fn map_of(op: &Op) -> (&'static str, usize) {
    match op {
        Op::PutHead(..) | Op::DeleteHead(..) => ("SERVICES", limits::SERVICES),
        Op::PutSlot(..) | Op::DeleteSlot(..) => ("SLOTS", limits::SLOTS),
        Op::PutMember(..) | Op::DeleteMember(..) => ("MEMBERS", limits::SLOTS),
        Op::PutBackend(..) | Op::DeleteBackend(..) => ("BACKENDS", limits::BACKENDS),
        Op::PutNodeAddress(..) | Op::DeleteNodeAddress(..) => ("NODE_ADDRESSES", limits::NODE_ADDRESSES),
        Op::PutSettings(..) => ("SETTINGS", 1),
    }
}
