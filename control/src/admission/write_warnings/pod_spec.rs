//! Pods and templates: what they say that does nothing any more, or not what it seems to.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{addresses, containers, node_labels, storage, volume_paths};
use crate::kinds::{
    quantity::Quantity,
    reading::{as_text, entries, items, text},
};

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Fields of volumes whose driver has gone: the field, the name that Kubernetes says, and since when.
const VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const EMPTY_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Of a pod, where `path` is empty, or of the template at `path`, which ends with a dot.
pub fn warnings(path: &str, pod: &Value) -> Vec<String> {
    let (spec, annotations) = (&pod["spec"], &pod["metadata"]["annotations"]);
    let mut all = placement(path, spec);
    let annotation = |key: &str| annotations.get(key).is_some_and(|value| !value.is_null());
    for (key, message) in ANNOTATIONS.iter().filter(|(key, _)| annotation(key)) {
        all.push(format!("{path}metadata.annotations[{key}]: {message}"));
    }
    for (i, volume) in items(&spec["volumes"]).enumerate() {
        let gone = VOLUMES.iter().filter(|(field, ..)| !volume[*field].is_null());
        all.extend(gone.map(|(_, name, message)| format!("{path}spec.volumes[{i}].{name}: {message}")));
        let claim = &volume["ephemeral"]["volumeClaimTemplate"];
        if !claim.is_null() {
            let path = format!("{path}spec.volumes[{i}].ephemeral.volumeClaimTemplate.spec");
            all.extend(storage::claim_spec(&path, &claim["spec"]));
        }
    }
    all.extend(volume_paths::warnings(&spec["volumes"]));
    all.extend(twice(&[path, "spec.hostAliases"].concat(), &spec["hostAliases"], "ip"));
    all.extend(twice(&[path, "spec.imagePullSecrets"].concat(), &spec["imagePullSecrets"], "name"));
    for (i, _) in items(&spec["imagePullSecrets"]).enumerate().filter(|(_, one)| text(one, "name").is_empty()) {
        all.push(format!("{path}spec.imagePullSecrets[{i}].name: invalid empty name \"\""));
    }
    for name in ["memory", "ephemeral-storage"] {
        all.extend(fraction(|| format!("{path}spec.overhead[{name}]"), &spec["overhead"][name]));
    }
    if spec["securityContext"]["seccompProfile"].is_null() && annotation(SECCOMP_ANNOTATION) {
        all.push(format!(
            "{path}metadata.annotations[{SECCOMP_ANNOTATION}]: non-functional in v1.27+; use the \"seccompProfile\" field \
            instead"
        ));
    }
    all.extend(containers::warnings(path, spec, annotations));
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        all.push(format!(
            "{path}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    all.extend(affinity(path, &spec["affinity"]));
    for (i, server) in items(&spec["dnsConfig"]["nameservers"]).map(as_text).enumerate() {
        all.extend(addresses::ip(&format!("{path}spec.dnsConfig.nameservers[{i}]"), server));
    }
    for (i, alias) in items(&spec["hostAliases"]).enumerate() {
        all.extend(addresses::ip(&format!("{path}spec.hostAliases[{i}].ip"), text(alias, "ip")));
    }
    all
}

/// Labels of nodes that have other names now, and constraints that match no pod.
fn placement(path: &str, spec: &Value) -> Vec<String> {
    let mut all: Vec<String> = entries(&spec["nodeSelector"])
        .filter_map(|(key, _)| Some(format!("{path}spec.nodeSelector[{key}]: {}", node_labels::message(key)?)))
        .collect();
    let affinity = &spec["affinity"]["nodeAffinity"];
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in items(&affinity[required]["nodeSelectorTerms"]).enumerate() {
        let path = format!("{path}spec.affinity.nodeAffinity.{required}.nodeSelectorTerms[{i}]");
        all.extend(node_labels::term(&path, term, false));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in items(&affinity[preferred]).enumerate() {
        let path = format!("{path}spec.affinity.nodeAffinity.{preferred}[{i}].preference");
        all.extend(node_labels::term(&path, &term["preference"], true));
    }
    for (i, constraint) in items(&spec["topologySpreadConstraints"]).enumerate() {
        let path = format!("{path}spec.topologySpreadConstraints[{i}]");
        all.extend(node_labels::named(&format!("{path}.topologyKey"), text(constraint, "topologyKey")));
        if constraint["labelSelector"].is_null() {
            all.push(format!("{path}.labelSelector: {EMPTY_SELECTOR}"));
        }
    }
    all
}

fn affinity(path: &str, affinity: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (list, child) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", None),
            ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm")),
        ] {
            for (i, term) in items(&affinity[kind][list]).enumerate() {
                let (term, child) = child.map_or((term, String::new()), |child| (&term[child], format!("{child}.")));
                if term["labelSelector"].is_null() {
                    all.push(format!("{path}spec.affinity.{kind}.{list}[{i}].{child}labelSelector: {EMPTY_SELECTOR}"));
                }
            }
        }
    }
    all
}

/// Items of a list that name the same.
fn twice(path: &str, list: &Value, field: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let named = items(list).map(|item| text(item, field)).enumerate();
    let again = named.filter(|(_, value)| !seen.insert(*value));
    again.map(|(i, value)| format!("{path}[{i}].{field}: duplicate {field} {value:?}")).collect()
}

/// Of an amount of bytes that is no whole number.
pub fn fraction(path: impl FnOnce() -> String, amount: &Value) -> Option<String> {
    let amount = Quantity::of(amount).filter(|amount| amount.millis() % 1000 != 0)?;
    let path = path();
    Some(format!("{path}: fractional byte value \"{amount}\" is invalid, must be an integer"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plain_pod_gives_no_warning() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"memory": "1Gi"}}}], "volumes": [{"name": "v", "emptyDir": {}}]}});
        assert_eq!(warnings("", &pod), Vec::<String>::new());
    }

    #[test]
    fn what_does_nothing_any_more_is_named_with_its_path() {
        let pod = json!({"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": "",
                "seccomp.security.alpha.kubernetes.io/pod": "x"}},
            "spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1,
                "topologySpreadConstraints": [{"topologyKey": "beta.kubernetes.io/os"}],
                "volumes": [{"name": "a", "gitRepo": {}}, {"name": "b", "storageos": {}}],
                "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}], "imagePullSecrets": [{"name": "a"}, {}, {"name": "a"}],
                "overhead": {"memory": "1500m"}, "dnsConfig": {"nameservers": ["01.1.1.1"]},
                "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {}}]}}}});
        let os = "deprecated since v1.14; use \"kubernetes.io/os\" instead";
        let expected = [
            format!("t.spec.nodeSelector[beta.kubernetes.io/os]: {os}"),
            format!("t.spec.topologySpreadConstraints[0].topologyKey: beta.kubernetes.io/os is {os}"),
            "t.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod".into(),
            "t.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \
            \"priorityClassName\" field instead"
                .into(),
            "t.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+".into(),
            "t.spec.volumes[1].storageOS: deprecated in v1.22, non-functional in v1.25+".into(),
            "t.spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"".into(),
            "t.spec.imagePullSecrets[2].name: duplicate name \"a\"".into(),
            "t.spec.imagePullSecrets[1].name: invalid empty name \"\"".into(),
            "t.spec.overhead[memory]: fractional byte value \"1500m\" is invalid, must be an integer".into(),
            "t.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \
            \"seccompProfile\" field instead"
                .into(),
            "t.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
                .into(),
            "t.spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: \
            a null labelSelector results in matching no pod"
                .into(),
            "t.spec.dnsConfig.nameservers[0]: non-standard IP address \"01.1.1.1\" will be considered invalid in a future \
            Kubernetes release: use \"1.1.1.1\""
                .to_owned(),
        ];
        assert_eq!(warnings("t.", &pod), expected);
    }
}
