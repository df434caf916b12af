//! Frontends: what a client connects to, and the head that names its backend set.

use crate::SetId;

/// Key of `SERVICES`, 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// IPv4 in network order; 0 is every address in `NODE_ADDRESSES` (a NodePort), [`THIS_NODE`] those of this node (a
    /// host port).
    pub address_be: u32,
    /// Network order.
    pub port_be: u16,
    /// `IPPROTO_*`
    pub protocol: u8,
    /// One of [`scope`].
    pub scope: u8,
}

const _: () = assert!(size_of::<ServiceKey>() == 8);

/// Stands in a [`ServiceKey`] for every address of this node: 127.0.0.0 in network order, which no socket can be bound
/// to.
pub const THIS_NODE: u32 = u32::from_ne_bytes([127, 0, 0, 0]);

/// Which traffic policy a frontend follows.
pub mod scope {
    /// Clients on this node: pods and host.
    pub const INTERNAL: u8 = 0;
    /// Packets that came in on an uplink.
    pub const EXTERNAL: u8 = 1;
}

/// Value of `SERVICES`, 24 bytes: names an immutable backend set, so that one write replaces all of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceHead {
    /// Never 0. Stable while the frontend exists.
    pub set: SetId,
    /// Slots of this generation exist as long as any head names it.
    pub generation: u32,
    /// Backends in the set: slots `0..count`.
    pub count: u32,
    /// ClientIP affinity, seconds after the last connection; 0 is none.
    pub affinity_timeout_s: u32,
    /// Bits of [`head_flags`].
    pub flags: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<ServiceHead>() == 24);

/// Bits of [`ServiceHead::flags`].
pub mod head_flags {
    /// Without backends packets are dropped, not refused: another node has some (policy Local, KEP 2086 and
    /// kube-proxy's rule).
    pub const DROP_WITHOUT_BACKENDS: u32 = 1;
}
