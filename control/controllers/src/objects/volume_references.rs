//! Which claims pods name, and which VolumeAttributesClasses volumes and claims name.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

/// The claims that a pod's volumes name, those of its ephemeral volumes included.
pub fn claim_names(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_name(pod, volume))
}

/// The claim of a volume of a pod.
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)),
        (None, None) => None,
    }
}

/// The class that a volume names.
pub fn class_of_volume(volume: &PersistentVolume) -> Option<String> {
    let name = volume.spec.as_ref()?.volume_attributes_class_name.clone();
    name.filter(|name| !name.is_empty())
}

/// The classes that a claim names: the one that it wants, the one that it has, and the one that it is changing to.
pub fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let wanted = spec.and_then(|spec| spec.volume_attributes_class_name.clone());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let modifies = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = modifies.and_then(|modifies| modifies.target_volume_attributes_class_name.clone());
    let mut names: Vec<String> = [wanted, current, target].into_iter().flatten().collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    names
}
