//! Performs the updates of a resize: asks the runtime to change running containers, in the order of the plan, and stops
//! at the first failure.

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::uid;
use crate::{
    pods::{
        Context,
        outcome::{Failure, Outcome},
        resize::{ResizedResource, Update},
        worker::{Input, send},
    },
    runtime::ResourceUpdate,
};

/// Performs `updates`. Each that succeeds is reported and kept for the next agent.
pub async fn resize(context: &Context, pod: &Pod, updates: &[Update], sender: &mpsc::Sender<Input>) -> Outcome {
    Outcome::ResizeEnded { result: try_resize(context, pod, updates, sender).await }
}

async fn try_resize(
    context: &Context,
    pod: &Pod,
    updates: &[Update],
    sender: &mpsc::Sender<Input>,
) -> Result<(), Failure> {
    refuse_limits_below_usage(context, updates).await?;
    // An agent that starts after a crash must not find the kernel ahead of what it knows as allocated.
    context.allocations.store().await.map_err(|error| failed(crate::error_chain(&error)))?;
    for update in updates {
        let change = change(update);
        if change != ResourceUpdate::default() {
            let updated = context.runtime.update(&update.id, &change).await;
            updated.map_err(|error| failed(format!("container {:?}: {}", update.container, error.chain())))?;
        }
        context.allocations.record_actuated(&uid(pod), &update.id, update.to);
        let resized = Outcome::ContainerResized { id: update.id.clone(), amounts: update.to };
        send(sender, Input::Outcome(Box::new(resized))).await;
    }
    Ok(())
}

/// Notes on disk that container `id` is stopped only to run again: the next agent might find it ended with success.
pub async fn note_restart(context: &Context, pod: &Pod, id: &str) {
    context.allocations.record_restart(&uid(pod), id);
    if let Err(error) = context.allocations.store().await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(id, error, "an agent that starts now may not know that this container is to run again");
    }
}

/// What the runtime is asked for. A request of memory is nothing that the kernel knows.
fn change(update: &Update) -> ResourceUpdate {
    let (from, to) = (update.from, update.to);
    match update.resource {
        ResizedResource::Memory => ResourceUpdate {
            memory_bytes: to.memory_bytes().filter(|_| from.memory_limit != to.memory_limit),
            ..ResourceUpdate::default()
        },
        ResizedResource::Cpu => ResourceUpdate {
            cpu_shares: Some(to.cpu_shares()).filter(|shares| *shares != from.cpu_shares()),
            cpu_quota_us: to.cpu_quota_us().filter(|_| from.cpu_quota_us() != to.cpu_quota_us()),
            ..ResourceUpdate::default()
        },
    }
}

/// Nothing is begun that would have the kernel kill a container: whoever uses more than its new limit must first use
/// less.
async fn refuse_limits_below_usage(context: &Context, updates: &[Update]) -> Result<(), Failure> {
    let mut refusals = Vec::new();
    for update in updates {
        let Some(limit) = change(update).memory_bytes else { continue };
        if update.from.memory_bytes().is_some_and(|before| before <= limit) {
            continue;
        }
        let name = &update.container;
        match context.runtime.memory_usage(&update.id).await {
            Ok(Some(usage)) if usage < u64::try_from(limit).unwrap_or_default() => {}
            Ok(Some(usage)) => refusals.push(format!(
                "attempting to set container {name:?} memory limit ({limit}) below current usage ({usage})"
            )),
            Ok(None) => refusals.push(format!("missing container {name:?} memory usage")),
            Err(error) => {
                refusals.push(format!("unable to read memory usage of container {name:?}: {}", error.chain()))
            }
        }
    }
    match refusals.as_slice() {
        [] => Ok(()),
        [one] => Err(failed(format!("cannot decrease memory limits: {one}"))),
        more => Err(failed(format!("cannot decrease memory limits: [{}]", more.join(", ")))),
    }
}

fn failed(message: String) -> Failure {
    Failure::new("Error", message)
}
