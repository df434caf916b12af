//! What a sandbox and a container are to be, in a runtime's terms: everything Kubernetes is already resolved.

use std::{collections::BTreeMap, path::PathBuf};

use super::ContainerOwner;

/// A pod's sandbox: what holds its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Becomes labels of the container.
    pub owner: ContainerOwner,
    /// At most 63 bytes; unused with the host's network.
    pub hostname: String,
    /// The host's, or one of its own.
    pub network: NetworkNamespace,
    /// `hostIPC`: shares the host's IPC namespace.
    pub host_ipc: bool,
    /// `hostPID`: sees the host's processes.
    pub host_pid: bool,
    /// Kernel parameters of the sandbox's namespaces, by name with dots.
    pub sysctls: BTreeMap<String, String>,
}

/// The network of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// Its own, empty but for `lo`: the pod network plugs it.
    Own,
    /// `hostNetwork`.
    Host,
}

/// The processes that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    /// Its own alone.
    Own,
    /// That of the sandbox (`shareProcessNamespace`).
    Sandbox,
    /// `hostPID`: all of the host.
    Host,
    /// Those of the container with this id (`targetContainerName`).
    Container(String),
}

/// One container of a pod. Fields without a doc are those of the same name in the container and its security context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Becomes labels of the container.
    pub owner: ContainerOwner,
    /// Id of the sandbox whose network and IPC namespaces it joins.
    pub sandbox: String,
    /// The image's own id, as the runtime gives it: a name may mean another image by now. It is on the node already.
    pub image: String,
    /// Replaces the image's entry point, and then its arguments too.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    /// `workingDir`; the image's otherwise.
    pub working_dir: Option<String>,
    /// Volumes, and the files that every container gets (hosts, resolv.conf, termination message).
    pub mounts: Vec<Mount>,
    /// Whose processes it sees.
    pub pid: PidNamespace,
    /// `hostIPC`: shares the host's IPC namespace instead of the sandbox's.
    pub host_ipc: bool,
    /// `hostNetwork`: the sandbox has the host's network, and the container with it.
    pub host_network: bool,
    /// `UID` or `UID:GID`; the image's user otherwise.
    pub user: Option<String>,
    /// Group ids beside the primary one: the pod's `supplementalGroups` and `fsGroup`.
    pub supplemental_groups: Vec<i64>,
    /// `securityContext.privileged`: all capabilities and devices, no filters.
    pub privileged: bool,
    /// Capabilities beyond the runtime's default ones, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities taken away, without `CAP_`; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// Set by `allowPrivilegeEscalation: false`: setuid programs gain nothing.
    pub no_new_privileges: bool,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// Name of a profile that is loaded on the host, or `unconfined`; the runtime's default otherwise.
    pub app_armor: Option<String>,
    /// Relative weight, 1024 a core.
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU in each 100 ms.
    pub cpu_quota_us: Option<i64>,
    /// `resources.limits.memory`; no limit otherwise.
    pub memory_bytes: Option<i64>,
    /// -1000 to 1000: how early the kernel kills it when memory runs out; from the pod's QoS class.
    pub oom_score_adj: i64,
    /// `tty`: its input and output are a terminal.
    pub tty: bool,
    /// `stdin`: its standard input stays open.
    pub stdin: bool,
    /// `stdinOnce`: standard input closes after the first client.
    pub stdin_once: bool,
    /// Replaces the image's.
    pub stop_signal: Option<String>,
}

/// Resources of a running container that change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUpdate {
    /// Relative weight, 1024 a core.
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU in each 100 ms.
    pub cpu_quota_us: Option<i64>,
    /// Limit of memory, without swap.
    pub memory_bytes: Option<i64>,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// No filter.
    Unconfined,
    /// The filter that the runtime brings.
    RuntimeDefault,
    /// As this profile says, in the JSON form of Docker and Kubernetes.
    Profile(String),
}

/// A path of the host, seen in the container at `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub target: String,
    /// The mount refuses writes; the files on the host may change all the same.
    pub read_only: bool,
    /// Which later mounts below it are seen on the other side.
    pub propagation: Propagation,
}

/// Whether mounts that are made later show on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// None, in either direction.
    Private,
    /// Mounts that the host makes are seen in the container.
    HostToContainer,
    /// Mounts are seen on both sides.
    Bidirectional,
}

/// The user an image runs as, for `runAsNonRoot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// Named by number; 0 where the image names nobody.
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
