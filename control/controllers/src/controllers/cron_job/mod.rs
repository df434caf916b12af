//! CronJob: Jobs that are started by a schedule.
//!
//! [`schedule`] says when it is due, [`plan`] what it does then; this file reads and writes.

mod plan;
mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{DeleteParams, PostParams, Preconditions},
};

use self::plan::{CronJobPlan, active, decide, desired, forget, observe, started, surplus, wake_after};
use super::{Context, own_writes::OwnWrites, pod_owners::owner_of, pod_requests::refusal};
use crate::{
    engine::{
        EventType, Failure, Informer, Key, ObjectChange, Outcome, Recorder, Startup, Tasks, WorkQueue, api_code,
        is_gone_or_taken, is_namespace_terminating, reference, unless_gone,
    },
    objects::{informer_index::owned_by, owners::is_controlled_by},
};

const COMPONENT: &str = "cronjob-controller";
const CONCURRENCY: usize = 8;

struct Controller {
    client: Client,
    cron_jobs: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
    writes: OwnWrites,
    recorder: Recorder,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        cron_jobs: informers.cron_jobs.clone(),
        jobs: informers.jobs.clone(),
        writes: OwnWrites::default(),
        recorder: context.recorder.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.jobs, Controller::job_changed)
        .on(&informers.cron_jobs, Controller::cron_job_changed)
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

impl Controller {
    /// Enqueues the CronJobs that the Job has, or had, as its controller.
    fn job_changed(&self, change: &ObjectChange<Job>, queue: &WorkQueue<Key>) {
        for version in [&change.old, &change.new].into_iter().flatten() {
            if let Some(owner) = owner_of(&self.cron_jobs, "CronJob", &version.metadata) {
                queue.add(owner);
            }
        }
    }

    /// A schedule that changes is first due in the future: times that it would have had before are not missed.
    fn cron_job_changed(&self, change: &ObjectChange<CronJob>, queue: &WorkQueue<Key>) {
        let timing =
            |cron_job: &CronJob| cron_job.spec.as_ref().map(|spec| (spec.schedule.clone(), spec.time_zone.clone()));
        match (&change.old, &change.new) {
            (_, None) => self.writes.forget(&change.key),
            (Some(old), Some(new)) if timing(old) != timing(new) => {
                match wake_after(new, Timestamp::now()) {
                    Some(delay) => queue.add_after(change.key.clone(), delay),
                    None => queue.add(change.key.clone()),
                };
            }
            (_, Some(_)) => queue.add(change.key.clone()),
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(cron_job) = self.cron_jobs.get(&key).filter(|cron_job| !self.writes.is_stale(&**cron_job)) else {
            return Ok(Outcome::Done);
        };
        let Some(spec) = &cron_job.spec else { return Ok(Outcome::Done) };
        let pass = Pass {
            jobs: Api::namespaced(self.client.clone(), &key.namespace),
            recorder: &self.recorder,
            cron_job: &cron_job,
        };
        let jobs = self.jobs.indexed(&owned_by(cron_job.metadata.uid.as_deref().unwrap_or_default()));
        let mut observed = observe(&cron_job, &jobs);
        for (kind, reason, message) in observed.events {
            pass.record(kind, reason, message);
        }
        let status = &mut observed.status;
        for job in surplus(spec, &jobs) {
            pass.delete(status, &reference(&*job)).await;
        }
        pass.check(status, &observed.unseen).await?;
        let decision = decide(&cron_job, status, Timestamp::now());
        for (kind, reason, message) in &decision.events {
            pass.record(*kind, reason, message.clone());
        }
        let started = pass.carry_out(spec, status, &decision).await;
        let mut written = Ok(());
        if cron_job.status.clone().unwrap_or_default() != *status {
            written = self.write_status(&cron_job, status.clone()).await;
        }
        Outcome::of(started.and(written), decision.wake)
    }

    async fn write_status(&self, cron_job: &CronJob, status: CronJobStatus) -> Result<(), Failure> {
        let namespace = cron_job.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), namespace);
        let updated = CronJob { status: Some(status), ..cron_job.clone() };
        let name = cron_job.metadata.name.as_deref().unwrap_or_default();
        let answer = api.replace_status(name, &PostParams::default(), &updated).await;
        if let Some(written) = unless_gone(answer, "update the status of a CronJob")? {
            self.writes.wrote(&written);
        }
        Ok(())
    }
}

/// The requests of one pass.
struct Pass<'a> {
    jobs: Api<Job>,
    recorder: &'a Recorder,
    cron_job: &'a CronJob,
}

impl Pass<'_> {
    fn record(&self, kind: EventType, reason: &'static str, message: String) {
        self.recorder.record(COMPONENT, reference(self.cron_job), kind, reason, message);
    }

    /// Forgets those of the Jobs that are gone, and not only late in the view.
    async fn check(&self, status: &mut CronJobStatus, unseen: &[ObjectReference]) -> Result<(), Failure> {
        for known in unseen {
            let name = known.name.as_deref().unwrap_or_default();
            let job = self.jobs.get_metadata_opt(name).await.map_err(Failure::request("read a Job"))?;
            if job.is_none() {
                self.record(EventType::Normal, "MissingJob", format!("Active job went missing: {name}"));
                forget(status, known.uid.as_deref().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Deletes a Job with its pods; whether that was possible.
    async fn delete(&self, status: &mut CronJobStatus, job: &ObjectReference) -> bool {
        let name = job.name.as_deref().unwrap_or_default();
        let same = Preconditions { uid: job.uid.clone(), resource_version: None };
        match self.jobs.delete(name, &DeleteParams::background().preconditions(same)).await {
            Ok(()) => self.record(EventType::Normal, "SuccessfulDelete", format!("Deleted job {name}")),
            Err(error) if is_gone_or_taken(&error) => {}
            Err(error) => {
                self.record(EventType::Warning, "FailedDelete", format!("Deleted job: {}", refusal(&error)));
                return false;
            }
        }
        forget(status, job.uid.as_deref().unwrap_or_default());
        true
    }

    async fn carry_out(
        &self,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
        decision: &CronJobPlan,
    ) -> Result<(), Failure> {
        let Some(due) = decision.start else { return Ok(()) };
        if decision.replace {
            for job in active(status).to_vec() {
                if !self.delete(status, &job).await {
                    let message = format!("{} could not be replaced", job.name.unwrap_or_default());
                    return Err(Failure::Malformed { what: "Job", message });
                }
            }
        }
        let job = desired(self.cron_job, spec, due);
        let made = match self.jobs.create(&PostParams::default(), &job).await {
            Ok(made) => {
                let name = made.metadata.name.as_deref().unwrap_or_default();
                self.record(EventType::Normal, "SuccessfulCreate", format!("Created job {name}"));
                made
            }
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) if api_code(&error) == Some(409) => match self.made_before(&job).await? {
                Some(made) => made,
                None => return Ok(()),
            },
            Err(error) => {
                self.record(EventType::Warning, "FailedCreate", format!("Error creating job: {}", refusal(&error)));
                return Err(Failure::request("create a Job")(error));
            }
        };
        started(status, reference(&made), due);
        Ok(())
    }

    /// The Job of this name, if it is the CronJob's: the pass that created it could not write its status.
    async fn made_before(&self, job: &Job) -> Result<Option<Job>, Failure> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let made = self.jobs.get_opt(name).await.map_err(Failure::request("read a Job"))?;
        let uid = self.cron_job.metadata.uid.as_deref().unwrap_or_default();
        Ok(made.filter(|made| is_controlled_by(&made.metadata, uid)))
    }
}
