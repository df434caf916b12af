//! Creates and starts containers.

use k8s_openapi::api::core::v1::Pod;

use crate::{
    pods::{
        Context, container_spec,
        container_spec::Resolved,
        outcome::{Failure, Outcome},
        recorder::EventType,
        spec,
        state::{ImageState, PodState},
    },
    runtime::{Container, ImageUser, State},
};

pub async fn create(
    context: &Context,
    pod: &Pod,
    state: &PodState,
    container: String,
    attempt: u32,
    sandbox: String,
) -> Outcome {
    let result = try_create(context, pod, state, &container, attempt, &sandbox).await;
    match &result {
        Ok(_) => {
            let message = format!("Created container: {container}");
            context.recorder.record(pod, Some(&container), EventType::Normal, "Created", message);
        }
        Err(failure) => {
            let message = format!("Error: {}", failure.message);
            context.recorder.record(pod, Some(&container), EventType::Warning, "Failed", message);
        }
    }
    Outcome::ContainerCreated { container, sandbox, result }
}

async fn try_create(
    context: &Context,
    pod: &Pod,
    state: &PodState,
    name: &str,
    attempt: u32,
    sandbox: &str,
) -> Result<String, Failure> {
    let container = spec::container(pod, name)
        .ok_or_else(|| Failure::new("CreateContainerConfigError", format!("container {name} is no more in the pod")))?;
    let image_user = match &state.container(name).image {
        ImageState::Present(image) => image.user.clone(),
        _ => ImageUser::Uid(0),
    };
    let env = container
        .env
        .iter()
        .flatten()
        .map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default()))
        .collect();
    let resolved = Resolved { env, mounts: Vec::new(), image_user, machine_memory: machine_memory() };
    let spec = container_spec::container(pod, container, sandbox, attempt, resolved)?;
    context.runtime.create_container(&spec).await.map_err(|error| Failure::new("CreateContainerError", error.chain()))
}

pub async fn start(context: &Context, pod: &Pod, container: String, id: String) -> Outcome {
    let started = context.runtime.start(&id).await;
    let seen = context.runtime.inspect(&id).await;
    match (started, seen) {
        (Ok(()), Ok(seen)) => {
            context.recorder.record(
                pod,
                Some(&container),
                EventType::Normal,
                "Started",
                format!("Started container {container}"),
            );
            let message = seen.as_ref().and_then(|seen| termination_message(context, pod, seen));
            Outcome::Observed { id, container: seen, message }
        }
        (Err(error), Ok(Some(seen))) if matches!(seen.state, State::Exited(_)) => {
            context.recorder.record(
                pod,
                Some(&container),
                EventType::Warning,
                "Failed",
                format!("Error: {}", error.chain()),
            );
            Outcome::Observed { id, container: Some(seen), message: Some(error.chain()) }
        }
        (Err(error), _) | (Ok(()), Err(error)) => {
            context.recorder.record(
                pod,
                Some(&container),
                EventType::Warning,
                "Failed",
                format!("Error: {}", error.chain()),
            );
            Outcome::StartFailed { container, id, failure: Failure::new("RunContainerError", error.chain()) }
        }
    }
}

/// What an ended container left in its termination message file.
pub fn termination_message(_context: &Context, _pod: &Pod, _container: &Container) -> Option<String> {
    None
}

/// Bytes of RAM of this machine.
fn machine_memory() -> i64 {
    static BYTES: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        let info = nix::sys::sysinfo::sysinfo();
        info.map_or(i64::MAX, |info| i64::try_from(info.ram_total()).unwrap_or(i64::MAX))
    });
    *BYTES
}
