//! Packets that come in through an uplink: those of clients outside to a NodePort, a host port, an external IP or a
//! ClusterIP are sent to a backend, and replies from other nodes' backends back to the client.
//!
//! A backend on this node sees the client's address; one on another node sees this node's, so that its replies come
//! back here.

use aya_ebpf::{
    bindings::{
        BPF_ANY, BPF_NOEXIST, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    },
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    macros::classifier,
    programs::TcContext,
};
use proxy_ebpf::*;

use crate::{
    icmp,
    maps::{AFFINITY, BACKENDS, FLOWS, NODE_ADDRESSES, SERVICES, SETTINGS},
    nat::{self, DROP, PASS},
    packet::{self, Packet},
    select::{count, is_member, slot},
};

/// Hook of packets that arrive on an uplink.
#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    let Some(packet) = packet::read(&ctx) else { return icmp::translate(&ctx).unwrap_or(PASS) };
    // SAFETY: an entry stays readable until this program ends; a value is replaced as a whole.
    match unsafe { FLOWS.get(packet.flow) }.copied() {
        Some(rewrite) if rewrite.flags & flow_flags::FROM_CLIENT != 0 => match state(&rewrite, &packet) {
            State::Alive => apply(&ctx, &packet, &rewrite),
            State::Stale => open(&ctx, &packet),
            // Nothing here has this connection: the node's own stack answers with a reset.
            State::Dead => PASS,
        },
        Some(rewrite) if rewrite.flags & flow_flags::FORWARD != 0 => apply(&ctx, &packet, &rewrite),
        _ => open(&ctx, &packet),
    }
}

enum State {
    Alive,
    /// The packet may as well go elsewhere: it opens a connection, or needs none.
    Stale,
    /// A connection whose backend is gone.
    Dead,
}

#[inline(always)]
fn state(rewrite: &Rewrite, packet: &Packet) -> State {
    if rewrite.backend == 0 {
        return State::Stale;
    }
    let free = packet.opens || packet.flow.protocol == UDP;
    // SAFETY: as above.
    let exists = unsafe { BACKENDS.get(rewrite.backend) }.is_some_and(|backend| {
        backend.address_be == rewrite.destination_be && backend.port_be == rewrite.destination_port_be
    });
    match (free, exists) {
        (true, true) if is_member(rewrite.set, rewrite.backend) => State::Alive,
        (true, _) => State::Stale,
        (false, true) => State::Alive,
        (false, false) => State::Dead,
    }
}

/// The first packet of a connection to a frontend; anything else passes.
#[inline(always)]
fn open(ctx: &TcContext, packet: &Packet) -> i32 {
    let Some((head, on_node)) = head(&packet.flow) else { return PASS };
    let Some(backend_id) = pick(&head, &packet.flow) else {
        count(head.set, 0, false);
        return without_backend(ctx, packet, &head, on_node);
    };
    // SAFETY: as above.
    let Some(backend) = (unsafe { BACKENDS.get(backend_id) }).copied() else { return DROP };
    let to_backend = Rewrite {
        source_be: packet.flow.source_be,
        destination_be: backend.address_be,
        source_port_be: packet.flow.source_port_be,
        destination_port_be: backend.port_be,
        set: head.set,
        backend: backend_id,
        flags: flow_flags::FROM_CLIENT,
    };
    if backend.flags & backend_flags::LOCAL != 0 {
        return remember_and_apply(ctx, packet, &to_backend);
    }
    match through_this_node(ctx, packet, &to_backend) {
        Some(rewrite) => remember_and_apply(ctx, packet, &rewrite),
        None => DROP,
    }
}

/// The frontend a client outside means, and whether it is an address of this node.
#[inline(always)]
fn head(flow: &FlowKey) -> Option<(ServiceHead, bool)> {
    let key = ServiceKey {
        address_be: flow.destination_be,
        port_be: flow.destination_port_be,
        protocol: flow.protocol,
        scope: scope::EXTERNAL,
    };
    // SAFETY: as above.
    unsafe {
        let local = NODE_ADDRESSES.get(flow.destination_be).is_some_and(|flags| flags & node_address::LOCAL != 0);
        if let Some(head) = SERVICES.get(key) {
            return Some((*head, local));
        }
        if local {
            if let Some(head) = SERVICES.get(ServiceKey { address_be: THIS_NODE, ..key }) {
                return Some((*head, true));
            }
            return SERVICES.get(ServiceKey { address_be: 0, ..key }).map(|head| (*head, true));
        }
        // A ClusterIP, from a host that routes the Service range here.
        SERVICES.get(ServiceKey { scope: scope::INTERNAL, ..key }).map(|head| (*head, false))
    }
}

#[inline(always)]
fn pick(head: &ServiceHead, flow: &FlowKey) -> Option<BackendId> {
    if head.count == 0 {
        return None;
    }
    if head.affinity_timeout_s == 0 {
        let backend = slot(head, flow.hash())?;
        count(head.set, backend, false);
        return Some(backend);
    }
    let key = AffinityKey::of_address(head.set, flow.source_be);
    // SAFETY: a plain helper call.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as above.
    let kept = unsafe { AFFINITY.get(key) }
        .copied()
        .filter(|affinity| affinity.holds(now_ns, head.affinity_timeout_s) && is_member(head.set, affinity.backend));
    let backend = match kept {
        Some(affinity) => affinity.backend,
        None => slot(head, flow.hash())?,
    };
    // An affinity that cannot be kept is a connection that still works.
    AFFINITY.insert(key, Affinity { last_used_ns: now_ns, backend, _pad: 0 }, BPF_ANY as u64).ok();
    count(head.set, backend, kept.is_some());
    Some(backend)
}

/// Policy Local drops, so that a load balancer's other nodes get their chance; all else is refused by this node's own
/// stack, which has nothing at that port: it answers with a reset or an ICMP error.
#[inline(always)]
fn without_backend(ctx: &TcContext, packet: &Packet, head: &ServiceHead, on_node: bool) -> i32 {
    if head.flags & head_flags::DROP_WITHOUT_BACKENDS != 0 {
        return DROP;
    }
    if on_node {
        return PASS;
    }
    let Some(node_be) = node_address() else { return DROP };
    let to_node = Rewrite {
        source_be: packet.flow.source_be,
        destination_be: node_be,
        source_port_be: packet.flow.source_port_be,
        destination_port_be: packet.flow.destination_port_be,
        set: head.set,
        backend: 0,
        flags: flow_flags::FROM_CLIENT,
    };
    remember_and_apply(ctx, packet, &to_node)
}

/// The same connection with this node as its source, on a port that nothing else of this node uses towards that
/// backend.
#[inline(always)]
fn through_this_node(ctx: &TcContext, packet: &Packet, to_backend: &Rewrite) -> Option<Rewrite> {
    const ATTEMPTS: u32 = 12;
    let node_be = node_address()?;
    let client_port = u16::from_be(packet.flow.source_port_be);
    let hash = packet.flow.hash();
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let rewrite = Rewrite {
            source_be: node_be,
            source_port_be: nat_port(client_port, hash, attempt).to_be(),
            flags: flow_flags::FROM_CLIENT | flow_flags::FORWARD,
            ..*to_backend
        };
        let (reply_key, reply) = rewrite.of_replies(&packet.flow);
        if !used_by_this_node(ctx, &reply_key) && FLOWS.insert(reply_key, reply, BPF_NOEXIST as u64).is_ok() {
            return Some(rewrite);
        }
        attempt += 1;
    }
    None
}

/// Whether a socket of this node already talks from there to that backend.
#[inline(always)]
fn used_by_this_node(ctx: &TcContext, reply: &FlowKey) -> bool {
    const THIS_NAMESPACE: u64 = u64::MAX;
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: reply.source_be,
                daddr: reply.destination_be,
                sport: reply.source_port_be,
                dport: reply.destination_port_be,
            },
        },
    };
    const LENGTH: u32 = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;
    // SAFETY: the tuple is valid for the call, its length is that of the IPv4 part; what is found is released.
    unsafe {
        let socket = if reply.protocol == TCP {
            bpf_skc_lookup_tcp(ctx.skb.skb.cast(), &raw mut tuple, LENGTH, THIS_NAMESPACE, 0)
        } else {
            bpf_sk_lookup_udp(ctx.skb.skb.cast(), &raw mut tuple, LENGTH, THIS_NAMESPACE, 0)
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
    }
    true
}

#[inline(always)]
fn node_address() -> Option<u32> {
    SETTINGS.get(SETTINGS_KEY).map(|settings| settings.node_address_be).filter(|address_be| *address_be != 0)
}

#[inline(always)]
fn remember_and_apply(ctx: &TcContext, packet: &Packet, rewrite: &Rewrite) -> i32 {
    let (reply_key, reply) = rewrite.of_replies(&packet.flow);
    // Both or none: a reply that nobody rewrites would confuse the client.
    if FLOWS.insert(reply_key, reply, BPF_ANY as u64).is_err()
        || FLOWS.insert(packet.flow, rewrite, BPF_ANY as u64).is_err()
    {
        return DROP;
    }
    apply(ctx, packet, rewrite)
}

#[inline(always)]
fn apply(ctx: &TcContext, packet: &Packet, rewrite: &Rewrite) -> i32 {
    let to = rewrite.applied(&packet.flow);
    if nat::rewrite(ctx, packet, &to).is_none() {
        return DROP;
    }
    if rewrite.flags & flow_flags::FORWARD != 0 { nat::forward(ctx, packet, &to) } else { PASS }
}
