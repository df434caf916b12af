//! Stops containers and takes sandboxes down.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::uid;
use crate::pods::{Context, outcome::Outcome, recorder::EventType};

/// Between tries while the runtime or the network does not do what it must.
const RETRY: Duration = Duration::from_secs(1);

pub async fn stop(context: &Context, pod: &Pod, container: String, id: String, grace: Duration, why: &str) -> Outcome {
    context.recorder.record(pod, Some(&container), EventType::Normal, "Killing", why);
    if let Err(error) = context.runtime.stop(&id, grace).await {
        tracing::warn!(container, error = error.chain(), "a container was not stopped; it is tried again");
        tokio::time::sleep(RETRY).await;
        return Outcome::StopFailed { container };
    }
    match super::observe(context, pod, &id).await {
        Some(outcome) => outcome,
        None => {
            tokio::time::sleep(RETRY).await;
            Outcome::StopFailed { container }
        }
    }
}

pub async fn remove_sandbox(context: &Context, pod: &Pod, id: Option<String>) -> Outcome {
    while let Err(error) = context.network.detach(&uid(pod)).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the pod's network was not taken away; it is tried again"
        );
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
