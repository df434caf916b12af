//! Job: pods that run until so many of them have succeeded.
//!
//! ```text
//! Job, its pods ─► plan ─► create or delete pods ─► tracking::count ─► write the status
//!                           └─► remove finalizers of counted pods ─► Count::settle ─► write the status again
//! ```
//!
//! | file | what it decides or does |
//! |---|---|
//! | `changes` | which change enqueues the Job, and when |
//! | `terms` | what the Job asks for |
//! | `pods` | what it reads in a pod: finalizer, index, how and when it ended |
//! | `plan` | which pods to create and delete, and whether the Job is about to end |
//! | `failed_indexes`, `failure_policy`, `success_policy`, `backoff`, `removal` | parts of that decision |
//! | `tracking` | how each ended pod is counted once |
//! | `conditions`, `indexes`, `template` | conditions; `1,3-5` as a set; the pods that are made |
//! | `memory`, `requests` | what was written and may not be seen yet; the requests |
//! | `orphans` | pods whose Job will not count them any more |

mod backoff;
mod changes;
pub(super) mod conditions;
mod failed_indexes;
mod failure_policy;
mod indexes;
mod memory;
mod orphans;
mod plan;
mod pods;
mod removal;
mod requests;
mod success_policy;
mod template;
mod terms;
#[cfg(test)]
mod tests;
mod tracking;

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::Client;
use tokio::time::Instant;

use self::{
    conditions::{COMPLETE, finished},
    memory::Memory,
    plan::{JobPlan, JobView, plan},
    requests::JobRequests,
    terms::{Terms, is_managed_by_others, number},
    tracking::{Done, count, normalised},
};
use super::{
    Context,
    expectations::{self, Expectations},
    own_writes::OwnWrites,
    pod_owners::{SelectingOwner, selects},
};
use crate::{
    engine::{EventType, Failure, Informer, Key, Outcome, Recorder, Startup, Tasks, reference},
    objects::{
        candidates::orphans_for,
        informer_index::owned_by,
        owners::{Claim, claim},
    },
};

const COMPONENT: &str = "job-controller";
const CONCURRENCY: usize = 8;

struct Controller {
    client: Client,
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    expectations: Expectations,
    memory: Memory,
    writes: OwnWrites,
    recorder: Recorder,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        jobs: informers.jobs.clone(),
        pods: informers.pods.clone(),
        expectations: Expectations::default(),
        memory: Memory::default(),
        writes: OwnWrites::default(),
        recorder: context.recorder.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.pods, Controller::pod_changed)
        .on(&informers.jobs, Controller::job_changed)
        .start(tasks, CONCURRENCY, Controller::reconcile);
    orphans::start(context, tasks);
}

impl Controller {
    fn forget(&self, key: &Key) {
        self.expectations.forget(key);
        self.memory.forget(key);
        self.writes.forget(key);
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(job) = self.jobs.get(&key).filter(|job| finished(job).is_none()) else {
            self.forget(&key);
            return Ok(Outcome::Done);
        };
        // An older Job than that which was written is followed by the newer one.
        if is_managed_by_others(&job) || self.writes.is_stale(&*job) {
            return Ok(Outcome::Done);
        }
        let Some(terms) = Terms::of(&job) else {
            let message = "Skipped Job sync because completion mode is unknown";
            self.recorder.record(COMPONENT, reference(&*job), EventType::Warning, "UnknownCompletionMode", message);
            return Ok(Outcome::Done);
        };
        let requests = self.requests(&key, &job, terms);
        let caught_up = self.expectations.met(&key, Instant::now());
        // Read before the pods: one that is forgotten in between would be counted again.
        let released = self.memory.released(&key, &job);
        let pods = self.claim(&requests).await?;
        let streak = self.memory.streak(&key, &job);
        let view =
            JobView { job: &job, terms, pods: &pods, released: &released, caught_up, streak, now: Timestamp::now() };
        let plan = plan(&view);
        let (done, failure) = requests.carry_out(&plan).await;
        let tracked = self.track(&requests, &view, &plan, done).await;
        let stale = (!caught_up).then_some(expectations::TIMEOUT);
        Outcome::of(tracked.and(failure.map_or(Ok(()), Err)), plan.wake.into_iter().chain(stale).min())
    }

    fn requests<'a>(&'a self, key: &'a Key, job: &'a Job, terms: Terms<'a>) -> JobRequests<'a> {
        JobRequests {
            key,
            job,
            terms,
            pods: Api::namespaced(self.client.clone(), &key.namespace),
            jobs: Api::namespaced(self.client.clone(), &key.namespace),
            view: &self.jobs,
            expectations: &self.expectations,
            memory: &self.memory,
            writes: &self.writes,
            recorder: &self.recorder,
        }
    }

    /// The Job's pods, after orphans were adopted and strays released.
    async fn claim(&self, requests: &JobRequests<'_>) -> Result<Vec<Arc<Pod>>, Failure> {
        let (key, job) = (requests.key, requests.job);
        let Some(selector) = job.selector() else {
            return Err(Failure::Malformed { what: "selector", message: format!("of Job {key}") });
        };
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.pods.indexed(&owned_by(uid));
        candidates.extend(orphans_for(&self.pods, &key.namespace, job.label_selector()));
        let (mut kept, mut orphans, mut strays) = (Vec::new(), Vec::new(), Vec::new());
        for pod in candidates {
            let terminating = job.metadata.deletion_timestamp.is_some();
            match claim(&pod.metadata, uid, selects(&selector, &pod.metadata), terminating) {
                Claim::Keep => kept.push(pod),
                Claim::Adopt => orphans.push(pod),
                Claim::Release => strays.push(pod),
                Claim::Ignore => {}
            }
        }
        requests.release_strays(&strays).await?;
        kept.extend(requests.adopt(&orphans).await?);
        Ok(kept)
    }

    /// Counts the ended pods: writes the status, removes their finalizers, and writes the status again.
    async fn track(
        &self,
        requests: &JobRequests<'_>,
        view: &JobView<'_>,
        plan: &JobPlan,
        done: Done,
    ) -> Result<(), Failure> {
        let mut stored = view.job.clone();
        let mut count = count(view, plan, done);
        if stored.status.clone().map(normalised).as_ref() != Some(&count.status) {
            stored = requests.write_status(&stored, &count.status).await?;
            self.memory.set_streak(requests.key, view.job, plan.streak);
        }
        match count.suspension {
            Some(true) => requests.record(EventType::Normal, "Suspended", "Job suspended"),
            Some(false) => requests.record(EventType::Normal, "Resumed", "Job resumed"),
            None => {}
        }
        let (released, failure) = requests.release(&count.release).await;
        count.is_partial |= failure.is_some();
        let before = count.status.clone();
        let (status, ended) = count.settle(&released);
        if status != before {
            requests.write_status(&stored, &status).await?;
        }
        if let Some(ended) = ended {
            let succeeded = status.succeeded.map_or(0, number);
            tell_end(requests, &ended, view.terms.completions.is_some_and(|wanted| succeeded > wanted));
        }
        failure.map_or(Ok(()), Err)
    }
}

fn tell_end(requests: &JobRequests, ended: &JobCondition, too_many: bool) {
    if ended.type_ != COMPLETE {
        let reason = ended.reason.as_deref().unwrap_or_default();
        let known = FAILURES.into_iter().find(|known| *known == reason);
        let message = ended.message.clone().unwrap_or_default();
        return requests.record(EventType::Warning, known.unwrap_or("Failed"), message);
    }
    if too_many {
        let message = "Too many succeeded pods running after completion count reached";
        requests.record(EventType::Warning, "TooManySucceededPods", message);
    }
    requests.record(EventType::Normal, "Completed", "Job completed");
}

/// Why a Job fails.
const FAILURES: [&str; 5] =
    ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"];
