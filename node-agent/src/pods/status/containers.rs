//! Statuses of containers: state, last state, readiness, restarts.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{ReportingNode, resize};
use crate::pods::{
    backoff::Backoff,
    spec,
    state::{self, EndedInstance, ImageState, Instance, PodState},
};

/// Which list of the spec a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerKind {
    /// Runs before the others, or beside them.
    Init,
    /// The pod's purpose.
    App,
    /// Was added to the running pod.
    Ephemeral,
}

/// Statuses of all containers in one list of the spec; `None` for a list that is empty, unless every pod has it.
pub(super) fn statuses(
    pod: &Pod,
    state: &PodState,
    kind: ContainerKind,
    node: ReportingNode<'_>,
    now: Timestamp,
) -> Option<Vec<ContainerStatus>> {
    let of = |container: &Container| status(pod, state, container, kind, node, now);
    let statuses: Vec<_> = match kind {
        ContainerKind::Init => spec::init_containers(pod).map(of).collect(),
        ContainerKind::App => return Some(spec::app_containers(pod).map(of).collect()),
        ContainerKind::Ephemeral => spec::ephemeral_containers(pod).map(|container| of(&container)).collect(),
    };
    (!statuses.is_empty()).then_some(statuses)
}

fn status(
    pod: &Pod,
    state: &PodState,
    container: &Container,
    kind: ContainerKind,
    node: ReportingNode<'_>,
    now: Timestamp,
) -> ContainerStatus {
    let slot = state.container(&container.name);
    let running = slot.instance.running_since();
    let terminated =
        |ended: &EndedInstance| ContainerState { terminated: Some(terminated(ended, node)), ..Default::default() };
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..Default::default()
    };
    let trouble = waiting_cause(pod, container, slot, now);
    let restarts = restarts_after_end(pod, state, container, kind);
    let mut last_state = None;
    let current = match (running, &slot.last, trouble) {
        (Some(since), last, _) => {
            last_state = last.as_ref().map(terminated);
            ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(since)) }),
                ..Default::default()
            }
        }
        (None, Some(last), Some((reason, message))) if restarts => {
            last_state = Some(terminated(last));
            waiting(reason, Some(message))
        }
        (None, Some(last), _) => {
            last_state = slot.previous.as_ref().map(terminated);
            terminated(last)
        }
        (None, None, Some((reason, message))) => waiting(reason, Some(message)),
        // Of init containers as well. Source: `convertToAPIContainerStatuses` of the kubelet.
        (None, None, None) if spec::init_containers(pod).next().is_some() => waiting("PodInitializing", None),
        (None, None, None) => waiting("ContainerCreating", None),
    };
    let started = running.is_some() && slot.health.is_started(container);
    let ready = match kind {
        ContainerKind::Init if !spec::is_sidecar(container) => {
            running.is_none() && slot.last.as_ref().is_some_and(|last| last.exit.code == 0)
        }
        ContainerKind::Init | ContainerKind::App => running.is_some() && slot.health.is_ready(container),
        // Nothing waits for it. Source: the kubelet's `prober.UpdatePodStatus`, which leaves it out.
        ContainerKind::Ephemeral => false,
    };
    let id = match (running, &slot.last) {
        (Some(_), _) => slot.instance.id(),
        (None, last) => last.as_ref().map(|last| last.id.as_str()),
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: id.and(slot.image_id.clone()).unwrap_or_default(),
        container_id: id.map(|id| format!("{}://{id}", node.scheme)),
        ready,
        started: (kind != ContainerKind::Ephemeral).then_some(started),
        restart_count: i32::try_from(slot.restarts()).unwrap_or(i32::MAX),
        state: Some(current),
        last_state,
        allocated_resources: id.and_then(|_| resize::allocated(container)),
        resources: id.map(|_| resize::resources(container, slot)),
        ..Default::default()
    }
}

/// How long the status names a failed pull before it names the back-off.
pub const FAILURE_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// Why a container that should run does not (`state.waiting.reason`), such as a failed pull or back-off.
fn waiting_cause(
    pod: &Pod,
    container: &Container,
    slot: &state::ContainerState,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    if let ImageState::Failed(retry) = &slot.image {
        let failure = &retry.failure;
        let is_shown = now.duration_since(retry.failed_at) < FAILURE_SHOWN;
        if failure.reason == "ErrImagePull" && !is_shown && now < retry.at {
            let image = container.image.as_deref().unwrap_or_default();
            return Some((
                "ImagePullBackOff",
                format!("Back-off pulling image {image:?}: ErrImagePull: {}", failure.message),
            ));
        }
        return Some((failure.reason, failure.message.clone()));
    }
    if let Some(retry) = &slot.creation {
        return Some((retry.failure.reason, retry.failure.message.clone()));
    }
    let last = slot.last.as_ref()?;
    if slot.instance != Instance::None || slot.backoff.retry_at(last.exit.finished_at) <= now {
        return None;
    }
    let delay = slot.backoff.delay(last.exit.finished_at).min(Backoff::LIMIT);
    let delay = match (delay.as_mins(), delay.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    };
    let pod = spec::pod_ref(pod);
    Some(("CrashLoopBackOff", format!("back-off {delay} restarting failed container={} pod={pod}", container.name)))
}

/// Whether a container that ended is to run again.
fn restarts_after_end(pod: &Pod, state: &PodState, container: &Container, kind: ContainerKind) -> bool {
    if kind == ContainerKind::Ephemeral || state.ended.is_some() || pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let slot = state.container(&container.name);
    let code = slot.last.as_ref().map(|last| last.exit.code);
    if slot.restarts_for_resize || (kind == ContainerKind::Init && spec::is_sidecar(container)) {
        return true;
    }
    match spec::restart_policy(pod) {
        "Never" => false,
        "Always" if kind == ContainerKind::App => true,
        _ => code != Some(0),
    }
}

fn terminated(ended: &EndedInstance, node: ReportingNode<'_>) -> ContainerStateTerminated {
    let exit = &ended.exit;
    let reason = match exit.code {
        _ if exit.oom_killed => "OOMKilled",
        _ if !exit.error.is_empty() && exit.started_at.is_none() => "ContainerCannotRun",
        0 => "Completed",
        _ => "Error",
    };
    let message = ended.message.clone().or_else(|| (!exit.error.is_empty()).then(|| exit.error.clone()));
    ContainerStateTerminated {
        container_id: Some(format!("{}://{}", node.scheme, ended.id)),
        exit_code: exit.code,
        reason: Some(reason.to_owned()),
        message,
        started_at: exit.started_at.map(Time),
        finished_at: Some(Time(exit.finished_at)),
        signal: None,
    }
}
