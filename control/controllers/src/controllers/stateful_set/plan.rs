//! What one pass over a StatefulSet does: first the pods that it asks for, then those beyond, then one step of a
//! rollout. Pure.
//!
//! With the policy OrderedReady a pod waits until all before it are available, and a pass does the first thing that is
//! to be done. With Parallel nothing waits. Source: `updateStatefulSet` of Kubernetes' StatefulSet controller.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::{
    identity::{self, Revision},
    retention, rollout,
};
use crate::objects::pod_state::{Availability, availability, is_ready, is_terminating, phase};

/// Most pods that are created before the set is looked at again.
const AT_ONCE: usize = 500;

/// A set and what it has.
pub struct SetView<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// The revision that its pods are rolled out from.
    pub current: &'a Revision,
    /// The revision of its present template.
    pub update: &'a Revision,
    /// Its pods with an ordinal in their name.
    pub pods: BTreeMap<i32, Arc<Pod>>,
    /// Finds claims by name.
    pub claims: &'a (dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>> + Send + Sync),
    /// The moment at which pods are available or not.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub enum SetStep<'a> {
    /// Makes a pod, after those of its claims that are missing. They are named here, and made one by one when their
    /// turn comes: there may be hundreds.
    Create {
        /// The pod's ordinal.
        ordinal: i32,
        /// The revision that it runs.
        revision: &'a Revision,
        /// Names of the claims to be made before.
        claims: Vec<String>,
    },
    /// Makes claims of a pod that waits for them.
    CreateClaims {
        /// The pod's ordinal.
        ordinal: i32,
        /// Their names.
        claims: Vec<String>,
    },
    /// Nothing can be done before the claim is gone.
    AwaitDeletion {
        /// Name of the pod that needs another of that name.
        pod: String,
        /// Name of the claim.
        claim: String,
    },
    /// Gives a claim its owners.
    Own {
        /// The claim.
        claim: Arc<PersistentVolumeClaim>,
        /// All of its owners.
        owners: Vec<OwnerReference>,
        /// Whether somebody else controls it.
        conflict: bool,
    },
    /// Corrects the labels and volumes of a pod.
    Correct {
        /// The pod.
        pod: Arc<Pod>,
        /// Merge patch.
        patch: Value,
    },
    /// Deletes a pod.
    Delete(Arc<Pod>),
}

/// What one pass does.
#[derive(Debug, Default)]
pub struct SetPlan<'a> {
    /// In the order in which they are done.
    pub steps: Vec<SetStep<'a>>,
    /// How many pods of the current revision go so that others of the new one come.
    pub replaced: i32,
    /// The pod that the rest of the work waits for, and what it lacks.
    pub waits_for: Option<(String, &'static str)>,
}

/// Whether the pass goes on behind a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    On,
    Stop,
}

impl<'a> SetView<'a> {
    /// Leaves out pods without an ordinal.
    pub fn by_ordinal(pods: &[Arc<Pod>]) -> BTreeMap<i32, Arc<Pod>> {
        pods.iter().filter_map(|pod| Some((identity::ordinal(pod)?, pod.clone()))).collect()
    }

    /// Whether pods are created and deleted without waiting for each other.
    pub fn is_parallel(&self) -> bool {
        let spec = self.set.spec.as_ref();
        spec.and_then(|s| s.pod_management_policy.as_deref()) == Some("Parallel")
    }

    /// Whether, and from when, the pod is available.
    pub fn availability(&self, pod: &Pod) -> Availability {
        let seconds = self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        availability(pod, seconds, self.now)
    }

    /// Whether the pod is missing, going, or not available.
    pub fn is_unavailable(&self, pod: Option<&Arc<Pod>>) -> bool {
        pod.is_none_or(|pod| is_terminating(pod) || self.availability(pod) != Availability::Available)
    }

    /// The ordinals that the set asks for.
    pub fn wanted(&self) -> Range<i32> {
        identity::ordinals(self.set)
    }

    /// The revision that a new pod with this ordinal runs. Source: `newVersionedStatefulSetPod`.
    fn revision_for(&self, ordinal: i32) -> &'a Revision {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let is_rolling = strategy.and_then(|s| s.type_.as_deref()) == Some("RollingUpdate");
        let old = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None if is_rolling => self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
            None => 0,
        };
        if ordinal < self.wanted().start.saturating_add(old) { self.current } else { self.update }
    }
}

/// Decides for a set.
pub fn plan<'a>(view: &SetView<'a>) -> SetPlan<'a> {
    let mut plan = SetPlan::default();
    if view.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let wanted = view.wanted();
    let mut created = 0_usize;
    for ordinal in wanted.clone() {
        let pod = view.pods.get(&ordinal);
        created = created.saturating_add(usize::from(pod.is_none()));
        let progress = match pod {
            Some(pod) => plan.existing(view, ordinal, pod),
            None => plan.missing(view, ordinal),
        };
        if created >= AT_ONCE || (progress == Progress::Stop && !view.is_parallel()) {
            return plan;
        }
    }
    let beyond: Vec<&Arc<Pod>> =
        view.pods.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal)).map(|(_, pod)| pod).collect();
    for pod in &beyond {
        plan.own_claims(view, pod);
    }
    let unhealthy = first_unavailable(view);
    for pod in beyond {
        if plan.remove(view, pod, unhealthy) == Progress::Stop && !view.is_parallel() {
            return plan;
        }
    }
    rollout::step(view, &mut plan);
    plan
}

/// The ordinal of the first pod that is not available: wanted ones before others.
fn first_unavailable(view: &SetView<'_>) -> Option<i32> {
    let mut wanted = view.wanted();
    let first = wanted.find(|ordinal| view.is_unavailable(view.pods.get(ordinal)));
    let wanted = view.wanted();
    let mut others = view.pods.iter().filter(|(ordinal, _)| !wanted.contains(ordinal));
    first.or_else(|| others.find(|(_, pod)| view.is_unavailable(Some(pod))).map(|(ordinal, _)| *ordinal))
}

impl<'a> SetPlan<'a> {
    /// A wanted pod that is there.
    fn existing(&mut self, view: &SetView<'a>, ordinal: i32, pod: &Arc<Pod>) -> Progress {
        let ordered = !view.is_parallel();
        if matches!(phase(pod), "Failed" | "Succeeded") {
            // Its successor comes when it is gone.
            if !is_terminating(pod) {
                self.steps.push(SetStep::Delete(pod.clone()));
            }
            return self.stop(pod, "it has ended");
        }
        if phase(pod) == "Pending" {
            match missing_claims(view, ordinal) {
                Ok(claims) if claims.is_empty() => {}
                Ok(claims) => self.steps.push(SetStep::CreateClaims { ordinal, claims }),
                Err(step) => {
                    self.steps.push(step);
                    return self.stop(pod, "a claim of it is being deleted");
                }
            }
            self.own_claims(view, pod);
        }
        if is_terminating(pod) && ordered {
            return self.stop(pod, "it is terminating");
        }
        if !(phase(pod) == "Running" && is_ready(pod)) && ordered {
            return self.stop(pod, "it is not running and ready");
        }
        if view.availability(pod) != Availability::Available && ordered {
            return self.stop(pod, "it is not available yet");
        }
        if phase(pod) != "Pending" {
            self.own_claims(view, pod);
        }
        self.correct(view, ordinal, pod)
    }

    /// A wanted pod that is not there.
    fn missing(&mut self, view: &SetView<'a>, ordinal: i32) -> Progress {
        let name = identity::pod_name(view.set, ordinal);
        let mut found = identity::claim_names(view.set, ordinal).filter_map(|claim| (view.claims)(&claim));
        if found.any(|claim| retention::goes_with_former_pod(&claim, view.set, &name)) {
            self.waits_for.get_or_insert((name, "its claims go with its predecessor"));
            return Progress::Stop;
        }
        match missing_claims(view, ordinal) {
            Ok(claims) => self.steps.push(SetStep::Create { ordinal, revision: view.revision_for(ordinal), claims }),
            Err(step) => self.steps.push(step),
        }
        Progress::Stop
    }

    fn correct(&mut self, view: &SetView<'a>, ordinal: i32, pod: &Arc<Pod>) -> Progress {
        let mut patch =
            json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}});
        let (identity, storage) = (identity::identity_matches(pod), identity::storage_matches(view.set, pod, ordinal));
        if identity && storage {
            return Progress::On;
        }
        if !identity {
            patch["metadata"]["labels"] = json!(identity::identity(&identity::pod_name(view.set, ordinal), ordinal));
        }
        if !storage {
            match missing_claims(view, ordinal) {
                Ok(claims) if claims.is_empty() => {}
                Ok(claims) => self.steps.push(SetStep::CreateClaims { ordinal, claims }),
                Err(step) => {
                    self.steps.push(step);
                    return Progress::Stop;
                }
            }
            let own = pod.spec.as_ref().and_then(|s| s.volumes.clone());
            patch["spec"]["volumes"] = json!(identity::volumes(view.set, ordinal, own));
        }
        self.steps.push(SetStep::Correct { pod: pod.clone(), patch });
        Progress::On
    }

    fn own_claims(&mut self, view: &SetView<'a>, pod: &Arc<Pod>) {
        let Some(ordinal) = identity::ordinal(pod) else { return };
        for claim in identity::claim_names(view.set, ordinal).filter_map(|claim| (view.claims)(&claim)) {
            if let Some(owners) = retention::owners_to_write(&claim, view.set, pod) {
                let conflict = retention::has_conflict(&claim, view.set, pod);
                self.steps.push(SetStep::Own { claim, owners, conflict });
            }
        }
    }

    /// A pod beyond those that are wanted.
    fn remove(&mut self, view: &SetView<'a>, pod: &Arc<Pod>, unhealthy: Option<i32>) -> Progress {
        if is_terminating(pod) {
            return self.stop(pod, "it is terminating");
        }
        let healthy = phase(pod) == "Running" && is_ready(pod) && view.availability(pod) == Availability::Available;
        if !healthy && !view.is_parallel() && identity::ordinal(pod) != unhealthy {
            return self.stop(pod, "another is not available");
        }
        self.steps.push(SetStep::Delete(pod.clone()));
        Progress::Stop
    }

    /// The work behind `pod` waits for it.
    pub fn wait(&mut self, pod: &Pod, why: &'static str) {
        self.waits_for.get_or_insert((pod.metadata.name.clone().unwrap_or_default(), why));
    }

    fn stop(&mut self, pod: &Pod, why: &'static str) -> Progress {
        self.wait(pod, why);
        Progress::Stop
    }
}

/// The names of a pod's claims that are to be made; or the step that says why that must wait.
fn missing_claims<'a>(view: &SetView<'a>, ordinal: i32) -> Result<Vec<String>, SetStep<'a>> {
    let mut missing = Vec::new();
    for claim in identity::claim_names(view.set, ordinal) {
        match (view.claims)(&claim) {
            None => missing.push(claim),
            Some(found) if found.metadata.deletion_timestamp.is_some() => {
                return Err(SetStep::AwaitDeletion { pod: identity::pod_name(view.set, ordinal), claim });
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests;
