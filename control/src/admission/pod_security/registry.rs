//! Which checks belong to a level, as each version of Kubernetes defined it.

use super::{
    checks::{
        PodCheck, PodView, Violation, capabilities, host_access, privileges, probe_hosts, proc_mount, profiles,
        seccomp, sysctls, user, volumes,
    },
    level::{Level, LevelVersion, PolicyVersion},
};

/// A check that has one definition from a version on, until the next.
struct Entry {
    id: &'static str,
    level: Level,
    /// By the version of Kubernetes 1 that they begin with, ascending.
    versions: &'static [(u64, PodCheck)],
    /// The check of the baseline that a stricter one takes the place of.
    overrides: &'static str,
}

/// How a pod violates a level.
pub struct Violations(Vec<Violation>);

/// The checks in the order in which they are told: those of the baseline first, each by its name.
const CHECKS: [Entry; 19] = [
    baseline("appArmorProfile", &[(0, profiles::app_armor)]),
    baseline("capabilities_baseline", &[(0, capabilities::baseline)]),
    baseline("hostNamespaces", &[(0, host_access::namespaces)]),
    baseline("hostPathVolumes", &[(0, host_access::paths)]),
    baseline("hostPorts", &[(0, host_access::ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, probe_hosts::check)]),
    baseline("privileged", &[(0, privileges::privileged)]),
    baseline("procMount", &[(0, proc_mount::always), (35, proc_mount::without_user_namespace)]),
    baseline("seLinuxOptions", &[(0, profiles::se_linux_0), (31, profiles::se_linux_31)]),
    baseline("seccompProfile_baseline", &[(0, seccomp::annotations), (19, seccomp::baseline)]),
    baseline("sysctls", &[(0, sysctls::v0), (27, sysctls::v27), (29, sysctls::v29), (32, sysctls::v32)]),
    baseline("windowsHostProcess", &[(0, privileges::host_process)]),
    restricted("allowPrivilegeEscalation", &[(8, privileges::escalation_8), (25, privileges::escalation_25)], ""),
    restricted(
        "capabilities_restricted",
        &[(22, capabilities::restricted_22), (25, capabilities::restricted_25)],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, proc_mount::always)], "procMount"),
    restricted("restrictedVolumes", &[(0, volumes::check)], "hostPathVolumes"),
    restricted("runAsNonRoot", &[(0, user::non_root_0), (35, user::non_root_35)], ""),
    restricted("runAsUser", &[(23, user::user_23), (35, user::user_35)], ""),
    restricted(
        "seccompProfile_restricted",
        &[(19, seccomp::restricted_19), (25, seccomp::restricted_25)],
        "seccompProfile_baseline",
    ),
];

const fn baseline(id: &'static str, versions: &'static [(u64, PodCheck)]) -> Entry {
    Entry { id, level: Level::Baseline, versions, overrides: "" }
}

const fn restricted(id: &'static str, versions: &'static [(u64, PodCheck)], overrides: &'static str) -> Entry {
    Entry { id, level: Level::Restricted, versions, overrides }
}

impl Entry {
    /// The check as it is defined at a version, if it is.
    fn at(&self, version: PolicyVersion) -> Option<PodCheck> {
        self.versions.iter().rev().find(|(from, _)| PolicyVersion::Minor(*from) <= version).map(|(_, check)| *check)
    }
}

/// How a pod violates a level as a version defined it.
pub fn evaluate(wanted: LevelVersion, pod: PodView<'_>) -> Violations {
    let LevelVersion { level, version } = wanted;
    let active = || CHECKS.iter().filter(|entry| entry.level <= level && entry.at(version).is_some());
    if level == Level::Privileged {
        return Violations(Vec::new());
    }
    let is_overridden = |entry: &&Entry| active().any(|other| other.overrides == entry.id);
    let checks = active().filter(|entry| !is_overridden(entry)).filter_map(|entry| entry.at(version));
    Violations(checks.filter_map(|check| check(pod)).collect())
}

impl Violations {
    /// All of them in words, with the values; `None` if there is none.
    pub fn detail(&self) -> Option<String> {
        let words = |violation: &Violation| match violation.detail.as_str() {
            "" => violation.reason.to_owned(),
            detail => format!("{} ({detail})", violation.reason),
        };
        self.joined(words)
    }

    /// All of them in words, without the values.
    pub fn reason(&self) -> Option<String> {
        self.joined(|violation| violation.reason.to_owned())
    }

    fn joined(&self, words: impl Fn(&Violation) -> String) -> Option<String> {
        let all: Vec<String> = self.0.iter().map(words).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn detail(level: Level, version: PolicyVersion, pod: &Value) -> String {
        evaluate(LevelVersion { level, version }, PodView::of(pod)).detail().unwrap_or_default()
    }

    #[test]
    fn a_plain_pod_is_no_restricted_one() {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(detail(Level::Baseline, PolicyVersion::Latest, &pod), "");
        assert_eq!(
            detail(Level::Restricted, PolicyVersion::Latest, &pod),
            "allowPrivilegeEscalation != false (container \"c\" must set \
            securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
            securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
            securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
            securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        assert_eq!(
            detail(Level::Restricted, PolicyVersion::Minor(0), &pod),
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"
        );
    }

    #[test]
    fn a_stricter_check_takes_the_place_of_the_baseline() {
        let pod = json!({"spec": {"containers": [], "volumes": [{"name": "h", "hostPath": {"path": "/"}}]}});
        assert_eq!(detail(Level::Baseline, PolicyVersion::Latest, &pod), "hostPath volumes (volume \"h\")");
        assert_eq!(
            detail(Level::Restricted, PolicyVersion::Latest, &pod),
            "restricted volume types (volume \"h\" uses restricted volume type \"hostPath\")"
        );
        let added = json!({"spec": {"containers": [
            {"name": "c", "securityContext": {"capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]}}}]}});
        // Before 1.22 there was no stricter check of capabilities.
        assert!(detail(Level::Restricted, PolicyVersion::Minor(21), &added).starts_with("non-default capabilities ("));
        assert!(!detail(Level::Restricted, PolicyVersion::Minor(22), &added).contains("non-default capabilities"));
    }

    #[test]
    fn a_version_yet_to_come_is_the_latest() {
        let pod = json!({"spec": {"hostNetwork": true, "containers": []}});
        assert_eq!(detail(Level::Baseline, PolicyVersion::Minor(99), &pod), "host namespaces (hostNetwork=true)");
        let reason =
            evaluate(LevelVersion { level: Level::Baseline, version: PolicyVersion::Latest }, PodView::of(&pod));
        assert_eq!(reason.reason().as_deref(), Some("host namespaces"));
        assert!(CHECKS.iter().all(|entry| entry.versions.is_sorted_by_key(|(from, _)| *from)));
    }
}
