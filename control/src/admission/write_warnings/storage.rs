//! Volumes, claims, and their classes and drivers.

use serde_json::Value;

use super::{node_labels, pod_spec::fraction};
use crate::kinds::reading::{is_empty, items, same, text};

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Drivers of volumes that have gone: the field, the name that Kubernetes says, and since when.
const DRIVERS: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Of a PersistentVolume.
pub fn volume(volume: &Value) -> Vec<String> {
    let (spec, annotations) = (&volume["spec"], &volume["metadata"]["annotations"]);
    let mut all = Vec::new();
    for (key, message) in [
        (BETA_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        ("volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ] {
        if annotations.get(key).is_some_and(|value| !value.is_null()) {
            all.push(format!("metadata.annotations[{key}]: {message}"));
        }
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        all.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
            approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    for (i, term) in items(&spec["nodeAffinity"]["required"]["nodeSelectorTerms"]).enumerate() {
        all.extend(node_labels::term(&format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]"), term, false));
    }
    let gone = DRIVERS.iter().filter(|(field, ..)| !spec[*field].is_null());
    all.extend(gone.map(|(_, name, message)| format!("spec.{name}: {message}")));
    all
}

/// Of a claim.
pub fn claim(claim: &Value) -> Vec<String> {
    let beta = claim["metadata"]["annotations"].get(BETA_CLASS).is_some_and(|class| !class.is_null());
    let message = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    let warning = beta.then(|| format!("metadata.annotations[{BETA_CLASS}]: {message}"));
    warning.into_iter().chain(claim_spec("spec", &claim["spec"])).collect()
}

/// Of the spec of a claim, which may be one of a template.
pub fn claim_spec(path: &str, spec: &Value) -> Vec<String> {
    let of = |list: &str| fraction(|| format!("{path}.resources.{list}[storage]"), &spec["resources"][list]["storage"]);
    of("requests").into_iter().chain(of("limits")).collect()
}

/// Of a StorageClass.
pub fn class(class: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (i, topology) in items(&class["allowedTopologies"]).enumerate() {
        for (j, expression) in items(&topology["matchLabelExpressions"]).enumerate() {
            let message = node_labels::message(text(expression, "key"));
            let path = format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key");
            all.extend(message.map(|message| format!("{path}: {message}")));
        }
    }
    all
}

/// Of a CSIDriver that wants tokens, and does not say where it takes them.
pub fn driver(driver: &Value, old: Option<&Value>) -> Vec<String> {
    let requests = &driver["spec"]["tokenRequests"];
    let changed = old.is_none_or(|old| !same(&old["spec"]["tokenRequests"], requests));
    let silent = driver["spec"]["serviceAccountTokenInSecrets"].is_null();
    let warning = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
        possible logging of tokens in volume attributes";
    (changed && silent && !is_empty(requests)).then(|| warning.to_owned()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_volumes_and_fractions_are_told() {
        let old = json!({"metadata": {"annotations": {BETA_CLASS: "x"}},
            "spec": {"persistentVolumeReclaimPolicy": "Recycle", "storageos": {}}});
        let told = volume(&old);
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[2], "spec.storageOS: deprecated in v1.22, non-functional in v1.25+");
        let half = json!({"metadata": {"annotations": {BETA_CLASS: "x"}}, "spec": {"resources": {"requests": {"storage": "0.5"}}}});
        assert_eq!(
            claim(&half),
            [
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
                \"storageClassName\" attribute instead",
                "spec.resources.requests[storage]: fractional byte value \"500m\" is invalid, must be an integer"
            ]
        );
        let topology = json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "beta.kubernetes.io/os"}]}]});
        assert!(class(&topology)[0].starts_with("allowedTopologies[0].matchLabelExpressions[0].key: deprecated"));
        let tokens = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
        assert_eq!(driver(&tokens, None).len(), 1);
        assert_eq!(driver(&tokens, Some(&tokens)).len(), 0);
    }
}
