//! Brings up a pod's sandbox: created, started, plugged into the network, its hosts file written.

use std::{io, net::Ipv4Addr, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::uid;
use crate::{
    network::AttachError,
    pods::{
        Context, container_spec,
        outcome::{Failure, Outcome},
        recorder::EventType,
        security::{self, SecurityRefusal},
        spec,
        worker::{Input, send},
    },
    runtime::{Error, State, netns_of},
};

/// How long plugging a sandbox into the network may take, and unplugging it.
pub const NETWORK_LIMIT: Duration = Duration::from_secs(60);

/// After so many failures for the same reason, some minutes, it is told again.
const TOLD_AGAIN: u32 = 10;
const REASON: &str = "FailedCreatePodSandBox";

/// Why a sandbox could not be brought up. The causes are part of the texts, which stand in the pod's events.
#[derive(Debug, thiserror::Error)]
enum SandboxError {
    #[error(transparent)]
    Refused(SecurityRefusal),
    #[error("create: {}", .0.chain())]
    Create(Error),
    #[error("start: {}", .0.chain())]
    Start(Error),
    #[error("inspect: {}", .0.chain())]
    Inspect(Error),
    #[error("inspect: {}", .0.chain())]
    NotRunning(Error),
    #[error("set up the network: {0}")]
    Attach(AttachError),
    #[error("set up the network: not done within {NETWORK_LIMIT:?}")]
    AttachTimedOut,
    #[error("write the hosts file: {0}")]
    WriteHosts(io::Error),
}

/// Creates and starts a sandbox, and plugs it into the network.
pub async fn make(context: &Context, pod: &Pod, attempt: u32, sender: &mpsc::Sender<Input>) -> Outcome {
    if let Some(refusal) = security::refusal(pod, None, context.host) {
        return failed(context, pod, String::new(), SandboxError::Refused(refusal)).await;
    }
    let spec = container_spec::sandbox(pod, attempt);
    let id = match context.runtime.create_sandbox(&spec).await {
        Ok(id) => id,
        Err(error) => return failed(context, pod, String::new(), SandboxError::Create(error)).await,
    };
    send(sender, Input::Outcome(Box::new(Outcome::SandboxCreated { id: id.clone() }))).await;
    if let Err(error) = context.runtime.start(&id).await {
        return failed(context, pod, id, SandboxError::Start(error)).await;
    }
    match attach_to_network(context, pod, &id).await {
        Ok(ip) => Outcome::SandboxMade { id, result: Ok(ip) },
        Err(error) => failed(context, pod, id, error).await,
    }
}

/// Asks for the address of a sandbox that an earlier agent started. Nothing but its own end is a reason to remove it:
/// its containers run, and what keeps the agent from taking it over may pass.
pub async fn adopt(context: &Context, pod: &Pod, id: String, failures: &(u32, String)) -> Outcome {
    let attached = match pid(context, &id).await {
        Ok(_) => attach_to_network(context, pod, &id).await,
        Err(error) => Err(error),
    };
    match attached {
        Ok(ip) => Outcome::SandboxMade { id, result: Ok(ip) },
        Err(error @ SandboxError::NotRunning(_)) => failed(context, pod, id, error).await,
        Err(error) => {
            let (error, (before, last)) = (error.to_string(), failures);
            if *last != error || before.is_multiple_of(TOLD_AGAIN) {
                let message = format!("Failed to take over a running pod sandbox, trying again: {error}");
                tracing::warn!(id, message);
                context.recorder.record(pod, None, EventType::Warning, "NetworkNotReady", &message);
            }
            Outcome::SandboxNotAdopted { id, error }
        }
    }
}

async fn attach_to_network(context: &Context, pod: &Pod, id: &str) -> Result<Ipv4Addr, SandboxError> {
    let ip = if spec::host_network(pod) {
        context.config.node_ip
    } else {
        let pid = pid(context, id).await?;
        let uid = uid(pod);
        let netns = netns_of(pid);
        let attached = tokio::time::timeout(NETWORK_LIMIT, context.network.attach(&uid, &netns)).await;
        attached.map_err(|_| SandboxError::AttachTimedOut)?.map_err(SandboxError::Attach)?
    };
    super::hosts_file::write(context, pod, ip).await.map_err(SandboxError::WriteHosts)?;
    Ok(ip)
}

async fn pid(context: &Context, id: &str) -> Result<u32, SandboxError> {
    let seen = context.runtime.inspect(id).await.map_err(SandboxError::Inspect)?;
    Err(SandboxError::NotRunning(match seen.map(|container| container.state) {
        Some(State::Running { pid, .. }) => return Ok(pid),
        Some(State::Exited(exit)) => Error::Refused { operation: "start the sandbox", message: exit.error },
        Some(State::Created) | None => Error::NotFound { what: format!("running sandbox {id}") },
    }))
}

/// Removes the failed sandbox, and returns what failed.
async fn failed(context: &Context, pod: &Pod, id: String, error: SandboxError) -> Outcome {
    let message = format!("Failed to create pod sandbox: {error}");
    context.recorder.record(pod, None, EventType::Warning, REASON, &message);
    let uid = uid(pod);
    match tokio::time::timeout(NETWORK_LIMIT, context.network.detach(&uid)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the network of a failed sandbox was not removed; the next one replaces it")
        }
        Err(_) => tracing::warn!("the network of a failed sandbox was not removed in time; the next one replaces it"),
    }
    if !id.is_empty()
        && let Err(error) = context.runtime.remove(&id).await
    {
        tracing::warn!(
            error = error.chain(),
            "a failed sandbox was not removed; the next list of the runtime's shows it again"
        );
    }
    Outcome::SandboxMade { id, result: Err(Failure::new(REASON, message)) }
}
