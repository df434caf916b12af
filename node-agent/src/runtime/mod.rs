//! What the pod lifecycle asks of a container runtime, and nothing more: nothing above this trait knows Docker.
//!
//! A pod is a *sandbox* (a process that holds the pod's namespaces) and *containers* that join them. The runtime
//! decides nothing: it keeps no desired state, restarts nothing, and remembers who a container belongs to only through
//! the labels of [`ContainerOwner`].

pub mod deadlines;
pub mod docker;
#[cfg(test)]
pub mod fake;
#[cfg(test)]
pub mod fake_process;
mod owner;
mod process;
mod sandbox_image;
mod spec;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
pub use owner::{ContainerOwner, PodRef, Role};
pub use process::{Process, ProcessControl, StreamOptions, TerminalSize};
pub use spec::{
    ContainerSpec, ImageUser, Mount, NetworkNamespace, PidNamespace, Propagation, ResourceUpdate, SandboxSpec, Seccomp,
};

/// A container runtime of one host. Calls are safe to repeat and to make concurrently.
#[async_trait::async_trait]
pub trait Runtime: Send + Sync {
    /// Scheme of container ids in a Pod's status: `docker` in `docker://ID`.
    fn scheme(&self) -> &'static str;

    /// For `Node.status.nodeInfo.containerRuntimeVersion`: `docker://20.10.24`.
    async fn version(&self) -> Result<String, Error>;

    /// Whether the runtime answers, cheaply: the agent asks every few seconds.
    async fn ping(&self) -> Result<(), Error> {
        self.list().await.map(drop)
    }

    /// The host's directory of images and containers, where the runtime has one on this host.
    async fn image_dir(&self) -> Result<Option<PathBuf>, Error> {
        Ok(None)
    }

    /// Prepares what sandboxes need (their image). Called at the start and whenever the runtime is back after an
    /// outage.
    async fn prepare(&self) -> Result<(), Error>;

    /// The local image that `reference` (normalised as the runtime does: `hello:v1` is `docker.io/library/hello:v1`)
    /// names.
    async fn image(&self, reference: &str) -> Result<Option<Image>, Error>;

    /// Brings the image from its registry, even where one of that name is here.
    async fn pull(&self, reference: &str, credentials: Option<&Credentials>) -> Result<Image, Error>;

    /// All local images, whoever brought them.
    async fn images(&self) -> Result<Vec<LocalImage>, Error>;

    /// Removes the image under the names that it had when it was listed. `false` where something uses it: then it
    /// stays. Not an error where there is none.
    async fn remove_image(&self, image: &LocalImage) -> Result<bool, Error>;

    /// Creates, but does not start, a sandbox; returns its id. One of the same name from before is replaced.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error>;

    /// Creates, but does not start, a container; its sandbox must exist, but need not run yet. One of the same name is
    /// replaced.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error>;

    /// Starts what was created; returns once its process runs.
    async fn start(&self, id: &str) -> Result<(), Error>;

    /// Sends the stop signal, and SIGKILL after `grace`; returns when the container has stopped. Not an error where it
    /// already has.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error>;

    /// Kills and removes the container with its anonymous volumes. Not an error where there is none.
    async fn remove(&self, id: &str) -> Result<(), Error>;

    /// Changes resources of a container that runs.
    async fn update(&self, id: &str, update: &ResourceUpdate) -> Result<(), Error>;

    /// Bytes of memory that a running container uses; `None` where the kernel does not tell.
    async fn memory_usage(&self, id: &str) -> Result<Option<u64>, Error>;

    /// The container as it is now; `None` where there is none.
    async fn inspect(&self, id: &str) -> Result<Option<Container>, Error>;

    /// All sandboxes and containers of this node, whatever their state.
    async fn list(&self) -> Result<Vec<Container>, Error>;

    /// The same as [`Runtime::list`], in one request and with less detail: asked every few seconds.
    async fn summaries(&self) -> Result<Vec<Summary>, Error>;

    /// What the container wrote, oldest first.
    fn logs(&self, id: &str, options: &LogOptions) -> BoxStream<'static, Result<LogChunk, Error>>;

    /// Runs `command` in the container and collects its output up to `limit` bytes. `None` when `timeout` passed first.
    /// The processes that it started are killed when the timeout passes, and when the future is dropped.
    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
        limit: usize,
    ) -> Result<Option<ExecResult>, Error>;

    /// Starts `command` in the container, with the streams that `streams` names. The processes that it started are
    /// killed when [`Process::control`] is ended or dropped before they have ended.
    async fn start_exec(&self, id: &str, command: &[String], streams: StreamOptions) -> Result<Process, Error>;

    /// Connects to the streams of the container's main process, from now on. `streams.tty` is as the container has it.
    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<Process, Error>;

    /// Ends of this node's containers from now on. The stream ends when the runtime goes away; the caller then lists
    /// again.
    async fn events(&self) -> Result<BoxStream<'static, Event>, Error>;

    /// Removes what [`Runtime::prepare`] brought.
    async fn uninstall(&self) -> Result<(), Error>;
}

/// A local image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As a Pod's status names it: `docker-pullable://NAME@sha256:…`, or `docker://sha256:…` for one never pulled.
    pub id: String,
    /// The runtime's own id, which never means another image: `sha256:…`. Containers are created from it.
    pub engine_id: String,
    /// Whom its containers run as, unless their spec says otherwise.
    pub user: ImageUser,
}

/// What a list says of a local image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalImage {
    /// The runtime's own name for it: `sha256:…`.
    pub id: String,
    /// Names with a tag, such as `hello:v1`; none where another image has taken them.
    pub tags: BTreeSet<String>,
    /// With all its layers, also those that other images share.
    pub size_bytes: u64,
    /// A container is made from it, running or not, of whomever; or sandboxes will be.
    pub is_used: bool,
}

impl LocalImage {
    /// Whether an agent made it for its sandboxes, and nobody has given it another name.
    pub fn is_sandbox(&self) -> bool {
        !self.tags.is_empty() && self.tags.iter().all(|tag| tag.starts_with(sandbox_image::REPOSITORY))
    }
}

/// Access to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `username` of the pull secret, or the part of its `auth` before the colon.
    pub username: String,
    /// `password` of the pull secret, or the part of its `auth` behind the colon.
    pub password: String,
    /// An OAuth refresh token, which some registries give out in the place of a password.
    pub identity_token: Option<String>,
    /// Host the credentials are for.
    pub server: String,
}

/// A sandbox or container as the runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's own; unique on the node, and never used again.
    pub id: String,
    /// Read from the container's labels.
    pub owner: ContainerOwner,
    /// The local image as the runtime names it: `sha256:…`.
    pub image_id: String,
    /// As of the moment of asking.
    pub state: State,
}

/// What a list says of a sandbox or container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The runtime's id of the container.
    pub id: String,
    /// Whose it is.
    pub owner: ContainerOwner,
    /// Whether it runs now.
    pub is_running: bool,
}

/// What a container does, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, and never started.
    Created,
    /// Its main process runs, or is paused.
    Running { started_at: Timestamp, pid: u32 },
    /// Its main process has ended, or could not be started.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + signal number for one ended by a signal.
    pub code: i32,
    /// `None` where it never ran.
    pub started_at: Option<Timestamp>,
    /// When its main process ended, or its start failed.
    pub finished_at: Timestamp,
    /// The kernel killed it because it used more memory than its limit.
    pub oom_killed: bool,
    /// Why the runtime could not start it; empty otherwise.
    pub error: String,
}

/// Which part of a container's output is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on until the container ends.
    pub follow: bool,
    /// Lines from the end; all by default.
    pub tail: Option<u64>,
    /// Lines from before are left out.
    pub since: Option<Timestamp>,
    /// Each line opens with its RFC 3339 time.
    pub timestamps: bool,
}

/// A part of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChunk {
    /// Bytes of standard output, cut anywhere.
    Stdout(Bytes),
    /// Bytes of standard error, cut anywhere.
    Stderr(Bytes),
}

/// What a command in a container printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// As the command's process returned it; -1 where the runtime does not know.
    pub exit_code: i64,
    /// Standard output and standard error, as they came; cut at the caller's limit.
    pub output: Vec<u8>,
}

/// A container has ended, or is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The runtime's own id, of a sandbox or a container.
    pub id: String,
    /// Read from the container's labels, so that an event needs no further look at the runtime.
    pub owner: ContainerOwner,
}

/// The network namespace of a running sandbox, for the pod network.
pub fn netns_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Why the runtime did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers at the runtime's address: it is not started, or its socket is elsewhere.
    #[error("container runtime at {host} cannot be reached")]
    Unreachable { host: String, source: BoxError },
    /// The runtime has no image or container of this name.
    #[error("no such {what}")]
    NotFound { what: String },
    /// The runtime answered that it will not do it, and why.
    #[error("{operation}: {message}")]
    Refused { operation: &'static str, message: String },
    /// The request or its answer was broken.
    #[error("{operation}")]
    Failed { operation: &'static str, source: BoxError },
    /// The runtime did not answer in time. What was asked for may still happen; a later list shows it.
    #[error("{operation}: no answer within {} s", after.as_secs())]
    TimedOut { operation: &'static str, after: Duration },
}

/// Any error, as the source of another.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Error {
    /// The message with its causes, in one line: what a Pod's status and events show.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}
