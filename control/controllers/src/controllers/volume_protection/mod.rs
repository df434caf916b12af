//! Volumes, claims and VolumeAttributesClasses that are in use are not removed: each has a finalizer from its creation
//! on, by admission, which is taken away when it is being deleted and nothing uses it.
//!
//! | file | what it knows |
//! |---|---|
//! | `claims` | which pods use a PersistentVolumeClaim |
//! | `live_pods` | how the claims of a namespace share a list of its pods |
//! | `volumes` | when a PersistentVolume is in use |
//! | `attributes_classes` | which volumes and claims name a VolumeAttributesClass |
//!
//! Source: `pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}` of Kubernetes.

mod attributes_classes;
mod claims;
mod live_pods;
mod volumes;

use fairlead_client::{Api, Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Context;
use crate::engine::{Failure, Outcome, Tasks, unless_gone};

/// Starts the controllers.
pub fn start(context: &Context, tasks: &Tasks) {
    claims::start(context, tasks);
    volumes::start(context, tasks);
    attributes_classes::start(context, tasks);
}

/// What an object is to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalizerStep {
    /// It was made before admission gave new objects the finalizer.
    Add,
    /// It is being deleted: it goes if nothing uses it.
    RemoveIfUnused,
    /// It is as it should be.
    Nothing,
}

/// What `finalizer` means for an object.
fn step(meta: &ObjectMeta, finalizer: &str) -> FinalizerStep {
    let has = meta.finalizers.iter().flatten().any(|one| one == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (false, false) => FinalizerStep::Add,
        (true, true) => FinalizerStep::RemoveIfUnused,
        (false, true) | (true, false) => FinalizerStep::Nothing,
    }
}

/// The finalizers of an object after a step.
fn finalizers_after(meta: &ObjectMeta, finalizer: &str, step: FinalizerStep) -> Vec<String> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    match step {
        FinalizerStep::Add => finalizers.push(finalizer.to_owned()),
        FinalizerStep::RemoveIfUnused => finalizers.retain(|one| one != finalizer),
        FinalizerStep::Nothing => {}
    }
    finalizers
}

/// Writes the finalizers of an object as they are after a step, if nobody changed it meanwhile.
async fn carry_out<K: Object>(
    api: &Api<K>,
    meta: &ObjectMeta,
    finalizer: &str,
    step: FinalizerStep,
) -> Result<Outcome, Failure> {
    let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid,
        "finalizers": finalizers_after(meta, finalizer, step)}});
    let name = meta.name.as_deref().unwrap_or_default();
    let answer = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    unless_gone(answer, "change the finalizers that protect what is in use").map(|_| Outcome::Done)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    #[test]
    fn a_finalizer_is_added_to_what_lives_and_removed_from_what_is_being_deleted() {
        let meta = |finalizers: &[&str], deleting: bool| ObjectMeta {
            finalizers: Some(finalizers.iter().map(|&name| name.into()).collect()),
            deletion_timestamp: deleting.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        assert_eq!(step(&ObjectMeta::default(), "f"), FinalizerStep::Add);
        assert_eq!(step(&meta(&["f"], false), "f"), FinalizerStep::Nothing);
        assert_eq!(step(&meta(&["other"], true), "f"), FinalizerStep::Nothing);
        assert_eq!(step(&meta(&["other", "f"], true), "f"), FinalizerStep::RemoveIfUnused);
        assert_eq!(finalizers_after(&meta(&["other"], false), "f", FinalizerStep::Add), ["other", "f"]);
        assert_eq!(finalizers_after(&meta(&["f", "other"], true), "f", FinalizerStep::RemoveIfUnused), ["other"]);
    }
}
