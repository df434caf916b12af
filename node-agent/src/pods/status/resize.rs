//! What a status tells of resizes: the two conditions, and the resources of each container. Source: `status_manager`
//! and `convertContainerStatusResources` of the kubelet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodCondition, ResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

use crate::pods::{
    resize,
    state::{ContainerState, PodState},
};

/// Types of the conditions that are there while a resize waits, or is under way.
pub(super) const PENDING: &str = "PodResizePending";
pub(super) const IN_PROGRESS: &str = "PodResizeInProgress";

/// The conditions of a pod that is being resized; none otherwise.
pub(super) fn conditions(pod: &Pod, state: &PodState, current: &[PodCondition], now: Timestamp) -> Vec<PodCondition> {
    let condition = |kind: &str, reason: Option<&str>, message: Option<&str>, generation: Option<i64>| {
        let before = current.iter().find(|before| before.type_ == kind && before.reason.as_deref() == reason);
        PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            message: message.map(str::to_owned),
            last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
            last_probe_time: None,
            observed_generation: generation,
        }
    };
    let pending = state.resize.pending.as_ref();
    let pending = pending.map(|p| condition(PENDING, Some(p.reason), Some(&p.message), p.generation));
    let in_progress = resize::in_progress(pod, state).then(|| {
        let error = state.resize.error();
        let generation = state.resize.generation.or(pod.metadata.generation);
        condition(IN_PROGRESS, error.map(|_| "Error"), error, generation)
    });
    pending.into_iter().chain(in_progress).collect()
}

/// What a container was allocated, by name of the resource.
pub(super) fn allocated(container: &Container) -> Option<BTreeMap<String, Quantity>> {
    container.resources.as_ref().and_then(|resources| resources.requests.clone())
}

/// What a container has: while it runs, what it was created or updated with.
pub(super) fn resources(container: &Container, slot: &ContainerState) -> ResourceRequirements {
    let allocated = container.resources.clone().unwrap_or_default();
    match slot.actuated.filter(|_| slot.instance.running_since().is_some()) {
        Some(actuated) => actuated.shown_in(&allocated),
        None => allocated,
    }
}
