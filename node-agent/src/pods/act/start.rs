//! Creates and starts containers.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use k8s_openapi::api::core::v1::{self, LifecycleHandler, Pod};
use tokio::sync::mpsc;

use super::termination_message;
use crate::{
    pods::{
        Context, container_spec,
        container_spec::Resolved,
        downward::Downward,
        env,
        machine::Machine,
        mounted_file,
        outcome::{Failure, Outcome},
        recorder::EventType,
        security::profiles::{self, SeccompSource},
        spec,
        state::{ImageState, PodState},
        volumes,
        worker::{Input, send},
    },
    runtime::{Error, Mount, Propagation, State},
};

/// Creates the container in `sandbox`, with its environment, files and volumes.
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
    let container = spec::any_container(pod, name).ok_or_else(|| {
        Failure::new("CreateContainerConfigError", format!("container {name} is not in the pod any more"))
    })?;
    let container = container.as_ref();
    let target = target(pod, state, name)?;
    let ImageState::Present(image) = state.container(name).image.clone() else {
        return Err(Failure::new(
            "CreateContainerError",
            format!("the image of container {name} is not known any more"),
        ));
    };
    let env = environment(context, pod, container, state.ip()).await?;
    let directory = context.pod_dir(&super::uid(pod));
    let mut mounts = volumes::mounts(pod, container, &directory, &env)?;
    mounts.extend(own_files(container, &directory, attempt, &mounts)?);
    let seccomp_profile = seccomp_profile(context, pod, container)?;
    let (machine_memory, host) = (context.machine.memory, context.host);
    let resolved = Resolved { env, mounts, image, target, seccomp_profile, machine_memory, host };
    let spec = container_spec::container(pod, container, sandbox, attempt, resolved)?;
    context.runtime.create_container(&spec).await.map_err(|error| Failure::new("CreateContainerError", error.chain()))
}

/// The running container whose processes an ephemeral container is to see, by its id.
fn target(pod: &Pod, state: &PodState, name: &str) -> Result<Option<String>, Failure> {
    let Some(target) = spec::target_of(pod, name) else { return Ok(None) };
    match state.container(target).instance.process_id() {
        Some(id) => Ok(Some(id.to_owned())),
        None => {
            Err(Failure::new("CreateContainerConfigError", format!("unable to find target container \"{target}\"")))
        }
    }
}

/// The seccomp profile of a container with `type: Localhost`, from the node's directory of profiles.
fn seccomp_profile(context: &Context, pod: &Pod, container: &v1::Container) -> Result<Option<String>, Failure> {
    let refused = |why: String| Failure::new("CreateContainerError", why);
    let Some(pod_spec) = &pod.spec else { return Ok(None) };
    let SeccompSource::Localhost(path) =
        profiles::seccomp(pod_spec, container).map_err(|refusal| refused(refusal.to_string()))?
    else {
        return Ok(None);
    };
    let path = context.config.seccomp_dir().join(path);
    let unusable = |why: String| refused(format!("seccomp profile {}: {why}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| unusable(error.to_string()))?;
    let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    // Without it the runtime would take the file for a filter that allows everything.
    if !profile.get("defaultAction").is_some_and(serde_json::Value::is_string) {
        return Err(unusable("it has no defaultAction".to_owned()));
    }
    Ok(Some(profile.to_string()))
}

/// Starts the container, and then runs its postStart hook. A start that is not known to have succeeded fails.
pub async fn start(
    context: &Context,
    pod: &Pod,
    state: &PodState,
    container: String,
    id: String,
    sender: &mpsc::Sender<Input>,
) -> Outcome {
    let started = context.runtime.start(&id).await;
    let seen = context.runtime.inspect(&id).await;
    match (started, seen) {
        (Ok(()), Ok(seen)) => {
            let message = format!("Started container {container}");
            context.recorder.record(pod, Some(&container), EventType::Normal, "Started", message);
            let message = termination_message::of(context, pod, seen.as_ref()).await;
            let lifecycle = spec::container(pod, &container).and_then(|container| container.lifecycle.as_ref());
            let hook = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref());
            let started = Outcome::Started { id: id.clone(), container: seen, message, has_hook: hook.is_some() };
            let Some(hook) = hook else { return started };
            send(sender, Input::Outcome(Box::new(started))).await;
            post_start(context, pod, state, &container, id, hook).await
        }
        (Err(error), Ok(Some(seen))) if matches!(seen.state, State::Exited(_)) => {
            record_failure(context, pod, &container, &error);
            Outcome::Observed { id, container: Some(seen), message: Some(error.chain()) }
        }
        (Err(error), _) | (Ok(()), Err(error)) => {
            record_failure(context, pod, &container, &error);
            Outcome::StartFailed { container, id, failure: Failure::new("RunContainerError", error.chain()) }
        }
    }
}

fn record_failure(context: &Context, pod: &Pod, container: &str, error: &Error) {
    let message = format!("Error: {}", error.chain());
    context.recorder.record(pod, Some(container), EventType::Warning, "Failed", message);
}

/// Limit of a postStart hook. Kubernetes has none; one that has run for a day has hung.
const POST_START_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Runs the postStart hook. It is cancelled when its container ends or is stopped.
async fn post_start(
    context: &Context,
    pod: &Pod,
    state: &PodState,
    name: &str,
    id: String,
    hook: &LifecycleHandler,
) -> Outcome {
    let result = super::hook::run(context, pod, name, &id, hook, state.ip(), POST_START_LIMIT).await;
    if let Err(error) = &result {
        let message = format!("PostStartHook failed: {error}");
        context.recorder.record(pod, Some(name), EventType::Warning, "FailedPostStartHook", message);
    }
    Outcome::PostStartEnded { id, result }
}

/// How long a container waits for the Services of the cluster before it fails and is tried again.
const WORLD_LIMIT: Duration = Duration::from_secs(60);

async fn environment(
    context: &Context,
    pod: &Pod,
    container: &v1::Container,
    ip: Option<Ipv4Addr>,
) -> Result<Vec<(String, String)>, Failure> {
    let config_error = |message: String| Failure::new("CreateContainerConfigError", message);
    let sources = super::volumes::read(context, env::references(pod, container)).await;
    let sources = sources.map_err(|error| config_error(error.to_string()))?;
    let services = {
        let mut world = context.world.clone();
        // Without the Services the variables would be wrong for the container's whole life.
        let synced = tokio::time::timeout(WORLD_LIMIT, world.wait_for(|world| world.synced)).await;
        let synced = synced.map_err(|_| config_error("the Services of the cluster are not known yet".to_owned()))?;
        synced.map(|world| env::service_variables(pod, &world)).unwrap_or_default()
    };
    let Machine { cpus, memory } = context.machine;
    let downward =
        Downward { pod, container: Some(container), pod_ip: ip, node_ip: context.config.node_ip, cpus, memory };
    env::resolve(container, &spec::pod_ref(pod).namespace, &sources, &downward, &services)
}

/// The files that each container gets by default (hosts, resolv.conf), unless one of its mounts replaces them.
fn own_files(
    container: &v1::Container,
    directory: &Path,
    attempt: u32,
    taken: &[Mount],
) -> Result<Vec<Mount>, Failure> {
    let message = termination_message::file(directory, &container.name, attempt);
    let made = message.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| mounted_file::replace(&message, b""));
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
