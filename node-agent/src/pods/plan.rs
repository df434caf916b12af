//! What to do next for one pod: a pure function of its spec, of what is known of it and of the time.
//!
//! It is asked after every change and answers with all actions that can begin now, each of which then counts as under way, and with the time
//! at which it wants to be asked again. It performs nothing and remembers nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    image::PullPolicy,
    spec,
    state::{ContainerState, Ended, Finish, ImageState, Instance, PodState, Sandbox, Volumes},
    status,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    MountVolumes,
    MakeSandbox {
        attempt: u32,
    },
    /// Asks for the address of a sandbox that already runs.
    AdoptSandbox {
        id: String,
    },
    GetImage {
        container: String,
        policy: PullPolicy,
    },
    CreateContainer {
        container: String,
        attempt: u32,
        sandbox: String,
    },
    /// Ends with the postStart hook.
    StartContainer {
        container: String,
        id: String,
    },
    /// Begins with the preStop hook.
    StopContainer {
        container: String,
        id: String,
        grace: Duration,
        why: String,
    },
    RemoveSandbox {
        id: Option<String>,
    },
    RemoveContainers {
        ids: Vec<String>,
    },
    /// The agent itself ends the pod.
    End(Ended),
    /// Nothing runs any more: gives back what the pod has on the node, and lets the API forget it.
    Finish,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake: Option<Timestamp>,
    /// Containers that wait out a back-off, until when, and what is backed off from.
    pub backing_off: Vec<BackingOff>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingOff {
    pub container: String,
    pub until: Timestamp,
    pub from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Restart,
    Pull,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn back_off(&mut self, container: &str, until: Timestamp, from: From) {
        self.wake_at(until);
        self.backing_off.push(BackingOff { container: container.to_owned(), until, from });
    }
}

/// Grace of a pod that was removed from the API without one being left to read.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

pub fn plan(pod: &Pod, state: &PodState, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !state.garbage.is_empty() {
        plan.actions.push(Action::RemoveContainers { ids: state.garbage.clone() });
    }
    if state.gone || pod.metadata.deletion_timestamp.is_some() {
        stop(pod, state, now, stop_grace(pod), &mut plan);
        let sandbox_gone = matches!(state.sandbox, Sandbox::Absent | Sandbox::Failed(_));
        if plan.actions.is_empty()
            && all_stopped(state)
            && sandbox_gone
            && state.volumes != Volumes::Mounting
            && state.finish == Finish::NotYet
        {
            plan.actions.push(Action::Finish);
        }
        return plan;
    }
    if state.ended.is_some() || spec::phase_is_final(pod) {
        stop(pod, state, now, spec::termination_grace(pod), &mut plan);
        return plan;
    }
    if let Some(deadline) = spec::deadline(pod, state.started_at) {
        if now >= deadline {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            plan.actions.push(Action::End(Ended { reason: "DeadlineExceeded", message }));
            return plan;
        }
        plan.wake_at(deadline);
    }
    run(pod, state, now, &mut plan);
    plan
}

/// Runs what should run.
fn run(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    if let Sandbox::Found { id } = &state.sandbox {
        plan.actions.push(Action::AdoptSandbox { id: id.clone() });
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
    if wanted.is_empty() && all_stopped(state) {
        // Every container has ended for good: the namespaces serve nothing.
        if let Sandbox::Ready { id, .. } | Sandbox::Dead { id } = &state.sandbox {
            plan.actions.push(Action::RemoveSandbox { id: Some(id.clone()) });
        }
        return;
    }
    match &state.volumes {
        Volumes::Unmounted => plan.actions.push(Action::MountVolumes),
        Volumes::Failed(retry) if retry.at <= now => plan.actions.push(Action::MountVolumes),
        Volumes::Failed(retry) => plan.wake_at(retry.at),
        Volumes::Mounting | Volumes::Mounted => {}
    }
    match &state.sandbox {
        Sandbox::Dead { id } => plan.actions.push(Action::RemoveSandbox { id: Some(id.clone()) }),
        Sandbox::Absent => plan.actions.push(Action::MakeSandbox { attempt: state.sandboxes }),
        Sandbox::Failed(retry) if retry.at <= now => {
            plan.actions.push(Action::MakeSandbox { attempt: state.sandboxes })
        }
        Sandbox::Failed(retry) => plan.wake_at(retry.at),
        Sandbox::Making { .. } | Sandbox::Ready { .. } | Sandbox::Found { .. } | Sandbox::Removing => {}
    }
    for container in spec::containers(pod) {
        let slot = state.container(&container.name);
        if let Instance::Running { hash, .. } = &slot.instance {
            let changed = !hash.is_empty() && *hash != spec::hash(container);
            let why = match &slot.health.condemned {
                Some(verdict) => Some((verdict.message.clone(), verdict.grace.unwrap_or(spec::termination_grace(pod)))),
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
    for container in wanted {
        bring_up(state, container, now, plan);
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
        if at > now {
            plan.back_off(name, at, From::Restart);
            return;
        }
    }
    match &slot.image {
        ImageState::Unknown => {
            plan.actions.push(Action::GetImage { container: name.clone(), policy: PullPolicy::of(container) })
        }
        ImageState::Failed(retry) if retry.at <= now => {
            plan.actions.push(Action::GetImage { container: name.clone(), policy: PullPolicy::of(container) });
        }
        ImageState::Failed(retry) if retry.failure.reason == "ErrImagePull" => {
            // Once the failure is no more news, the status says what is waited for.
            let told = retry.failed_at.saturating_add(status::NEWS).unwrap_or(Timestamp::MAX);
            if now < told {
                plan.wake_at(told);
            }
            plan.back_off(name, retry.at, From::Pull);
        }
        ImageState::Failed(retry) => plan.wake_at(retry.at),
        ImageState::Getting => {}
        ImageState::Present(_) => {
            if let Some(retry) = slot.creation.as_ref().filter(|retry| retry.at > now) {
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

/// Stops what runs: the containers at once, sidecars after them in the reverse of their order, then the sandbox.
fn stop(pod: &Pod, state: &PodState, now: Timestamp, grace: Duration, plan: &mut Plan) {
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
        Sandbox::Ready { id, .. } | Sandbox::Found { id } | Sandbox::Dead { id } => {
            plan.actions.push(Action::RemoveSandbox { id: Some(id.clone()) });
        }
        // A failed one may have left its network behind.
        Sandbox::Failed(_) | Sandbox::Absent | Sandbox::Making { .. } | Sandbox::Removing => {}
    }
}

/// Stops a running container, or hastens its stop where the grace has become shorter.
fn stop_container(name: &str, container: &ContainerState, grace: Duration, now: Timestamp, why: &str, plan: &mut Plan) {
    let id = match &container.instance {
        Instance::Running { id, .. } => id,
        Instance::Stopping { id, kill_at, .. } => {
            let sooner =
                now.saturating_add(grace).unwrap_or(Timestamp::MAX).saturating_add(SignedDuration::from_secs(1));
            if sooner.is_ok_and(|sooner| sooner >= *kill_at) {
                return;
            }
            id
        }
        _ => return,
    };
    plan.actions.push(Action::StopContainer { container: name.to_owned(), id: id.clone(), grace, why: why.to_owned() });
}

fn all_stopped(state: &PodState) -> bool {
    !state.containers.values().any(|container| container.instance.is_live())
}

fn stop_grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds));
    seconds.map_or(DEFAULT_GRACE, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}
