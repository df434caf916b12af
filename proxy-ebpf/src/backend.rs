//! Backends, and the sets they are picked from.

/// Stable over restarts of the agent; 0 is none.
pub type BackendId = u32;

/// One selection of backends, shared by all frontends that lead to the same; 0 is none.
pub type SetId = u32;

/// Value of `BACKENDS` (keyed by [`BackendId`]), 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// IPv4, network order.
    pub address_be: u32,
    /// Network order.
    pub port_be: u16,
    /// `IPPROTO_*`
    pub protocol: u8,
    /// Bits of [`backend_flags`].
    pub flags: u8,
}

const _: () = assert!(size_of::<Backend>() == 8);

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// Reached without leaving this node.
    pub const LOCAL: u8 = 1;
}

/// Key of `SLOTS`, whose value is a [`BackendId`]; 12 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// The set that the slot belongs to.
    pub set: SetId,
    /// The version of the set: a changed set is written under the next one, and heads are moved to it.
    pub generation: u32,
    /// `0..count` of the head that names this generation.
    pub slot: u32,
}

const _: () = assert!(size_of::<SlotKey>() == 12);

/// Key of `MEMBERS`: present while the backend may be kept by clients of the set (affinity, UDP sockets); 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberKey {
    /// The set; members are kept per set and not per generation.
    pub set: SetId,
    /// One that new connections may get, or that old ones may keep.
    pub backend: BackendId,
}

const _: () = assert!(size_of::<MemberKey>() == 8);
