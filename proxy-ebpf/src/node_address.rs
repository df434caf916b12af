//! Bits of the `u32` values of `NODE_ADDRESSES` (keyed by IPv4 in network order): addresses on which NodePorts answer.

/// An address of this node; without it, of another.
pub const LOCAL: u32 = 1;
