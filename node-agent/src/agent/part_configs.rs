//! What each part of the agent is told, of what the agent itself was told. Decides nothing.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::{Config, dns, network, pods, proxy};

/// The pod network's part: `node/` of the data directory is its own.
pub fn network_config(config: &Config, node_ip: Ipv4Addr, pod_cidr: ipnetwork::Ipv4Network) -> network::NetworkConfig {
    network::NetworkConfig {
        node_name: config.node_name.clone(),
        node_ip,
        pod_cidr,
        cluster_cidr: config.cluster_cidr,
        service_cidr: config.service_cidr,
        data_dir: config.data_dir.join("node"),
    }
}

/// The DNS server's part; it answers on `listen`.
pub fn dns_config(config: &Config, listen: SocketAddrV4) -> dns::DnsConfig {
    dns::DnsConfig {
        listen,
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        node_name: config.node_name.clone(),
    }
}

/// The Service datapath's part; the cluster's DNS address leads to `names`, and the agent reaches the control service
/// at `control_service`.
pub fn proxy_config(
    config: &Config,
    uplinks: &[network::Uplink],
    node_ip: Ipv4Addr,
    names: SocketAddrV4,
    control_service: Vec<SocketAddrV4>,
) -> proxy::ProxyConfig {
    proxy::ProxyConfig {
        node_name: config.node_name.clone(),
        datapath: config.datapath,
        cgroup: config.cgroup.clone(),
        bpf_pins: config.bpf_pins.clone(),
        cluster_dns: Some((config.cluster_dns, names)),
        uplinks: uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
        node_ips: vec![node_ip],
        service_cidr: Some(config.service_cidr),
        reserved: control_service.into_iter().chain([SocketAddrV4::new(node_ip, config.port)]).collect(),
    }
}

/// The pods' part.
pub fn pods_config(config: &Config, node_ip: Ipv4Addr) -> pods::PodsConfig {
    pods::PodsConfig {
        node_name: config.node_name.clone(),
        node_ip,
        data_dir: config.data_dir.clone(),
        cluster_dns: config.cluster_dns,
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        max_pods: usize::try_from(config.max_pods).unwrap_or(usize::MAX),
        image_gc: config.image_gc.clone(),
    }
}
