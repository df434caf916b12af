//! The security contexts of a pod and of its containers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::windows;
use crate::kinds::{
    FieldError,
    field::child,
    reading::{as_text, items, text},
    volume_source::descending,
};

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const MAX_SYSCTL: usize = 253;
const MAX_APP_ARMOR_PROFILE: usize = 4095;

/// Reasons against the security context of a whole pod, at `path`.
pub fn of_pod(path: &str, spec: &Value) -> Vec<FieldError> {
    let context = &spec["securityContext"];
    let mut errors = Vec::new();
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        errors.extend(id(child(path, field), &context[field]));
    }
    for (i, group) in items(&context["supplementalGroups"]).enumerate() {
        errors.extend(id(format!("{path}.supplementalGroups[{i}]"), group));
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(child(path, "shareProcessNamespace"), &json!(true), why));
    }
    errors.extend(sysctls(&child(path, "sysctls"), spec));
    let policies = ["Always", "OnRootMismatch"];
    let policy = &context["fsGroupChangePolicy"];
    errors.extend(FieldError::unsupported(child(path, "fsGroupChangePolicy"), policy, &policies));
    errors.extend(seccomp(&child(path, "seccompProfile"), &context["seccompProfile"]));
    errors.extend(windows::options(&child(path, "windowsOptions"), &context["windowsOptions"]));
    errors.extend(app_armor(&child(path, "appArmorProfile"), &context["appArmorProfile"]));
    let policy = &context["supplementalGroupsPolicy"];
    errors.extend(FieldError::unsupported(child(path, "supplementalGroupsPolicy"), policy, &["Merge", "Strict"]));
    // `MountOption` belongs to a feature that is off.
    let policy = &context["seLinuxChangePolicy"];
    errors.extend(FieldError::unsupported(child(path, "seLinuxChangePolicy"), policy, &["Recursive"]));
    errors
}

/// Reasons against the security context of a container, whose pod may have users of its own.
pub fn of_container(path: &str, context: &Value, host_users: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["runAsUser", "runAsGroup"] {
        errors.extend(id(child(path, field), &context[field]));
    }
    let proc_mount = &context["procMount"];
    let path_of_mount = child(path, "procMount");
    errors.extend(FieldError::unsupported(&path_of_mount, proc_mount, &["Default", "Unmasked"]));
    if host_users && proc_mount == "Unmasked" {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(path_of_mount, proc_mount, why));
    }
    errors.extend(seccomp(&child(path, "seccompProfile"), &context["seccompProfile"]));
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context, why));
        }
        for _ in items(&context["capabilities"]["add"]).filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context, why));
        }
    }
    errors.extend(windows::options(&child(path, "windowsOptions"), &context["windowsOptions"]));
    errors.extend(app_armor(&child(path, "appArmorProfile"), &context["appArmorProfile"]));
    errors
}

/// Why a number is no user and no group.
pub fn id(path: String, value: &Value) -> Option<FieldError> {
    let wrong = value.as_i64().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id));
    wrong.then(|| FieldError::invalid(path, value, "must be between 0 and 2147483647, inclusive"))
}

fn seccomp(path: &str, profile: &Value) -> Vec<FieldError> {
    if profile.is_null() {
        return Vec::new();
    }
    let (kind, file) = (text(profile, "type"), &profile["localhostProfile"]);
    let mut errors = Vec::new();
    if kind.is_empty() {
        errors.push(FieldError::required(child(path, "type"), "type is required when seccompProfile is set"));
    } else {
        errors.extend(FieldError::unsupported(child(path, "type"), &profile["type"], &PROFILE_TYPES));
    }
    let path = child(path, "localhostProfile");
    match (kind == "Localhost", file.is_null()) {
        (true, true) => errors.push(FieldError::required(path, "must be set when seccomp type is Localhost")),
        (true, false) => errors.extend(descending(&path, file)),
        (false, false) => {
            errors.push(FieldError::invalid(path, profile, "can only be set when seccomp type is Localhost"));
        }
        (false, true) => {}
    }
    errors
}

/// Reasons against a profile of AppArmor.
pub fn app_armor(path: &str, profile: &Value) -> Vec<FieldError> {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    if profile.is_null() {
        return Vec::new();
    }
    let file = &profile["localhostProfile"];
    let path_of_file = child(path, "localhostProfile");
    let mut errors = Vec::new();
    match text(profile, "type") {
        "Localhost" => match as_text(file) {
            "" => errors.push(FieldError::required(path_of_file, MISSING)),
            name => {
                if name.trim() != name {
                    let why = "must not be padded with whitespace";
                    errors.push(FieldError::invalid(&path_of_file, file, why));
                }
                if name.len() > MAX_APP_ARMOR_PROFILE {
                    errors.push(FieldError::too_long(path_of_file, MAX_APP_ARMOR_PROFILE));
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if !file.is_null() {
                let why = "can only be set when AppArmor type is Localhost";
                errors.push(FieldError::invalid(path_of_file, file, why));
            }
        }
        "" => errors.push(FieldError::required(child(path, "type"), "type is required when appArmorProfile is set")),
        _ => errors.push(FieldError::not_supported(child(path, "type"), &profile["type"], &PROFILE_TYPES)),
    }
    errors
}

fn sysctls(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, sysctl) in items(&spec["securityContext"]["sysctls"]).enumerate() {
        let path = format!("{path}[{i}].name");
        let (name, value) = (text(sysctl, "name"), &sysctl["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !is_sysctl(name) {
            let why = format!(
                "must have at most {MAX_SYSCTL} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(FieldError::invalid(&path, value, why));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, value));
        }
        let dotted = if name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/')) {
            name.replace('/', ".")
        } else {
            name.to_owned()
        };
        if spec["hostNetwork"] == true && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(path, value, "may not be specified when 'hostNetwork' is true"));
        } else if spec["hostIPC"] == true && is_of_ipc(&dotted) {
            errors.push(FieldError::invalid(path, value, "may not be specified when 'hostIPC' is true"));
        }
    }
    errors
}

fn is_of_ipc(name: &str) -> bool {
    matches!(name, "kernel.sem" | "kernel.shm_rmid_forced")
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

fn is_sysctl(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(|b| inner(*b))
            && bytes.last().is_some_and(|b| inner(*b))
            && bytes.iter().all(|b| inner(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn ids_and_profiles_are_checked() {
        let good = json!({"runAsUser": 0, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"},
            "appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}});
        assert_eq!(of_container("c", &good, true), []);
        let bad = json!({"runAsUser": -1, "procMount": "Unmasked", "seccompProfile": {"type": "Localhost"},
            "appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}});
        assert_eq!(
            words(of_container("c", &bad, true)),
            [
                "c.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "c.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
                "c.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                "c.appArmorProfile.localhostProfile: Invalid value: \"x\": can only be set when AppArmor type is Localhost",
            ]
        );
        let escalating = json!({"allowPrivilegeEscalation": false, "privileged": true});
        assert!(words(of_container("c", &escalating, true))[0].ends_with("`privileged` to true"));
    }

    #[test]
    fn sysctls_belong_to_a_namespace_of_the_pod() {
        let spec = |network: bool, names: &[&str]| {
            let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
            json!({"hostNetwork": network, "securityContext": {"sysctls": list}})
        };
        assert_eq!(of_pod("s", &spec(false, &["net.ipv4.ip_forward", "kernel/shmmax"])), []);
        assert_eq!(
            words(of_pod("s", &spec(true, &["net/ipv4/ip_forward"]))),
            [
                "s.sysctls[0].name: Invalid value: \"net/ipv4/ip_forward\": may not be specified when 'hostNetwork' is true"
            ]
        );
        assert_eq!(of_pod("s", &spec(false, &["Net.x", "a.b", "a.b"])).len(), 2);
    }

    #[test]
    fn policies_of_a_pod_are_known() {
        let spec = json!({"securityContext": {"fsGroupChangePolicy": "Never", "supplementalGroupsPolicy": "Some",
            "seLinuxChangePolicy": "MountOption", "supplementalGroups": [1, -1]}, "hostPID": true, "shareProcessNamespace": true});
        assert_eq!(of_pod("s", &spec).len(), 5);
    }
}
