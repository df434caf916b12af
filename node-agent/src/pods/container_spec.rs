//! A container's spec in the runtime's terms: pure, from the Pod and what was resolved for it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};

use super::{
    expand::{MOST_TOGETHER, expand},
    outcome::Failure,
    resize::Amounts,
    security::{
        self, Host, SecurityRefusal,
        profiles::{self, SeccompSource},
    },
    spec, status,
};
use crate::runtime::{
    ContainerOwner, ContainerSpec, Image, ImageUser, Mount, NetworkNamespace, PidNamespace, Role, SandboxSpec, Seccomp,
};

/// What had to be looked up for a container before it can be created.
pub struct Resolved {
    /// In order; later ones win.
    pub env: Vec<(String, String)>,
    /// Volumes first, then the files that every container gets.
    pub mounts: Vec<Mount>,
    /// The image that was found for it: what it is created from, and whose processes' user is known.
    pub image: Image,
    /// Id of the container whose processes it sees, for an ephemeral one that names it.
    pub target: Option<String>,
    /// The profile of a container with `seccompProfile: Localhost`, as JSON.
    pub seccomp_profile: Option<String>,
    /// Of the machine, bytes.
    pub machine_memory: i64,
    /// What the kernel offers.
    pub host: Host,
}

/// The sandbox of `pod`, in its try number `attempt`.
pub fn sandbox(pod: &Pod, attempt: u32) -> SandboxSpec {
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let sysctls = pod_spec.security_context.unwrap_or_default().sysctls.unwrap_or_default();
    SandboxSpec {
        owner: ContainerOwner { pod: spec::pod_ref(pod), role: Role::Sandbox, attempt },
        hostname: spec::hostname(pod),
        network: if spec::host_network(pod) { NetworkNamespace::Host } else { NetworkNamespace::Own },
        host_ipc: pod_spec.host_ipc.unwrap_or_default(),
        host_pid: pod_spec.host_pid.unwrap_or_default(),
        sysctls: sysctls.into_iter().map(|sysctl| (sysctl.name, sysctl.value)).collect::<BTreeMap<_, _>>(),
    }
}

/// One container of `pod`, or why it cannot be as its spec says.
pub fn container(
    pod: &Pod,
    container: &Container,
    sandbox: &str,
    attempt: u32,
    resolved: Resolved,
) -> Result<ContainerSpec, Failure> {
    if let Some(refusal) = security::refusal(pod, Some(container), resolved.host) {
        return Err(Failure::new("CreateContainerError", refusal.to_string()));
    }
    let pod_spec = pod.spec.as_ref();
    let pod_security = pod_spec.and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let security = container.security_context.clone().unwrap_or_default();
    let user = user(container, &security, &pod_security, &resolved.image.user)?;
    let capabilities = security.capabilities.clone().unwrap_or_default();
    let pid = match (pod_spec, resolved.target.clone()) {
        (_, Some(target)) => PidNamespace::Container(target),
        (Some(spec), None) if spec.host_pid == Some(true) => PidNamespace::Host,
        (Some(spec), None) if spec.share_process_namespace == Some(true) => PidNamespace::Sandbox,
        _ => PidNamespace::Own,
    };
    let (command, args) = arguments(container, &resolved.env)?;
    let (seccomp, app_armor) = filters(pod, container, &resolved)?;
    let hash = spec::hash(container);
    let amounts = Amounts::of(container.resources.as_ref());
    let role = Role::Container {
        name: container.name.clone(),
        hash,
        sandbox: sandbox.to_owned(),
        resources: amounts.to_label(),
    };
    Ok(ContainerSpec {
        owner: ContainerOwner { pod: spec::pod_ref(pod), role, attempt },
        sandbox: sandbox.to_owned(),
        image: resolved.image.engine_id,
        command,
        args,
        env: resolved.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_dir: container.working_dir.clone().filter(|directory| !directory.is_empty()),
        mounts: resolved.mounts,
        pid,
        host_ipc: pod_spec.and_then(|spec| spec.host_ipc).unwrap_or_default(),
        host_network: spec::host_network(pod),
        user,
        supplemental_groups: pod_security
            .supplemental_groups
            .iter()
            .flatten()
            .copied()
            .chain(pod_security.fs_group)
            .collect(),
        privileged: security.privileged.unwrap_or_default(),
        cap_add: capabilities.add.unwrap_or_default(),
        cap_drop: capabilities.drop.unwrap_or_default(),
        read_only_root: security.read_only_root_filesystem.unwrap_or_default(),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        seccomp,
        app_armor,
        cpu_shares: Some(amounts.cpu_shares()),
        cpu_quota_us: amounts.cpu_quota_us(),
        memory_bytes: amounts.memory_bytes(),
        oom_score_adj: status::oom_score_adj(pod, container, resolved.machine_memory),
        tty: container.tty.unwrap_or_default(),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
    })
}

/// Command and arguments, with the variables put in.
fn arguments(container: &Container, env: &[(String, String)]) -> Result<(Vec<String>, Vec<String>), Failure> {
    let refused = |why: String| Failure::new("CreateContainerConfigError", why);
    let variables: BTreeMap<_, _> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut bytes: usize = 0;
    let mut expanded = |list: &Option<Vec<String>>| -> Result<Vec<String>, Failure> {
        let texts = list.iter().flatten().map(|text| {
            let text = expand(text, |name| variables.get(name).copied());
            let text = text.map_err(|error| refused(format!("an argument of the command is {error}")))?;
            bytes = bytes.saturating_add(text.len()).saturating_add(1);
            match bytes > MOST_TOGETHER {
                true => Err(refused(format!(
                    "the command is longer than {MOST_TOGETHER} bytes, the most that a process can be given"
                ))),
                false => Ok(text),
            }
        });
        texts.collect()
    };
    Ok((expanded(&container.command)?, expanded(&container.args)?))
}

fn user(
    container: &Container,
    security: &SecurityContext,
    pod: &PodSecurityContext,
    image: &ImageUser,
) -> Result<Option<String>, Failure> {
    let uid = security.run_as_user.or(pod.run_as_user);
    let gid = security.run_as_group.or(pod.run_as_group);
    if security.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        let name = &container.name;
        let refusal = match (uid, image) {
            (Some(0), _) => Some(format!("container's runAsUser breaks non-root policy (container: {name})")),
            (None, ImageUser::Uid(0)) => {
                Some(format!("container has runAsNonRoot and image will run as root (container: {name})"))
            }
            (None, ImageUser::Name(user)) => Some(format!(
                "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (container: {name})"
            )),
            _ => None,
        };
        if let Some(message) = refusal {
            return Err(Failure::new("CreateContainerConfigError", message));
        }
    }
    Ok(match (uid, gid, image) {
        (Some(uid), Some(gid), _) => Some(format!("{uid}:{gid}")),
        (Some(uid), None, _) => Some(uid.to_string()),
        (None, Some(gid), ImageUser::Uid(uid)) => Some(format!("{uid}:{gid}")),
        (None, Some(gid), ImageUser::Name(user)) => Some(format!("{user}:{gid}")),
        (None, None, _) => None,
    })
}

/// The seccomp filter and the AppArmor profile of a container.
fn filters(pod: &Pod, container: &Container, resolved: &Resolved) -> Result<(Seccomp, Option<String>), Failure> {
    let refused = |refusal: SecurityRefusal| Failure::new("CreateContainerError", refusal.to_string());
    let Some(spec) = &pod.spec else { return Ok((Seccomp::Unconfined, None)) };
    let seccomp = match profiles::seccomp(spec, container).map_err(refused)? {
        SeccompSource::Unconfined => Seccomp::Unconfined,
        SeccompSource::RuntimeDefault => Seccomp::RuntimeDefault,
        SeccompSource::Localhost(path) => {
            let not_loaded =
                || Failure::new("CreateContainerError", format!("seccomp profile {path:?} was not loaded"));
            Seccomp::Profile(resolved.seccomp_profile.clone().ok_or_else(not_loaded)?)
        }
    };
    Ok((seccomp, profiles::app_armor(spec, container, resolved.host).map_err(refused)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(user: &str) -> Resolved {
        Resolved {
            env: vec![("A".into(), "1".into())],
            mounts: Vec::new(),
            image: Image {
                id: "docker-pullable://app@sha256:2".into(),
                engine_id: "sha256:1".into(),
                user: ImageUser::parse(user),
            },
            target: None,
            seccomp_profile: None,
            machine_memory: 1 << 30,
            host: Host { apparmor: false, se_linux: false },
        }
    }

    fn made(container: Container, user: &str) -> Result<ContainerSpec, Failure> {
        super::container(&Pod::default(), &container, "sandbox", 0, resolved(user))
    }

    #[test]
    fn commands_and_arguments_are_expanded_from_the_environment() {
        let text = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect());
        let container =
            Container { command: text(&["/bin/$(A)"]), args: text(&["$(B)", "$$(A)"]), ..Default::default() };
        let spec = made(container, "").unwrap();
        assert_eq!(spec.command, ["/bin/1"]);
        assert_eq!(spec.args, ["$(B)", "$(A)"]);
        let bomb = Container { args: text(&vec!["$(A)"; 4 << 20]), ..Default::default() };
        assert_eq!(made(bomb, "").unwrap_err().reason, "CreateContainerConfigError");
    }

    #[test]
    fn a_container_is_made_from_the_image_whose_user_was_seen() {
        let container = Container { image: Some("app:latest".into()), ..Default::default() };
        assert_eq!(made(container, "1000").unwrap().image, "sha256:1");
    }

    #[test]
    fn an_image_that_runs_as_root_is_refused_where_root_is() {
        let security = SecurityContext { run_as_non_root: Some(true), ..Default::default() };
        let container = Container { name: "c".into(), security_context: Some(security), ..Default::default() };
        assert_eq!(made(container.clone(), "").unwrap_err().reason, "CreateContainerConfigError");
        assert_eq!(made(container.clone(), "app").unwrap_err().reason, "CreateContainerConfigError");
        assert_eq!(made(container, "1000").unwrap().user, None);
    }

    #[test]
    fn limits_become_quota_and_memory_without_swap() {
        let json = serde_json::json!({ "name": "c", "resources": { "limits": { "cpu": "250m", "memory": "16Mi" } } });
        let spec = made(serde_json::from_value(json).unwrap(), "").unwrap();
        assert_eq!((spec.cpu_quota_us, spec.cpu_shares, spec.memory_bytes), (Some(25_000), Some(256), Some(16 << 20)));
    }

    #[test]
    fn no_limit_is_too_large_to_be_counted() {
        let huge = i64::MAX.to_string();
        let json = serde_json::json!({ "name": "c", "resources": { "limits": { "cpu": "9223372036854775", "memory": huge } } });
        let spec = made(serde_json::from_value(json).unwrap(), "").unwrap();
        assert_eq!((spec.cpu_quota_us, spec.cpu_shares), (Some(i64::MAX), Some(262_144)));
    }

    #[test]
    fn a_seccomp_profile_that_was_not_loaded_fails_the_container() {
        let pod = serde_json::json!({ "spec": { "containers": [{ "name": "c",
            "securityContext": { "seccompProfile": { "type": "Localhost", "localhostProfile": "a.json" } } }] } });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let app = spec::container(&pod, "c").unwrap();
        let failure = super::container(&pod, app, "sandbox", 0, resolved("")).unwrap_err();
        assert_eq!(failure.reason, "CreateContainerError");
        let loaded = Resolved { seccomp_profile: Some("{}".into()), ..resolved("") };
        let spec = super::container(&pod, app, "sandbox", 0, loaded).unwrap();
        assert_eq!(spec.seccomp, Seccomp::Profile("{}".into()));
    }
}
