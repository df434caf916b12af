//! Conditions of a pod: computes those that a kubelet owns, and carries the others over.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Phase, resize};
use crate::pods::{
    spec,
    state::{PodState, Sandbox},
};

struct Verdict {
    kind: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

const OWNED: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    resize::PENDING,
    resize::IN_PROGRESS,
];

/// All conditions of a pod: those of the kubelet, and those that others wrote.
pub(super) fn conditions(pod: &Pod, state: &PodState, phase: Phase, now: Timestamp) -> Vec<PodCondition> {
    let current = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let containers_ready = containers_ready(pod, state, phase);
    let mut conditions: Vec<_> = [
        simple("PodReadyToStartContainers", has_sandbox(state)),
        initialized(pod, state, phase),
        ready(pod, &containers_ready, current),
        containers_ready,
        simple("PodScheduled", true),
    ]
    .into_iter()
    .map(|verdict| PodCondition { observed_generation: pod.metadata.generation, ..condition(verdict, current, now) })
    .collect();
    if !phase.is_final() {
        conditions.extend(resize::conditions(pod, state, current, now));
    }
    conditions.extend(current.iter().filter(|condition| !OWNED.contains(&condition.type_.as_str())).cloned());
    conditions
}

/// A sandbox that an earlier agent left is as good as before, though its address is still being asked for.
fn has_sandbox(state: &PodState) -> bool {
    match state.sandbox {
        Sandbox::Ready { .. } | Sandbox::Found { .. } => true,
        Sandbox::Making { .. } => {
            state.containers.values().any(|container| container.instance.running_since().is_some())
        }
        _ => false,
    }
}

fn simple(kind: &'static str, status: bool) -> Verdict {
    Verdict { kind, status, reason: None, message: None }
}

fn initialized(pod: &Pod, state: &PodState, phase: Phase) -> Verdict {
    let began = spec::app_containers(pod).any(|container| {
        let slot = state.container(&container.name);
        slot.instance.running_since().is_some() || slot.last.is_some()
    });
    let incomplete: Vec<_> = spec::init_containers(pod)
        .filter(|container| {
            let slot = state.container(&container.name);
            if spec::is_sidecar(container) {
                !(slot.instance.running_since().is_some() && slot.health.is_started(container))
            } else {
                slot.instance.is_live() || slot.last.as_ref().is_none_or(|last| last.exit.code != 0)
            }
        })
        .collect();
    if began || incomplete.is_empty() {
        let reason = (phase == Phase::Succeeded).then_some("PodCompleted");
        return Verdict { kind: "Initialized", status: true, reason, message: None };
    }
    let message = Some(format!("containers with incomplete status: {}", names(&incomplete)));
    Verdict { kind: "Initialized", status: false, reason: Some("ContainersNotInitialized"), message }
}

fn containers_ready(pod: &Pod, state: &PodState, phase: Phase) -> Verdict {
    let kind = "ContainersReady";
    if phase.is_final() {
        let reason = if phase == Phase::Succeeded { "PodCompleted" } else { "PodFailed" };
        return Verdict { kind, status: false, reason: Some(reason), message: None };
    }
    let sidecars = spec::init_containers(pod).filter(|container| spec::is_sidecar(container));
    let unready: Vec<_> = sidecars
        .chain(spec::app_containers(pod))
        .filter(|container| {
            let slot = state.container(&container.name);
            !(slot.instance.running_since().is_some() && slot.health.is_ready(container))
        })
        .collect();
    if unready.is_empty() {
        return simple(kind, true);
    }
    let message = Some(format!("containers with unready status: {}", names(&unready)));
    Verdict { kind, status: false, reason: Some("ContainersNotReady"), message }
}

/// Ready: the containers are, and so is what the readiness gates name.
fn ready(pod: &Pod, containers_ready: &Verdict, current: &[PodCondition]) -> Verdict {
    let kind = "Ready";
    if !containers_ready.status {
        return Verdict {
            kind,
            status: false,
            reason: containers_ready.reason,
            message: containers_ready.message.clone(),
        };
    }
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    for gate in gates {
        let met = current.iter().any(|condition| condition.type_ == gate.condition_type && condition.status == "True");
        if !met {
            let message = Some(format!("the status of pod readiness gate {:?} is not \"True\"", gate.condition_type));
            return Verdict { kind, status: false, reason: Some("ReadinessGatesNotReady"), message };
        }
    }
    simple(kind, true)
}

fn condition(verdict: Verdict, current: &[PodCondition], now: Timestamp) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let before = current.iter().find(|condition| condition.type_ == verdict.kind);
    let since = before.filter(|before| before.status == status).and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: verdict.kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: Some(since.unwrap_or(Time(now))),
        last_probe_time: None,
        observed_generation: None,
    }
}

fn names(containers: &[&Container]) -> String {
    format!("[{}]", containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(" "))
}
