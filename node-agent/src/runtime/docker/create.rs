//! Specs as bodies of Docker's create request: pure.

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HostConfig, Mount as DockerMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType,
};

use crate::runtime::{
    ContainerSpec, Mount, NetworkNamespace, PidNamespace, Propagation, ResourceUpdate, SandboxSpec, Seccomp,
};

/// The scheduling period that quotas are counted in, microseconds.
const CPU_PERIOD_US: i64 = 100_000;

/// The request for a pod's sandbox.
pub(super) fn sandbox(spec: &SandboxSpec, image: &str, node: &str) -> ContainerCreateBody {
    let host_network = spec.network == NetworkNamespace::Host;
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: (!host_network).then(|| spec.hostname.clone()),
        labels: Some(spec.owner.labels(node)),
        host_config: Some(HostConfig {
            network_mode: Some(if host_network { "host" } else { "none" }.to_owned()),
            ipc_mode: Some(if spec.host_ipc { "host" } else { "shareable" }.to_owned()),
            pid_mode: spec.host_pid.then(|| "host".to_owned()),
            sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
            // Writes nothing and needs no filter: both would only cost time at each start.
            log_config: Some(bollard::models::HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            security_opt: Some(vec!["seccomp=unconfined".to_owned(), "no-new-privileges".to_owned()]),
            cap_drop: Some(vec!["ALL".to_owned()]),
            readonly_rootfs: Some(true),
            cpu_shares: Some(2),
            oom_score_adj: None,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The request for a container in a sandbox.
pub(super) fn container(spec: &ContainerSpec, node: &str) -> ContainerCreateBody {
    let sandbox = format!("container:{}", spec.sandbox);
    let mut security_opt = Vec::new();
    match &spec.seccomp {
        // Docker leaves a privileged container unconfined by itself.
        Seccomp::Unconfined if !spec.privileged => security_opt.push("seccomp=unconfined".to_owned()),
        Seccomp::Unconfined | Seccomp::RuntimeDefault => {}
        Seccomp::Profile(profile) => security_opt.push(format!("seccomp={profile}")),
    }
    security_opt.extend(spec.app_armor.iter().map(|profile| format!("apparmor={profile}")));
    if spec.no_new_privileges {
        security_opt.push("no-new-privileges".to_owned());
    }
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: non_empty(&spec.command),
        cmd: non_empty(&spec.args),
        env: non_empty(&spec.env),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        labels: Some(spec.owner.labels(node)),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        stop_signal: spec.stop_signal.clone(),
        // Health is the probes' matter.
        healthcheck: Some(bollard::models::HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(HostConfig {
            network_mode: Some(sandbox.clone()),
            ipc_mode: Some(if spec.host_ipc { "host".to_owned() } else { sandbox.clone() }),
            pid_mode: match &spec.pid {
                PidNamespace::Own => None,
                PidNamespace::Sandbox => Some(sandbox),
                PidNamespace::Host => Some("host".to_owned()),
                PidNamespace::Container(id) => Some(format!("container:{id}")),
            },
            uts_mode: spec.host_network.then(|| "host".to_owned()),
            mounts: (!spec.mounts.is_empty()).then(|| spec.mounts.iter().map(mount).collect()),
            privileged: Some(spec.privileged),
            cap_add: non_empty(&spec.cap_add),
            cap_drop: non_empty(&spec.cap_drop),
            group_add: (!spec.supplemental_groups.is_empty())
                .then(|| spec.supplemental_groups.iter().map(ToString::to_string).collect()),
            readonly_rootfs: Some(spec.read_only_root),
            security_opt: non_empty(&security_opt),
            cpu_shares: spec.cpu_shares,
            cpu_period: spec.cpu_quota_us.map(|_| CPU_PERIOD_US),
            cpu_quota: spec.cpu_quota_us,
            memory: spec.memory_bytes,
            // Equal to the memory: no swap beside it.
            memory_swap: spec.memory_bytes,
            oom_score_adj: (spec.oom_score_adj > 0).then_some(spec.oom_score_adj),
            log_config: Some(bollard::models::HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(
                    [("max-size", "10m"), ("max-file", "5")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                ),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The request that changes a running container.
pub(super) fn update(update: &ResourceUpdate) -> ContainerUpdateBody {
    ContainerUpdateBody {
        cpu_shares: update.cpu_shares,
        cpu_period: update.cpu_quota_us.map(|_| CPU_PERIOD_US),
        cpu_quota: update.cpu_quota_us,
        memory: update.memory_bytes,
        memory_swap: update.memory_bytes,
        ..Default::default()
    }
}

fn mount(mount: &Mount) -> DockerMount {
    DockerMount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation: match mount.propagation {
                // The Engine's own choice, which is private but where it refuses that: of what its data is below, as
                // `/` is, a container would keep mounts of the Engine busy.
                Propagation::Private => None,
                Propagation::HostToContainer => Some(MountBindOptionsPropagationEnum::RSLAVE),
                Propagation::Bidirectional => Some(MountBindOptionsPropagationEnum::RSHARED),
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn non_empty(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}
