//! Writes a pod's status to the API.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::Value;

use crate::pods::Context;

/// Applies `patch` to the status of `pod`; returns the Pod as it is then, or `None` where there is none any more.
pub async fn write_status(context: &Context, pod: &Pod, patch: Value) -> Result<Option<Pod>, kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(context.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    match pods.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(pod) => Ok(Some(pod)),
        // Gone, or another of the same name by now: the watch tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}
