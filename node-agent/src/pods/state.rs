//! What the worker of one pod knows of it: what runs, what is under way, what failed and when to try again.
//!
//! How it changes is in `transition`, what to do next is `plan`'s; here is only what there is to know.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;

use super::{
    backoff::Backoff,
    outcome::Failure,
    probe::ContainerHealth,
    resize::{Amounts, Resize},
};
use crate::runtime::{Exit, Image};

/// Everything the worker of a pod knows of it.
#[derive(Clone, Debug, Default)]
pub struct PodState {
    /// When the agent first saw the pod: `status.startTime`.
    pub started_at: Timestamp,
    /// Mounted before the first container is created.
    pub volumes: Volumes,
    /// The container that holds the pod's namespaces.
    pub sandbox: Sandbox,
    /// Counts sandboxes made.
    pub sandboxes: u32,
    /// How often the address of a found sandbox was asked for in vain, and why the last time.
    pub failed_adoptions: (u32, String),
    /// By name: init containers, sidecars and containers alike.
    pub containers: BTreeMap<String, ContainerState>,
    /// Ids of containers that serve nothing any more.
    pub garbage: Vec<String>,
    /// Why the agent itself ended the pod.
    pub ended: Option<Ended>,
    /// The pod's end has begun: its one grace period.
    pub termination: Option<Termination>,
    /// The pod is gone from the API, so there is nothing to report or delete.
    pub gone: bool,
    /// Set at the pod's end.
    pub finish: Finish,
    /// Changes of its resources as it runs.
    pub resize: Resize,
}

/// The grace period in which all containers of a pod end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// Its length as last asked for.
    pub grace: Duration,
    /// When what still runs is killed.
    pub deadline: Timestamp,
}

/// An end that the agent itself gave a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// CamelCase, such as `DeadlineExceeded`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Whether the pod's resources on the node were released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// The pod runs, or is being stopped.
    #[default]
    NotYet,
    /// Files, mounts and the Pod in the API are being removed.
    UnderWay,
    /// Nothing of the pod is left here.
    Done,
}

/// The pod's volumes, which are mounted all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Nothing was done yet.
    #[default]
    Unmounted,
    /// The files are being made.
    Mounting,
    /// All are there.
    Mounted,
    /// One could not be made.
    Failed(Retry),
}

/// A failure that will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// What went wrong the last time.
    pub failure: Failure,
    /// When it went wrong.
    pub failed_at: Timestamp,
    /// When it is tried again.
    pub at: Timestamp,
}

/// The pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// None exists.
    #[default]
    Absent,
    /// Being created, started and plugged; containers can be created for it as soon as it has an id.
    Making { id: Option<String> },
    /// It runs and has its address.
    Ready { id: String, ip: Ipv4Addr },
    /// An earlier agent started it; its address is to be asked for from `adopt_at` on.
    Found { id: String, adopt_at: Timestamp },
    /// It ended by itself or with its runtime: containers that joined it must be removed too.
    Dead { id: String },
    /// It is being taken down.
    Removing,
    /// It could not be made.
    Failed(Retry),
}

impl Sandbox {
    /// The runtime's id, where there is one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Making { id } => id.as_deref(),
            Self::Ready { id, .. } | Self::Found { id, .. } => Some(id),
            _ => None,
        }
    }
}

/// One container of the spec, with its present and past instances.
#[derive(Clone, Debug, Default)]
pub struct ContainerState {
    /// Whether it can be run from now.
    pub image: ImageState,
    /// Grows with each failed pull.
    pub image_backoff: Backoff,
    /// As a status names it; of the latest image used.
    pub image_id: Option<String>,
    /// The one that exists now, or none.
    pub instance: Instance,
    /// Counts the instances made; the next one's attempt.
    pub attempts: u32,
    /// The latest that ended, and the one before it.
    pub last: Option<EndedInstance>,
    /// Kept for `logs --previous`.
    pub previous: Option<EndedInstance>,
    /// Grows with each restart.
    pub backoff: Backoff,
    /// Why the latest try to create one failed.
    pub creation: Option<Retry>,
    /// Of the present instance alone.
    pub health: ContainerHealth,
    /// CPU and memory that the latest instance was created with, or that it was given since; unknown where an agent
    /// made it that did not note them.
    pub actuated: Option<Amounts>,
    /// It is being stopped to be resized, and is to run again whatever the restart policy says.
    pub restarts_for_resize: bool,
}

/// The image of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImageState {
    /// Not asked for since the last start.
    #[default]
    Unknown,
    /// It is being looked for or pulled.
    Getting,
    /// It is on the node.
    Present(Image),
    /// It could not be pulled.
    Failed(Retry),
}

/// The one container that exists now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Instance {
    /// There is none.
    #[default]
    None,
    /// The runtime was asked to create it.
    Creating,
    /// It exists and was never started.
    Created { id: String, sandbox: String },
    /// The runtime was asked to start it.
    Starting { id: String, sandbox: String },
    /// It runs, and its postStart hook too: it counts as running once the hook has succeeded.
    PostStart { id: String, sandbox: String, hash: String, started_at: Timestamp },
    /// It runs, and its postStart hook has succeeded.
    Running { id: String, sandbox: String, hash: String, started_at: Timestamp },
    /// It was asked to end, and is killed at `kill_at`.
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
        !matches!(self, Self::None | Self::Created { .. })
    }

    /// The runtime's id, where its process runs: also while its postStart hook does.
    pub fn process_id(&self) -> Option<&str> {
        match self {
            Self::PostStart { id, .. } | Self::Running { id, .. } | Self::Stopping { id, .. } => Some(id),
            Self::None | Self::Creating | Self::Created { .. } | Self::Starting { .. } => None,
        }
    }

    /// The runtime's id, where there is one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::None | Self::Creating => None,
            Self::Created { id, .. }
            | Self::Starting { id, .. }
            | Self::PostStart { id, .. }
            | Self::Running { id, .. }
            | Self::Stopping { id, .. } => Some(id),
        }
    }

    /// Id of the sandbox that it was made for.
    pub fn sandbox(&self) -> Option<&str> {
        match self {
            Self::None | Self::Creating => None,
            Self::Created { sandbox, .. }
            | Self::Starting { sandbox, .. }
            | Self::PostStart { sandbox, .. }
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

/// An instance that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedInstance {
    /// The runtime's; its output can be read until it is removed.
    pub id: String,
    /// Id of the sandbox that it ran in.
    pub sandbox: String,
    /// Counted from 0.
    pub attempt: u32,
    /// As a status names it.
    pub image_id: String,
    /// How and when it ended.
    pub exit: Exit,
    /// What it left in its termination message file.
    pub message: Option<String>,
}

impl PodState {
    /// The state of the container of this name; an untouched one where nothing was done for it yet.
    pub fn container(&self, name: &str) -> &ContainerState {
        static ABSENT: std::sync::LazyLock<ContainerState> = std::sync::LazyLock::new(ContainerState::default);
        self.containers.get(name).unwrap_or(&ABSENT)
    }

    /// The same, to change it.
    pub fn container_mut(&mut self, name: &str) -> &mut ContainerState {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// The pod's address, once its sandbox is ready.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        match self.sandbox {
            Sandbox::Ready { ip, .. } => Some(ip),
            _ => None,
        }
    }

    /// Ends the waits that depend on something outside the pod, since that has changed.
    pub fn retry_now(&mut self, now: Timestamp) {
        if let Volumes::Failed(retry) = &mut self.volumes {
            retry.at = now;
        }
        for retry in self.containers.values_mut().filter_map(|container| container.creation.as_mut()) {
            retry.at = now;
        }
    }

    /// No container runs, or may.
    pub fn is_stopped(&self) -> bool {
        !self.containers.values().any(|container| container.instance.is_live())
    }

    /// Which container has this id, if a live one does.
    pub fn owner_of(&self, id: &str) -> Option<&str> {
        self.containers.iter().find(|(_, container)| container.instance.id() == Some(id)).map(|(name, _)| name.as_str())
    }
}

impl ContainerState {
    /// restartCount: how many instances came before the latest.
    pub fn restarts(&self) -> u32 {
        let begun = match self.instance {
            Instance::Created { .. } | Instance::Starting { .. } | Instance::PostStart { .. } => {
                self.attempts.saturating_sub(1)
            }
            _ => self.attempts,
        };
        begun.saturating_sub(1)
    }
}
