//! Pod garbage collector: deletes pods of missing nodes, terminating pods that no node will end (never scheduled, or
//! their node is out of service), and the oldest of the finished pods when there are too many.

use std::{sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use super::{
    Context,
    node_lifecycle::{Readiness, readiness},
};
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, api_code, is_gone_or_taken},
    objects::{
        informer_index::{FINISHED, on_node},
        pod_state::{is_finished, is_terminating, node_name},
    },
};

const COMPONENT: &str = "pod-garbage-collector";
/// How long a node must be missing before its pods are deleted: it may only be registering again. Source: Kubernetes'
/// pod garbage collector.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Taint by which people say that a node is shut down.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Finished pods that are kept for people to look at. Source: `--terminated-pod-gc-threshold`.
const KEEP_FINISHED: usize = 12_500;
/// Deletes finished pods beyond this number at a time.
const AT_ONCE: usize = 500;

struct Controller {
    client: Client,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller =
        Controller { client: context.client.clone(), nodes: informers.nodes.clone(), pods: informers.pods.clone() };
    Startup::new(COMPONENT, controller)
        .on(&informers.nodes, |this, change, queue| {
            let was_out = change.old.as_deref().is_some_and(is_out_of_service);
            if change.new.as_deref().is_some_and(is_out_of_service) && !was_out {
                this.pods.indexed(&on_node(&change.key.name)).iter().for_each(|pod| queue.add(Key::of(&**pod)));
            }
            if change.new.is_none() {
                let pods = this.pods.indexed(&on_node(&change.key.name));
                pods.iter().for_each(|pod| queue.add_after(Key::of(&**pod), QUARANTINE));
            }
        })
        .on(&informers.pods, |this, change, queue| {
            let Some(pod) = &change.new else { return };
            if is_finished(pod) && this.pods.count(FINISHED) > KEEP_FINISHED {
                queue.add(excess_key());
            }
            match node_name(pod) {
                Some(node)
                    if is_terminating(pod)
                        && !change.old.as_deref().is_some_and(is_terminating)
                        && this.nodes.get(&Key::cluster(node)).is_some_and(|node| is_out_of_service(&node)) =>
                {
                    queue.add(change.key.clone());
                }
                Some(node) if change.old.as_deref().and_then(node_name) == Some(node) => {}
                Some(node) if this.nodes.get(&Key::cluster(node)).is_some() => {}
                Some(_) => queue.add_after(change.key.clone(), QUARANTINE),
                None if is_terminating(pod) => queue.add(change.key.clone()),
                None => {}
            }
        })
        .start(tasks, 16, Controller::reconcile);
}

/// Whether someone declared that the node is shut down, and it is not ready: its terminating pods will not end by
/// themselves. Source: KEP-2268.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) && readiness(node) != Readiness::Ready
}

/// Key in the queue for the check of finished pods. No pod can have this name.
fn excess_key() -> Key {
    Key::default()
}

/// The finished pods to be deleted: the oldest, as far as there are more than `keep`.
fn excess(mut finished: Vec<Arc<Pod>>, keep: usize) -> Vec<Arc<Pod>> {
    let count = finished.len().saturating_sub(keep).min(AT_ONCE);
    finished.sort_by_cached_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (created, pod.metadata.namespace.clone(), pod.metadata.name.clone())
    });
    finished.truncate(count);
    finished
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        if key == excess_key() {
            for pod in excess(self.pods.indexed(FINISHED), KEEP_FINISHED) {
                self.remove(&Key::of(&*pod), &pod).await?;
            }
            let more = self.pods.count(FINISHED) > KEEP_FINISHED;
            return Ok(if more { Outcome::After(Duration::from_secs(1)) } else { Outcome::Done });
        }
        let Some(pod) = self.pods.get(&key) else { return Ok(Outcome::Done) };
        match node_name(&pod) {
            None if is_terminating(&pod) => self.remove(&key, &pod).await,
            None => Ok(Outcome::Done),
            Some(node) => {
                if let Some(node) = self.nodes.get(&Key::cluster(node)) {
                    if is_terminating(&pod) && is_out_of_service(&node) {
                        self.fail(&key, &pod).await?;
                        return self.remove(&key, &pod).await;
                    }
                    return Ok(Outcome::Done);
                }
                let nodes: Api<Node> = Api::all(self.client.clone());
                let live = nodes.get_metadata_opt(node).await.map_err(Failure::request("look for a node"))?;
                if live.is_some() {
                    return Ok(Outcome::Done);
                }
                self.fail(&key, &pod).await?;
                self.remove(&key, &pod).await
            }
        }
    }

    /// Marks the pod as failed first, for those who count how pods ended.
    async fn fail(&self, key: &Key, pod: &Pod) -> Result<(), Failure> {
        if is_finished(pod) {
            return Ok(());
        }
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists or is out of service", "lastTransitionTime": Timestamp::now()});
        let patch =
            json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [condition]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Failure::request("mark a pod whose node is gone")(error)),
        }
    }

    async fn remove(&self, key: &Key, pod: &Pod) -> Result<Outcome, Failure> {
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.delete(&key.name, &params).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("remove a pod")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_finished_pods_beyond_the_limit_are_deleted() {
        let pod = |name: &str, created: &str| -> Arc<Pod> {
            let pod = json!({"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": "Failed"}});
            Arc::new(serde_json::from_value(pod).expect("a valid pod"))
        };
        let finished = vec![
            pod("new", "2026-01-03T00:00:00Z"),
            pod("old", "2026-01-01T00:00:00Z"),
            pod("middle", "2026-01-02T00:00:00Z"),
        ];
        let names = |keep| -> Vec<String> {
            excess(finished.clone(), keep).iter().filter_map(|pod| pod.metadata.name.clone()).collect()
        };
        assert_eq!(names(1), ["old", "middle"]);
        assert!(names(3).is_empty());
    }
}
