//! How the state of a pod changes: by [`PodState::begin`] as an action starts, and by [`PodState::apply`] as its
//! outcome arrives. Pure.
//!
//! Only the worker calls them. It decides nothing about what to do next: that is `plan`'s.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    deadline::timestamp_after,
    outcome::{Failure, Outcome},
    plan::Action,
    probe::{CheckError, ContainerHealth, ProbeKill},
    resize::Amounts,
    spec,
    state::{
        ContainerState, Ended, EndedInstance, Finish, ImageState, Instance, PodState, Retry, Sandbox, Termination,
        Volumes,
    },
};
use crate::runtime::{Container, Exit, Role, State};

impl PodState {
    /// Notes when the pod's end began, and where its grace period was made shorter since.
    pub fn note_termination(&mut self, pod: &Pod, now: Timestamp) {
        let grace = if self.gone || pod.metadata.deletion_timestamp.is_some() {
            spec::deletion_grace(pod)
        } else if self.ended.is_some() || spec::phase_is_final(pod) {
            spec::termination_grace(pod)
        } else {
            return;
        };
        let deadline = timestamp_after(now, grace);
        match &mut self.termination {
            None => self.termination = Some(Termination { grace, deadline }),
            Some(known) if grace < known.grace => {
                *known = Termination { grace, deadline: known.deadline.min(deadline) };
            }
            Some(_) => {}
        }
    }

    /// The node ends the pod: what runs is killed a moment later, whatever grace period it has.
    pub fn evict(&mut self, ended: Ended, now: Timestamp) {
        /// As the kubelet's `immediateEvictionGracePeriodSeconds`.
        const GRACE: Duration = Duration::from_secs(1);
        self.termination = Some(Termination { grace: GRACE, deadline: timestamp_after(now, GRACE) });
        self.ended = Some(ended);
    }

    /// Notes that `action` is under way, so that it is not planned again.
    pub fn begin(&mut self, pod: &Pod, action: &Action, now: Timestamp) {
        match action {
            Action::MountVolumes => self.volumes = Volumes::Mounting,
            Action::MakeSandbox { .. } => {
                self.sandbox = Sandbox::Making { id: None };
                self.sandboxes = self.sandboxes.saturating_add(1);
            }
            Action::AdoptSandbox { id } => self.sandbox = Sandbox::Making { id: Some(id.clone()) },
            Action::GetImage { container, .. } => self.container_mut(container).image = ImageState::Getting,
            Action::CreateContainer { container, .. } => {
                let state = self.container_mut(container);
                if let Some(last) = &state.last {
                    state.backoff.advance(last.exit.finished_at, now);
                }
                state.instance = Instance::Creating;
                let spec = spec::container(pod, container);
                state.actuated = spec.map(|container| Amounts::of(container.resources.as_ref()));
            }
            Action::StartContainer { container, id, .. } => {
                let state = self.container_mut(container);
                if let Instance::Created { sandbox, .. } = &state.instance {
                    state.instance = Instance::Starting { id: id.clone(), sandbox: sandbox.clone() };
                }
            }
            Action::StopContainer { container, grace, for_resize, .. } => {
                let state = self.container_mut(container);
                state.restarts_for_resize = *for_resize;
                if let Instance::Running { id, sandbox, started_at, .. }
                | Instance::PostStart { id, sandbox, started_at, .. }
                | Instance::Stopping { id, sandbox, started_at, .. } = &state.instance
                {
                    let kill_at = timestamp_after(now, *grace);
                    state.instance = Instance::Stopping {
                        id: id.clone(),
                        sandbox: sandbox.clone(),
                        started_at: *started_at,
                        kill_at,
                    };
                }
            }
            Action::Resize { updates } => self.resize.begin(updates),
            Action::RemoveSandbox { .. } => self.sandbox = Sandbox::Removing,
            Action::RemoveContainers { ids } => self.garbage.retain(|id| !ids.contains(id)),
            Action::End(ended) => self.ended = Some(ended.clone()),
            Action::Finish => self.finish = Finish::UnderWay,
        }
    }

    /// Records the outcome of an action, or an observation of the runtime.
    pub fn apply(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::VolumesMounted(Ok(())) => self.volumes = Volumes::Mounted,
            Outcome::VolumesMounted(Err(failure)) => self.volumes = Volumes::Failed(steady(failure, now)),
            Outcome::SandboxCreated { id: created } => {
                if let Sandbox::Making { id } = &mut self.sandbox {
                    *id = Some(created);
                }
            }
            Outcome::SandboxMade { id, result: Ok(ip) } => {
                self.failed_adoptions = (0, String::new());
                self.sandbox = Sandbox::Ready { id, ip };
            }
            Outcome::SandboxNotAdopted { id, error } => {
                if matches!(self.sandbox, Sandbox::Making { .. }) && self.sandbox.id() == Some(&id) {
                    let failures = self.failed_adoptions.0.saturating_add(1);
                    self.failed_adoptions = (failures, error);
                    let wait = adoption_wait(failures);
                    self.sandbox = Sandbox::Found { id, adopt_at: timestamp_after(now, wait) };
                }
            }
            Outcome::SandboxMade { result: Err(failure), .. } => {
                self.discard_created();
                self.sandbox = Sandbox::Failed(steady(failure, now));
            }
            Outcome::SandboxRemoved => self.sandbox = Sandbox::Absent,
            Outcome::ImageGot { container, result } => {
                let state = self.container_mut(&container);
                state.image = match result {
                    Ok(image) => {
                        state.image_id = Some(image.id.clone());
                        ImageState::Present(image)
                    }
                    Err(failure) => {
                        state.image_backoff.advance(now, now);
                        ImageState::Failed(Retry { failure, failed_at: now, at: state.image_backoff.retry_at(now) })
                    }
                };
            }
            Outcome::ContainerCreated { container, sandbox, result: Ok(id) } => {
                if self.sandbox.id() != Some(&sandbox) {
                    self.garbage.push(id);
                    self.container_mut(&container).instance = Instance::None;
                    return;
                }
                let state = self.container_mut(&container);
                state.creation = None;
                state.attempts = state.attempts.saturating_add(1);
                state.instance = Instance::Created { id, sandbox };
            }
            Outcome::ContainerCreated { container, result: Err(failure), .. } => {
                let state = self.container_mut(&container);
                state.instance = Instance::None;
                state.creation = Some(steady(failure, now));
                // The image may be what is missing.
                if !matches!(state.image, ImageState::Failed(_)) {
                    state.image = ImageState::Unknown;
                }
            }
            Outcome::StartFailed { container, id, failure } => {
                let state = self.container_mut(&container);
                // It may have been seen to end already.
                if state.instance.id() == Some(&id) {
                    state.instance = Instance::None;
                    state.creation = Some(steady(failure, now));
                    self.garbage.push(id);
                }
            }
            Outcome::StopFailed { container, id: stopped } => {
                let state = self.container_mut(&container);
                if let Instance::Stopping { id, sandbox, started_at, .. } = &state.instance
                    && *id == stopped
                {
                    let (id, sandbox, started_at) = (id.clone(), sandbox.clone(), *started_at);
                    state.instance = Instance::Running { id, sandbox, hash: String::new(), started_at };
                }
            }
            Outcome::Started { id, container, message, has_hook } => {
                self.started(&id, container, message, has_hook, now)
            }
            Outcome::PostStartEnded { id, result } => self.post_start_ended(&id, result),
            Outcome::Observed { id, container, message } => self.observe(&id, container, message, now),
            Outcome::ContainerResized { id, amounts } => {
                let resized = self.containers.values_mut().find(|container| container.instance.id() == Some(&id));
                if let Some(container) = resized {
                    container.actuated = Some(amounts);
                }
            }
            Outcome::ResizeEnded { result } => self.resize.end(result.err().map(|failure| steady(failure, now))),
            Outcome::Finished => self.finish = Finish::Done,
        }
    }

    /// Takes in how a container is after its start.
    fn started(&mut self, id: &str, seen: Option<Container>, message: Option<String>, has_hook: bool, now: Timestamp) {
        let Some(name) = self.owner_of(id).map(str::to_owned) else { return };
        let slot = self.container_mut(&name);
        let (Instance::Starting { sandbox, .. }, Some(State::Running { started_at, .. })) =
            (&slot.instance, seen.as_ref().map(|container| &container.state))
        else {
            self.observe(id, seen, message, now);
            return;
        };
        let (id, sandbox, started_at) = (id.to_owned(), sandbox.clone(), *started_at);
        let hash = seen.as_ref().map(hash).unwrap_or_default();
        slot.health = ContainerHealth::default();
        slot.restarts_for_resize = false;
        slot.instance = if has_hook {
            Instance::PostStart { id, sandbox, hash, started_at }
        } else {
            Instance::Running { id, sandbox, hash, started_at }
        };
    }

    /// The hook of a container that still runs has ended; its failure is the container's end.
    fn post_start_ended(&mut self, id: &str, result: Result<(), CheckError>) {
        let Some(name) = self.owner_of(id).map(str::to_owned) else { return };
        let slot = self.container_mut(&name);
        let Instance::PostStart { id, sandbox, hash, started_at } = &slot.instance else { return };
        let (id, sandbox, hash, started_at) = (id.clone(), sandbox.clone(), hash.clone(), *started_at);
        slot.instance = Instance::Running { id, sandbox, hash, started_at };
        if result.is_err() {
            slot.health.kill = Some(ProbeKill { message: "FailedPostStartHook".to_owned(), grace: None });
        }
    }

    /// Takes in the runtime's view of container or sandbox `id`; `None` where it has none. A running container changes
    /// nothing here: only the outcome of its start makes it count as started.
    fn observe(&mut self, id: &str, seen: Option<Container>, message: Option<String>, now: Timestamp) {
        let running = matches!(seen.as_ref().map(|container| &container.state), Some(State::Running { .. }));
        if self.sandbox.id() == Some(id) {
            if matches!(self.sandbox, Sandbox::Ready { .. }) && !running {
                self.sandbox = Sandbox::Dead { id: id.to_owned() };
                self.discard_created();
            }
            return;
        }
        let Some(name) = self.owner_of(id).map(str::to_owned) else { return };
        let slot = self.container_mut(&name);
        let sandbox = slot.instance.sandbox().unwrap_or_default().to_owned();
        let attempt = slot.attempts.saturating_sub(1);
        let image_id = seen.as_ref().map(|container| container.image_id.clone()).unwrap_or_default();
        let exit = match seen.map(|container| container.state) {
            // Created: its start is still under way.
            Some(State::Running { .. } | State::Created) => return,
            Some(State::Exited(exit)) => exit,
            None => Exit {
                code: 137,
                started_at: slot.instance.running_since(),
                finished_at: now,
                oom_killed: false,
                error: "The container could not be located when it was looked for".to_owned(),
            },
        };
        slot.instance = Instance::None;
        let garbage = slot.end(EndedInstance { id: id.to_owned(), sandbox, attempt, image_id, exit, message });
        self.garbage.extend(garbage);
    }

    /// What was created, but not started, for a sandbox that is lost.
    fn discard_created(&mut self) {
        for container in self.containers.values_mut() {
            if let Instance::Created { id, .. } = &container.instance {
                self.garbage.push(id.clone());
                container.instance = Instance::None;
                container.attempts = container.attempts.saturating_sub(1);
            }
        }
    }
}

impl ContainerState {
    /// Takes in an end; returns the id of the one that is now too old to keep (two are kept, for `logs --previous`).
    pub(super) fn end(&mut self, ended: EndedInstance) -> Option<String> {
        let older = self.previous.take().map(|ended| ended.id);
        self.previous = self.last.replace(ended);
        // The pull policy has its say at each restart.
        self.image = ImageState::Unknown;
        self.health = ContainerHealth::default();
        older
    }
}

fn hash(container: &Container) -> String {
    match &container.owner.role {
        Role::Container { hash, .. } => hash.clone(),
        Role::Sandbox => String::new(),
    }
}

/// The wait after `failures` adoptions that failed, one after the other: a second, doubled up to half a minute.
fn adoption_wait(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(5);
    Duration::from_secs(1 << doublings).min(Duration::from_secs(30))
}

fn steady(failure: Failure, now: Timestamp) -> Retry {
    Retry { failure, failed_at: now, at: timestamp_after(now, STEADY_RETRY) }
}

/// Waits that do not grow: for what another party must bring (a ConfigMap, a mount), as often as the kubelet looks.
const STEADY_RETRY: Duration = Duration::from_secs(10);
