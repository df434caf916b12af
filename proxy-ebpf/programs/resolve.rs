//! From a frontend to a backend, for the socket hooks: the head, then a backend of its set that affinity or chance
//! picks.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns},
    programs::SockAddrContext,
};
use proxy_ebpf::*;

use crate::{
    maps::{AFFINITY, BACKENDS, CLIENTS, NODE_ADDRESSES, SERVICES, SETTINGS, SOCKETS, UNKNOWN_CLIENTS},
    select::{count, is_member, slot},
    socket_address::SocketAddress,
};

/// How a connect or sendmsg to an address is handled.
pub enum Resolved {
    /// No frontend: the call goes where it says.
    NoService,
    /// A frontend without backends, or an address of the Service range that is no frontend.
    Refused,
    Backend(Translation),
}

/// Resolves a call to `to`. A UDP socket stays on the backend it has (`socket`) as long as the set has it.
#[inline(always)]
pub fn resolve(ctx: &SockAddrContext, to: SocketAddress, protocol: u8) -> Resolved {
    let Some(head) = head(ctx, to, protocol) else {
        return if in_service_range(to.address_be) { Resolved::Refused } else { Resolved::NoService };
    };
    if head.count == 0 {
        count(head.set, 0, false);
        return Resolved::Refused;
    }
    let Some(backend) = pick(ctx, &head, to, protocol) else {
        count(head.set, 0, false);
        return Resolved::Refused;
    };
    // SAFETY: entries are replaced as a whole by userspace; a removed one stays readable until this program ends (RCU).
    let Some(target) = (unsafe { BACKENDS.get(backend) }) else { return Resolved::Refused };
    Resolved::Backend(Translation {
        service_address_be: to.address_be,
        backend_address_be: target.address_be,
        service_port_be: to.port_be,
        backend_port_be: target.port_be,
        set: head.set,
        generation: head.generation,
        backend,
    })
}

#[inline(always)]
fn head(ctx: &SockAddrContext, to: SocketAddress, protocol: u8) -> Option<ServiceHead> {
    let exact = ServiceKey { address_be: to.address_be, port_be: to.port_be, protocol, scope: scope::INTERNAL };
    let loopback = to.address_be.to_ne_bytes()[0] == 127;
    if loopback && !is_host(ctx) {
        return None;
    }
    // SAFETY: as above.
    if let Some(head) = unsafe { SERVICES.get(exact) } {
        return Some(*head);
    }
    // SAFETY: as above.
    let node = if loopback { Some(node_address::LOCAL) } else { unsafe { NODE_ADDRESSES.get(to.address_be) }.copied() };
    let node = node?;
    if node & node_address::LOCAL != 0 {
        let host_port = ServiceKey { address_be: THIS_NODE, ..exact };
        // SAFETY: as above.
        if let Some(head) = unsafe { SERVICES.get(host_port) } {
            return Some(*head);
        }
    }
    let node_port = ServiceKey { address_be: 0, ..exact };
    // SAFETY: as above.
    unsafe { SERVICES.get(node_port) }.copied()
}

/// Whether the call comes from the host itself: a pod's loopback is its own.
#[inline(always)]
fn is_host(ctx: &SockAddrContext) -> bool {
    // SAFETY: a plain helper call on a valid context.
    let namespace = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    SETTINGS.get(SETTINGS_KEY).is_some_and(|settings| settings.host_netns_cookie == namespace)
}

#[inline(always)]
fn in_service_range(address_be: u32) -> bool {
    SETTINGS.get(SETTINGS_KEY).is_some_and(|settings| settings.in_service_range(address_be))
}

#[inline(always)]
fn pick(ctx: &SockAddrContext, head: &ServiceHead, to: SocketAddress, protocol: u8) -> Option<BackendId> {
    if head.affinity_timeout_s != 0 {
        return pick_affine(ctx, head);
    }
    if protocol == UDP {
        return pick_for_datagrams(ctx, head, to);
    }
    // SAFETY: a plain helper call.
    let backend = slot(head, unsafe { bpf_get_prandom_u32() })?;
    count(head.set, backend, false);
    Some(backend)
}

/// By the socket's cookie, so that an unconnected socket stays on one backend; the one it has, when the set changed but
/// kept it.
#[inline(always)]
fn pick_for_datagrams(ctx: &SockAddrContext, head: &ServiceHead, to: SocketAddress) -> Option<BackendId> {
    // SAFETY: the storage belongs to the socket of this call and outlives it.
    let socket = unsafe { SOCKETS.get_ptr_mut(ctx).as_ref() };
    if let Some(kept) = socket.and_then(|socket| socket.of_service(to.address_be, to.port_be))
        && kept.set == head.set
        && (kept.generation == head.generation || is_member(head.set, kept.backend))
    {
        return Some(kept.backend);
    }
    // SAFETY: a plain helper call on a valid context.
    let backend = slot(head, hash(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }))?;
    count(head.set, backend, false);
    Some(backend)
}

/// The client's last backend until the timeout; else one by the client's namespace, so that two first connections at
/// once agree.
#[inline(always)]
fn pick_affine(ctx: &SockAddrContext, head: &ServiceHead) -> Option<BackendId> {
    // SAFETY: plain helper calls on a valid context.
    let (now_ns, namespace) = unsafe { (bpf_ktime_get_ns(), bpf_get_netns_cookie(ctx.as_ptr())) };
    let by_namespace = AffinityKey::of_namespace(head.set, namespace);
    // SAFETY: as in `resolve`.
    let key = match unsafe { CLIENTS.get(namespace) } {
        Some(client_be) => AffinityKey::of_address(head.set, *client_be),
        None => {
            let unknown = UnknownClient { netns_cookie: namespace, process: ctx.tgid(), _pad: 0 };
            // A full queue asks again with the next connection.
            UNKNOWN_CLIENTS.output(unknown, 0).ok();
            by_namespace
        }
    };
    // What was kept while the address was not known goes on under the address.
    let kept = match kept(&key, head, now_ns) {
        None if key != by_namespace => self::kept(&by_namespace, head, now_ns),
        kept => kept,
    };
    let backend = match kept {
        Some(backend) => backend,
        None => slot(head, hash(namespace ^ (head.set as u64) << 32))?,
    };
    // An affinity that cannot be kept is a connection that still works.
    AFFINITY.insert(key, Affinity { last_used_ns: now_ns, backend, _pad: 0 }, BPF_ANY as u64).ok();
    count(head.set, backend, kept.is_some());
    Some(backend)
}

#[inline(always)]
fn kept(key: &AffinityKey, head: &ServiceHead, now_ns: u64) -> Option<BackendId> {
    // SAFETY: as in `resolve`.
    let affinity = unsafe { AFFINITY.get(key) }?;
    let holds = affinity.holds(now_ns, head.affinity_timeout_s) && is_member(head.set, affinity.backend);
    if holds { Some(affinity.backend) } else { None }
}
