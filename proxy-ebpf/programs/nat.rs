//! Rewriting a packet's addresses and ports with its checksums, and sending it on.

use aya_ebpf::{
    bindings::{
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_SHOT,
        bpf_fib_lookup,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh},
    programs::TcContext,
};
use proxy_ebpf::{FlowKey, TCP};

use crate::packet::{IP_CHECKSUM, IP_DESTINATION, IP_SOURCE, IP_TTL, Packet};

/// The next program or the stack decides.
pub const PASS: i32 = -1;
/// Verdict: the packet is dropped.
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// Turns `packet` into `to`. `None` where the packet could not be written: it must be dropped, as it may be half done.
#[inline(always)]
pub fn rewrite(ctx: &TcContext, packet: &Packet, to: &FlowKey) -> Option<()> {
    let from = &packet.flow;
    if let Some(transport) = packet.transport {
        let (checksum, zero_is_none) =
            if from.protocol == TCP { (transport + 16, 0) } else { (transport + 6, BPF_F_MARK_MANGLED_0 as u64) };
        let address = BPF_F_PSEUDO_HDR as u64 | 4 | zero_is_none;
        let port = 2 | zero_is_none;
        ctx.l4_csum_replace(checksum, from.source_be as u64, to.source_be as u64, address).ok()?;
        ctx.l4_csum_replace(checksum, from.destination_be as u64, to.destination_be as u64, address).ok()?;
        ctx.l4_csum_replace(checksum, from.source_port_be as u64, to.source_port_be as u64, port).ok()?;
        ctx.l4_csum_replace(checksum, from.destination_port_be as u64, to.destination_port_be as u64, port).ok()?;
        ctx.store(transport, &to.source_port_be, 0).ok()?;
        ctx.store(transport + 2, &to.destination_port_be, 0).ok()?;
    }
    ctx.l3_csum_replace(IP_CHECKSUM, from.source_be as u64, to.source_be as u64, 4).ok()?;
    ctx.l3_csum_replace(IP_CHECKSUM, from.destination_be as u64, to.destination_be as u64, 4).ok()?;
    ctx.store(IP_SOURCE, &to.source_be, 0).ok()?;
    ctx.store(IP_DESTINATION, &to.destination_be, 0).ok()
}

/// Sends a rewritten packet on as a router does. It does not pass this node's stack, which would drop it: its source is
/// an address of this node.
#[inline(always)]
pub fn forward(ctx: &TcContext, packet: &Packet, to: &FlowKey) -> i32 {
    const AF_INET: u8 = 2;
    if packet.ttl <= 1 {
        return DROP;
    }
    // SAFETY: zeroes are a valid value of this plain struct of integers and unions of integers.
    let mut route: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    route.family = AF_INET;
    route.l4_protocol = to.protocol;
    route.__bindgen_anon_3.ipv4_src = to.source_be;
    route.__bindgen_anon_4.ipv4_dst = to.destination_be;
    // SAFETY: the context and the struct are valid for the call, and its length is the struct's.
    let found = unsafe {
        route.ifindex = (*ctx.skb.skb).ingress_ifindex;
        bpf_fib_lookup(ctx.skb.skb.cast(), &raw mut route, size_of::<bpf_fib_lookup>() as i32, 0)
    };
    if found != BPF_FIB_LKUP_RET_SUCCESS as i64 && found != BPF_FIB_LKUP_RET_NO_NEIGH as i64 {
        return DROP;
    }
    if decrement_ttl(ctx, packet.ttl, to.protocol).is_none() {
        return DROP;
    }
    // SAFETY: no parameters: the kernel looks up the neighbour itself.
    unsafe { bpf_redirect_neigh(route.ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

#[inline(always)]
fn decrement_ttl(ctx: &TcContext, ttl: u8, protocol: u8) -> Option<()> {
    let word = |ttl: u8| u16::from_ne_bytes([ttl, protocol]) as u64;
    ctx.l3_csum_replace(IP_CHECKSUM, word(ttl), word(ttl - 1), 2).ok()?;
    ctx.store(IP_TTL, &(ttl - 1), 0).ok()
}
