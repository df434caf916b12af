//! What a Job reads in its pods: the finalizer, the completion index, how and when they ended.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};

use super::{failure_policy::counts, terms::Terms};
use crate::objects::pod_state::{condition, is_finished, is_terminating, phase};

/// Finalizer that keeps a pod until the Job has counted it.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation with a pod's completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation with the failures of the index that count towards its limit.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation with those that the failure policy ignores.
pub const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The pod's uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether the pod is kept until it is counted.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Whether the pod succeeded.
pub fn has_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

/// Whether the pod counts as failed. A terminating pod does, since it may never reach the phase, unless pods are
/// replaced only once they have ended.
pub fn has_failed(pod: &Pod, terms: &Terms) -> bool {
    phase(pod) == "Failed" || (!terms.replaces_only_failed && is_terminating(pod) && !has_succeeded(pod))
}

/// Whether the pod is being deleted and has not ended yet.
pub fn is_ending(pod: &Pod) -> bool {
    is_terminating(pod) && !is_finished(pod)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The pod's completion index.
pub fn index(pod: &Pod) -> Option<usize> {
    annotation(pod, INDEX)?.parse().ok()
}

/// The pod's completion index, if the Job still has that index.
pub fn valid_index(pod: &Pod, terms: &Terms) -> Option<usize> {
    index(pod).filter(|index| *index < terms.indexes())
}

/// The completion indexes of these pods.
pub fn indexes<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<usize> {
    pods.into_iter().filter_map(index).collect()
}

/// Failures of the pod's index before it: those that count, and those that were ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexFailures {
    /// Those that count towards the limit.
    pub counted: usize,
    /// Those that the failure policy ignores.
    pub ignored: usize,
}

impl IndexFailures {
    /// As the pod's annotations say; what is no number there is none.
    pub fn of(pod: &Pod) -> Self {
        let failures = |key| annotation(pod, key).and_then(|text| text.parse().ok()).filter(|n: &i32| *n >= 0);
        let failures = |key| failures(key).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Self { counted: failures(FAILURES), ignored: failures(IGNORED_FAILURES) }
    }

    /// All of them.
    pub fn total(self) -> usize {
        self.counted.saturating_add(self.ignored)
    }

    /// Those of the pod that replaces `failed`.
    pub fn after(failed: &Pod, terms: &Terms) -> Self {
        let mut failures = Self::of(failed);
        let count = if counts(terms.spec, failed) { &mut failures.counted } else { &mut failures.ignored };
        *count = count.saturating_add(1);
        failures
    }
}

/// How often the containers of the pod were started again.
pub fn restarts(pod: &Pod) -> usize {
    let Some(status) = &pod.status else { return 0 };
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.fold(0, |sum: usize, status| sum.saturating_add(super::terms::number(status.restart_count)))
}

/// When the pod ended: when its last container did, else when it ceased to be ready, else when its deletion began, else
/// when it was created.
pub fn finish_time(pod: &Pod) -> Option<Timestamp> {
    let not_ready = || condition(pod, "Ready").filter(|c| c.status == "False")?.last_transition_time.as_ref();
    containers_finished(pod)
        .or_else(|| not_ready().map(|time| time.0))
        .or_else(|| deletion_began(pod))
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn containers_finished(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: BTreeSet<&str> =
        init.filter(|c| c.restart_policy.as_deref() == Some("Always")).map(|c| c.name.as_str()).collect();
    let sidecar_statuses = status.init_container_statuses.iter().flatten().filter(|s| sidecars.contains(&*s.name));
    let mut last = None;
    for status in status.container_statuses.iter().flatten().chain(sidecar_statuses) {
        last = last.max(Some(finished_at(status)?));
    }
    last
}

fn finished_at(status: &ContainerStatus) -> Option<Timestamp> {
    Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
}

fn deletion_began(pod: &Pod) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn finished(pod: Value) -> String {
        let pod: Pod = serde_json::from_value(pod).expect("a valid pod");
        finish_time(&pod).map(|time| time.to_string()).unwrap_or_default()
    }

    fn ended(name: &str, at: &str) -> Value {
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": at}}})
    }

    #[test]
    fn the_time_of_the_end_is_the_most_exact_that_is_known() {
        let running = json!({"name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}});
        let condition = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:03Z"}]);
        let sidecar = json!([{"name": "s", "restartPolicy": "Always"}, {"name": "init"}]);
        for (pod, at) in [
            (
                json!({"status": {"containerStatuses": [ended("a", "2026-01-01T00:00:01Z"),
                    ended("b", "2026-01-01T00:00:02Z")], "conditions": condition}}),
                "2026-01-01T00:00:02Z",
            ),
            (
                json!({"spec": {"containers": [], "initContainers": sidecar},
                    "status": {"containerStatuses": [ended("a", "2026-01-01T00:00:01Z")],
                    "initContainerStatuses": [ended("s", "2026-01-01T00:00:04Z"),
                        ended("init", "2026-01-01T00:00:09Z")]}}),
                "2026-01-01T00:00:04Z",
            ),
            (
                json!({"status": {"containerStatuses": [ended("a", "2026-01-01T00:00:01Z"), running],
                    "conditions": condition}}),
                "2026-01-01T00:00:03Z",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:40Z", "deletionGracePeriodSeconds": 30}}),
                "2026-01-01T00:00:10Z",
            ),
            (json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}), "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(finished(pod.clone()), at, "{pod}");
        }
    }

    #[test]
    fn what_is_no_count_in_an_annotation_is_none() {
        let pod = |text: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"annotations": {FAILURES: text, IGNORED_FAILURES: "2"}}}))
                .expect("a valid pod")
        };
        for (text, counted) in [("3", 3), ("x", 0), ("-1", 0), ("2147483648", 0)] {
            assert_eq!(IndexFailures::of(&pod(text)), IndexFailures { counted, ignored: 2 }, "{text}");
        }
    }
}
