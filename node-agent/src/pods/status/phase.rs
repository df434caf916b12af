//! The phase of a pod, by the kubelet's rules.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use crate::pods::{
    spec,
    state::{Instance, PodState},
};

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    /// The pod has ended for good.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The phase that follows from the containers.
pub(super) fn phase(pod: &Pod, state: &PodState) -> Phase {
    let stopped = state.containers.values().all(|container| !container.instance.is_live());
    let current = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    match current {
        Some("Succeeded") => return Phase::Succeeded,
        Some("Failed") => return Phase::Failed,
        _ => {}
    }
    let ending = pod.metadata.deletion_timestamp.is_some() || state.ended.is_some();
    if ending && stopped {
        let failed = |name: &str| state.container(name).last.as_ref().is_none_or(|last| last.exit.code != 0);
        let any_failed = spec::app_containers(pod).any(|container| failed(&container.name));
        return if any_failed || state.ended.is_some() { Phase::Failed } else { Phase::Succeeded };
    }
    let never = spec::restart_policy(pod) == "Never";
    for container in spec::init_containers(pod).filter(|container| !spec::is_sidecar(container)) {
        let slot = state.container(&container.name);
        match &slot.last {
            Some(last) if last.exit.code != 0 && never && !slot.instance.is_live() => return Phase::Failed,
            Some(last) if last.exit.code == 0 => {}
            _ if began(pod, state) => {}
            _ => return Phase::Pending,
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in spec::app_containers(pod) {
        let slot = state.container(&container.name);
        match (&slot.instance, &slot.last) {
            (Instance::Running { .. } | Instance::Stopping { .. }, _) => running += 1,
            (_, Some(_)) if slot.restarts_for_resize => running += 1,
            (_, Some(last)) => {
                stopped += 1;
                succeeded += usize::from(last.exit.code == 0);
            }
            (_, None) => waiting += 1,
        }
    }
    if waiting > 0 {
        return if running + stopped > 0 { Phase::Running } else { Phase::Pending };
    }
    match spec::restart_policy(pod) {
        _ if running > 0 => Phase::Running,
        "Always" => Phase::Running,
        _ if stopped == succeeded => Phase::Succeeded,
        "Never" => Phase::Failed,
        _ => Phase::Running,
    }
}

/// An app container has run: whatever became of the records of init containers, they are past.
fn began(pod: &Pod, state: &PodState) -> bool {
    spec::app_containers(pod).any(|container| {
        let slot = state.container(&container.name);
        slot.instance.running_since().is_some() || slot.last.is_some()
    })
}
