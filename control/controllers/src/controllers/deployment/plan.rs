//! What one pass over a Deployment does: at most one kind of step, as Kubernetes takes them.

use std::sync::Arc;

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    jiff::Timestamp,
};

use super::{
    limits::{Limits, asked, is_recreate, total},
    revision::{self, DESIRED_REPLICAS},
    rolling::{self, Resize},
    status,
};

/// The changes of one pass.
#[derive(Debug, Default)]
pub struct DeploymentPlan {
    /// The set for a template that has none.
    pub create: Option<ReplicaSet>,
    /// Sets whose size changes.
    pub resize: Vec<Resize>,
    /// Sets whose size annotations are out of date, whether or not their size changes.
    pub annotate_size: Vec<Arc<ReplicaSet>>,
    /// Annotations of the new set to write, and its minReadySeconds where it differs.
    pub refresh: Option<Refresh>,
    /// Old sets to be deleted.
    pub delete: Vec<Arc<ReplicaSet>>,
    /// Revision that the Deployment's annotation should name.
    pub revision: Option<i64>,
    /// The set with the Deployment's present template, if there is one.
    pub new: Option<Arc<ReplicaSet>>,
    /// Whether a rollout's progress is to be judged in this pass.
    pub rolling: bool,
}

/// New annotations of a set, and its `minReadySeconds` where that differs.
#[derive(Debug)]
pub struct Refresh {
    /// The set to be written.
    pub set: Arc<ReplicaSet>,
    /// All that it shall have.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// `None` where it need not change.
    pub min_ready_seconds: Option<i32>,
}

/// Decides for a Deployment and the sets it owns. `old_pods_run` is whether any pod of a set other than the given one
/// still runs; it is asked only for Recreate.
pub fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    now: Timestamp,
    old_pods_run: impl Fn(Option<&ReplicaSet>) -> bool,
) -> DeploymentPlan {
    let limits = Limits::of(deployment);
    let (new, old) = revision::split(deployment, sets);
    let mut plan = DeploymentPlan { new: new.clone(), rolling: true, ..Default::default() };
    if deployment.metadata.deletion_timestamp.is_some() {
        plan.rolling = false;
        return plan;
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    refresh_new(&mut plan, deployment, &old);
    if paused || was_scaled(limits, sets) {
        plan.rolling = false;
        let pods = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        plan.resize = rolling::scale(limits, new.as_ref(), &old, pods, !is_recreate(deployment));
        plan.annotate_size = outdated_sizes(limits, sets);
        if paused {
            plan.delete = revision::beyond_history(deployment, &old);
        }
        return plan;
    }
    if is_recreate(deployment) {
        recreate(&mut plan, deployment, limits, &old, old_pods_run);
    } else {
        roll(&mut plan, deployment, limits, &old);
    }
    if plan.resize.is_empty() && plan.create.is_none() {
        let (report, _) = status::desired(deployment, new.as_deref(), sets, &status::NewSet::Standing, false, now);
        if status::is_complete(deployment, &report) {
            plan.delete = revision::beyond_history(deployment, &old);
        }
    }
    plan
}

fn refresh_new(plan: &mut DeploymentPlan, deployment: &Deployment, old: &[Arc<ReplicaSet>]) {
    let Some(new) = &plan.new else { return };
    let revision = revision::next_revision(old).max(revision::revision_of(new));
    let annotations = revision::annotation_changes(deployment, new, revision);
    let wanted = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let standing = new.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let min_ready_seconds = (wanted != standing).then_some(wanted);
    if !annotations.is_empty() || min_ready_seconds.is_some() {
        plan.refresh = Some(Refresh { set: new.clone(), annotations, min_ready_seconds });
    }
    name_revision(plan, deployment, revision);
}

fn name_revision(plan: &mut DeploymentPlan, deployment: &Deployment, revision: i64) {
    let standing = deployment.metadata.annotations.as_ref().and_then(|a| a.get(revision::REVISION));
    plan.revision = (standing != Some(&revision.to_string())).then_some(revision);
}

fn create_new(
    plan: &mut DeploymentPlan,
    deployment: &Deployment,
    limits: Limits,
    old: &[Arc<ReplicaSet>],
    replicas: i32,
) {
    let revision = revision::next_revision(old);
    plan.create = Some(revision::new_set(deployment, limits, revision, replicas));
    name_revision(plan, deployment, revision);
}

fn roll(plan: &mut DeploymentPlan, deployment: &Deployment, limits: Limits, old: &[Arc<ReplicaSet>]) {
    match plan.new.clone() {
        Some(new) => plan.resize = rolling::roll(limits, &new, old),
        None => {
            let total = total(old, asked);
            create_new(plan, deployment, limits, old, rolling::new_size(limits, 0, total));
        }
    }
}

fn recreate(
    plan: &mut DeploymentPlan,
    deployment: &Deployment,
    limits: Limits,
    old: &[Arc<ReplicaSet>],
    old_pods_run: impl Fn(Option<&ReplicaSet>) -> bool,
) {
    plan.resize = rolling::empty(old);
    if !plan.resize.is_empty() || old_pods_run(plan.new.as_deref()) {
        return;
    }
    match plan.new.clone() {
        Some(new) if asked(&new) != limits.replicas => {
            plan.resize = vec![Resize { set: new, replicas: limits.replicas }];
        }
        Some(_) => {}
        None => create_new(plan, deployment, limits, old, limits.replicas),
    }
}

/// Whether the Deployment's size changed since its live sets were sized.
fn was_scaled(limits: Limits, sets: &[Arc<ReplicaSet>]) -> bool {
    sets.iter()
        .filter(|set| asked(set) > 0)
        .any(|set| annotation(set, DESIRED_REPLICAS).is_some_and(|n| n != limits.replicas))
}

fn outdated_sizes(limits: Limits, sets: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let outdated = |set: &&Arc<ReplicaSet>| {
        annotation(set, DESIRED_REPLICAS) != Some(limits.replicas)
            || annotation(set, revision::MAX_REPLICAS) != Some(limits.most())
    };
    sets.iter().filter(|set| asked(set) > 0).filter(outdated).cloned().collect()
}

fn annotation(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}
