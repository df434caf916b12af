//! VolumeAttributesClasses that volumes or claims name stay.

use std::sync::Arc;

use fairlead_client::Api;
use fairlead_kinds::kinds::protection_finalizer;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttributesClass,
};
use kube::Client;

use super::{super::Context, FinalizerStep, carry_out, step};
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks},
    objects::{
        informer_index::naming_attributes_class,
        volume_references::{class_of_volume, classes_of_claim},
    },
};

const COMPONENT: &str = "vac-protection-controller";

struct Controller {
    client: Client,
    classes: Arc<Informer<VolumeAttributesClass>>,
    volumes: Arc<Informer<PersistentVolume>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        classes: informers.attributes_classes.clone(),
        volumes: informers.volumes.clone(),
        claims: informers.claims.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.attributes_classes, |_, change, queue| {
            if change.new.as_ref().is_some_and(|class| {
                step(&class.metadata, protection_finalizer::ATTRIBUTES_CLASS) != FinalizerStep::Nothing
            }) {
                queue.add(change.key.clone());
            }
        })
        .on(&informers.volumes, |_, change, queue| {
            let (old, new) = (change.old.as_deref(), change.new.as_deref());
            no_longer_named(old.and_then(class_of_volume), new.and_then(class_of_volume))
                .for_each(|name| queue.add(Key::cluster(&name)));
        })
        .on(&informers.claims, |_, change, queue| {
            let classes = |claim: Option<&PersistentVolumeClaim>| claim.map(classes_of_claim).unwrap_or_default();
            no_longer_named(classes(change.old.as_deref()), classes(change.new.as_deref()))
                .for_each(|name| queue.add(Key::cluster(&name)));
        })
        .start(tasks, 2, Controller::reconcile);
}

/// The names that were there before and are not now.
fn no_longer_named(
    before: impl IntoIterator<Item = String>,
    now: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = String> {
    let now: Vec<String> = now.into_iter().collect();
    before.into_iter().filter(move |name| !now.contains(name))
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(class) = self.classes.get(&key) else { return Ok(Outcome::Done) };
        let index = naming_attributes_class(&key.name);
        let is_used = || self.volumes.count(&index) > 0 || self.claims.count(&index) > 0;
        match step(&class.metadata, protection_finalizer::ATTRIBUTES_CLASS) {
            FinalizerStep::Nothing => Ok(Outcome::Done),
            FinalizerStep::RemoveIfUnused if is_used() => Ok(Outcome::Done),
            step => {
                carry_out(
                    &Api::<VolumeAttributesClass>::all(self.client.clone()),
                    &class.metadata,
                    protection_finalizer::ATTRIBUTES_CLASS,
                    step,
                )
                .await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_names_the_classes_that_it_wants_has_and_changes_to() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": {"volumeAttributesClassName": "gold"},
            "status": {"currentVolumeAttributesClassName": "silver",
                "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "gold"}}}))
        .unwrap();
        assert_eq!(classes_of_claim(&claim), ["gold", "silver"]);
        assert!(classes_of_claim(&PersistentVolumeClaim::default()).is_empty());
        let gone: Vec<String> = no_longer_named(classes_of_claim(&claim), ["gold".to_owned()]).collect();
        assert_eq!(gone, ["silver"]);
    }
}
