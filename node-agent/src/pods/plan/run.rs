//! Plans how a pod comes to run and stays running: volumes, sandbox, then its containers in their order, each restarted
//! as its policy says.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Action, BackoffCause, Plan, stop::stop_container};
use crate::pods::{
    backoff::is_over,
    image::PullPolicy,
    resize::steps,
    spec,
    state::{ImageState, Instance, PodState, Sandbox, Volumes},
    status,
};

/// Plans the next steps towards all containers running that should.
pub(super) fn run(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    match &state.sandbox {
        Sandbox::Found { id, adopt_at } if is_over(*adopt_at, now) => {
            plan.actions.push(Action::AdoptSandbox { id: id.clone() });
        }
        Sandbox::Found { adopt_at, .. } => plan.wake_at(*adopt_at),
        _ => {}
    }
    let sandbox_is_lost =
        !matches!(state.sandbox, Sandbox::Making { .. } | Sandbox::Ready { .. } | Sandbox::Found { .. });
    if sandbox_is_lost && state.containers.values().any(|container| container.instance.is_live()) {
        for (name, container) in &state.containers {
            stop_container(
                name,
                container,
                spec::termination_grace(pod),
                now,
                "Pod sandbox changed, it will be killed and re-created.",
                plan,
            );
        }
        return;
    }
    let wanted = wanted(pod, state);
    if wanted.is_empty() && state.is_stopped() {
        // Every container has ended for good: the namespaces serve nothing.
        if let Sandbox::Ready { id, .. } | Sandbox::Dead { id } = &state.sandbox {
            plan.actions.push(Action::RemoveSandbox { id: Some(id.clone()) });
        }
        return;
    }
    match &state.volumes {
        Volumes::Unmounted => plan.actions.push(Action::MountVolumes),
        Volumes::Failed(retry) if is_over(retry.at, now) => plan.actions.push(Action::MountVolumes),
        Volumes::Failed(retry) => plan.wake_at(retry.at),
        Volumes::Mounting | Volumes::Mounted => {}
    }
    match &state.sandbox {
        Sandbox::Dead { id } => plan.actions.push(Action::RemoveSandbox { id: Some(id.clone()) }),
        Sandbox::Absent => plan.actions.push(Action::MakeSandbox { attempt: state.sandboxes }),
        Sandbox::Failed(retry) if is_over(retry.at, now) => {
            plan.actions.push(Action::MakeSandbox { attempt: state.sandboxes })
        }
        Sandbox::Failed(retry) => plan.wake_at(retry.at),
        Sandbox::Making { .. } | Sandbox::Ready { .. } | Sandbox::Found { .. } | Sandbox::Removing => {}
    }
    for container in spec::containers(pod) {
        let slot = state.container(&container.name);
        if let Instance::Running { hash, .. } = &slot.instance {
            let changed = !hash.is_empty() && *hash != spec::hash(container);
            let why = match &slot.health.kill {
                Some(kill) => Some((kill.message.clone(), kill.grace.unwrap_or(spec::termination_grace(pod)))),
                None if changed => {
                    let why = format!("Container {} definition changed, will be restarted", container.name);
                    Some((why, spec::termination_grace(pod)))
                }
                None => None,
            };
            if let Some((why, grace)) = why {
                stop_container(&container.name, slot, grace, now, &why, plan);
            }
        }
    }
    resize(pod, state, now, plan);
    for container in wanted {
        bring_up(state, container, now, plan);
    }
    bring_up_ephemeral(pod, state, now, plan);
}

/// Gives the running containers what the pod was allocated: those whose policy says so by a restart.
fn resize(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    let steps = steps(pod, state);
    for name in &steps.restarts {
        let Instance::Running { id, .. } = &state.container(name).instance else { continue };
        let stops = |action: &Action| matches!(action, Action::StopContainer { container, .. } if container == name);
        if plan.actions.iter().any(stops) {
            continue;
        }
        plan.actions.push(Action::StopContainer {
            container: name.clone(),
            id: id.clone(),
            grace: spec::termination_grace(pod),
            why: format!("Container {name} resize requires restart"),
            for_resize: true,
        });
    }
    if steps.updates.is_empty() {
        return;
    }
    match state.resize.may_begin_at(&steps.updates) {
        Some(at) if is_over(at, now) => plan.actions.push(Action::Resize { updates: steps.updates }),
        Some(at) => plan.wake_at(at),
        None => {}
    }
}

/// Containers that were added to the pod while it runs. Each is started once, whatever becomes of the others.
fn bring_up_ephemeral(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    for container in spec::ephemeral_containers(pod) {
        let slot = state.container(&container.name);
        if !slot.instance.is_live() && slot.last.is_none() {
            bring_up(state, &container, now, plan);
        }
    }
}

/// The containers that should run and do not, and whose turn it is.
fn wanted<'a>(pod: &'a Pod, state: &PodState) -> Vec<&'a Container> {
    let mut wanted = Vec::new();
    let sandbox = state.sandbox.id();
    if sandbox.is_none()
        && spec::restart_policy(pod) == "Never"
        && spec::containers(pod).any(|c| state.container(&c.name).last.is_some())
    {
        // A pod that never restarts does not get a second sandbox.
        return wanted;
    }
    let apps_began = sandbox.is_some()
        && spec::app_containers(pod).any(|c| {
            let slot = state.container(&c.name);
            slot.instance.sandbox() == sandbox
                || slot.last.as_ref().is_some_and(|last| Some(last.sandbox.as_str()) == sandbox)
        });
    for container in spec::init_containers(pod) {
        let slot = state.container(&container.name);
        let ended_here = slot.last.as_ref().filter(|last| Some(last.sandbox.as_str()) == sandbox);
        if spec::is_sidecar(container) {
            if !slot.instance.is_live() {
                wanted.push(container);
            }
            let is_up = slot.instance.running_since().is_some() && slot.health.is_started(container);
            if !apps_began && !is_up {
                return wanted;
            }
            continue;
        }
        if apps_began || (!slot.instance.is_live() && ended_here.is_some_and(|last| last.exit.code == 0)) {
            continue;
        }
        let failed = slot.last.as_ref().is_some_and(|last| last.exit.code != 0);
        if failed && spec::restart_policy(pod) == "Never" {
            return Vec::new();
        }
        if !slot.instance.is_live() {
            wanted.push(container);
        }
        return wanted;
    }
    for container in spec::app_containers(pod) {
        let slot = state.container(&container.name);
        let again = match &slot.last {
            None => true,
            Some(_) if slot.restarts_for_resize => true,
            Some(last) => match spec::restart_policy(pod) {
                "Never" => false,
                "OnFailure" => last.exit.code != 0,
                _ => true,
            },
        };
        if again && !slot.instance.is_live() {
            wanted.push(container);
        }
    }
    wanted
}

/// The next step towards a running container.
fn bring_up(state: &PodState, container: &Container, now: Timestamp, plan: &mut Plan) {
    let name = &container.name;
    let slot = state.container(name);
    let ready_sandbox = matches!(state.sandbox, Sandbox::Ready { .. });
    if let Instance::Created { id, .. } = &slot.instance {
        if ready_sandbox {
            plan.actions.push(Action::StartContainer { container: name.clone(), id: id.clone() });
        }
        return;
    }
    if let Some(last) = &slot.last {
        let at = slot.backoff.retry_at(last.exit.finished_at);
        if !is_over(at, now) {
            plan.back_off(name, at, BackoffCause::Restart);
            return;
        }
    }
    match &slot.image {
        ImageState::Unknown => {
            plan.actions.push(Action::GetImage { container: name.clone(), policy: PullPolicy::of(container) })
        }
        ImageState::Failed(retry) if is_over(retry.at, now) => {
            plan.actions.push(Action::GetImage { container: name.clone(), policy: PullPolicy::of(container) });
        }
        ImageState::Failed(retry) if retry.failure.reason == "ErrImagePull" => {
            // The status names the failure first, and the back-off a moment later.
            let shown_until = retry.failed_at.saturating_add(status::FAILURE_SHOWN).unwrap_or(Timestamp::MAX);
            if now < shown_until {
                plan.wake_at(shown_until);
            }
            plan.back_off(name, retry.at, BackoffCause::Pull);
        }
        ImageState::Failed(retry) => plan.wake_at(retry.at),
        ImageState::Getting => {}
        ImageState::Present(_) => {
            if let Some(retry) = slot.creation.as_ref().filter(|retry| !is_over(retry.at, now)) {
                plan.wake_at(retry.at);
                return;
            }
            let Some(sandbox) = state.sandbox.id().filter(|_| state.volumes == Volumes::Mounted) else { return };
            if ready_sandbox || (slot.last.is_none() && !spec::needs_pod_ip(container)) {
                let action = Action::CreateContainer {
                    container: name.clone(),
                    attempt: slot.attempts,
                    sandbox: sandbox.to_owned(),
                };
                plan.actions.push(action);
            }
        }
    }
}
