//! Writes the status of pods to the API.

use std::time::Duration;

use fairlead_client::Api;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use crate::{
    deadline::AnswerError,
    pods::{Context, api_retry::answered, status, worker::Handle},
};

/// Applies `patch`, a strategic merge patch, to the status of `pod`; returns the Pod as it is then, or `None` where
/// there is none any more.
pub async fn write_status(context: &Context, pod: &Pod, patch: Value) -> Result<Option<Pod>, AnswerError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(context.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let (parameters, patch) = (PatchParams::default(), Patch::Strategic(patch));
    match answered(pods.patch_status(name, &parameters, &patch)).await {
        Ok(pod) => Ok(Some(pod)),
        // Gone, or replaced by another of the same name: the watch reports which.
        Err(AnswerError::Failed(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes for every pod that it is not ready any more. A write that fails or takes too long is only logged: the node is
/// taken down in any case.
pub async fn write_taken_down(context: &Context, pods: &[Handle]) {
    const AT_ONCE: usize = 16;
    const LIMIT: Duration = Duration::from_secs(5);
    let now = Timestamp::now();
    let writes = futures::stream::iter(pods).for_each_concurrent(AT_ONCE, |handle| async move {
        let view = handle.view();
        let current = view.pod.status.clone().unwrap_or_default();
        let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
        let Some(patch) = status::patch(uid, &current, &status::taken_down(&view.status, now)) else { return };
        if let Err(error) = write_status(context, &view.pod, patch).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(pod = %handle.pod().name, error, "cannot write that the pod is taken down");
        }
    });
    if tokio::time::timeout(LIMIT, writes).await.is_err() {
        tracing::warn!("it was not written in time that the pods of this node are taken down");
    }
}
