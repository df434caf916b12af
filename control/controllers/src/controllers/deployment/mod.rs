//! Deployment: one ReplicaSet per revision, and a rollout from one to the next.
//!
//! [`plan`] decides the step, [`status`] what to report; this file reads and writes. It never touches a pod.

mod limits;
mod plan;
mod requests;
mod revision;
mod rolling;
mod status;
mod template;

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::Client;

use self::{requests::DeploymentRequests, status::NewSet};
use super::{
    Context,
    claiming::Claimer,
    pod_owners::{SelectingOwner, adopters, owner_of, selects},
};
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue},
    objects::{informer_index::owned_by, pod_state::is_finished},
};

const COMPONENT: &str = "deployment-controller";
const KIND: &str = "Deployment";
const CONCURRENCY: usize = 8;

struct Controller {
    client: Client,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        deployments: informers.deployments.clone(),
        sets: informers.replica_sets.clone(),
        pods: informers.pods.clone(),
        recorder: context.recorder.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on_each(&informers.deployments)
        .on(&informers.replica_sets, Controller::set_changed)
        .on(&informers.pods, Controller::pod_changed)
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

impl Controller {
    fn set_changed(&self, change: &ObjectChange<ReplicaSet>, queue: &WorkQueue<Key>) {
        for version in [&change.old, &change.new].into_iter().flatten() {
            if let Some(deployment) = owner_of(&self.deployments, KIND, &version.metadata) {
                queue.add(deployment);
            }
        }
        if let Some(set) = &change.new {
            adopters(&self.deployments, &set.metadata).into_iter().for_each(|deployment| queue.add(deployment));
        }
    }

    /// A Deployment that recreates waits for the last old pod to end.
    fn pod_changed(&self, change: &ObjectChange<Pod>, queue: &WorkQueue<Key>) {
        if change.new.as_deref().is_some_and(|pod| !is_finished(pod)) {
            return;
        }
        let pod = change.latest();
        let owner = owner_of(&self.sets, "ReplicaSet", &pod.metadata);
        let Some(set) = owner.and_then(|owner| self.sets.get(&owner)) else { return };
        let Some(key) = owner_of(&self.deployments, KIND, &set.metadata) else { return };
        if self.deployments.get(&key).is_some_and(|deployment| limits::is_recreate(&deployment)) {
            queue.add(key);
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = deployment.selector() else {
            return Err(Failure::Malformed { what: "selector", message: format!("of Deployment {key}") });
        };
        let requests = DeploymentRequests {
            deployment: &deployment,
            deployments: Api::namespaced(self.client.clone(), &key.namespace),
            sets: Api::namespaced(self.client.clone(), &key.namespace),
            recorder: &self.recorder,
        };
        let mut claimer = Claimer::new(&*deployment, requests.deployments.clone());
        let sets = claimer.claim(&self.sets, &requests.sets, |set| selects(&selector, &set.metadata)).await?;
        let now = Timestamp::now();
        let plan = plan::plan(&deployment, &sets, now, |new| self.old_pods_run(new, &sets));
        let event = requests.carry_out(&plan).await?;
        let (report, timer) = status::desired(&deployment, plan.new.as_deref(), &sets, &event, plan.rolling, now);
        let reported = requests.report(plan.revision, report).await;
        let refused = match event {
            NewSet::Refused { message } => Err(Failure::Malformed { what: "new ReplicaSet", message }),
            _ => Ok(()),
        };
        Outcome::of(reported.and(refused), timer)
    }

    fn old_pods_run(&self, new: Option<&ReplicaSet>, sets: &[Arc<ReplicaSet>]) -> bool {
        let new = new.and_then(|set| set.metadata.uid.as_deref());
        let old = sets.iter().filter(|set| set.metadata.uid.as_deref() != new);
        old.filter_map(|set| set.metadata.uid.as_deref())
            .any(|uid| self.pods.indexed(&owned_by(uid)).iter().any(|pod| !is_finished(pod)))
    }
}
