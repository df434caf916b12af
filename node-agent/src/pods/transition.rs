//! How the state of a pod changes: by [`PodState::begin`] as an action starts, and by [`PodState::apply`] as its outcome arrives. Pure.
//!
//! Only the worker calls them. It decides nothing about what to do next: that is `plan`'s.

use jiff::{SignedDuration, Timestamp};

use super::{
    outcome::{Failure, Outcome},
    plan::Action,
    probe::Health,
    state::{ContainerState, EndedInstance, Finish, ImageState, Instance, PodState, Retry, Sandbox, Volumes},
};
use crate::runtime::{Container, Exit, Role, State};

impl PodState {
    /// Notes that `action` is under way, so that it is not planned again.
    pub fn begin(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::MountVolumes => self.volumes = Volumes::Mounting,
            Action::MakeSandbox { .. } => {
                self.sandbox = Sandbox::Making { id: None };
                self.sandboxes += 1;
            }
            Action::AdoptSandbox { id } => self.sandbox = Sandbox::Making { id: Some(id.clone()) },
            Action::GetImage { container, .. } => self.container_mut(container).image = ImageState::Getting,
            Action::CreateContainer { container, .. } => {
                let state = self.container_mut(container);
                if let Some(last) = &state.last {
                    state.backoff.advance(last.exit.finished_at, now);
                }
                state.instance = Instance::Creating;
            }
            Action::StartContainer { container, id, .. } => {
                let state = self.container_mut(container);
                if let Instance::Created { sandbox, .. } = &state.instance {
                    state.instance = Instance::Starting { id: id.clone(), sandbox: sandbox.clone() };
                }
            }
            Action::StopContainer { container, grace, .. } => {
                let state = self.container_mut(container);
                if let Instance::Running { id, sandbox, started_at, .. }
                | Instance::Stopping { id, sandbox, started_at, .. } = &state.instance
                {
                    let kill_at = now.saturating_add(*grace).unwrap_or(Timestamp::MAX);
                    state.instance = Instance::Stopping {
                        id: id.clone(),
                        sandbox: sandbox.clone(),
                        started_at: *started_at,
                        kill_at,
                    };
                }
            }
            Action::RemoveSandbox { .. } => self.sandbox = Sandbox::Removing,
            Action::RemoveContainers { ids } => self.garbage.retain(|id| !ids.contains(id)),
            Action::End(ended) => self.ended = Some(ended.clone()),
            Action::Finish => self.finish = Finish::UnderWay,
        }
    }

    /// Takes in what came of an action, or was seen of the runtime.
    pub fn apply(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::VolumesMounted(Ok(())) => self.volumes = Volumes::Mounted,
            Outcome::VolumesMounted(Err(failure)) => self.volumes = Volumes::Failed(steady(failure, now)),
            Outcome::SandboxCreated { id: created } => {
                if let Sandbox::Making { id } = &mut self.sandbox {
                    *id = Some(created);
                }
            }
            Outcome::SandboxMade { id, result: Ok(ip) } => self.sandbox = Sandbox::Ready { id, ip },
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
                state.attempts += 1;
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
                state.instance = Instance::None;
                state.creation = Some(steady(failure, now));
                self.garbage.push(id);
            }
            Outcome::StopFailed { container } => {
                let state = self.container_mut(&container);
                if let Instance::Stopping { id, sandbox, started_at, .. } = &state.instance {
                    let (id, sandbox, started_at) = (id.clone(), sandbox.clone(), *started_at);
                    state.instance = Instance::Running { id, sandbox, hash: String::new(), started_at };
                }
            }
            Outcome::Observed { id, container, message } => self.observe(&id, container, message, now),
            Outcome::Finished => self.finish = Finish::Done,
        }
    }

    /// Takes in the runtime's view of container or sandbox `id`; `None` where it has none.
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
        let hash = match seen.as_ref().map(|container| &container.owner.role) {
            Some(Role::Container { hash, .. }) => hash.clone(),
            _ => String::new(),
        };
        let exit = match seen.map(|container| container.state) {
            Some(State::Running { started_at, .. }) => {
                if matches!(slot.instance, Instance::Starting { .. }) {
                    slot.health = Health::default();
                    slot.instance = Instance::Running { id: id.to_owned(), sandbox, hash, started_at };
                }
                return;
            }
            // Created by someone else's leave: the start is still to come.
            Some(State::Created) => return,
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
        self.health = Health::default();
        older
    }
}

fn steady(failure: Failure, now: Timestamp) -> Retry {
    Retry { failure, failed_at: now, at: now.saturating_add(STEADY_RETRY).unwrap_or(Timestamp::MAX) }
}

/// Waits that do not grow: for what another party must bring (a ConfigMap, a mount), as often as the kubelet looks.
const STEADY_RETRY: SignedDuration = SignedDuration::from_secs(10);
