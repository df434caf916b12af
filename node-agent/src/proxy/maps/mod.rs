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
    pub head: ServiceHead,
    /// In slot order.
    pub backends: Vec<HeldBackend>,
    /// What got no backend.
    pub unserved: Counters,
}

/// A backend that the datapath serves, with its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBackend {
    pub id: BackendId,
    pub backend: Backend,
    pub counters: Counters,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUsage {
    pub map: &'static str,
    pub entries: usize,
    pub limit: usize,
}

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("map {map} is full: it takes {limit} entries")]
    Full { map: &'static str, limit: usize },
    #[error("cannot write {op:?} to map {map}")]
    Write { map: &'static str, op: Op, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot write map CLIENTS")]
    Client { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot read map {map}")]
    Read { map: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("map {map} is not in the programs, or of another type")]
    Missing { map: &'static str },
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
