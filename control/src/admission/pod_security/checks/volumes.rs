//! Volumes of the restricted level: what Kubernetes itself provides, and claims.

use super::{PodView, Texts, Violation, plural, quoted};
use crate::kinds::reading::{items, text};

const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const RESTRICTED: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

/// No other volumes.
pub fn check(pod: PodView<'_>) -> Option<Violation> {
    let (mut volumes, mut types) = (Vec::new(), Texts::new());
    for volume in items(&pod.spec["volumes"]) {
        if ALLOWED.iter().any(|source| !volume[*source].is_null()) {
            continue;
        }
        volumes.push(text(volume, "name"));
        types.insert(RESTRICTED.into_iter().find(|source| !volume[*source].is_null()).unwrap_or("unknown"));
    }
    (!volumes.is_empty()).then_some(())?;
    let detail = format!(
        "{} {} {} {} {}",
        plural(volumes.len(), "volume", "volumes"),
        quoted(&volumes),
        plural(volumes.len(), "uses", "use"),
        plural(types.len(), "restricted volume type", "restricted volume types"),
        quoted(types)
    );
    Violation::new("restricted volume types", detail)
}
