//! Takes back the condition `DisruptionTarget` of pods that were to be disrupted and were not: whoever set it died, or
//! was refused.

use std::{sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::super::Context;
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, unless_gone},
    objects::pod_state::{condition, is_finished, is_terminating},
};

/// How long a pod may bear the condition without being deleted. Source: `stalePodDisruptionTimeout`.
const STALE_AFTER: Duration = Duration::from_secs(120);
const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// Set by the kubelet, however long it takes to end the pod. Source: `PodReasonTerminationByKubelet`.
const BY_KUBELET: &str = "TerminationByKubelet";

struct Controller {
    client: Client,
    pods: Arc<Informer<Pod>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let controller = Controller { client: context.client.clone(), pods: context.informers.pods.clone() };
    Startup::new("stale-pod-disruption", controller)
        .on(&context.informers.pods, |_, change, queue| {
            if let Some(rest) = change.new.as_deref().and_then(|pod| stale_in(pod, Timestamp::now())) {
                queue.add_after(change.key.clone(), rest);
            }
        })
        .start(tasks, 4, Controller::reconcile);
}

/// When the condition of the pod is stale: at once, or later. `None` where it has none that can become so.
fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let condition = condition(pod, DISRUPTION_TARGET)
        .filter(|condition| condition.status == "True" && condition.reason.as_deref() != Some(BY_KUBELET))?;
    if is_terminating(pod) || is_finished(pod) {
        return None;
    }
    let since = condition.last_transition_time.as_ref()?;
    let elapsed = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    Some(STALE_AFTER.saturating_sub(elapsed))
}

/// Sets the condition to false, unless the pod changed meanwhile.
fn cleared(pod: &Pod, now: Timestamp) -> Value {
    json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": [{"type": DISRUPTION_TARGET, "status": "False", "reason": null, "message": null,
            "observedGeneration": pod.metadata.generation, "lastTransitionTime": now}]}})
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(pod) = self.pods.get(&key) else { return Ok(Outcome::Done) };
        let now = Timestamp::now();
        match stale_in(&pod, now) {
            None => return Ok(Outcome::Done),
            Some(Duration::ZERO) => {}
            Some(rest) => return Ok(Outcome::After(rest)),
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Strategic(cleared(&pod, now));
        let answer = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
        unless_gone(answer, "take back a stale DisruptionTarget condition").map(|_| Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_was_not_disrupted_in_two_minutes_loses_the_condition() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a valid time");
        let pod = |meta: Value, phase: &str, status: &str, reason: &str, since: &str| -> Pod {
            serde_json::from_value(json!({"metadata": meta, "status": {"phase": phase, "conditions": [
                {"type": DISRUPTION_TARGET, "status": status, "reason": reason, "lastTransitionTime": since}]}}))
            .expect("a valid pod")
        };
        let (old, young) = ("2026-01-01T00:08:00Z", "2026-01-01T00:09:00Z");
        let plain = || json!({"name": "p"});
        let cases = [
            (pod(plain(), "Running", "True", "EvictionByEvictionAPI", old), Some(Duration::ZERO)),
            (pod(plain(), "Running", "True", "EvictionByEvictionAPI", young), Some(Duration::from_secs(60))),
            (pod(plain(), "Running", "False", "EvictionByEvictionAPI", old), None),
            (pod(plain(), "Running", "True", BY_KUBELET, old), None),
            (pod(plain(), "Failed", "True", "EvictionByEvictionAPI", old), None),
            (pod(json!({"deletionTimestamp": old}), "Running", "True", "PreemptionByScheduler", old), None),
            (Pod::default(), None),
        ];
        for (pod, expected) in cases {
            assert_eq!(stale_in(&pod, now), expected, "{pod:?}");
        }
    }
}
