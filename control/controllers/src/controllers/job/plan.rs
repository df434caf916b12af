//! What one pass does about a Job's pods, and whether the Job is about to end. Source: `syncJob` and `manageJob` of
//! Kubernetes' Job controller.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};

use super::{
    backoff::FailureStreak,
    conditions::{FAILURE_TARGET, SUCCESS_CRITERIA_MET, condition, holding, terminal},
    failed_indexes,
    failure_policy::{FailureAction, action, counts},
    indexes::Indexes,
    pods::{has_failed, has_succeeded, index, indexes, is_ending, is_tracked, restarts, uid, valid_index},
    removal, success_policy,
    terms::{Terms, number},
};
use crate::{
    controllers::pod_requests::BURST,
    objects::pod_state::{is_active, is_ready, phase},
};

/// All that one pass decides on.
pub struct JobView<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Its terms.
    pub terms: Terms<'a>,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Pods without the finalizer, though they may be shown with it: they were counted.
    pub released: &'a HashSet<String>,
    /// Whether the pods are all that were asked for before.
    pub caught_up: bool,
    /// Failures up to the last pass.
    pub streak: FailureStreak,
    /// The moment of the pass.
    pub now: Timestamp,
}

/// What is done about the pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing now.
    Wait,
    /// All active pods are deleted and counted, since the Job ends.
    End,
    /// These pods are deleted and not counted: there are too many, or the Job is suspended.
    Delete(Vec<Arc<Pod>>),
    /// So many pods are created.
    Create(usize),
    /// A pod is created for each of these indexes.
    CreateIndexes(Vec<usize>),
}

/// The decision of one pass.
pub struct JobPlan {
    /// Pods that have not ended and are not being deleted.
    pub active: Vec<Arc<Pod>>,
    /// Pods that are being deleted and have not ended.
    pub terminating: usize,
    /// Pods that have succeeded, those not counted yet included; of an indexed Job, indexes.
    pub succeeded: usize,
    /// Pods that have failed, those not counted yet included.
    pub failed: usize,
    /// Indexes that had succeeded before this pass.
    pub known_indexes: Indexes,
    /// Indexes that have succeeded.
    pub succeeded_indexes: Indexes,
    /// Indexes that have failed, if that can happen.
    pub failed_indexes: Option<Indexes>,
    /// Failed pods that are kept until there is a replacement, which takes over their count of failures.
    pub replaced: BTreeMap<usize, Arc<Pod>>,
    /// Failures, those of this pass included.
    pub streak: FailureStreak,
    /// How the Job is about to end.
    pub ending: Option<JobCondition>,
    /// What is done about the pods.
    pub action: Action,
    /// Whether `action` is what the Job asks for now, rather than nothing until the view has caught up.
    pub is_managed: bool,
    /// After how long something changes by time alone.
    pub wake: Option<Duration>,
}

/// When the Job began to run, this pass included.
pub fn start_time(status: &JobStatus, terms: &Terms, now: Timestamp) -> Option<Timestamp> {
    status.start_time.as_ref().map(|time| time.0).or((!terms.suspended).then_some(now))
}

/// Decides one pass.
pub fn plan(view: &JobView) -> JobPlan {
    let (terms, status) = (&view.terms, view.job.status.clone().unwrap_or_default());
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let [waiting_successes, waiting_failures] =
        [uncounted.succeeded, uncounted.failed].map(|uids| uids.unwrap_or_default());
    let new = |known: &[String], ended: fn(&Pod, &Terms) -> bool| -> Vec<&Pod> {
        let pods = view.pods.iter().map(|pod| &**pod).filter(|pod| is_uncounted(view, pod));
        pods.filter(|pod| ended(pod, terms) && !known.iter().any(|known| known == uid(pod))).collect()
    };
    let new_successes = new(&waiting_successes, |pod, _| has_succeeded(pod));
    let new_failures = new(&waiting_failures, has_failed);
    let counted_failures = new_failures.iter().filter(|pod| counts(terms.spec, pod)).count();
    let sum = |counter: Option<i32>, more: usize, waiting: usize| {
        counter.map_or(0, number).saturating_add(more).saturating_add(waiting)
    };
    let mut plan = JobPlan {
        active: view.pods.iter().filter(|pod| is_active(pod)).cloned().collect(),
        terminating: view.pods.iter().filter(|pod| is_ending(pod)).count(),
        succeeded: sum(status.succeeded, new_successes.len(), waiting_successes.len()),
        failed: sum(status.failed, counted_failures, waiting_failures.len()),
        known_indexes: Indexes::default(),
        succeeded_indexes: Indexes::default(),
        failed_indexes: None,
        replaced: BTreeMap::new(),
        streak: view.streak.after(&new_successes, &new_failures),
        ending: None,
        action: Action::Wait,
        is_managed: false,
        wake: None,
    };
    plan.ending = ending(view, &plan, &status);
    if plan.ending.is_none() {
        plan.wake = until_deadline(view, &status);
    }
    if terms.indexed {
        plan.read_indexes(view, &status);
    }
    if plan.ending.is_some() {
        plan.action = Action::End;
    } else if view.caught_up && view.job.metadata.deletion_timestamp.is_none() {
        plan.is_managed = true;
        plan.action = plan.manage(view);
    }
    plan
}

/// Whether the pod has to be counted still; of an indexed Job, only one whose index is valid.
pub fn is_uncounted(view: &JobView, pod: &Pod) -> bool {
    is_tracked(pod)
        && !view.released.contains(uid(pod))
        && (!view.terms.indexed || valid_index(pod, &view.terms).is_some())
}

/// How the Job is about to end, indexes left aside. What an earlier pass wrote stands.
fn ending(view: &JobView, plan: &JobPlan, status: &JobStatus) -> Option<JobCondition> {
    let fails = |reason: &str, message: &str| Some(condition(FAILURE_TARGET, reason, message, view.now));
    if let Some(met) = holding(Some(status), SUCCESS_CRITERIA_MET) {
        return Some(met.clone());
    }
    if let Some(target) = holding(Some(status), FAILURE_TARGET) {
        return Some(terminal(target, view.now));
    }
    let failed = view.pods.iter().filter(|pod| has_failed(pod, &view.terms));
    let by_policy = failed.map(|pod| action(view.terms.spec, pod)).find_map(|action| match action {
        FailureAction::FailJob(message) => Some(message),
        _ => None,
    });
    if let Some(message) = by_policy {
        return fails("PodFailurePolicy", &message);
    }
    if plan.failed > view.terms.backoff_limit || restarted_too_often(view) {
        return fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if until_deadline(view, status) == Some(Duration::ZERO) {
        return fails("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    None
}

/// With the restart policy `OnFailure`, restarts of containers count instead of failed pods.
fn restarted_too_often(view: &JobView) -> bool {
    let template = view.terms.spec.template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let alive = view.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let restarts = alive.fold(0, |sum: usize, pod| sum.saturating_add(restarts(pod)));
    restarts >= view.terms.backoff_limit.max(1)
}

/// How long the Job may still be active.
fn until_deadline(view: &JobView, status: &JobStatus) -> Option<Duration> {
    let allowed = view.terms.spec.active_deadline_seconds.filter(|_| !view.terms.suspended)?;
    let start = start_time(status, &view.terms, view.now)?;
    let elapsed = Duration::try_from(view.now.duration_since(start)).unwrap_or_default();
    Some(Duration::from_secs(u64::try_from(allowed).unwrap_or(0)).saturating_sub(elapsed))
}

impl JobPlan {
    /// Counts by index, and decides whether the Job ends by its indexes.
    fn read_indexes(&mut self, view: &JobView, status: &JobStatus) {
        let terms = &view.terms;
        self.known_indexes = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), terms.indexes());
        let pods = view.pods.iter().filter(|pod| has_succeeded(pod) && is_tracked(pod));
        let succeeded: BTreeSet<usize> = pods.filter_map(|pod| valid_index(pod, terms)).collect();
        self.succeeded_indexes = self.known_indexes.with(&succeeded);
        self.succeeded = self.succeeded_indexes.len();
        if terms.backoff_limit_per_index.is_some() {
            let failed = failed_indexes::failed(view, status);
            if self.ending.is_none() {
                self.ending = failed_indexes::ending(terms, &failed, &self.succeeded_indexes, view.now);
            }
            self.replaced = failed_indexes::replaced(view, &self.active, &self.succeeded_indexes, &failed);
            self.failed_indexes = Some(failed);
        }
        if self.ending.is_none()
            && let Some(message) = success_policy::met(terms, &self.succeeded_indexes)
        {
            self.ending = Some(condition(SUCCESS_CRITERIA_MET, "SuccessPolicy", &message, view.now));
        }
    }

    fn manage(&mut self, view: &JobView) -> Action {
        let terms = &view.terms;
        let active = self.active.len();
        if terms.suspended {
            return if active == 0 { Action::Wait } else { Action::Delete(self.removed(view, active)) };
        }
        let wanted = match terms.completions {
            Some(completions) => completions.saturating_sub(self.succeeded).min(terms.parallelism),
            // The pods know when the work is done: once one has succeeded, the others end by themselves.
            None if self.succeeded > 0 => active,
            None => terms.parallelism,
        };
        let mut removed = self.removed(view, active.saturating_sub(wanted));
        if !removed.is_empty() {
            removed.truncate(BURST);
            return Action::Delete(removed);
        }
        let terminating = if terms.replaces_only_failed { self.terminating } else { 0 };
        let missing = wanted.saturating_sub(terminating).saturating_sub(active);
        if missing == 0 {
            return Action::Wait;
        }
        if terms.backoff_limit_per_index.is_none() {
            let rest = self.streak.remaining(view.now);
            if !rest.is_zero() {
                self.wake_after(rest);
                return Action::Wait;
            }
        }
        let count = missing.min(BURST);
        if !terms.indexed {
            return Action::Create(count);
        }
        let pending = self.pending_indexes(view, count);
        if pending.is_empty() { Action::Wait } else { Action::CreateIndexes(pending) }
    }

    fn removed(&self, view: &JobView, at_least: usize) -> Vec<Arc<Pod>> {
        removal::chosen(&self.active, &view.terms, at_least, view.now)
    }

    /// The first indexes that need a pod and need not wait for it.
    fn pending_indexes(&mut self, view: &JobView, count: usize) -> Vec<usize> {
        let mut taken = indexes(self.active.iter().map(|pod| &**pod));
        if view.terms.replaces_only_failed {
            taken.extend(view.pods.iter().filter(|pod| is_ending(pod)).filter_map(|pod| index(pod)));
        }
        let mut taken = self.succeeded_indexes.with(&taken);
        if let Some(failed) = &self.failed_indexes {
            taken = taken.merge(failed);
        }
        let mut pending = taken.first_missing(count, view.terms.indexes());
        let mut wake = self.wake;
        pending.retain(|index| {
            let rest = self.replaced.get(index).map(|pod| failed_indexes::remaining(pod, view.now)).unwrap_or_default();
            if !rest.is_zero() {
                wake = Some(wake.map_or(rest, |wake| wake.min(rest)));
            }
            rest.is_zero()
        });
        self.wake = wake;
        pending
    }

    fn wake_after(&mut self, delay: Duration) {
        self.wake = Some(self.wake.map_or(delay, |wake| wake.min(delay)));
    }

    /// How many of the active pods are ready.
    pub fn ready(&self) -> usize {
        self.active.iter().filter(|pod| is_ready(pod)).count()
    }
}
