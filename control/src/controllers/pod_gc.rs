//! Removes pods that no node will ever finish: those of nodes that are gone, and those that go without ever having had one.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use super::{
    Context,
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, api_code, is_gone_or_taken},
    informers::on_node,
    pod_state::{is_finished, is_terminating, node_name},
};

const COMPONENT: &str = "pod-garbage-collector";
/// How long a node must be gone before its pods are: it may only be registering anew. Source: Kubernetes' pod garbage collector.
const QUARANTINE: Duration = Duration::from_secs(40);

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
            if change.new.is_none() {
                let pods = this.pods.indexed(&on_node(&change.key.name));
                pods.iter().for_each(|pod| queue.add_after(Key::of(&**pod), QUARANTINE));
            }
        })
        .on(&informers.pods, |this, change, queue| {
            let Some(pod) = &change.new else { return };
            match node_name(pod) {
                Some(node) if change.old.as_deref().and_then(node_name) == Some(node) => {}
                Some(node) if this.nodes.get(&Key::cluster(node)).is_some() => {}
                Some(_) => queue.add_after(change.key.clone(), QUARANTINE),
                None if is_terminating(pod) => queue.add(change.key.clone()),
                None => {}
            }
        })
        .start(tasks, 16, Controller::reconcile);
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(pod) = self.pods.get(&key) else { return Ok(Outcome::Done) };
        match node_name(&pod) {
            None if is_terminating(&pod) => self.remove(&key, &pod).await,
            None => Ok(Outcome::Done),
            Some(node) if self.nodes.get(&Key::cluster(node)).is_some() => Ok(Outcome::Done),
            Some(node) => {
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

    /// Says first that the pod failed, for those who count how pods ended.
    async fn fail(&self, key: &Key, pod: &Pod) -> Result<(), Failure> {
        if is_finished(pod) {
            return Ok(());
        }
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": k8s_openapi::jiff::Timestamp::now()});
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
            Err(error) => Err(Failure::request("remove a pod whose node is gone")(error)),
        }
    }
}
