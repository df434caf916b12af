//! How ended pods come to be counted, each once, whatever is interrupted.
//!
//! A pod bears a finalizer until it is counted. First its uid is written to `uncountedTerminatedPods` ([`count`]), or
//! its index to `completedIndexes`; then its finalizer is removed; and then the uid becomes one more in the counter
//! ([`settle`]). Source: KEP-2307.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    conditions::{COMPLETE, FAILURE_TARGET, SUCCESS_CRITERIA_MET, condition, holding, tell_suspended, terminal},
    failure_policy::counts,
    plan::{Action, JobPlan, JobView, start_time},
    pods::{has_failed, has_succeeded, index, is_tracked, uid, valid_index},
    terms::number,
};

/// Most pods whose uids a status holds. Source: `MaxUncountedPods`.
const MOST_UNCOUNTED: usize = 500;

/// What became of the plan's action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Pods that were created.
    pub created: usize,
    /// Pods whose deletion began, or that were gone already.
    pub deleted: usize,
    /// Those of them that were ready.
    pub deleted_ready: usize,
}

/// The status to write before finalizers are removed.
#[derive(Debug)]
pub struct JobCount {
    /// The status.
    pub status: JobStatus,
    /// Pods that lose the finalizer once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// Uids of pods that have the finalizer.
    pub tracked: HashSet<String>,
    /// The condition with which the Job ends once all pods are counted.
    pub ending: Option<JobCondition>,
    /// Whether some pods have to wait for the next pass, and the end of the Job with them.
    pub is_partial: bool,
    /// Whether the Job has just been suspended (true) or resumed.
    pub suspension: Option<bool>,
}

/// Counts the ended pods after the plan's action.
pub fn count(view: &JobView, plan: &JobPlan, done: Done) -> JobCount {
    let terms = &view.terms;
    let mut status = view.job.status.clone().unwrap_or_default();
    let known = status.uncounted_terminated_pods.clone().unwrap_or_default();
    status.start_time = start_time(&status, terms, view.now).map(Time);
    let active = (plan.active.len() - done.deleted.min(plan.active.len())).saturating_add(done.created);
    status.active = Some(counter(active));
    status.ready = Some(counter(plan.ready().saturating_sub(done.deleted_ready).min(active)));
    status.terminating = Some(counter(plan.terminating.saturating_add(done.deleted)));
    let (ending, suspension) = outcome(view, plan, done, active, &mut status);

    let is_tracked = |pod: &Pod| is_tracked(pod) && !view.released.contains(uid(pod));
    let tracked = view.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| uid(pod).to_owned()).collect();
    add_uncounted(&mut status, &tracked);
    let mut count = JobCount { status, release: Vec::new(), tracked, ending, is_partial: false, suspension };
    let mut pods: Vec<&Arc<Pod>> = view.pods.iter().filter(|pod| is_tracked(pod)).collect();
    if terms.indexed {
        pods.sort_by_key(|pod| index(pod));
    }
    let mut new_indexes = BTreeSet::new();
    for pod in pods {
        if !may_be_released(view, plan, count.ending.as_ref(), pod) {
            continue;
        }
        count.release.push(pod.clone());
        count.add(view, plan, &known, &mut new_indexes, pod);
        let uncounted = count.uncounted();
        let waiting = [&uncounted.succeeded, &uncounted.failed].map(|uids| uids.as_ref().map_or(0, Vec::len));
        if new_indexes.len() + waiting[0] + waiting[1] >= MOST_UNCOUNTED {
            count.is_partial = true;
            break;
        }
    }
    if terms.indexed {
        let succeeded = plan.succeeded_indexes.with(&new_indexes);
        count.status.succeeded = Some(counter(succeeded.len()));
        count.status.completed_indexes = Some(succeeded.to_string());
        count.status.failed_indexes = plan.failed_indexes.as_ref().map(ToString::to_string);
    }
    count.announce(view);
    count.status = normalised(count.status);
    count
}

/// How the Job ends, now that the action was carried out, and whether it was suspended or resumed.
fn outcome(
    view: &JobView,
    plan: &JobPlan,
    done: Done,
    active: usize,
    status: &mut JobStatus,
) -> (Option<JobCondition>, Option<bool>) {
    if plan.action == Action::End {
        // Pods that are not shown yet, or could not be deleted, have to be ended first.
        let all_end = done.deleted == plan.active.len() && view.caught_up;
        return (plan.ending.clone().filter(|_| all_end), None);
    }
    let enough = view.terms.completions.unwrap_or(1);
    if active == 0 && plan.succeeded >= enough {
        let message = "Reached expected number of succeeded pods";
        return (Some(condition(SUCCESS_CRITERIA_MET, "CompletionsReached", message, view.now)), None);
    }
    let suspended = view.terms.suspended;
    if !plan.is_managed || !tell_suspended(status, suspended, view.now) {
        return (None, None);
    }
    if !suspended {
        // The deadline counts from here.
        status.start_time = Some(Time(view.now));
    }
    (None, Some(suspended))
}

/// Whether the pod has to be kept no longer, but to be counted.
fn may_be_released(view: &JobView, plan: &JobPlan, ending: Option<&JobCondition>, pod: &Pod) -> bool {
    if view.job.metadata.deletion_timestamp.is_some() || ending.is_some() || has_succeeded(pod) {
        return true;
    }
    let is_replaced = index(pod).and_then(|index| plan.replaced.get(&index)).is_some_and(|p| uid(p) == uid(pod));
    has_failed(pod, &view.terms) && !is_replaced
}

impl JobCount {
    fn uncounted(&mut self) -> &mut UncountedTerminatedPods {
        self.status.uncounted_terminated_pods.get_or_insert_default()
    }

    fn add(
        &mut self,
        view: &JobView,
        plan: &JobPlan,
        known: &UncountedTerminatedPods,
        new_indexes: &mut BTreeSet<usize>,
        pod: &Pod,
    ) {
        let terms = &view.terms;
        let knows = |uids: &Option<Vec<String>>| uids.iter().flatten().any(|known| known == uid(pod));
        let has_place = !terms.indexed || valid_index(pod, terms).is_some();
        let ends_as_failure = self.ending.as_ref().is_some_and(|ending| ending.type_ != SUCCESS_CRITERIA_MET);
        if has_succeeded(pod) && !knows(&known.failed) {
            if terms.indexed {
                // The index says that it was counted: no uid is needed.
                new_indexes.extend(valid_index(pod, terms).filter(|index| !plan.known_indexes.contains(*index)));
            } else if !knows(&known.succeeded) {
                self.uncounted().succeeded.get_or_insert_default().push(uid(pod).to_owned());
            }
        } else if (has_failed(pod, terms) || ends_as_failure)
            && has_place
            && !knows(&known.failed)
            && counts(terms.spec, pod)
        {
            self.uncounted().failed.get_or_insert_default().push(uid(pod).to_owned());
        }
    }

    /// Says in the status how the Job will end, and keeps the condition with which it ends.
    fn announce(&mut self, view: &JobView) {
        let Some(ending) = &self.ending else { return };
        if matches!(ending.type_.as_str(), FAILURE_TARGET | SUCCESS_CRITERIA_MET) {
            if holding(Some(&self.status), &ending.type_).is_none() {
                self.status.conditions.get_or_insert_default().push(ending.clone());
            }
            self.ending = Some(terminal(ending, view.now));
        }
    }

    /// The status once the pods of `released` have no finalizer, and the condition with which the Job has ended.
    pub fn settle(self, released: &HashSet<String>) -> (JobStatus, Option<JobCondition>) {
        let Self { mut status, tracked, ending, is_partial, .. } = self;
        add_uncounted(&mut status, &tracked.difference(released).cloned().collect());
        let is_settled = status.uncounted_terminated_pods == Some(UncountedTerminatedPods::default())
            && status.terminating.is_none_or(|count| count == 0);
        let ended = ending.filter(|_| is_settled && !is_partial);
        if let Some(ended) = &ended {
            if ended.type_ == COMPLETE {
                status.completion_time = ended.last_transition_time.clone();
            }
            status.conditions.get_or_insert_default().push(ended.clone());
        }
        (normalised(status), ended)
    }
}

/// Moves the uids whose pods have no finalizer any more into the counters.
fn add_uncounted(status: &mut JobStatus, tracked: &HashSet<String>) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    for (uids, counted) in
        [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
    {
        let Some(waiting) = uids else { continue };
        let before = waiting.len();
        waiting.retain(|uid| tracked.contains(uid));
        let moved = before - waiting.len();
        *counted = Some(counter(counted.map_or(0, number).saturating_add(moved)));
        if waiting.is_empty() {
            *uids = None;
        }
    }
}

/// As the API stores it: fields that are left out when they are zero or empty are left out.
pub fn normalised(mut status: JobStatus) -> JobStatus {
    for counter in [&mut status.active, &mut status.succeeded, &mut status.failed] {
        counter.take_if(|count| *count == 0);
    }
    status.completed_indexes.take_if(|text| text.is_empty());
    status.conditions.take_if(|conditions| conditions.is_empty());
    status
}

fn counter(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
