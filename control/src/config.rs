//! Configuration of one control service. Values are checked when the CLI parses them, not here.

use std::{net::IpAddr, net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use ipnetwork::Ipv4Network;

use crate::{
    admission_plugins::AdmissionPlugins,
    audit::options::AuditOptions,
    auth::options::{AuthenticationOptions, AuthorizationOptions},
    features::Features,
};

/// Configuration of one control service. The names are the same in flags, in `--config` files and here.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds all state: `pki/`, `store/`, `admin.kubeconfig`. Created with mode 0700.
    pub data_dir: PathBuf,
    /// Where the API is served over TLS.
    pub bind: SocketAddr,
    /// Addresses that clients use, beside loopback, the host's name and the first address of `service_cidr`:
    /// certificate SANs. The first one is advertised to nodes and as the endpoint of the Service `default/kubernetes`.
    pub advertise: Vec<IpAddr>,
    /// ClusterIPs come from here.
    pub service_cidr: Ipv4Network,
    /// Pod subnets of nodes are cut from here.
    pub cluster_cidr: Ipv4Network,
    /// Prefix length of one node's pod subnet.
    pub node_cidr_mask_size: u8,
    /// NodePorts are allocated from and must lie within this range.
    pub service_node_port_range: RangeInclusive<u16>,
    /// ClusterIP of the Service `kube-system/kube-dns`.
    pub cluster_dns: std::net::Ipv4Addr,
    /// DNS suffix of the cluster, without dots at its ends.
    pub cluster_domain: String,
    /// How long a node may miss its Lease before it is NotReady.
    pub node_monitor_grace_period: std::time::Duration,
    /// Requests wait for their turn in priority levels, which divide both limits together. Otherwise what comes beyond
    /// either is refused.
    pub enable_priority_and_fairness: bool,
    /// How many requests that read are handled at a time. Where there are priority levels, both limits are their seats
    /// together, and 0 adds none; without them 0 is no limit. The same holds of the other.
    pub max_requests_inflight: usize,
    /// How many requests that write are handled at a time.
    pub max_mutating_requests_inflight: usize,
    /// What is served and evaluated only where it is asked for.
    pub features: Features,
    /// Which admission plugins are on.
    pub admission_plugins: AdmissionPlugins,
    /// What is audited, and where its events go.
    pub audit: AuditOptions,
    /// Objects that cannot be read since texts that they share are damaged are kept aside. Otherwise such a store is
    /// refused.
    pub quarantine_damaged_objects: bool,
    /// An `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`): which objects are encrypted at rest, and with which
    /// keys.
    pub encryption_provider_config: Option<PathBuf>,
    /// That file is watched, and a good one takes the place of the one before.
    pub encryption_provider_config_automatic_reload: bool,
    /// How clients prove who they are, beside certificates and tokens of the cluster's own.
    pub authentication: AuthenticationOptions,
    /// Who decides what clients may do.
    pub authorization: AuthorizationOptions,
    /// The API is served without controllers and scheduler: others run them, such as kube-controller-manager.
    pub api_only: bool,
}

impl Config {
    /// ClusterIP of the Service `default/kubernetes`: the first address of `service_cidr` after the network's own.
    pub fn kubernetes_service_address(&self) -> std::net::Ipv4Addr {
        std::net::Ipv4Addr::from(u32::from(self.service_cidr.network()).wrapping_add(1))
    }

    /// The documented defaults over a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            bind: SocketAddr::from(([0, 0, 0, 0], 6443)),
            advertise: Vec::new(),
            service_cidr: "10.96.0.0/12".parse().expect("a constant network"),
            cluster_cidr: "10.244.0.0/16".parse().expect("a constant network"),
            node_cidr_mask_size: 24,
            service_node_port_range: 30000..=32767,
            cluster_dns: std::net::Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".into(),
            node_monitor_grace_period: std::time::Duration::from_secs(40),
            enable_priority_and_fairness: true,
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            features: Features::default(),
            admission_plugins: AdmissionPlugins::default(),
            audit: AuditOptions::default(),
            quarantine_damaged_objects: false,
            encryption_provider_config: None,
            encryption_provider_config_automatic_reload: false,
            authentication: AuthenticationOptions::default(),
            authorization: AuthorizationOptions::default(),
            api_only: false,
        }
    }
}
