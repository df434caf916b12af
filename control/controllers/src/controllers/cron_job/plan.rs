//! What a CronJob does now: which Jobs have finished, which are too many, and whether one is started.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp, tz::TimeZone},
};

use super::schedule::{Missed, ScheduleProblem, ZonedSchedule, missed, until_next, zone};
use crate::{
    controllers::job::conditions::{COMPLETE, finished},
    engine::EventType,
    objects::owners::controller_reference,
};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than these are told of.
const MANY: i64 = 100;

/// An event about the CronJob: reason and message.
pub type CronEvent = (EventType, &'static str, String);

/// What the Jobs of a CronJob show.
#[derive(Debug, Default)]
pub struct Observed {
    /// The status so far.
    pub status: CronJobStatus,
    /// Jobs that the status calls active and that are not seen: gone, unless the API says otherwise.
    pub unseen: Vec<ObjectReference>,
    /// What there is to tell.
    pub events: Vec<CronEvent>,
}

/// Reads the Jobs of the CronJob.
pub fn observe(cron_job: &CronJob, jobs: &[Arc<Job>]) -> Observed {
    let mut observed = Observed { status: cron_job.status.clone().unwrap_or_default(), ..Default::default() };
    for job in jobs {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let is_known = active(&observed.status).iter().any(|known| known.uid.as_deref() == Some(uid));
        let Some(condition) = finished(job) else {
            if !is_known {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                observed.events.push((EventType::Warning, "UnexpectedJob", message));
            }
            continue;
        };
        if is_known {
            forget(&mut observed.status, uid);
            let message = format!("Saw completed job: {name}, condition: {}", condition.type_);
            observed.events.push((EventType::Normal, "SawCompletedJob", message));
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        let latest = &mut observed.status.last_successful_time;
        if condition.type_ == COMPLETE && latest.as_ref().map(|time| time.0) < completed.as_ref().map(|time| time.0) {
            *latest = completed;
        }
    }
    let is_seen = |known: &ObjectReference| jobs.iter().any(|job| job.metadata.uid == known.uid);
    observed.unseen = active(&observed.status).iter().filter(|known| !is_seen(known)).cloned().collect();
    observed
}

/// The Jobs that the status calls active.
pub fn active(status: &CronJobStatus) -> &[ObjectReference] {
    status.active.as_deref().unwrap_or_default()
}

/// Takes a Job from those that the status calls active.
pub fn forget(status: &mut CronJobStatus, uid: &str) {
    if let Some(active) = &mut status.active {
        active.retain(|job| job.uid.as_deref() != Some(uid));
    }
    status.active.take_if(|active| active.is_empty());
}

/// Finished Jobs beyond the limits of the history, the oldest first.
pub fn surplus(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let mut surplus = Vec::new();
    for (is_success, limit) in [(true, spec.successful_jobs_history_limit), (false, spec.failed_jobs_history_limit)] {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let ended = |job: &&Arc<Job>| finished(job).is_some_and(|ended| (ended.type_ == COMPLETE) == is_success);
        let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(ended).collect();
        // A Job that never began counts as the latest.
        ended.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (start.is_none(), start, job.metadata.name.clone())
        });
        let excess = ended.len().saturating_sub(limit);
        let going = ended.into_iter().take(excess).filter(|job| job.metadata.deletion_timestamp.is_none());
        surplus.extend(going.cloned());
    }
    surplus
}

/// What is done now, and when to look again.
#[derive(Debug, Default)]
pub struct CronJobPlan {
    /// The time that a Job is started for.
    pub start: Option<Timestamp>,
    /// Whether the active Jobs are deleted before.
    pub replace: bool,
    /// After how long the CronJob is due again.
    pub wake: Option<Duration>,
    /// What there is to tell.
    pub events: Vec<CronEvent>,
}

/// Decides at `now`, with the status as the Jobs show it.
pub fn decide(cron_job: &CronJob, status: &CronJobStatus, now: Timestamp) -> CronJobPlan {
    let mut decision = CronJobPlan::default();
    let Some(spec) = cron_job.spec.as_ref().filter(|_| cron_job.metadata.deletion_timestamp.is_none()) else {
        return decision;
    };
    let schedule = ZonedSchedule::of(spec);
    if let Err(ScheduleProblem::UnknownZone(name)) = &schedule {
        decision.warn("UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}"));
        return decision;
    }
    if spec.suspend == Some(true) {
        return decision;
    }
    if spec.schedule.contains("TZ") {
        let message = format!(
            "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
            spec.schedule
        );
        decision.warn("UnsupportedSchedule", message);
    }
    let schedule = match schedule {
        Ok(schedule) => schedule,
        Err(ScheduleProblem::Unreadable(why)) | Err(ScheduleProblem::UnknownZone(why)) => {
            decision.warn("UnparseableSchedule", format!("unparseable schedule: {:?} : {why}", spec.schedule));
            return decision;
        }
    };
    let since = counted_since(cron_job, status);
    let Some(missed) = missed(&schedule, deadline(spec, now).map_or(since, |deadline| since.max(deadline)), now) else {
        let why = "time difference between two schedules is less than 1 second";
        decision.warn("InvalidSchedule", format!("invalid schedule: {} : {why}", spec.schedule));
        return decision;
    };
    decision.wake = wake(&schedule, since, now);
    if let Some(due) = missed.last {
        decision.start_at(cron_job, spec, status, (due, &missed), now);
    }
    decision
}

/// From when on missed times count, the starting deadline left aside.
fn counted_since(cron_job: &CronJob, status: &CronJobStatus) -> Timestamp {
    let last = status.last_schedule_time.as_ref().or(cron_job.metadata.creation_timestamp.as_ref());
    last.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Nothing is started for a time before this.
fn deadline(spec: &CronJobSpec, now: Timestamp) -> Option<Timestamp> {
    now.checked_sub(SignedDuration::from_secs(spec.starting_deadline_seconds?)).ok()
}

/// After how long the CronJob is due again.
pub fn wake_after(cron_job: &CronJob, now: Timestamp) -> Option<Duration> {
    let schedule = ZonedSchedule::of(cron_job.spec.as_ref()?).ok()?;
    let status = cron_job.status.clone().unwrap_or_default();
    wake(&schedule, counted_since(cron_job, &status), now)
}

fn wake(schedule: &ZonedSchedule, since: Timestamp, now: Timestamp) -> Option<Duration> {
    let last = match missed(schedule, since, now) {
        Some(Missed { last: Some(last), .. }) => last,
        Some(Missed { count: 0, .. }) => since,
        _ => now,
    };
    until_next(schedule, last, now)
}

impl CronJobPlan {
    fn warn(&mut self, reason: &'static str, message: String) {
        self.events.push((EventType::Warning, reason, message));
    }

    fn start_at(
        &mut self,
        cron_job: &CronJob,
        spec: &CronJobSpec,
        status: &CronJobStatus,
        (due, missed): (Timestamp, &Missed),
        now: Timestamp,
    ) {
        if missed.count > MANY {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.to_owned());
        }
        if deadline(spec, now).is_some_and(|deadline| due < deadline) {
            let at = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
            return self.warn("MissSchedule", format!("Missed scheduled time to start a job: {at}"));
        }
        let name = job_name(cron_job, due);
        let is_started = active(status).iter().any(|job| job.name.as_ref() == Some(&name));
        if is_started || status.last_schedule_time.as_ref().is_some_and(|last| last.0 == due) {
            return;
        }
        let policy = spec.concurrency_policy.as_deref();
        if policy == Some("Forbid") && !active(status).is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return self.events.push((EventType::Normal, "JobAlreadyActive", message.to_owned()));
        }
        self.replace = policy == Some("Replace");
        self.start = Some(due);
    }
}

/// The status once a Job runs for the time `due`.
pub fn started(status: &mut CronJobStatus, job: ObjectReference, due: Timestamp) {
    status.active.get_or_insert_default().push(job);
    status.last_schedule_time = Some(Time(due));
}

fn job_name(cron_job: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or_default(), due.as_second().div_euclid(60))
}

/// The Job for the time `due`. Its name depends on nothing else, so that it cannot be made twice.
pub fn desired(cron_job: &CronJob, spec: &CronJobSpec, due: Timestamp) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let zone = zone(spec.time_zone.as_deref().unwrap_or_default()).unwrap_or(TimeZone::UTC);
    let local = due.to_zoned(zone);
    let form = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    let mut annotations: BTreeMap<String, String> = template.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), local.strftime(form).to_string());
    let metadata = ObjectMeta {
        name: Some(job_name(cron_job, due)),
        namespace: cron_job.metadata.namespace.clone(),
        labels: template.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(cron_job)]),
        ..Default::default()
    };
    Job { metadata, spec: spec.job_template.spec.clone(), status: None }
}
