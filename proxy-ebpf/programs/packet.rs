//! What the packet hooks need to know of an IPv4 packet in an Ethernet frame.

use aya_ebpf::{bindings::BPF_ANY, programs::TcContext};
use proxy_ebpf::{FlowKey, FragmentKey, FragmentPorts, TCP, UDP};

use crate::maps::FRAGMENTS;

/// Where the IPv4 header starts: only Ethernet devices get the hooks.
pub const IP: usize = 14;
/// Offset of the time to live, one byte.
pub const IP_TTL: usize = IP + 8;
/// Offset of the header's checksum, two bytes in network order.
pub const IP_CHECKSUM: usize = IP + 10;
/// Offset of the source address, four bytes in network order.
pub const IP_SOURCE: usize = IP + 12;
/// Offset of the destination address, four bytes in network order.
pub const IP_DESTINATION: usize = IP + 16;

const ETH_P_IP_BE: u32 = 0x0800_u16.to_be() as u32;

/// A TCP or UDP packet.
pub struct Packet {
    /// Addresses, ports and protocol as the packet carries them. In later fragments the ports are those of the first.
    pub flow: FlowKey,
    /// Offset of the TCP or UDP header; `None` in a fragment other than the first.
    pub transport: Option<usize>,
    /// A TCP segment that opens a connection.
    pub opens: bool,
    /// Time to live, before this node takes one hop off.
    pub ttl: u8,
}

/// RFC 791, without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4Header {
    version_and_length: u8,
    tos: u8,
    total_length_be: u16,
    /// Alike in all fragments of one packet; network order.
    pub identification_be: u16,
    fragment_be: u16,
    /// Time to live, hops.
    pub ttl: u8,
    /// `IPPROTO_*`
    pub protocol: u8,
    checksum_be: u16,
    /// Network order.
    pub source_be: u32,
    /// Network order.
    pub destination_be: u32,
}

impl Ipv4Header {
    /// Whether the packet is not a fragment.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        u16::from_be(self.fragment_be) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0
    }
}

const _: () = assert!(size_of::<Ipv4Header>() == 20);

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The IPv4 header at offset `at`, and the offset of what follows it.
#[inline(always)]
pub fn ipv4(ctx: &TcContext, at: usize) -> Option<(Ipv4Header, usize)> {
    // SAFETY: the kernel hands a valid context for the duration of the program.
    if unsafe { (*ctx.skb.skb).protocol } != ETH_P_IP_BE {
        return None;
    }
    let ip: Ipv4Header = ctx.load(at).ok()?;
    let length = (ip.version_and_length & 0xf) as usize * 4;
    if length < size_of::<Ipv4Header>() {
        return None;
    }
    Some((ip, at + length))
}

/// Reads the headers; `None` for what no Service can be meant by.
#[inline(always)]
pub fn read(ctx: &TcContext) -> Option<Packet> {
    let (ip, transport) = ipv4(ctx, IP)?;
    if ip.protocol != TCP && ip.protocol != UDP {
        return None;
    }
    let fragment = u16::from_be(ip.fragment_be);
    let key = FragmentKey {
        source_be: ip.source_be,
        destination_be: ip.destination_be,
        identification_be: ip.identification_be,
        protocol: ip.protocol,
        _pad: 0,
    };
    let first = fragment & FRAGMENT_OFFSET == 0;
    let ports = if first {
        let ports: FragmentPorts = ctx.load(transport).ok()?;
        if fragment & MORE_FRAGMENTS != 0 {
            // Without room the rest of this packet is lost, as any fragment may be.
            FRAGMENTS.insert(key, ports, BPF_ANY as u64).ok();
        }
        ports
    } else {
        // SAFETY: an entry stays readable until this program ends.
        *unsafe { FRAGMENTS.get(key) }?
    };
    Some(Packet {
        flow: FlowKey {
            source_be: ip.source_be,
            destination_be: ip.destination_be,
            source_port_be: ports.source_port_be,
            destination_port_be: ports.destination_port_be,
            protocol: ip.protocol,
            _pad: [0; 3],
        },
        transport: if first { Some(transport) } else { None },
        opens: ip.protocol == TCP && first && opens(ctx, transport),
        ttl: ip.ttl,
    })
}

/// SYN without ACK.
#[inline(always)]
fn opens(ctx: &TcContext, transport: usize) -> bool {
    const FLAGS: usize = 13;
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    ctx.load::<u8>(transport + FLAGS).is_ok_and(|flags| flags & (SYN | ACK) == SYN)
}
