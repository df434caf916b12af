//! PersistentVolumes that are bound to a claim stay.

use std::sync::Arc;

use fairlead_client::Api;
use fairlead_kinds::kinds::protection_finalizer;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Client;

use super::{super::Context, FinalizerStep, carry_out, step};
use crate::engine::{Failure, Informer, Key, Outcome, Startup, Tasks};

const COMPONENT: &str = "pv-protection-controller";

struct Controller {
    client: Client,
    volumes: Arc<Informer<PersistentVolume>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let volumes = &context.informers.volumes;
    Startup::new(COMPONENT, Controller { client: context.client.clone(), volumes: volumes.clone() })
        .on(volumes, |_, change, queue| {
            if change.new.as_ref().is_some_and(|volume| plan(volume) != FinalizerStep::Nothing) {
                queue.add(change.key.clone());
            }
        })
        .start(tasks, 2, Controller::reconcile);
}

/// What is to be done now. Whoever binds volumes says in the status whether this one is bound.
fn plan(volume: &PersistentVolume) -> FinalizerStep {
    let is_bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    match step(&volume.metadata, protection_finalizer::VOLUME) {
        FinalizerStep::RemoveIfUnused if is_bound => FinalizerStep::Nothing,
        step => step,
    }
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(volume) = self.volumes.get(&key) else { return Ok(Outcome::Done) };
        match plan(&volume) {
            FinalizerStep::Nothing => Ok(Outcome::Done),
            step => {
                carry_out(
                    &Api::<PersistentVolume>::all(self.client.clone()),
                    &volume.metadata,
                    protection_finalizer::VOLUME,
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
    fn a_volume_that_is_bound_stays() {
        let volume = |phase: &str, deleted: bool| -> PersistentVolume {
            let mut volume = json!({"metadata": {"name": "v", "finalizers": [protection_finalizer::VOLUME]}, "status": {"phase": phase}});
            if deleted {
                volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(volume).unwrap()
        };
        assert_eq!(plan(&volume("Bound", true)), FinalizerStep::Nothing);
        assert_eq!(plan(&volume("Released", true)), FinalizerStep::RemoveIfUnused);
        assert_eq!(plan(&volume("Available", false)), FinalizerStep::Nothing);
        assert_eq!(plan(&PersistentVolume::default()), FinalizerStep::Add);
    }
}
