//! Pods that have the finalizer of a Job that will not remove it any more: the Job is gone or has finished, or somebody
//! took the pod from it.

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Client, api::PatchParams};

use super::{conditions::finished, pods::is_tracked, requests::untrack, terms::is_managed_by_others};
use crate::{
    controllers::Context,
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Startup, Tasks, WorkQueue, unless_gone},
    objects::{informer_index::owned_by, owners::controller_of, pod_state::is_terminating},
};

const CONCURRENCY: usize = 16;

struct Controller {
    client: Client,
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller =
        Controller { client: context.client.clone(), jobs: informers.jobs.clone(), pods: informers.pods.clone() };
    Startup::new("job-orphan-pods", controller)
        .on(&informers.pods, |this, change, queue| {
            let Some(pod) = change.new.as_deref().filter(|pod| is_tracked(pod)) else { return };
            if (controller_of(&pod.metadata).is_none() || is_terminating(pod)) && is_orphan(&this.jobs, pod) {
                queue.add(change.key.clone());
            }
        })
        .on(&informers.jobs, Controller::job_changed)
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

impl Controller {
    fn job_changed(&self, change: &ObjectChange<Job>, queue: &WorkQueue<Key>) {
        if change.new.as_deref().is_some_and(|job| finished(job).is_none()) {
            return;
        }
        let uid = change.latest().metadata.uid.as_deref().unwrap_or_default();
        let pods = self.pods.indexed(&owned_by(uid));
        pods.iter().filter(|pod| is_tracked(pod)).for_each(|pod| queue.add(Key::of(&**pod)));
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(pod) = self.pods.get(&key).filter(|pod| is_tracked(pod)) else { return Ok(Outcome::Done) };
        if !is_orphan(&self.jobs, &pod) {
            return Ok(Outcome::Done);
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let answer = pods.patch(&key.name, &PatchParams::default(), &untrack(&pod)).await;
        unless_gone(answer, "remove a pod's finalizer").map(|_| Outcome::Done)
    }
}

/// Whether no Job will count the pod.
fn is_orphan(jobs: &Informer<Job>, pod: &Pod) -> bool {
    let Some(owner) = controller_of(&pod.metadata) else { return true };
    if (owner.kind.as_str(), owner.api_version.as_str()) != ("Job", "batch/v1") {
        return false;
    }
    let job = jobs.get(&Key::new(pod.metadata.namespace.clone().unwrap_or_default(), owner.name.clone()));
    let job = job.filter(|job| job.metadata.uid.as_deref() == Some(&owner.uid));
    job.is_none_or(|job| !is_managed_by_others(&job) && finished(&job).is_some())
}
