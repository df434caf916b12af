//! What a pod asks of its own security, and whether this node can give it: pure. A field that is not honoured refuses
//! the pod or container; none is passed over in silence.
//!
//! The structs are taken apart field by field: a field that a newer Kubernetes adds does not compile here before
//! someone decided about it.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, PodSpec, SELinuxOptions, SecurityContext};

pub mod profiles;
pub mod sysctls;

/// What the host's kernel offers.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub se_linux: bool,
}

impl Host {
    /// Of this machine.
    pub fn measure() -> Self {
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        Self { apparmor: apparmor.starts_with('Y'), se_linux: Path::new("/sys/fs/selinux/enforce").exists() }
    }
}

/// A security field that this node does not honour. The texts stand in the pod's events and statuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityRefusal {
    /// The pod asks for a user namespace of its own.
    #[error("hostUsers: false: this node has no user namespaces for pods")]
    UserNamespace,
    /// The pod is made for another operating system.
    #[error("{field}: this node runs Linux pods only")]
    NotLinux {
        /// The field that says so: `os` or `windowsOptions`.
        field: &'static str,
    },
    /// The pod names a RuntimeClass; every container is run by the one runtime of the node.
    #[error("runtimeClassName {0:?}: this node has one runtime only")]
    RuntimeClass(String),
    /// The kernel has AppArmor switched off, or was built without it.
    #[error("appArmorProfile {0}: AppArmor is not enabled on this node")]
    NoAppArmor(String),
    /// `type: Localhost` without the name of a profile.
    #[error("appArmorProfile: localhostProfile is missing")]
    NoLocalhostProfile,
    /// A type of profile that Kubernetes does not have.
    #[error("{field}: no such type: {type_:?}")]
    UnknownType {
        /// `appArmorProfile` or `seccompProfile`.
        field: &'static str,
        /// As the pod has it.
        type_: String,
    },
    /// A seccomp profile that is absent, absolute or climbs with `..`.
    #[error("seccompProfile: localhostProfile {0:?} must be a path below the node's seccomp directory")]
    ProfileOutside(PathBuf),
    /// Not among the sysctls that Kubernetes calls safe.
    #[error("forbidden sysctl: {0:?} not allowlisted")]
    UnsafeSysctl(String),
    /// A sysctl of a namespace that the pod shares with the host.
    #[error("forbidden sysctl: {name:?} not allowed with host {namespace} enabled")]
    HostSysctl {
        /// With dots between its parts.
        name: String,
        /// `net` or `ipc`.
        namespace: &'static str,
    },
    /// A container without privileges would mount into the host's own tree.
    #[error("mountPropagation: Bidirectional is available only to privileged containers")]
    UnprivilegedPropagation,
    /// SELinux labels are asked for on a host whose kernel would read them.
    #[error("seLinuxOptions: this node does not label containers")]
    SeLinux,
    /// A user or group id outside `0..=i32::MAX`, where Docker's end.
    #[error("{field}: {id} is not an id")]
    NotAnId {
        /// The field of the security context.
        field: &'static str,
        /// As the pod has it.
        id: i64,
    },
    /// A value that other nodes may serve, and this one does not.
    #[error("{field}: {value} is not served by this node")]
    NotServed {
        /// The field of the security context or the volume mount.
        field: &'static str,
        /// As the pod has it.
        value: String,
    },
}

/// Why this node cannot give `pod`, or one container of it, the security that it asks for; `None` where it can. Without
/// `container` the fields are read that hold for the pod as a whole.
pub fn refusal(pod: &Pod, container: Option<&Container>, host: Host) -> Option<SecurityRefusal> {
    let spec = pod.spec.as_ref()?;
    match container {
        None => check_pod(spec, host).err(),
        Some(container) => check_container(spec, container, host).err(),
    }
}

fn check_pod(spec: &PodSpec, host: Host) -> Result<(), SecurityRefusal> {
    refuse_if(spec.host_users == Some(false), || SecurityRefusal::UserNamespace)?;
    let is_for_another_os = spec.os.as_ref().is_some_and(|os| os.name != "linux");
    refuse_if(is_for_another_os, || SecurityRefusal::NotLinux { field: "os" })?;
    let runtime_class = spec.runtime_class_name.as_deref().unwrap_or_default();
    refuse_if(!runtime_class.is_empty(), || SecurityRefusal::RuntimeClass(runtime_class.to_owned()))?;
    let Some(security) = &spec.security_context else { return Ok(()) };
    let PodSecurityContext {
        // Checked with each container that they hold for.
        app_armor_profile: _,
        seccomp_profile: _,
        run_as_non_root: _,
        fs_group,
        fs_group_change_policy,
        run_as_group,
        run_as_user,
        // Says how to relabel volumes, which only seLinuxOptions ask for.
        se_linux_change_policy: _,
        se_linux_options,
        supplemental_groups,
        supplemental_groups_policy,
        sysctls,
        windows_options,
    } = security;
    check_se_linux(se_linux_options.as_ref(), host)?;
    refuse_if(windows_options.is_some(), || SecurityRefusal::NotLinux { field: "windowsOptions" })?;
    for (field, id) in [("fsGroup", fs_group), ("runAsGroup", run_as_group), ("runAsUser", run_as_user)] {
        check_id(field, *id)?;
    }
    supplemental_groups.iter().flatten().try_for_each(|group| check_id("supplementalGroups", Some(*group)))?;
    one_of("fsGroupChangePolicy", fs_group_change_policy, &["Always", "OnRootMismatch"])?;
    one_of("supplementalGroupsPolicy", supplemental_groups_policy, &["Merge"])?;
    sysctls.iter().flatten().try_for_each(|sysctl| sysctls::check(spec, sysctl))
}

fn check_container(spec: &PodSpec, container: &Container, host: Host) -> Result<(), SecurityRefusal> {
    profiles::app_armor(spec, container, host)?;
    profiles::seccomp(spec, container)?;
    let privileged = container.security_context.as_ref().and_then(|security| security.privileged) == Some(true);
    for mount in container.volume_mounts.iter().flatten() {
        let propagation = &mount.mount_propagation;
        one_of("mountPropagation", propagation, &["None", "HostToContainer", "Bidirectional"])?;
        // It would mount into the host's own tree.
        let is_refused = propagation.as_deref() == Some("Bidirectional") && !privileged;
        refuse_if(is_refused, || SecurityRefusal::UnprivilegedPropagation)?;
        // `IfPossible` may fall back to a mount that is read-only at its top.
        one_of("recursiveReadOnly", &mount.recursive_read_only, &["Disabled", "IfPossible"])?;
    }
    let Some(security) = &container.security_context else { return Ok(()) };
    let SecurityContext {
        // Honoured: they go into the container's spec.
        allow_privilege_escalation: _,
        capabilities: _,
        privileged: _,
        read_only_root_filesystem: _,
        run_as_non_root: _,
        // Checked above.
        app_armor_profile: _,
        seccomp_profile: _,
        proc_mount,
        run_as_group,
        run_as_user,
        se_linux_options,
        windows_options,
    } = security;
    one_of("procMount", proc_mount, &["Default"])?;
    check_id("runAsGroup", *run_as_group)?;
    check_id("runAsUser", *run_as_user)?;
    check_se_linux(se_linux_options.as_ref(), host)?;
    refuse_if(windows_options.is_some(), || SecurityRefusal::NotLinux { field: "windowsOptions" })
}

/// Where SELinux is off no label has an effect, and runtimes pass labels over.
fn check_se_linux(options: Option<&SELinuxOptions>, host: Host) -> Result<(), SecurityRefusal> {
    let is_asked_for = host.se_linux && options.is_some_and(|options| *options != SELinuxOptions::default());
    refuse_if(is_asked_for, || SecurityRefusal::SeLinux)
}

/// User and group ids end where Docker's do.
fn check_id(field: &'static str, id: Option<i64>) -> Result<(), SecurityRefusal> {
    match id {
        Some(id) if i32::try_from(id).is_ok_and(|id| id >= 0) => Ok(()),
        Some(id) => Err(SecurityRefusal::NotAnId { field, id }),
        None => Ok(()),
    }
}

fn one_of(field: &'static str, value: &Option<String>, served: &[&str]) -> Result<(), SecurityRefusal> {
    let value = value.as_deref().unwrap_or_default();
    let is_refused = !value.is_empty() && !served.contains(&value);
    refuse_if(is_refused, || SecurityRefusal::NotServed { field, value: value.to_owned() })
}

fn refuse_if(refused: bool, refusal: impl FnOnce() -> SecurityRefusal) -> Result<(), SecurityRefusal> {
    if refused { Err(refusal()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Whether a pod with these fields, and one container with those, is refused, and for what.
    fn refused(pod: Value, container: Value, host: Host) -> Option<String> {
        let mut spec = pod;
        let mut container = container;
        container["name"] = "c".into();
        spec["containers"] = json!([container]);
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let container = pod.spec.as_ref().map(|spec| &spec.containers[0]);
        let refusal = refusal(&pod, None, host).or_else(|| refusal(&pod, container, host));
        refusal.map(|refusal| refusal.to_string())
    }

    const HOST: Host = Host { apparmor: true, se_linux: true };

    #[test]
    fn every_security_field_is_honoured_or_refused() {
        let both =
            |field: &str, value: Value| [(field.to_owned(), value.clone(), true), (field.to_owned(), value, false)];
        let pod_only = |field: &str, value: Value| [(field.to_owned(), value, true)];
        let container_only = |field: &str, value: Value| [(field.to_owned(), value, false)];
        let sysctl = |name: &str| json!([{ "name": name, "value": "1" }]);
        let honoured = [
            &both("runAsUser", json!(1000))[..],
            &both("runAsGroup", json!(0)),
            &both("runAsNonRoot", json!(true)),
            &both("seLinuxOptions", json!({})),
            &both("seccompProfile", json!({ "type": "Unconfined" })),
            &both("seccompProfile", json!({ "type": "RuntimeDefault" })),
            &both("seccompProfile", json!({ "type": "Localhost", "localhostProfile": "profiles/audit.json" })),
            &both("appArmorProfile", json!({ "type": "Unconfined" })),
            &both("appArmorProfile", json!({ "type": "RuntimeDefault" })),
            &both("appArmorProfile", json!({ "type": "Localhost", "localhostProfile": "mine" })),
            &pod_only("fsGroup", json!(2000)),
            &pod_only("fsGroupChangePolicy", json!("OnRootMismatch")),
            &pod_only("seLinuxChangePolicy", json!("Recursive")),
            &pod_only("supplementalGroups", json!([1, 2])),
            &pod_only("supplementalGroupsPolicy", json!("Merge")),
            &pod_only("sysctls", sysctl("net.ipv4.tcp_syncookies")),
            &pod_only("sysctls", sysctl("net/ipv4/tcp_syncookies")),
            &container_only("allowPrivilegeEscalation", json!(false)),
            &container_only("capabilities", json!({ "drop": ["ALL"] })),
            &container_only("privileged", json!(true)),
            &container_only("procMount", json!("Default")),
            &container_only("readOnlyRootFilesystem", json!(true)),
        ];
        let refused_ones = [
            &both("runAsUser", json!(-1))[..],
            &both("runAsGroup", json!(1i64 << 31)),
            &both("seLinuxOptions", json!({ "level": "s0:c1" })),
            &both("seccompProfile", json!({ "type": "Localhost" })),
            &both("seccompProfile", json!({ "type": "Localhost", "localhostProfile": "../etc/passwd" })),
            &both("seccompProfile", json!({ "type": "Localhost", "localhostProfile": "/etc/passwd" })),
            &both("seccompProfile", json!({ "type": "Audit" })),
            &both("appArmorProfile", json!({ "type": "Localhost" })),
            &both("appArmorProfile", json!({ "type": "Strict" })),
            &both("windowsOptions", json!({ "hostProcess": true })),
            &pod_only("fsGroup", json!(-1)),
            &pod_only("fsGroupChangePolicy", json!("Never")),
            &pod_only("supplementalGroups", json!([1, -2])),
            &pod_only("supplementalGroupsPolicy", json!("Strict")),
            &pod_only("sysctls", sysctl("kernel.msgmax")),
            &pod_only("sysctls", sysctl("kernel.hostname")),
            &container_only("procMount", json!("Unmasked")),
        ];
        let outcome = |(field, value, of_pod): &(String, Value, bool)| {
            let context = json!({ "securityContext": { field.as_str(): value } });
            if *of_pod { refused(context, json!({}), HOST) } else { refused(json!({}), context, HOST) }
        };
        for case in honoured.into_iter().flatten() {
            assert_eq!(outcome(case), None, "{case:?}");
        }
        for case in refused_ones.into_iter().flatten() {
            let why = outcome(case).unwrap_or_else(|| panic!("{case:?} is passed over"));
            assert!(why.contains(&case.0) || why.contains("sysctl"), "{case:?}: {why}");
        }
    }

    #[test]
    fn fields_of_the_spec_itself_are_refused_too() {
        for (spec, why) in [
            (json!({ "hostUsers": false }), "hostUsers"),
            (json!({ "os": { "name": "windows" } }), "os"),
            (json!({ "runtimeClassName": "gvisor" }), "runtimeClassName"),
            (
                json!({ "hostNetwork": true, "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_rmem", "value": "1" }] } }),
                "host net",
            ),
            (
                json!({ "hostIPC": true, "securityContext": { "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] } }),
                "host ipc",
            ),
        ] {
            let refusal = refused(spec.clone(), json!({}), HOST).unwrap_or_else(|| panic!("{spec} is passed over"));
            assert!(refusal.contains(why), "{spec}: {refusal}");
        }
        assert_eq!(refused(json!({ "hostUsers": true, "os": { "name": "linux" } }), json!({}), HOST), None);
        let mount = |recursive: &str| json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": recursive }] });
        assert!(refused(json!({}), mount("Enabled"), HOST).unwrap().contains("recursiveReadOnly"));
        assert_eq!(refused(json!({}), mount("IfPossible"), HOST), None);
    }

    #[test]
    fn mounts_are_shown_to_the_host_by_privileged_containers_alone() {
        let container = |privileged: bool, propagation: &str| {
            json!({ "securityContext": { "privileged": privileged },
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "mountPropagation": propagation }] })
        };
        let refused = |privileged, propagation| refused(json!({}), container(privileged, propagation), HOST);
        assert!(refused(false, "Bidirectional").unwrap().contains("mountPropagation"));
        assert!(refused(true, "Both").unwrap().contains("mountPropagation"));
        assert_eq!(refused(true, "Bidirectional"), None);
        assert_eq!(refused(false, "HostToContainer"), None);
    }

    #[test]
    fn a_profile_of_apparmor_is_refused_where_the_kernel_has_none() {
        let profile = |kind: &str| json!({ "securityContext": { "appArmorProfile": { "type": kind } } });
        let bare = Host { apparmor: false, ..HOST };
        assert!(refused(json!({}), profile("RuntimeDefault"), bare).unwrap().contains("not enabled"));
        assert_eq!(refused(json!({}), profile("Unconfined"), bare), None);
        assert_eq!(refused(json!({}), json!({}), bare), None);
    }

    #[test]
    fn labels_are_passed_over_where_no_selinux_reads_them() {
        let bare = Host { se_linux: false, ..HOST };
        let labels = json!({ "securityContext": { "seLinuxOptions": { "level": "s0:c1" } } });
        assert_eq!(refused(labels.clone(), json!({}), bare), None);
        assert_eq!(refused(json!({}), labels, bare), None);
    }
}
