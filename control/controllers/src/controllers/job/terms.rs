//! What a Job asks for, read once from its spec.

use k8s_openapi::api::batch::v1::{Job, JobSpec};

/// The controller that a Job names in `managedBy` when it means this one.
pub const CONTROLLER_NAME: &str = "kubernetes.io/job-controller";

/// The settings of a Job that the decisions read.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// All of the spec.
    pub spec: &'a JobSpec,
    /// Whether each pod has a completion index.
    pub indexed: bool,
    /// How many pods must succeed; `None` if one suffices, whatever the others do.
    pub completions: Option<usize>,
    /// Most pods at a time.
    pub parallelism: usize,
    /// Failures above this end the Job.
    pub backoff_limit: usize,
    /// Failures of one index above this end the index.
    pub backoff_limit_per_index: Option<usize>,
    /// Whether no pods are wanted for now.
    pub suspended: bool,
    /// Whether a pod is replaced only once it has ended, rather than when its deletion begins.
    pub replaces_only_failed: bool,
}

impl<'a> Terms<'a> {
    /// The terms of a Job; `None` where there are none, or the completion mode is from a later version.
    pub fn of(job: &'a Job) -> Option<Self> {
        let spec = job.spec.as_ref()?;
        let indexed = match spec.completion_mode.as_deref() {
            None | Some("NonIndexed") => false,
            Some("Indexed") => true,
            Some(_) => return None,
        };
        Some(Self {
            spec,
            indexed,
            completions: spec.completions.map(number),
            parallelism: spec.parallelism.map_or(1, number),
            backoff_limit: spec.backoff_limit.map_or(6, number),
            backoff_limit_per_index: spec.backoff_limit_per_index.map(number),
            suspended: spec.suspend == Some(true),
            replaces_only_failed: spec.pod_replacement_policy.as_deref() == Some("Failed")
                || spec.pod_failure_policy.is_some(),
        })
    }

    /// How many indexes there are; of a Job without indexes, none.
    pub fn indexes(&self) -> usize {
        if self.indexed { self.completions.unwrap_or(0) } else { 0 }
    }
}

/// Whether another controller is to work on the Job.
pub fn is_managed_by_others(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != CONTROLLER_NAME)
}

/// A counter of the API, which is never negative.
pub fn number(count: i32) -> usize {
    usize::try_from(count).unwrap_or(0)
}
