//! PersistentVolumeClaims that scheduled pods use stay.

use std::sync::Arc;

use fairlead_client::{Api, from_value};
use fairlead_kinds::kinds::protection_finalizer;
use http::Request;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::Context,
    FinalizerStep, carry_out,
    live_pods::{LivePods, WaitingSince},
    step,
};
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, WorkQueue},
    objects::{
        informer_index::using_claim,
        owners::controller_of,
        pod_state::is_finished,
        volume_references::{claim_name, claim_names},
    },
};

const COMPONENT: &str = "pvc-protection-controller";

struct Controller {
    client: Client,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    pods: Arc<Informer<Pod>>,
    live_pods: LivePods,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        claims: informers.claims.clone(),
        pods: informers.pods.clone(),
        live_pods: LivePods::default(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.claims, |controller, change, queue| {
            if change.new.is_none() {
                controller.live_pods.forget_gone(&change.key);
            }
            if change
                .new
                .as_ref()
                .is_some_and(|claim| step(&claim.metadata, protection_finalizer::CLAIM) != FinalizerStep::Nothing)
            {
                controller.enqueue(queue, change.key.clone());
            }
        })
        .on(&informers.pods, |controller, change, queue| {
            let pod = change.latest();
            if change.new.is_none() || releases(pod) {
                for claim in claim_names(pod) {
                    controller.enqueue(queue, Key::new(&change.key.namespace, &claim));
                }
            }
        })
        .start(tasks, 2, Controller::reconcile);
}

/// Whether a change of a pod may free a claim. One that is not scheduled uses none.
fn releases(pod: &Pod) -> bool {
    is_finished(pod) || is_shut_down(pod) || !is_scheduled(pod)
}

fn is_scheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
}

/// Whether its node is done with it: it waits for its finalizers alone.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Whether a pod uses a claim of its namespace. The claim of an ephemeral volume must be the pod's own.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let is_own = || controller_of(&claim.metadata).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut named = volumes.filter(|volume| claim_name(pod, volume).as_deref() == Some(name));
    is_scheduled(pod) && named.any(|volume| volume.persistent_volume_claim.is_some() || !is_shut_down(pod) && is_own())
}

fn uid(claim: &PersistentVolumeClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or_default()
}

impl Controller {
    /// Only a list of pods that begins after this change can say that the claim is unused.
    fn enqueue(&self, queue: &WorkQueue<Key>, key: Key) {
        if let Some(claim) = self.claims.get(&key)
            && step(&claim.metadata, protection_finalizer::CLAIM) == FinalizerStep::RemoveIfUnused
        {
            self.live_pods.note_waiting(&key, uid(&claim));
        }
        queue.add(key);
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(claim) = self.claims.get(&key) else {
            self.live_pods.forget_gone(&key);
            return Ok(Outcome::Done);
        };
        let step = step(&claim.metadata, protection_finalizer::CLAIM);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        match step {
            FinalizerStep::Nothing => Ok(Outcome::Done),
            FinalizerStep::Add => carry_out(&api, &claim.metadata, protection_finalizer::CLAIM, step).await,
            FinalizerStep::RemoveIfUnused => {
                let since = self.live_pods.waiting_since(&key, uid(&claim));
                let outcome = match self.is_used(&key, &claim, &since).await? {
                    true => Outcome::Done,
                    false => carry_out(&api, &claim.metadata, protection_finalizer::CLAIM, step).await?,
                };
                self.live_pods.forget(&key, &since);
                Ok(outcome)
            }
        }
    }

    /// Looks among the known pods first. A pod that is not known yet may use it, too, so the API has the last word.
    async fn is_used(&self, key: &Key, claim: &PersistentVolumeClaim, since: &WaitingSince) -> Result<bool, Failure> {
        let known = self.pods.indexed(&using_claim(&key.namespace, &key.name));
        if known.iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        let live = self.live_pods.using(key, since, async || self.list(&key.namespace).await).await?;
        Ok(live.iter().any(|pod| uses(pod, claim)))
    }

    async fn list(&self, namespace: &str) -> Result<Vec<Pod>, Failure> {
        let malformed = |what, message: String| Failure::Malformed { what, message };
        let request = Request::get(format!("/api/v1/namespaces/{namespace}/pods")).body(Vec::new());
        let request = request.map_err(|error| malformed("the request", error.to_string()))?;
        let list: PodList = self.client.request(request).await.map_err(Failure::request("list the pods"))?;
        let pods = list.items.iter().map(|pod| from_value(pod).map_err(|error| malformed("a pod", error.to_string())));
        pods.collect()
    }
}

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    items: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n", "containers": [],
            "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "b", "ephemeral": {}}, {"name": "c", "emptyDir": {}}]}});
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn claim(name: &str, owner: &str) -> PersistentVolumeClaim {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true});
        serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": [owner]}})).unwrap()
    }

    #[test]
    fn a_scheduled_pod_uses_its_claims_until_it_is_gone() {
        let standing = pod(|_| {});
        assert_eq!(claim_names(&standing).collect::<Vec<_>>(), ["data", "p-b"]);
        assert!(uses(&standing, &claim("data", "other")) && !uses(&standing, &claim("other", "u")));
        assert!(!uses(&pod(|pod| pod["spec"]["nodeName"] = Value::Null), &claim("data", "u")));
        let ended = pod(|pod| pod["status"] = json!({"phase": "Succeeded"}));
        assert!(uses(&ended, &claim("data", "u")) && releases(&ended), "looked at, and kept while the pod is there");
        assert!(!releases(&standing));
    }

    #[test]
    fn the_claim_of_an_ephemeral_volume_is_that_of_its_pod_until_its_node_is_done() {
        let standing = pod(|_| {});
        assert!(uses(&standing, &claim("p-b", "u")) && !uses(&standing, &claim("p-b", "other")));
        let shut_down = pod(|pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        });
        assert!(!uses(&shut_down, &claim("p-b", "u")) && releases(&shut_down));
        assert!(uses(&shut_down, &claim("data", "u")), "one that others may use as well waits for the pod itself");
    }
}
