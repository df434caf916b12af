//! Configuration of one node agent. Values are checked when the CLI parses them, not here.

use std::{net::Ipv4Addr, path::PathBuf};

use ipnetwork::Ipv4Network;

pub use crate::{
    eviction_thresholds::EvictionThresholds,
    image_gc_policy::{ImageGcPolicy, InvalidImageGcPolicy},
};

/// Configuration of one node agent. The names are the same in flags, in `--config` files and here.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object; the host's name in lower case by default.
    pub node_name: String,
    /// Holds all state of this node: `node/pki/`, `node/pods/`. Created with mode 0700.
    pub data_dir: PathBuf,
    /// Kubeconfig or join token: how the agent reaches the API and proves who it is.
    pub access: Access,
    /// Docker Engine; `DOCKER_HOST` or `unix:///var/run/docker.sock` by default.
    pub docker_host: String,
    /// eBPF, userspace, or what this kernel can.
    pub datapath: DatapathChoice,
    /// The node's address; that of the interface with the default route otherwise.
    pub node_ip: Option<Ipv4Addr>,
    /// The cgroup2 directory where the socket hooks attach: the cgroup2 root by default.
    pub cgroup: Option<PathBuf>,
    /// Directory on a bpffs for pins: `/sys/fs/bpf/fairlead` by default.
    pub bpf_pins: PathBuf,
    /// ClusterIP of the cluster's DNS Service, which this agent answers itself.
    pub cluster_dns: Ipv4Addr,
    /// DNS suffix of the cluster, without dots at its ends.
    pub cluster_domain: String,
    /// ClusterIPs come from here.
    pub service_cidr: Ipv4Network,
    /// Pods of all nodes come from here: not masqueraded.
    pub cluster_cidr: Ipv4Network,
    /// Port of the agent's own HTTPS server (logs, inspect), as the kubelet's.
    pub port: u16,
    /// Pods that this node takes at the most.
    pub max_pods: u32,
    /// The host's resolvers, for names outside the cluster: `/etc/resolv.conf` by default.
    pub resolv_conf: PathBuf,
    /// Below these a resource is short, which the node's conditions then say.
    pub eviction_hard: EvictionThresholds,
    /// When images that no container uses are removed.
    pub image_gc: ImageGcPolicy,
}

/// How the agent reaches the API.
#[derive(Clone, Debug)]
pub enum Access {
    /// A kubeconfig with credentials of its own.
    Kubeconfig(PathBuf),
    /// Register with a join token, then use a client certificate that is kept in the data directory.
    Join {
        /// URL of the API.
        server: String,
        /// As `fairlead token create` prints it.
        token: String,
    },
}

/// Which datapath to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatapathChoice {
    /// eBPF, or the agent does not start.
    Ebpf,
    /// The slower one, which needs no BPF.
    Userspace,
    /// eBPF where the kernel and privileges allow it, else userspace, saying why.
    Auto,
}

impl Config {
    /// The documented defaults.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>, access: Access) -> Self {
        Self {
            node_name: node_name.into(),
            data_dir: data_dir.into(),
            access,
            docker_host: "unix:///var/run/docker.sock".into(),
            datapath: DatapathChoice::Auto,
            node_ip: None,
            cgroup: None,
            bpf_pins: "/sys/fs/bpf/fairlead".into(),
            cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".into(),
            service_cidr: "10.96.0.0/12".parse().expect("a constant network"),
            cluster_cidr: "10.244.0.0/16".parse().expect("a constant network"),
            port: 10250,
            max_pods: 110,
            resolv_conf: "/etc/resolv.conf".into(),
            eviction_hard: EvictionThresholds::default(),
            image_gc: ImageGcPolicy::default(),
        }
    }
}
