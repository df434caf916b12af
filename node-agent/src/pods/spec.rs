//! Readings of a Pod's spec that several decisions share.

use std::{borrow::Cow, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use sha2::{Digest, Sha256};

use super::deadline::seconds;
use crate::runtime::PodRef;

/// Who the pod is, for the runtime and for messages.
pub fn pod_ref(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
    }
}

/// Containers that run before the app containers, sidecars among them.
pub fn init_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten())
}

/// The containers that are the pod's purpose.
pub fn app_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.containers.iter())
}

/// Init containers, then app containers.
pub fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).chain(app_containers(pod))
}

/// Containers that were added to the running pod, to look into it. They have no probes, hooks, ports or resources.
pub fn ephemeral_containers(pod: &Pod) -> impl Iterator<Item = Container> {
    ephemeral_specs(pod).map(as_container)
}

/// Every container, of any kind.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = Cow<'_, Container>> {
    containers(pod).map(Cow::Borrowed).chain(ephemeral_containers(pod).map(Cow::Owned))
}

/// The container of this name, of any kind.
pub fn any_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    all_containers(pod).find(|container| container.name == name)
}

/// The container whose processes an ephemeral container of this name sees.
pub fn target_of<'a>(pod: &'a Pod, ephemeral: &str) -> Option<&'a str> {
    let container = ephemeral_specs(pod).find(|container| container.name == ephemeral)?;
    container.target_container_name.as_deref().filter(|target| !target.is_empty())
}

fn ephemeral_specs(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten())
}

/// An ephemeral container as one like the others, so that all that follows has one kind.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        resources,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        ..
    } = ephemeral.clone();
    Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        resources,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        ..Container::default()
    }
}

/// The init or app container of this name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    containers(pod).find(|container| container.name == name)
}

/// An init container that keeps running beside the app containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// `Always`, `OnFailure` or `Never`.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// The pod uses the network namespace of the host.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default()
}

/// What a container gets whose turn to stop comes, or whose hook ends, when the pod's grace period is over: as in
/// Kubernetes.
pub const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How long the pod's containers have to end by themselves, by its spec.
pub fn termination_grace(pod: &Pod) -> Duration {
    const DEFAULT: i64 = 30;
    seconds(pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT))
}

/// The same for a pod that is deleted: as the deletion says, or else its spec.
pub fn deletion_grace(pod: &Pod) -> Duration {
    pod.metadata.deletion_grace_period_seconds.map_or_else(|| termination_grace(pod), seconds)
}

/// The pod comes from a file of its node, not from the API.
pub fn is_static(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|all| all.get("kubernetes.io/config.source"));
    source.is_some_and(|source| source != "api")
}

/// When `activeDeadlineSeconds` ends the pod.
pub fn deadline(pod: &Pod, started_at: Timestamp) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    started_at.saturating_add(SignedDuration::from_secs(seconds)).ok()
}

/// The API already says that the pod has ended.
pub fn phase_is_final(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Changes with what a running container cannot take on: today its image, the one field that may change in place.
pub fn hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    hex::encode(&Sha256::digest(format!("{}\0{image}", container.name))[..8])
}

/// The environment names the pod's own address, which is known only once the sandbox is plugged.
pub fn needs_pod_ip(container: &Container) -> bool {
    container.env.iter().flatten().any(|variable| {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        field.is_some_and(|field| field.field_path.starts_with("status.podIP"))
    })
}

/// The pod's host name: at most 63 bytes, as the kernel allows; with the domain where the pod asks for that.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.hostname.clone()).or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}
