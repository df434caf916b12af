//! Connections of clients outside this node: which packets belong together, and how each direction is rewritten.
//!
//! Each connection has two entries in `FLOWS`: that of the client's packets and that of the replies, as they look
//! before the rewriting. What a packet becomes is the reverse of the key of the other direction.

use crate::{BackendId, SetId};

/// Key of `FLOWS`: a packet's addresses and ports, all network order, 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// IPv4, network order.
    pub source_be: u32,
    /// IPv4, network order.
    pub destination_be: u32,
    /// Network order.
    pub source_port_be: u16,
    /// Network order.
    pub destination_port_be: u16,
    /// `IPPROTO_*`
    pub protocol: u8,
    /// Zero. Keys are compared byte by byte.
    pub _pad: [u8; 3],
}

const _: () = assert!(size_of::<FlowKey>() == 16);

/// Value of `FLOWS`, 24 bytes: what packets of the flow are made into.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// IPv4, network order.
    pub source_be: u32,
    /// IPv4, network order.
    pub destination_be: u32,
    /// Network order.
    pub source_port_be: u16,
    /// Network order.
    pub destination_port_be: u16,
    /// The set that the client's connection was picked from, for its counters.
    pub set: SetId,
    /// 0 for a refusal, which is looked up again with every packet.
    pub backend: BackendId,
    /// Bits of [`flow_flags`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Rewrite>() == 24);

/// Bits of [`Rewrite::flags`].
pub mod flow_flags {
    /// Packets of the client; without it, replies.
    pub const FROM_CLIENT: u32 = 1;
    /// Redirected to another node by the program, without passing this node's own stack.
    pub const FORWARD: u32 = 2;
}

impl FlowKey {
    /// The key of the packets that answer.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            source_be: self.destination_be,
            destination_be: self.source_be,
            source_port_be: self.destination_port_be,
            destination_port_be: self.source_port_be,
            ..*self
        }
    }

    /// Spreads flows over backends alike on every node, for the same set.
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        let addresses = (self.source_be as u64) << 32 | self.destination_be as u64;
        let ports = (self.source_port_be as u64) << 32 | (self.destination_port_be as u64) << 8 | self.protocol as u64;
        crate::hash(addresses ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Rewrite {
    /// What a packet with `key` looks like afterwards.
    #[inline(always)]
    pub fn applied(&self, key: &FlowKey) -> FlowKey {
        FlowKey {
            source_be: self.source_be,
            destination_be: self.destination_be,
            source_port_be: self.source_port_be,
            destination_port_be: self.destination_port_be,
            ..*key
        }
    }

    /// The rewriting of the replies to what this makes of `key`: back to how the client sees it.
    #[inline(always)]
    pub fn of_replies(&self, key: &FlowKey) -> (FlowKey, Rewrite) {
        let shown = key.reversed();
        let rewrite = Rewrite {
            source_be: shown.source_be,
            destination_be: shown.destination_be,
            source_port_be: shown.source_port_be,
            destination_port_be: shown.destination_port_be,
            flags: self.flags & !flow_flags::FROM_CLIENT,
            ..*self
        };
        (self.applied(key).reversed(), rewrite)
    }
}

/// The `attempt`th port to try as the source of a connection to another node's backend; host order.
///
/// Never one that the kernel gives this node's own sockets (32768 to 60999, its default range): such a socket could
/// later come to have the same addresses and ports. The client's own port comes first, moved below that range where it
/// is in it; then those above.
#[inline(always)]
pub fn nat_port(client_port: u16, hash: u32, attempt: u32) -> u16 {
    const OWN: core::ops::RangeInclusive<u16> = 32_768..=60_999;
    const BELOW: u16 = 30_720;
    const FIRST: u32 = 61_000;
    const PORTS: u32 = 65_536 - FIRST;
    if attempt == 0 && OWN.contains(&client_port) {
        return client_port - BELOW;
    }
    if attempt == 0 && client_port >= 1024 {
        return client_port;
    }
    let start = ((hash as u64 * PORTS as u64) >> 32) as u32;
    let place = start + attempt;
    (FIRST + if place >= PORTS { place - PORTS } else { place }) as u16
}

/// Key of `FRAGMENTS`: fragments of one packet, 12 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Network order.
    pub source_be: u32,
    /// Network order.
    pub destination_be: u32,
    /// IPv4 identification, network order.
    pub identification_be: u16,
    /// `IPPROTO_*`
    pub protocol: u8,
    /// Zero. Keys are compared byte by byte.
    pub _pad: u8,
}

const _: () = assert!(size_of::<FragmentKey>() == 12);

/// Value of `FRAGMENTS`: the ports, which only the first fragment has; network order, 4 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Network order.
    pub source_port_be: u16,
    /// Network order.
    pub destination_port_be: u16,
}

const _: () = assert!(size_of::<FragmentPorts>() == 4);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> FlowKey {
        FlowKey {
            source_be: 1,
            destination_be: 2,
            source_port_be: 3,
            destination_port_be: 4,
            protocol: crate::TCP,
            _pad: [0; 3],
        }
    }

    #[test]
    fn a_reply_comes_back_as_the_answer_to_what_the_client_sent() {
        let forward = Rewrite {
            source_be: 10,
            destination_be: 20,
            source_port_be: 30,
            destination_port_be: 40,
            set: 1,
            backend: 1,
            flags: flow_flags::FROM_CLIENT | flow_flags::FORWARD,
        };
        let at_backend = forward.applied(&key());
        let (reply_key, reply) = forward.of_replies(&key());
        assert_eq!(reply_key, at_backend.reversed());
        assert_eq!(reply.applied(&reply_key), key().reversed());
        assert_eq!(reply.flags, flow_flags::FORWARD);
    }

    proptest! {
        #[test]
        fn ports_to_try_are_never_those_of_the_nodes_own_sockets(client: u16, hash: u32, attempt in 0u32..16) {
            let port = nat_port(client, hash, attempt);
            prop_assert!(port >= 1024 && !(32_768..61_000).contains(&port));
        }
    }
}
