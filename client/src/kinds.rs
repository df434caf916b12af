//! The kinds that the workspace reads and writes as types, and parts of them that it reads or writes alone.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    certificates::v1::CertificateSigningRequest,
    coordination::v1::Lease,
    core::v1::{
        Binding, ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus,
        PodTemplateSpec, ReplicationController, Secret, Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRole,
    scheduling::v1::PriorityClass,
    storage::v1::VolumeAttributesClass,
};
use serde::de::Error;

use crate::{Json, null_times};

macro_rules! json {
    ($($kind:ty),* $(,)?) => {$(
        impl Json for $kind {
            #[inline(never)]
            fn decode(json: &[u8]) -> serde_json::Result<Self> {
                let text = text(json)?;
                serde_json::from_str(text).or_else(|error| match null_times::zeroed(text) {
                    Some(zeroed) => serde_json::from_str(&zeroed),
                    None => Err(error),
                })
            }

            #[inline(never)]
            fn encode(&self) -> serde_json::Result<Vec<u8>> {
                serde_json::to_vec(self)
            }
        }
    )*};
}

json! {
    Binding,
    CertificateSigningRequest,
    ClusterRole,
    ConfigMap,
    ControllerRevision,
    CronJob,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Endpoints,
    Event,
    Job,
    Lease,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    PodStatus,
    PodTemplateSpec,
    PriorityClass,
    ReplicaSet,
    ReplicationController,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
    VolumeAttributesClass,
}

/// Checked as a whole, which is faster than string by string.
fn text(json: &[u8]) -> serde_json::Result<&str> {
    std::str::from_utf8(json).map_err(serde_json::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_bytes_that_are_no_text_are_refused() {
        let pod: Pod = Json::decode(br#"{"metadata": {"name": "a"}, "newField": 1}"#).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("a"));
        assert_eq!(Pod::decode(&pod.encode().unwrap()).unwrap(), pod);
        assert!(Pod::decode(b"{\"metadata\": {\"name\": \"\xff\"}}").is_err());
    }
}
