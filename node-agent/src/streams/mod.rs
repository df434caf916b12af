//! Streams between clients of the API and containers: exec, attach and port-forward, with the kubelet's paths.
//!
//! ```text
//!   kubectl ══ WebSocket or SPDY/3.1 ══▶ control service ══ the same bytes ══▶ agent ──▶ process, or port of a pod
//!             (authorises, admits)        (splices)                (the protocol ends here)
//! ```
//!
//! The protocol ends at the agent, and nowhere before: the control service passes on the request with its `Upgrade`,
//! and then bytes. What is spoken is the client's choice; a channel or stream *for each* is one of stdin,
//! stdout, stderr, error (how it ended) and resize (the terminal's size):
//!
//! | request | exec, attach | port-forward |
//! |---|---|---|
//! | WebSocket | `v5.`, `v4.`, `channel.k8s.io`, base64 too: a channel for each | `v4.channel.k8s.io`: two per port |
//! | WebSocket, tunnel | | `SPDY/3.1+portforward.k8s.io`: SPDY in messages |
//! | SPDY/3.1 | `v4.` to `channel.k8s.io`: a SPDY stream for each | `portforward.k8s.io`: two per connection |
//!
//! - *handshake*: what a request wants to speak, and the answer 101.
//! - *wire*: a client of exec or attach, whatever it speaks: its input, its terminal's size, where output goes.
//! - *session*: one client's connection, from the answer 101 on. It is one task; with it, all of it is gone: sockets,
//!   and the command that was started for it.
//!
//! A session ends when the process or either side's connection ends, after [`IDLE_LIMIT`] without a byte, and when the
//! agent stops. Heartbeats show that a client is gone even while nothing can be read from it. A command whose client is
//! gone is killed with all that it started, as containerd does it; the main process of a container goes on.

mod command_request;
pub mod half_closed;
mod handshake;
mod idle;
mod outcome;
mod pod_ports;
mod port_forward;
mod port_forward_spdy;
mod port_forward_websocket;
mod remote_command;
pub mod spdy;
mod spdy_wire;
#[cfg(test)]
mod tests;
pub mod tunnel;
mod websocket_wire;
mod wire;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::any,
};
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::pod_ports::{ConnectError, connect};
use self::{
    command_request::CommandRequest,
    handshake::{CommandProtocol, Handshake, PortProtocol},
    idle::LastActivity,
    outcome::CommandOutcome,
    port_forward::Forwarding,
    remote_command::Session,
    tunnel::Tunnel,
    wire::Wire,
};
use crate::runtime::{Error, Process, Runtime, StreamOptions};

/// How long a session may last without a byte in either direction. Source: `--streaming-connection-idle-timeout`.
const IDLE_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// Between two heartbeats to a client. While what it sends is held up nothing is read, not even that it is gone; but
/// what is sent to a client that is gone fails. Heartbeats ask for no answer: it would be held up, too, and the client
/// with it.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// The pods of the node, as far as streams go to them.
#[async_trait::async_trait]
pub trait PodTargets: Send + Sync {
    /// The container of this name that runs now.
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<ContainerTarget, TargetError>;

    /// The uid of the pod of this name, which has a network.
    fn pod_uid(&self, namespace: &str, pod: &str) -> Result<String, TargetError>;

    /// Connects to a port of the pod, by its own `localhost`.
    async fn connect(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, ConnectError>;
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTarget {
    /// The runtime's id of it.
    pub id: String,
    /// Its streams are a terminal.
    pub tty: bool,
}

/// Why there is nothing that a stream could go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The pod is not on this node. Worded as the kubelet's.
    #[error("pod does not exist")]
    NoPod,
    /// The pod has no container of this name that runs. Worded as the kubelet's.
    #[error("container not found ({0:?})")]
    NotRunning(String),
    /// The same, said of an attachment. Worded as the kubelet's.
    #[error("container {container} not found in pod {pod}")]
    NotAttachable { container: String, pod: String },
    /// The pod has not begun, or has ended. Worded as the kubelet's.
    #[error("pod not found ({0:?})")]
    NoNetwork(String),
}

impl TargetError {
    fn code(&self) -> StatusCode {
        match self {
            Self::NoPod => StatusCode::NOT_FOUND,
            Self::NotRunning(_) | Self::NotAttachable { .. } | Self::NoNetwork(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Serves streams, until it is shut down. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    targets: Arc<dyn PodTargets>,
    runtime: Arc<dyn Runtime>,
    stop: CancellationToken,
    sessions: TaskTracker,
    idle_limit: Duration,
    heartbeat_interval: Duration,
}

impl Streams {
    /// `targets` are the pods whose containers `runtime` runs.
    pub fn new(targets: Arc<dyn PodTargets>, runtime: Arc<dyn Runtime>) -> Self {
        let (stop, sessions) = (CancellationToken::new(), TaskTracker::new());
        Self { targets, runtime, stop, sessions, idle_limit: IDLE_LIMIT, heartbeat_interval: HEARTBEAT_INTERVAL }
    }

    /// The kubelet's paths; they do not authenticate.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/exec/{namespace}/{pod}/{container}", any(exec))
            .route("/attach/{namespace}/{pod}/{container}", any(attach))
            .route("/portForward/{namespace}/{pod}", any(port_forward))
            .with_state(self.clone())
    }

    /// Cuts all sessions, and waits until they are gone, with the commands that run for them.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.sessions.close();
        self.sessions.wait().await;
    }

    /// Answers 101 to a client of exec or attach, and goes on as its session. `source` is looked up before:
    /// where that failed, clients that have a channel for errors are told there, as kube-apiserver does.
    fn command(
        &self,
        request: Request,
        streams: StreamOptions,
        source: Result<ProcessSource, TargetError>,
    ) -> Response {
        let handshake = match Handshake::<CommandProtocol>::of(request.headers()) {
            Ok(handshake) => handshake,
            Err(refusal) => return refusal.into_response(),
        };
        if let Err(error) = &source
            && !handshake.protocol().tells_errors_on_a_channel()
        {
            return (error.code(), error.to_string()).into_response();
        }
        let (response, upgrade) = handshake.accept(request);
        let (runtime, stop) = (self.runtime.clone(), self.stop.clone());
        let (idle_limit, heartbeat_interval) = (self.idle_limit, self.heartbeat_interval);
        self.sessions.spawn(async move {
            let upgraded = match stop.run_until_cancelled(upgrade).await {
                Some(Ok(upgraded)) => upgraded,
                Some(Err(error)) => return tracing::debug!(%error, "a client of a container did not switch protocols"),
                None => return,
            };
            let wire = Wire::connect(upgraded, handshake.protocol(), streams);
            let Some(Some(wire)) = stop.run_until_cancelled(wire).await else { return };
            let session = Session { wire, stop, idle_limit, heartbeat_interval };
            match source {
                Ok(source) => session.run(source.start(&*runtime, streams).await).await,
                Err(error) => {
                    session.refuse(CommandOutcome::Failed(format!("unable to upgrade connection: {error}"))).await;
                }
            }
        });
        response
    }
}

/// Which process a client gets the streams of.
enum ProcessSource {
    Exec { id: String, command: Vec<String> },
    Attach { target: ContainerTarget },
}

impl ProcessSource {
    /// Begins it. Failures are worded as the kubelet's.
    async fn start(self, runtime: &dyn Runtime, streams: StreamOptions) -> Result<Process, CommandOutcome> {
        let failed = |what: &str, error: Error| CommandOutcome::Failed(format!("{what}: {}", error.chain()));
        match self {
            Self::Exec { id, command } => {
                let started = runtime.start_exec(&id, &command, streams).await;
                started.map_err(|error| failed("error executing command in container", error))
            }
            Self::Attach { target: ContainerTarget { id, tty } } => {
                // Whether there is a terminal was settled when the container was made, whatever the client says.
                let attached = runtime.attach(&id, StreamOptions { tty, ..streams }).await;
                attached.map_err(|error| failed("error attaching to container", error))
            }
        }
    }
}

type ContainerPath = Path<(String, String, String)>;

async fn exec(
    State(streams): State<Streams>,
    Path((namespace, pod, container)): ContainerPath,
    asked: CommandRequest,
    request: Request,
) -> Response {
    let found = streams.targets.container(&namespace, &pod, &container);
    let source = found.map(|found| ProcessSource::Exec { id: found.id, command: asked.command });
    streams.command(request, asked.streams, source)
}

async fn attach(
    State(streams): State<Streams>,
    Path((namespace, pod, container)): ContainerPath,
    asked: CommandRequest,
    request: Request,
) -> Response {
    let found = streams.targets.container(&namespace, &pod, &container);
    let found = found.map_err(|error| match error {
        TargetError::NotRunning(container) => {
            TargetError::NotAttachable { container, pod: format!("{pod}_{namespace}") }
        }
        other => other,
    });
    streams.command(request, asked.streams, found.map(|target| ProcessSource::Attach { target }))
}

async fn port_forward(
    State(streams): State<Streams>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let handshake = match Handshake::<PortProtocol>::of(request.headers()) {
        Ok(handshake) => handshake,
        Err(refusal) => return refusal.into_response(),
    };
    let protocol = handshake.protocol();
    let ports = match protocol {
        PortProtocol::WebSocket { .. } => port_forward_websocket::ports(query.as_deref().unwrap_or_default()),
        PortProtocol::Tunnel | PortProtocol::Spdy => Ok(Vec::new()),
    };
    let ports = match ports {
        Ok(ports) => ports,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let uid = match streams.targets.pod_uid(&namespace, &pod) {
        Ok(uid) => uid,
        Err(error) => return (error.code(), error.to_string()).into_response(),
    };
    let (response, upgrade) = handshake.accept(request);
    let (activity, idle_limit, heartbeat_interval) =
        (LastActivity::now(), streams.idle_limit, streams.heartbeat_interval);
    let to = Forwarding { targets: streams.targets.clone(), namespace, pod, uid, activity, heartbeat_interval };
    let session = async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "a client of ports did not switch protocols"),
        };
        let serving = async {
            match protocol {
                PortProtocol::Spdy => port_forward_spdy::serve(upgraded, &to).await,
                PortProtocol::Tunnel => {
                    let socket = websocket_wire::server(upgraded, websocket_wire::LARGEST_TO_PORTS).await;
                    port_forward_spdy::serve(Tunnel::new(socket), &to).await;
                }
                PortProtocol::WebSocket { base64 } => {
                    port_forward_websocket::serve(upgraded, base64, &ports, &to).await;
                }
            }
        };
        tokio::select! {
            () = serving => {}
            () = to.activity.idle_for(idle_limit) => tracing::debug!("nothing was forwarded for too long"),
        }
    };
    streams.sessions.spawn(streams.stop.clone().run_until_cancelled_owned(session));
    response
}
