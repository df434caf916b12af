//! The conditions of a Job: what it is about to become, what it has become, and whether it is suspended.

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// The Job will fail; its pods are being ended.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// The Job will be complete; its pods are being ended.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// The Job has succeeded.
pub const COMPLETE: &str = "Complete";
/// The Job has failed.
pub const FAILED: &str = "Failed";
const SUSPENDED: &str = "Suspended";

/// A condition that holds since `now`.
pub fn condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The condition of this type, if it holds.
pub fn holding<'a>(status: Option<&'a JobStatus>, kind: &str) -> Option<&'a JobCondition> {
    let conditions = status?.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition by which the Job is complete or has failed.
pub fn finished(job: &Job) -> Option<&JobCondition> {
    [COMPLETE, FAILED].into_iter().find_map(|kind| holding(job.status.as_ref(), kind))
}

/// The condition that ends what `condition` began: Complete or Failed.
pub fn terminal(condition: &JobCondition, now: Timestamp) -> JobCondition {
    let kind = if condition.type_ == SUCCESS_CRITERIA_MET { COMPLETE } else { FAILED };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    self::condition(kind, &text(&condition.reason), &text(&condition.message), now)
}

/// Writes that the Job is suspended, or that it no longer is. A Job that never was says nothing. Returns whether that
/// is news.
pub fn tell_suspended(status: &mut JobStatus, suspended: bool, now: Timestamp) -> bool {
    let (reason, message) = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
    let mut new = condition(SUSPENDED, reason, message, now);
    if !suspended {
        new.status = "False".into();
    }
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|condition| condition.type_ == SUSPENDED) {
        Some(old) if (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message) => false,
        Some(old) => {
            *old = new;
            true
        }
        None if suspended => {
            conditions.push(new);
            true
        }
        None => false,
    }
}
