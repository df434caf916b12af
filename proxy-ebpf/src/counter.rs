//! What happened to a backend of a set, per CPU.

use crate::{BackendId, SetId};

/// Key of `COUNTERS`, 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    /// The set that was picked from.
    pub set: SetId,
    /// 0 counts what no backend got: refusals and drops.
    pub backend: BackendId,
}

const _: () = assert!(size_of::<CounterKey>() == 8);

/// Value of `COUNTERS`, per CPU, 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// New connections (TCP), sockets or first datagrams (UDP) sent to the backend; for backend 0 those refused.
    pub picks: u64,
    /// Of these, kept by session affinity.
    pub affine: u64,
}

const _: () = assert!(size_of::<Counters>() == 16);
