//! Kernel parameters: those that concern the pod alone.

use super::{PodView, Violation};
use crate::kinds::reading::{items, text};

/// Each with the version that allows it.
const ALLOWED: [(u64, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

/// As of 1.0.
pub fn v0(pod: PodView<'_>) -> Option<Violation> {
    check(pod, 0)
}

/// As of 1.27.
pub fn v27(pod: PodView<'_>) -> Option<Violation> {
    check(pod, 27)
}

/// As of 1.29.
pub fn v29(pod: PodView<'_>) -> Option<Violation> {
    check(pod, 29)
}

/// As of 1.32.
pub fn v32(pod: PodView<'_>) -> Option<Violation> {
    check(pod, 32)
}

fn check(pod: PodView<'_>, version: u64) -> Option<Violation> {
    let is_allowed = |name: &str| ALLOWED.iter().any(|(from, known)| *from <= version && *known == name);
    let set = items(&pod.spec["securityContext"]["sysctls"]).map(|sysctl| text(sysctl, "name"));
    let forbidden: Vec<&str> = set.filter(|name| !is_allowed(name)).collect();
    (!forbidden.is_empty()).then(|| Violation { reason: "forbidden sysctls", detail: forbidden.join(", ") })
}
