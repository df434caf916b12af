//! Packets that leave through an uplink: replies of this node's backends to clients outside get the address that the
//! client knows.

use aya_ebpf::{macros::classifier, programs::TcContext};
use proxy_ebpf::flow_flags;

use crate::{
    icmp,
    maps::FLOWS,
    nat::{self, DROP, PASS},
    packet,
};

/// Hook of packets that leave by an uplink.
#[classifier]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    let Some(packet) = packet::read(&ctx) else { return icmp::translate(&ctx).unwrap_or(PASS) };
    // SAFETY: an entry stays readable until this program ends; each is written once, before the first reply.
    let Some(rewrite) = (unsafe { FLOWS.get(packet.flow) }) else { return PASS };
    if rewrite.flags & (flow_flags::FROM_CLIENT | flow_flags::FORWARD) != 0 {
        return PASS;
    }
    match nat::rewrite(&ctx, &packet, &rewrite.applied(&packet.flow)) {
        Some(()) => PASS,
        None => DROP,
    }
}
