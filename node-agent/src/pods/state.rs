//! What the worker of one pod knows of it: what runs, what is under way, what failed and when to try again.
//!
//! Only the worker writes it: by [`PodState::begin`] as an action starts, and by [`PodState::apply`] as its outcome arrives. It decides nothing
//! about what to do next: that is `plan`'s.

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::{SignedDuration, Timestamp};

use super::{
    backoff::Backoff,
    outcome::{Failure, Outcome},
    plan::Action,
    probe::Health,
};
use crate::runtime::{Container, Exit, Image, Role, State};

#[derive(Clone, Debug, Default)]
pub struct PodState {
    pub started_at: Timestamp,
    pub volumes: Volumes,
    pub sandbox: Sandbox,
    /// Counts sandboxes made.
    pub sandboxes: u32,
    pub containers: BTreeMap<String, ContainerState>,
    /// Ids of containers that serve nothing any more.
    pub garbage: Vec<String>,
    /// Why the agent itself ended the pod.
    pub ended: Option<Ended>,
    /// The pod is gone from the API, so there is nothing to report or delete.
    pub gone: bool,
    pub finish: Finish,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    #[default]
    NotYet,
    UnderWay,
    Done,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    #[default]
    Unmounted,
    Mounting,
    Mounted,
    Failed(Retry),
}

/// A failure that will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub failure: Failure,
    pub failed_at: Timestamp,
    pub at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    #[default]
    Absent,
    /// Being created, started and plugged; containers can be created for it as soon as it has an id.
    Making {
        id: Option<String>,
    },
    Ready {
        id: String,
        ip: Ipv4Addr,
    },
    /// Runs since an earlier agent's time; its address is to be asked for.
    Found {
        id: String,
    },
    /// It ended by itself or with its runtime: what joined it must go too.
    Dead {
        id: String,
    },
    Removing,
    Failed(Retry),
}

impl Sandbox {
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Making { id } => id.as_deref(),
            Self::Ready { id, .. } | Self::Found { id } => Some(id),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ContainerState {
    pub image: ImageState,
    pub image_backoff: Backoff,
    /// As a status names it; of the latest image used.
    pub image_id: Option<String>,
    pub instance: Instance,
    /// Counts the instances made; the next one's attempt.
    pub attempts: u32,
    /// The latest that ended, and the one before it.
    pub last: Option<EndedInstance>,
    pub previous: Option<EndedInstance>,
    pub backoff: Backoff,
    /// Why the latest try to create one failed.
    pub creation: Option<Retry>,
    pub health: Health,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImageState {
    #[default]
    Unknown,
    Getting,
    Present(Image),
    Failed(Retry),
}

/// The one container that exists now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Instance {
    #[default]
    None,
    Creating,
    Created {
        id: String,
        sandbox: String,
    },
    Starting {
        id: String,
        sandbox: String,
    },
    Running {
        id: String,
        sandbox: String,
        hash: String,
        started_at: Timestamp,
    },
    Stopping {
        id: String,
        sandbox: String,
        started_at: Timestamp,
        /// When it is killed at the latest.
        kill_at: Timestamp,
    },
}

impl Instance {
    /// Something of it runs, or may.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Creating | Self::Starting { .. } | Self::Running { .. } | Self::Stopping { .. })
    }

    pub fn id(&self) -> Option<&str> {
        match self {
            Self::None | Self::Creating => None,
            Self::Created { id, .. }
            | Self::Starting { id, .. }
            | Self::Running { id, .. }
            | Self::Stopping { id, .. } => Some(id),
        }
    }

    pub fn sandbox(&self) -> Option<&str> {
        match self {
            Self::None | Self::Creating => None,
            Self::Created { sandbox, .. }
            | Self::Starting { sandbox, .. }
            | Self::Running { sandbox, .. }
            | Self::Stopping { sandbox, .. } => Some(sandbox),
        }
    }

    /// When it came to run, if it does.
    pub fn running_since(&self) -> Option<Timestamp> {
        match self {
            Self::Running { started_at, .. } | Self::Stopping { started_at, .. } => Some(*started_at),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedInstance {
    pub id: String,
    pub sandbox: String,
    pub attempt: u32,
    pub image_id: String,
    pub exit: Exit,
    /// What it left in its termination message file.
    pub message: Option<String>,
}

/// Waits that do not grow: for what another party must bring (a ConfigMap, a mount), as often as the kubelet looks.
const STEADY_RETRY: SignedDuration = SignedDuration::from_secs(10);

impl PodState {
    pub fn container(&self, name: &str) -> &ContainerState {
        static ABSENT: std::sync::LazyLock<ContainerState> = std::sync::LazyLock::new(ContainerState::default);
        self.containers.get(name).unwrap_or(&ABSENT)
    }

    pub fn container_mut(&mut self, name: &str) -> &mut ContainerState {
        self.containers.entry(name.to_owned()).or_default()
    }

    pub fn ip(&self) -> Option<Ipv4Addr> {
        match self.sandbox {
            Sandbox::Ready { ip, .. } => Some(ip),
            _ => None,
        }
    }

    /// What waits for another party may be tried again: it has done something.
    pub fn retry_now(&mut self, now: Timestamp) {
        if let Volumes::Failed(retry) = &mut self.volumes {
            retry.at = now;
        }
        for retry in self.containers.values_mut().filter_map(|container| container.creation.as_mut()) {
            retry.at = now;
        }
    }

    /// Which container has this id, if a live one does.
    pub fn owner_of(&self, id: &str) -> Option<&str> {
        self.containers.iter().find(|(_, container)| container.instance.id() == Some(id)).map(|(name, _)| name.as_str())
    }

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

    /// restartCount: how many instances came before the latest.
    pub fn restarts(&self) -> u32 {
        let begun = match self.instance {
            Instance::Created { .. } | Instance::Starting { .. } => self.attempts.saturating_sub(1),
            _ => self.attempts,
        };
        begun.saturating_sub(1)
    }
}

fn steady(failure: Failure, now: Timestamp) -> Retry {
    Retry { failure, failed_at: now, at: now.saturating_add(STEADY_RETRY).unwrap_or(Timestamp::MAX) }
}
