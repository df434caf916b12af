//! ICMP errors about packets that were rewritten: they quote what the reporter saw, and must quote what the receiver
//! sent.
//!
//! Without this a client is not told that a datagram was refused, and path MTU discovery fails behind a NodePort.

use aya_ebpf::programs::TcContext;
use proxy_ebpf::{FlowKey, FragmentPorts, Rewrite, TCP, UDP};

use crate::{
    maps::FLOWS,
    nat::{self, DROP, PASS},
    packet::{self, IP_CHECKSUM, IP_DESTINATION, IP_SOURCE, Ipv4Header, Packet},
};

const ICMP: u8 = 1;
const CHECKSUM: usize = 2;
/// Where the quoted packet starts, after the ICMP header.
const QUOTED: usize = 8;
const DESTINATION_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// An ICMP error that quotes a packet of a known flow.
struct Error {
    outer: Ipv4Header,
    /// Offset of the ICMP header.
    at: usize,
    /// Offset of the quoted packet's ports.
    ports_at: usize,
    quoted: FlowKey,
    rewrite: Rewrite,
}

/// Translates the packet if it is such an error, and sends or passes it on; `None` where it is not.
#[inline(always)]
pub fn translate(ctx: &TcContext) -> Option<i32> {
    let error = read(ctx)?;
    // The quoted packet went the other way: it is what this flow's packets answer.
    let meant = error.rewrite.applied(&error.quoted.reversed()).reversed();
    let Some(to) = write(ctx, &error, &meant) else { return Some(DROP) };
    if to.source_be == error.outer.source_be {
        return Some(PASS);
    }
    if error.rewrite.flags & proxy_ebpf::flow_flags::FORWARD == 0 {
        return Some(PASS);
    }
    // From an address of this node now, which its own stack would not take from outside.
    let packet = Packet { flow: error.quoted, transport: None, opens: false, ttl: error.outer.ttl };
    Some(nat::forward(ctx, &packet, &to))
}

#[inline(always)]
fn read(ctx: &TcContext) -> Option<Error> {
    let (outer, at) = packet::ipv4(ctx, packet::IP)?;
    if outer.protocol != ICMP || !outer.is_whole() {
        return None;
    }
    let kind: u8 = ctx.load(at).ok()?;
    if kind != DESTINATION_UNREACHABLE && kind != TIME_EXCEEDED && kind != PARAMETER_PROBLEM {
        return None;
    }
    let (inner, ports_at) = packet::ipv4(ctx, at + QUOTED)?;
    if inner.protocol != TCP && inner.protocol != UDP {
        return None;
    }
    let ports: FragmentPorts = ctx.load(ports_at).ok()?;
    let quoted = FlowKey {
        source_be: inner.source_be,
        destination_be: inner.destination_be,
        source_port_be: ports.source_port_be,
        destination_port_be: ports.destination_port_be,
        protocol: inner.protocol,
        _pad: [0; 3],
    };
    // SAFETY: an entry stays readable until this program ends; a value is replaced as a whole.
    let rewrite = unsafe { FLOWS.get(quoted.reversed()) }.copied()?;
    Some(Error { outer, at, ports_at, quoted, rewrite })
}

/// Writes the quoted packet as it is `meant`, and the outer addresses that go with it, which are returned.
///
/// A quoted header keeps its own sum, so the ICMP checksum changes by the ports alone.
#[inline(always)]
fn write(ctx: &TcContext, error: &Error, meant: &FlowKey) -> Option<FlowKey> {
    let (quoted, outer) = (&error.quoted, &error.outer);
    let shift = error.at + QUOTED - packet::IP;
    ctx.l3_csum_replace(shift + IP_CHECKSUM, quoted.source_be as u64, meant.source_be as u64, 4).ok()?;
    ctx.l3_csum_replace(shift + IP_CHECKSUM, quoted.destination_be as u64, meant.destination_be as u64, 4).ok()?;
    ctx.store(shift + IP_SOURCE, &meant.source_be, 0).ok()?;
    ctx.store(shift + IP_DESTINATION, &meant.destination_be, 0).ok()?;
    let checksum = error.at + CHECKSUM;
    ctx.l4_csum_replace(checksum, quoted.source_port_be as u64, meant.source_port_be as u64, 2).ok()?;
    ctx.l4_csum_replace(checksum, quoted.destination_port_be as u64, meant.destination_port_be as u64, 2).ok()?;
    ctx.store(error.ports_at, &meant.source_port_be, 0).ok()?;
    ctx.store(error.ports_at + 2, &meant.destination_port_be, 0).ok()?;

    let source_be = if outer.source_be == quoted.destination_be { meant.destination_be } else { outer.source_be };
    let destination_be = if outer.destination_be == quoted.source_be { meant.source_be } else { outer.destination_be };
    ctx.l3_csum_replace(IP_CHECKSUM, outer.source_be as u64, source_be as u64, 4).ok()?;
    ctx.l3_csum_replace(IP_CHECKSUM, outer.destination_be as u64, destination_be as u64, 4).ok()?;
    ctx.store(IP_SOURCE, &source_be, 0).ok()?;
    ctx.store(IP_DESTINATION, &destination_be, 0).ok()?;
    Some(FlowKey { source_be, destination_be, protocol: ICMP, ..*meant })
}
