//! Creates and starts containers.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{self, Pod};

use crate::{
    pods::{
        Context, container_spec,
        container_spec::Resolved,
        downward::Downward,
        env,
        machine::Machine,
        outcome::{Failure, Outcome},
        recorder::EventType,
        spec,
        state::{ImageState, PodState},
        volumes,
    },
    runtime::{Container, Error, ImageUser, LogChunk, LogOptions, Mount, Propagation, Role, State},
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
    let env = environment(context, pod, container, state.ip()).await?;
    let directory = context.pod_dir(&super::uid(pod));
    let mut mounts = volumes::mounts(pod, container, &directory, &env)?;
    mounts.extend(own_files(container, &directory, attempt, &mounts)?);
    let resolved = Resolved { env, mounts, image_user, machine_memory: context.machine.memory };
    let spec = container_spec::container(pod, container, sandbox, attempt, resolved)?;
    context.runtime.create_container(&spec).await.map_err(|error| Failure::new("CreateContainerError", error.chain()))
}

/// [`termination_message`] of what may not be there.
pub async fn message_of(context: &Context, pod: &Pod, container: Option<&Container>) -> Option<String> {
    termination_message(context, pod, container?).await
}

pub async fn start(context: &Context, pod: &Pod, state: &PodState, container: String, id: String) -> Outcome {
    let started = context.runtime.start(&id).await;
    let seen = match &started {
        Ok(()) => after_start(context, pod, state, &container, &id).await,
        Err(_) => context.runtime.inspect(&id).await,
    };
    match (started, seen) {
        (Ok(()), Ok(seen)) => {
            let message = message_of(context, pod, seen.as_ref()).await;
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

/// A postStart hook has no limit in Kubernetes; one that takes a day will not come back.
const POST_START_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Looks at a started container, after its postStart hook; a hook that fails is the container's end.
async fn after_start(
    context: &Context,
    pod: &Pod,
    state: &PodState,
    name: &str,
    id: &str,
) -> Result<Option<Container>, Error> {
    context.recorder.record(pod, Some(name), EventType::Normal, "Started", format!("Started container {name}"));
    let lifecycle = spec::container(pod, name).and_then(|container| container.lifecycle.as_ref());
    if let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())
        && let Err(message) = super::hook::run(context, pod, name, id, hook, state.ip(), POST_START_LIMIT).await
    {
        let message = format!("PostStartHook failed: {message}");
        context.recorder.record(pod, Some(name), EventType::Warning, "FailedPostStartHook", message);
        context.recorder.record(pod, Some(name), EventType::Normal, "Killing", "FailedPostStartHook");
        context.runtime.stop(id, spec::termination_grace(pod)).await?;
    }
    context.runtime.inspect(id).await
}

async fn environment(
    context: &Context,
    pod: &Pod,
    container: &v1::Container,
    ip: Option<Ipv4Addr>,
) -> Result<Vec<(String, String)>, Failure> {
    let sources = super::volumes::read(context, env::references(pod, container)).await;
    let sources = sources.map_err(|message| Failure::new("CreateContainerConfigError", message))?;
    let services = {
        let mut world = context.world.clone();
        // Without the Services the variables would be wrong for the container's whole life.
        let world = world.wait_for(|world| world.synced).await;
        world.map(|world| env::service_variables(pod, &world)).unwrap_or_default()
    };
    let Machine { cpus, memory } = context.machine;
    let downward =
        Downward { pod, container: Some(container), pod_ip: ip, node_ip: context.config.node_ip, cpus, memory };
    env::resolve(container, &spec::pod_ref(pod).namespace, &sources, &downward, &services)
}

/// The files that each container gets without asking, where none of its own mounts takes their place.
fn own_files(
    container: &v1::Container,
    directory: &Path,
    attempt: u32,
    taken: &[Mount],
) -> Result<Vec<Mount>, Failure> {
    let message = message_file(directory, &container.name, attempt);
    let made = message.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&message, ""));
    let made = made.and_then(|()| fs::set_permissions(&message, fs::Permissions::from_mode(0o666)));
    made.map_err(|error| {
        Failure::new("CreateContainerConfigError", format!("make the termination message file: {error}"))
    })?;
    let message_path =
        container.termination_message_path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/dev/termination-log");
    let files = [
        ("/etc/hosts", directory.join("hosts")),
        ("/etc/resolv.conf", directory.join("resolv.conf")),
        (message_path, message),
    ];
    let free = files.into_iter().filter(|(target, _)| !taken.iter().any(|mount| mount.target == *target));
    let mounts = free.map(|(target, source)| Mount {
        source,
        target: target.to_owned(),
        read_only: false,
        propagation: Propagation::Private,
    });
    Ok(mounts.collect())
}

fn message_file(directory: &Path, container: &str, attempt: u32) -> PathBuf {
    directory.join("containers").join(container).join(format!("{attempt}.message"))
}

/// What an ended container left in its termination message file, or at the end of its log where it asked for that.
async fn termination_message(context: &Context, pod: &Pod, container: &Container) -> Option<String> {
    const LIMIT: usize = 4096;
    const LOG_LIMIT: usize = 2048;
    let (Role::Container { name, .. }, State::Exited(exit)) = (&container.owner.role, &container.state) else {
        return None;
    };
    let directory = context.pod_dir(&super::uid(pod));
    let left = fs::read(message_file(&directory, name, container.owner.attempt)).unwrap_or_default();
    let left = String::from_utf8_lossy(&left[..left.len().min(LIMIT)]).into_owned();
    let policy = spec::container(pod, name).and_then(|container| container.termination_message_policy.as_deref());
    if !left.is_empty() || policy != Some("FallbackToLogsOnError") || exit.code == 0 {
        return Some(left).filter(|left| !left.is_empty());
    }
    let options = LogOptions { tail: Some(80), ..Default::default() };
    let chunks = context.runtime.logs(&container.id, &options).collect::<Vec<_>>().await;
    let bytes: Vec<u8> = chunks
        .into_iter()
        .flatten()
        .flat_map(|chunk| match chunk {
            LogChunk::Stdout(bytes) | LogChunk::Stderr(bytes) => bytes,
        })
        .collect();
    Some(String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_LIMIT)..]).into_owned())
        .filter(|log| !log.is_empty())
}
