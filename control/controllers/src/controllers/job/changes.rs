//! Which changes enqueue a Job, and when.
//!
//! A change of what the Job asks for is worked on at once. Changes of pods, and of the status that follows from them,
//! are gathered for [`BATCH_PERIOD`]: those of thousands of pods are few passes, and few writes of the status.

use std::time::Duration;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

use super::{
    Controller,
    pods::{is_tracked, restarts, uid},
};
use crate::{
    controllers::pod_owners::{adopters, owner_of},
    engine::{Key, ObjectChange, WorkQueue},
    objects::pod_state::counts_differently,
};

/// How long changes are gathered. Source: `SyncJobBatchPeriod`.
const BATCH_PERIOD: Duration = Duration::from_secs(1);

impl Controller {
    /// Enqueues the Job.
    pub fn job_changed(&self, change: &ObjectChange<Job>, queue: &WorkQueue<Key>) {
        let key = change.key.clone();
        match (&change.old, &change.new) {
            (Some(old), Some(new)) if asks_the_same(old, new) => queue.add_after(key, BATCH_PERIOD),
            (_, new) => {
                if new.is_none() {
                    self.forget(&key);
                }
                queue.add(key);
            }
        }
    }

    /// Updates what is remembered with what was seen, and enqueues the Jobs that count the pod.
    pub fn pod_changed(&self, change: &ObjectChange<Pod>, queue: &WorkQueue<Key>) {
        self.expectations.observe(change, |pod| self.owner_of(pod));
        let is_news = is_news(change);
        for version in [&change.old, &change.new].into_iter().flatten() {
            let Some(job) = self.owner_of(version) else { continue };
            if !change.new.as_deref().is_some_and(is_tracked) {
                self.memory.observed(&job, uid(version));
            }
            if is_news {
                queue.add_after(job, BATCH_PERIOD);
            }
        }
        if is_news && let Some(pod) = &change.new {
            adopters(&self.jobs, &pod.metadata).into_iter().for_each(|job| queue.add_after(job, BATCH_PERIOD));
        }
    }

    fn owner_of(&self, pod: &Pod) -> Option<Key> {
        owner_of(&self.jobs, "Job", &pod.metadata)
    }
}

/// Whether the two differ in nothing but their status and metadata.
fn asks_the_same(old: &Job, new: &Job) -> bool {
    let (old, new) = (&old.metadata, &new.metadata);
    (&old.uid, old.generation, &old.deletion_timestamp) == (&new.uid, new.generation, &new.deletion_timestamp)
}

/// Whether the Job counts the pod differently now.
fn is_news(change: &ObjectChange<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    counts_differently(old, new)
        || is_tracked(old) != is_tracked(new)
        || restarts(old) != restarts(new)
        || old.metadata.annotations != new.metadata.annotations
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        controllers::{
            expectations::Expectations,
            fixtures::{api, list},
            job::memory::Memory,
            own_writes::OwnWrites,
        },
        engine::{Recorder, Taken},
        objects::informers::Informers,
    };

    fn job(generation: i64, revision: &str) -> Job {
        serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "j", "uid": "job",
            "generation": generation, "resourceVersion": revision}}))
        .expect("a valid Job")
    }

    fn pod(name: &str, phase: &str) -> Arc<Pod> {
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job", "controller": true}]);
        let metadata = json!({"namespace": "default", "name": name, "uid": name, "ownerReferences": owner});
        let pod = json!({"metadata": metadata, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).expect("a valid pod"))
    }

    async fn controller() -> Controller {
        let informers = Informers::new();
        list(&informers.jobs, [job(1, "1")]).await;
        Controller {
            client: api(|_| 500),
            jobs: informers.jobs,
            pods: informers.pods,
            expectations: Expectations::default(),
            memory: Memory::default(),
            writes: OwnWrites::default(),
            recorder: Recorder::silent(),
        }
    }

    fn changed<K>(old: Option<Arc<K>>, new: Option<Arc<K>>) -> ObjectChange<K> {
        ObjectChange { key: Key::new("default", "j"), old, new }
    }

    #[tokio::test]
    async fn the_changes_of_many_pods_are_one_pass_after_a_second() {
        let (controller, queue) = (controller().await, WorkQueue::new("test"));
        let start = Instant::now();
        for at in 0..5000 {
            let name = format!("p{at}");
            controller.pod_changed(&changed(None, Some(pod(&name, "Pending"))), &queue);
            controller.pod_changed(&changed(Some(pod(&name, "Pending")), Some(pod(&name, "Succeeded"))), &queue);
        }
        let Taken::Nothing(Some(due)) = queue.take(start) else { panic!("nothing is due at once") };
        assert!(due >= start + BATCH_PERIOD && due <= Instant::now() + BATCH_PERIOD);
        let Taken::Key(key) = queue.take(due) else { panic!("the Job is due") };
        queue.done(&key);
        assert!(matches!(queue.take(due + BATCH_PERIOD), Taken::Nothing(None)), "one pass for all of them");
    }

    #[tokio::test]
    async fn what_the_job_asks_for_is_looked_at_at_once_and_its_status_later() {
        let (controller, queue) = (controller().await, WorkQueue::new("test"));
        let is_due = |old: Option<Job>, new: Option<Job>| {
            controller.job_changed(&changed(old.map(Arc::new), new.map(Arc::new)), &queue);
            match queue.take(Instant::now()) {
                Taken::Key(key) => {
                    queue.done(&key);
                    true
                }
                Taken::Nothing(_) => false,
            }
        };
        assert!(is_due(None, Some(job(1, "1"))), "a new Job");
        assert!(!is_due(Some(job(1, "1")), Some(job(1, "2"))), "its status");
        assert!(is_due(Some(job(1, "2")), Some(job(2, "3"))), "its spec");
        let mut going = job(2, "4");
        let now = serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a valid time");
        going.metadata.deletion_timestamp = Some(now);
        assert!(is_due(Some(job(2, "3")), Some(going.clone())), "its deletion begins");
        assert!(is_due(Some(going), None), "its deletion");
    }
}
