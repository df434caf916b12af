//! Removes everything of a pod: containers, files, mounts, and last the Pod in the API.

use std::{path::Path, time::Duration};

use fairlead_client::Api;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client,
    api::{DeleteParams, Preconditions},
};

use super::uid;
use crate::{
    deadline::AnswerError,
    pods::{
        Context,
        api_retry::{answered, wait_after},
        outcome::Outcome,
        state::PodState,
        volumes::unmount_all,
    },
    runtime::Role,
};

/// Ends the pod, in the API first: clients that wait for the deletion wait for that.
pub async fn finish(context: &Context, pod: &Pod, state: &PodState) -> Outcome {
    let instances = state.containers.values().flat_map(|container| {
        let ended = container.last.iter().chain(&container.previous).map(|ended| ended.id.clone());
        ended.chain(container.instance.id().map(str::to_owned))
    });
    let ids: Vec<String> = instances.chain(state.garbage.iter().cloned()).collect();
    let in_api = async {
        if !state.gone {
            delete(context.client.clone(), pod, wait_after).await;
        }
    };
    tokio::join!(in_api, remove_containers(context, &ids));
    remove_directory(&context.pod_dir(&uid(pod)));
    Outcome::Finished
}

/// Deletes the Pod with grace 0, as only a kubelet may. Tried again for as long as it takes, after `wait_after` so many
/// failures.
async fn delete(client: Client, pod: &Pod, mut wait_after: impl FnMut(u32) -> Duration) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(client, pod.metadata.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let parameters =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
    let mut failures = 0_u32;
    loop {
        let error = match answered(pods.delete(name, &parameters)).await {
            Ok(_) => return,
            // Gone already, or another one of the same name.
            Err(AnswerError::Failed(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return,
            Err(error) => error,
        };
        failures = failures.saturating_add(1);
        // Once for each pod: all of a node's pods may wait for an API that is away.
        if failures == 1 {
            tracing::warn!(%error, "the pod was not deleted from the API; it is tried again");
        } else {
            tracing::debug!(%error, failures, "the pod was not deleted from the API; it is tried again");
        }
        tokio::time::sleep(wait_after(failures)).await;
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use kube::client::Body;

    use super::*;

    /// A client whose request of this number is the first that succeeds.
    fn client(succeeds: u32) -> Client {
        let count = Arc::new(AtomicU32::new(0));
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                let code = if number < succeeds { 503 } else { 200 };
                let body = serde_json::json!({ "kind": "Status", "apiVersion": "v1", "code": code }).to_string();
                http::Response::builder().status(code).body(Body::from(body.into_bytes()))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn the_last_deletion_waits_by_the_number_of_its_failures_until_the_api_is_back() {
        let metadata = serde_json::json!({ "namespace": "default", "name": "web", "uid": "u" });
        let pod: Pod = serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap();
        let mut failures = Vec::new();
        let wait_after = |count| {
            failures.push(count);
            Duration::ZERO
        };
        delete(client(6), &pod, wait_after).await;
        assert_eq!(failures, [1, 2, 3, 4, 5]);
    }
}
