//! Removes everything of a pod: containers, files, mounts, and last the Pod in the API.

use std::{path::Path, time::Duration};

use fairlead_client::Api;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};

use super::uid;
use crate::{
    pods::{Context, outcome::Outcome, state::PodState, volumes::unmount_all},
    runtime::Role,
};

const RETRY: Duration = Duration::from_secs(1);

/// Ends the pod, in the API first: clients that wait for the deletion wait for that.
pub async fn finish(context: &Context, pod: &Pod, state: &PodState) -> Outcome {
    let instances = state.containers.values().flat_map(|container| {
        let ended = container.last.iter().chain(&container.previous).map(|ended| ended.id.clone());
        ended.chain(container.instance.id().map(str::to_owned))
    });
    let ids: Vec<String> = instances.chain(state.garbage.iter().cloned()).collect();
    let in_api = async {
        if !state.gone {
            delete(context, pod).await;
        }
    };
    tokio::join!(in_api, remove_containers(context, &ids));
    remove_directory(&context.pod_dir(&uid(pod)));
    Outcome::Finished
}

/// Deletes the Pod with grace 0, as only a kubelet may.
async fn delete(context: &Context, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(context.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let parameters =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
    loop {
        match pods.delete(name, &parameters).await {
            Ok(_) => return,
            // Gone already, or another one of the same name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => tracing::warn!(%error, "the pod was not deleted from the API; it is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Removes containers that are of no use. What fails is found again by the next list of the runtime's.
pub async fn remove_containers(context: &Context, ids: &[String]) {
    for id in ids {
        if let Err(error) = context.runtime.remove(id).await {
            tracing::warn!(
                id,
                error = error.chain(),
                "a container was not removed; the next list of the runtime's shows it again"
            );
        }
    }
}

/// Removes what is left of a pod that is not in the API any more.
pub async fn remove_orphan(context: &Context, uid: &str, containers: Vec<(String, Role)>) {
    let (sandboxes, apps): (Vec<_>, Vec<_>) = containers.into_iter().partition(|(_, role)| *role == Role::Sandbox);
    let ids: Vec<String> = apps.into_iter().chain(sandboxes).map(|(id, _)| id).collect();
    remove_containers(context, &ids).await;
    if let Err(error) = context.network.detach(uid).await {
        tracing::warn!(
            uid,
            error = &error as &dyn std::error::Error,
            "the network of a pod that is gone was not removed"
        );
    }
    remove_directory(&context.pod_dir(uid));
}

/// Removes the files of pods that are not among `uids`.
pub async fn remove_unknown_directories(context: &Context, uids: &[String]) {
    let directories = match std::fs::read_dir(context.config.pods_dir()) {
        Ok(directories) => directories,
        Err(error) => {
            tracing::warn!(%error, "the pods' files cannot be listed");
            return;
        }
    };
    for directory in directories.flatten() {
        if !uids.iter().any(|uid| directory.file_name() == uid.as_str()) {
            remove_directory(&directory.path());
        }
    }
}

fn remove_directory(path: &Path) {
    if let Err(error) = unmount_all(path) {
        tracing::warn!(path = %path.display(), %error, "a pod's volumes were not unmounted; the agent's next start will");
        return;
    }
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a pod's files were not removed; the agent's next start will")
        }
    }
}
