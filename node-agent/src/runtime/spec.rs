//! What a sandbox and a container are to be, in a runtime's terms: everything Kubernetes is already resolved.

use std::{collections::BTreeMap, path::PathBuf};

use super::ContainerOwner;

/// A pod's sandbox: what holds its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    pub owner: ContainerOwner,
    /// At most 63 bytes; unused with the host's network.
    pub hostname: String,
    pub network: NetworkNamespace,
    pub host_ipc: bool,
    pub host_pid: bool,
    pub sysctls: BTreeMap<String, String>,
}

/// The network of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// Its own, empty but for `lo`: the pod network plugs it.
    Own,
    Host,
}

/// The processes that a container sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    Own,
    /// That of the sandbox (`shareProcessNamespace`).
    Sandbox,
    Host,
}

/// One container of a pod. Fields without a doc are those of the same name in the container and its security context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    pub owner: ContainerOwner,
    /// Id of the sandbox whose network and IPC namespaces it joins.
    pub sandbox: String,
    pub image: String,
    /// Replaces the image's entry point, and then its arguments too.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    pub mounts: Vec<Mount>,
    pub pid: PidNamespace,
    pub host_ipc: bool,
    pub host_network: bool,
    /// `UID` or `UID:GID`; the image's user otherwise.
    pub user: Option<String>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// Name of a profile that is loaded on the host, or `unconfined`; the runtime's default otherwise.
    pub app_armor: Option<String>,
    /// Relative weight, 1024 a core.
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU in each 100 ms.
    pub cpu_quota_us: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub oom_score_adj: i64,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    /// Replaces the image's.
    pub stop_signal: Option<String>,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    Unconfined,
    RuntimeDefault,
    /// As this profile says, in the JSON form of Docker and Kubernetes.
    Profile(String),
}

/// A path of the host, seen in the container at `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    pub propagation: Propagation,
}

/// Whether mounts that are made later show on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    HostToContainer,
    Bidirectional,
}

/// The user an image runs as, for `runAsNonRoot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    Uid(u32),
    /// A name, whose number only the image's passwd file knows.
    Name(String),
}

impl ImageUser {
    /// From an image's `USER`: `1000`, `1000:1000`, `app`, or empty for root.
    pub fn parse(user: &str) -> Self {
        let user = user.split(':').next().unwrap_or_default();
        match user.parse() {
            _ if user.is_empty() => Self::Uid(0),
            Ok(uid) => Self::Uid(uid),
            Err(_) => Self::Name(user.to_owned()),
        }
    }
}
