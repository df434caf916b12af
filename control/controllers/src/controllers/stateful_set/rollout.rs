//! One step of a StatefulSet's rollout: which pod of an old revision is deleted next, so that its successor runs
//! the new one. Pure.

use k8s_openapi::{api::apps::v1::RollingUpdateStatefulSetStrategy, apimachinery::pkg::util::intstr::IntOrString};

use super::{
    identity::{self, revision_of},
    plan::{SetPlan, SetStep, SetView},
};
use crate::objects::{
    int_or_percent::{Rounding, resolve},
    pod_state::is_terminating,
};

/// Adds the step to `plan`, once all wanted pods are there and no others are.
pub fn step(view: &SetView<'_>, plan: &mut SetPlan<'_>) {
    let strategy = view.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    match rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
        None => one_by_one(view, rolling, plan),
        Some(most) => several(view, rolling, most, plan),
    }
}

/// Ordinals below the partition stay as they are.
fn updated(view: &SetView<'_>, rolling: Option<&RollingUpdateStatefulSetStrategy>) -> std::ops::Range<i32> {
    let wanted = view.wanted();
    let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0).max(0);
    wanted.start.saturating_add(partition)..wanted.end
}

/// From the last to the first; each waits until those behind it are available.
fn one_by_one(view: &SetView<'_>, rolling: Option<&RollingUpdateStatefulSetStrategy>, plan: &mut SetPlan<'_>) {
    for ordinal in updated(view, rolling).rev() {
        let Some(pod) = view.pods.get(&ordinal) else { return };
        if revision_of(pod) != view.update.name && !is_terminating(pod) {
            plan.steps.push(SetStep::Delete(pod.clone()));
            plan.replaced = plan.replaced.saturating_add(1);
            return;
        }
        if view.is_unavailable(Some(pod)) {
            plan.wait(pod, "it is not available yet");
            return;
        }
    }
}

/// As many at a time as may be unavailable: for objects with `maxUnavailable`, which the API of Kubernetes 1.35 drops
/// unless the feature MaxUnavailableStatefulSet is on. Source: KEP-961.
fn several(
    view: &SetView<'_>,
    rolling: Option<&RollingUpdateStatefulSetStrategy>,
    most: &IntOrString,
    plan: &mut SetPlan<'_>,
) {
    let most = resolve(most, identity::replicas(view.set), Rounding::Down).max(1);
    let unavailable = view.wanted().filter(|ordinal| view.is_unavailable(view.pods.get(ordinal))).count();
    let free = usize::try_from(most).unwrap_or(0).saturating_sub(unavailable);
    let old = updated(view, rolling).rev().filter_map(|ordinal| view.pods.get(&ordinal));
    let old = old.filter(|pod| revision_of(pod) != view.update.name && !is_terminating(pod));
    for pod in old.take(free) {
        plan.steps.push(SetStep::Delete(pod.clone()));
        plan.replaced = plan.replaced.saturating_add(1);
    }
}
