//! Stops containers and takes sandboxes down.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use super::{sandbox::NETWORK_LIMIT, uid};
use crate::pods::{
    Context,
    outcome::Outcome,
    recorder::EventType,
    spec,
    state::{Instance as ContainerInstance, PodState},
};

/// Between tries while the runtime or the network does not do what it must.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the container's preStop hook and stops it, both within `grace`.
pub async fn stop(
    context: &Context,
    pod: &Pod,
    state: &PodState,
    container: String,
    id: String,
    grace: Duration,
    why: &str,
) -> Outcome {
    context.recorder.record(pod, Some(&container), EventType::Normal, "Killing", why);
    let began = Instant::now();
    let lifecycle = spec::container(pod, &container).and_then(|container| container.lifecycle.as_ref());
    let again = matches!(state.container(&container).instance, ContainerInstance::Stopping { .. });
    if let Some(hook) =
        lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()).filter(|_| !again && !grace.is_zero())
        && let Err(error) = super::hook::run(context, pod, &container, &id, hook, state.ip(), grace).await
    {
        let message = format!("PreStopHook failed: {error}");
        context.recorder.record(pod, Some(&container), EventType::Warning, "FailedPreStopHook", message);
    }
    // A hook that used up the grace still leaves its container the least there is.
    let grace = grace.saturating_sub(began.elapsed()).max(spec::LEAST_GRACE.min(grace));
    if let Err(error) = context.runtime.stop(&id, grace).await {
        tracing::warn!(container, error = error.chain(), "a container was not stopped; it is tried again");
        tokio::time::sleep(RETRY).await;
        return Outcome::StopFailed { container, id };
    }
    match super::observe(context, pod, &id).await {
        Some(outcome) => outcome,
        None => {
            tokio::time::sleep(RETRY).await;
            Outcome::StopFailed { container, id }
        }
    }
}

/// Removes the pod's network and sandbox, however often it takes.
pub async fn remove_sandbox(context: &Context, pod: &Pod, id: Option<String>) -> Outcome {
    let uid = uid(pod);
    loop {
        match tokio::time::timeout(NETWORK_LIMIT, context.network.detach(&uid)).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the pod's network was not removed; it is tried again");
            }
            Err(_) => tracing::warn!("the pod's network was not removed in time; it is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
    if let Some(id) = id {
        while let Err(error) = context.runtime.remove(&id).await {
            tracing::warn!(error = error.chain(), "the pod's sandbox was not removed; it is tried again");
            tokio::time::sleep(RETRY).await;
        }
    }
    Outcome::SandboxRemoved
}
