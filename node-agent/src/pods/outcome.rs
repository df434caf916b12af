//! What comes back from the actions of a plan.

use std::net::Ipv4Addr;

use super::{objects::ObjectKey, probe::CheckError, resize::Amounts};
use crate::runtime::{Container, Image};

/// The result of an action, or of a look at the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All volumes are there, or one could not be made.
    VolumesMounted(Result<(), Failure>),
    /// The sandbox exists; it does not run yet.
    SandboxCreated { id: String },
    /// The sandbox runs and has its address, or could not be brought to that.
    SandboxMade { id: String, result: Result<Ipv4Addr, Failure> },
    /// A sandbox that an earlier agent started runs, and its address could not be found out yet.
    SandboxNotAdopted { id: String, error: String },
    /// The sandbox is gone, and the pod's address is free again.
    SandboxRemoved,
    /// The image is on the node, or could not be pulled.
    ImageGot { container: String, result: Result<Image, Failure> },
    /// The container exists and does not run yet; `result` is its id.
    ContainerCreated { container: String, sandbox: String, result: Result<String, Failure> },
    /// The runtime refused the start, and does not hold the container as ended.
    StartFailed { container: String, id: String, failure: Failure },
    /// The runtime could not be reached for a stop.
    StopFailed { container: String, id: String },
    /// How the runtime sees a container after its start. One with a postStart hook does not count as running before
    /// that has ended.
    Started { id: String, container: Option<Container>, message: Option<String>, has_hook: bool },
    /// The postStart hook of a container has ended, or why it failed.
    PostStartEnded { id: String, result: Result<(), CheckError> },
    /// How the runtime sees a container or sandbox, after a stop, an event or a list; with its termination message when
    /// it ended.
    Observed { id: String, container: Option<Container>, message: Option<String> },
    /// A running container now has these resources.
    ContainerResized { id: String, amounts: Amounts },
    /// All updates of a resize were made, or why one was not.
    ResizeEnded { result: Result<(), Failure> },
    /// Everything of the pod was removed from this node and from the API.
    Finished,
}

impl Outcome {
    /// The object whose change may resolve this failure.
    pub fn awaited_object(&self) -> Option<&ObjectKey> {
        match self {
            Self::VolumesMounted(Err(failure)) | Self::ContainerCreated { result: Err(failure), .. } => {
                failure.awaits.as_ref()
            }
            _ => None,
        }
    }
}

/// Why something could not be done, as a status and an event say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase, from Kubernetes' own: `ErrImagePull`, `CreateContainerConfigError`, `FailedMount`…
    pub reason: &'static str,
    /// For people, with the causes.
    pub message: String,
    /// An object whose change may end the failure.
    pub awaits: Option<ObjectKey>,
}

impl Failure {
    /// A failure that no object's change ends.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), awaits: None }
    }
}
