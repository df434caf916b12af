//! Plans how a pod ends: its containers at once, sidecars after them one by one, the sandbox last; all within one grace
//! period.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Action, Plan};
use crate::pods::{
    deadline::timestamp_after,
    spec,
    state::{ContainerState, Instance, PodState, Sandbox},
};

/// Plans the next steps of the pod's end. Sidecars stop in the reverse of their order, once the app containers have.
pub(super) fn stop(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    let grace = grace_left(pod, state, now);
    let why = |name: &str| format!("Stopping container {name}");
    let is_sidecar = |name: &String| spec::init_containers(pod).any(|c| c.name == *name && spec::is_sidecar(c));
    let mut main_is_live = false;
    for (name, container) in state.containers.iter().filter(|(name, _)| !is_sidecar(name)) {
        main_is_live |= container.instance.is_live();
        stop_container(name, container, grace, now, &why(name), plan);
    }
    if main_is_live {
        return;
    }
    let sidecars: Vec<_> = spec::init_containers(pod).filter(|c| spec::is_sidecar(c)).collect();
    for sidecar in sidecars.into_iter().rev() {
        let container = state.container(&sidecar.name);
        if container.instance.is_live() {
            stop_container(&sidecar.name, container, grace, now, &why(&sidecar.name), plan);
            return;
        }
    }
    match &state.sandbox {
        Sandbox::Ready { id, .. } | Sandbox::Found { id, .. } | Sandbox::Dead { id } => {
            plan.actions.push(Action::RemoveSandbox { id: Some(id.clone()) });
        }
        // What a failed one left is removed as it fails.
        Sandbox::Failed(_) | Sandbox::Absent | Sandbox::Making { .. } | Sandbox::Removing => {}
    }
}

/// What is left of the pod's grace period, but never less than the least; zero where none is given.
fn grace_left(pod: &Pod, state: &PodState, now: Timestamp) -> Duration {
    match &state.termination {
        None => spec::termination_grace(pod),
        Some(termination) if termination.grace.is_zero() => Duration::ZERO,
        Some(termination) => {
            let left = Duration::try_from(termination.deadline.duration_since(now)).unwrap_or_default();
            // Never more than the whole, as it would be where the clock was set back.
            left.min(termination.grace).max(spec::LEAST_GRACE.min(termination.grace))
        }
    }
}

/// Stops a running container, or hastens its stop where the grace has become shorter.
pub(super) fn stop_container(
    name: &str,
    container: &ContainerState,
    grace: Duration,
    now: Timestamp,
    why: &str,
    plan: &mut Plan,
) {
    let id = match &container.instance {
        Instance::Running { id, .. } | Instance::PostStart { id, .. } => id,
        Instance::Stopping { id, kill_at, .. } => {
            let slack = Duration::from_secs(1);
            if timestamp_after(now, grace.saturating_add(slack)) >= *kill_at {
                return;
            }
            id
        }
        _ => return,
    };
    plan.actions.push(Action::StopContainer {
        container: name.to_owned(),
        id: id.clone(),
        grace,
        why: why.to_owned(),
        for_resize: false,
    });
}
