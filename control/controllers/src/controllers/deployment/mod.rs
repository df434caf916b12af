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
use kube::{
    Client,
    core::{Selector, SelectorExt},
};

use self::{requests::DeploymentRequests, status::NewSet};
use super::Context;
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue},
    objects::{
        informers::{orphans_for, owned_by, selectors_for},
        owners::{Claim, claim, controller_of},
        pod_state::is_finished,
    },
};

const COMPONENT: &str = "deployment-controller";
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
            if let Some(deployment) = owner_of(version) {
                queue.add(deployment);
            }
        }
        let Some(set) = &change.new else { return };
        if controller_of(&set.metadata).is_none() {
            let labels = set.metadata.labels.iter().flatten();
            for deployment in selectors_for(&self.deployments, &change.key.namespace, labels) {
                if selector(&deployment).is_some_and(|s| selects(&s, set)) {
                    queue.add(Key::of(&*deployment));
                }
            }
        }
    }

    /// A Deployment that recreates waits for the last old pod to end.
    fn pod_changed(&self, change: &ObjectChange<Pod>, queue: &WorkQueue<Key>) {
        if change.new.as_deref().is_some_and(|pod| !is_finished(pod)) {
            return;
        }
        let pod = change.latest();
        let Some(owner) = controller_of(&pod.metadata).filter(|o| o.kind == "ReplicaSet") else { return };
        let Some(set) = self.sets.get(&Key::new(&change.key.namespace, &owner.name)) else { return };
        let Some(key) = owner_of(&set) else { return };
        if self.deployments.get(&key).is_some_and(|deployment| limits::is_recreate(&deployment)) {
            queue.add(key);
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = selector(&deployment) else {
            return Err(Failure::Malformed { what: "selector", message: format!("of Deployment {key}") });
        };
        let requests = DeploymentRequests {
            deployment: &deployment,
            deployments: Api::namespaced(self.client.clone(), &key.namespace),
            sets: Api::namespaced(self.client.clone(), &key.namespace),
            recorder: &self.recorder,
        };
        let sets = self.claim(&deployment, &selector, &requests).await?;
        let now = Timestamp::now();
        let plan = plan::plan(&deployment, &sets, now, |new| self.old_pods_run(new, &sets));
        let event = requests.carry_out(&plan).await?;
        let (report, timer) = status::desired(&deployment, plan.new.as_deref(), &sets, &event, plan.rolling, now);
        requests.report(plan.revision, report).await?;
        match (event, timer) {
            (NewSet::Refused { message }, _) => Err(Failure::Malformed { what: "new ReplicaSet", message }),
            (_, Some(delay)) => Ok(Outcome::After(delay)),
            (_, None) => Ok(Outcome::Done),
        }
    }

    /// The sets of the Deployment, after adopting and releasing.
    async fn claim(
        &self,
        deployment: &Deployment,
        selector: &Selector,
        requests: &DeploymentRequests<'_>,
    ) -> Result<Vec<Arc<ReplicaSet>>, Failure> {
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let mut candidates = self.sets.indexed(&owned_by(uid));
        candidates.extend(orphans_for(&self.sets, namespace, deployment.spec.as_ref().map(|s| &s.selector)));
        let going = deployment.metadata.deletion_timestamp.is_some();
        let mut own = Vec::new();
        for set in candidates {
            match claim(&set.metadata, uid, selects(selector, &set), going) {
                Claim::Keep => own.push(set),
                Claim::Adopt => {
                    if requests.adopt(&set).await? {
                        own.push(set);
                    }
                }
                Claim::Release => requests.release(&set).await?,
                Claim::Ignore => {}
            }
        }
        Ok(own)
    }

    fn old_pods_run(&self, new: Option<&ReplicaSet>, sets: &[Arc<ReplicaSet>]) -> bool {
        let new = new.and_then(|set| set.metadata.uid.as_deref());
        let old = sets.iter().filter(|set| set.metadata.uid.as_deref() != new);
        old.filter_map(|set| set.metadata.uid.as_deref())
            .any(|uid| self.pods.indexed(&owned_by(uid)).iter().any(|pod| !is_finished(pod)))
    }
}

fn owner_of(set: &ReplicaSet) -> Option<Key> {
    let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(Key::new(set.metadata.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

fn selector(deployment: &Deployment) -> Option<Selector> {
    let selector: Selector = deployment.spec.as_ref()?.selector.clone().try_into().ok()?;
    (!selector.selects_all()).then_some(selector)
}

fn selects(selector: &Selector, set: &ReplicaSet) -> bool {
    match &set.metadata.labels {
        Some(labels) => selector.matches(labels),
        None => false,
    }
}
