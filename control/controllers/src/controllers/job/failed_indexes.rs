//! Indexes that fail by themselves: which have failed, whether that ends the Job, and how the failures of an index
//! pass from a pod to its replacement. Source: KEP-3850.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        batch::v1::{JobCondition, JobStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};

use super::{
    backoff::FailureStreak,
    conditions::{FAILURE_TARGET, condition},
    failure_policy::{FailureAction, action},
    indexes::Indexes,
    plan::{JobView, is_uncounted},
    pods::{IndexFailures, finish_time, has_failed, indexes, is_tracked, valid_index},
    terms::{Terms, number},
};

/// The indexes that have failed, those of this pass included.
pub fn failed(view: &JobView, status: &JobStatus) -> Indexes {
    let terms = &view.terms;
    let known = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), terms.indexes());
    let pods = view.pods.iter().filter(|pod| is_tracked(pod) && ends_its_index(pod, terms));
    known.with(&pods.filter_map(|pod| valid_index(pod, terms)).collect::<BTreeSet<usize>>())
}

fn ends_its_index(pod: &Pod, terms: &Terms) -> bool {
    let limit = terms.backoff_limit_per_index.unwrap_or(usize::MAX);
    has_failed(pod, terms)
        && match action(terms.spec, pod) {
            FailureAction::FailIndex => true,
            FailureAction::Ignore => false,
            FailureAction::Count | FailureAction::FailJob(_) => IndexFailures::of(pod).counted >= limit,
        }
}

/// Whether too many indexes have failed, or all have ended and some failed.
pub fn ending(terms: &Terms, failed: &Indexes, succeeded: &Indexes, now: Timestamp) -> Option<JobCondition> {
    let fails = |reason: &str, message: &str| Some(condition(FAILURE_TARGET, reason, message, now));
    if terms.spec.max_failed_indexes.is_some_and(|most| failed.len() > number(most)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return fails("MaxFailedIndexesExceeded", message);
    }
    if !failed.is_empty() && failed.len().saturating_add(succeeded.len()) >= terms.indexes() {
        return fails("FailedIndexes", "Job has failed indexes");
    }
    None
}

/// For each index that waits for a new pod, the failed pod that it replaces: the one with the most failures, of those
/// the latest.
pub fn replaced(
    view: &JobView,
    active: &[Arc<Pod>],
    succeeded: &Indexes,
    failed: &Indexes,
) -> BTreeMap<usize, Arc<Pod>> {
    let running = indexes(active.iter().map(|pod| &**pod));
    let mut replaced: BTreeMap<usize, Arc<Pod>> = BTreeMap::new();
    let pods = view.pods.iter().filter(|pod| is_uncounted(view, pod) && has_failed(pod, &view.terms));
    for pod in pods {
        let Some(index) = valid_index(pod, &view.terms) else { continue };
        if succeeded.contains(index) || failed.contains(index) || running.contains(&index) {
            continue;
        }
        let rank = |pod: &Pod| (IndexFailures::of(pod).total(), finish_time(pod));
        let is_later = replaced.get(&index).is_none_or(|other| rank(other) <= rank(pod));
        if is_later {
            replaced.insert(index, pod.clone());
        }
    }
    replaced
}

/// How long the replacement of a failed pod waits.
pub fn remaining(failed: &Pod, now: Timestamp) -> Duration {
    let failures = IndexFailures::of(failed).total().saturating_add(1);
    FailureStreak { failures, last: finish_time(failed) }.remaining(now)
}
