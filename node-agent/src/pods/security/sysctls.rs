//! Which sysctls a pod may set.

use k8s_openapi::api::core::v1::{PodSpec, Sysctl};

use super::{SecurityRefusal, refuse_if};

/// The first sysctl of the pod that this node does not set.
pub fn forbidden(spec: &PodSpec) -> Option<SecurityRefusal> {
    let sysctls = spec.security_context.iter().flat_map(|security| security.sysctls.iter().flatten());
    sysctls.into_iter().find_map(|sysctl| check(spec, sysctl).err())
}

/// Sysctls that Kubernetes calls safe: of the pod's own namespaces, and without effect on other pods.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Whether this node sets it.
pub fn check(spec: &PodSpec, sysctl: &Sysctl) -> Result<(), SecurityRefusal> {
    let name = sysctl.name.replace('/', ".");
    refuse_if(!SAFE_SYSCTLS.contains(&name.as_str()), || SecurityRefusal::UnsafeSysctl(name.clone()))?;
    let with_host = |is_hosts: Option<bool>, prefix: &str, namespace: &'static str| {
        let is_of_host = is_hosts == Some(true) && name.starts_with(prefix);
        refuse_if(is_of_host, || SecurityRefusal::HostSysctl { name: name.clone(), namespace })
    };
    with_host(spec.host_network, "net.", "net")?;
    with_host(spec.host_ipc, "kernel.", "ipc")
}
