//! The two kinds that keep a number of pods: ReplicaSets, and ReplicationControllers in the form of such.

use fairlead_client::Api;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetStatus},
        core::v1::{ObjectReference, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Client, api::PostParams};

use crate::{
    engine::{Failure, Key, reference, unless_gone},
    objects::{owners::controller_reference, replication_controller::with_status},
};

/// Of which kind the sets of one controller are in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `apps/v1`
    ReplicaSets,
    /// `v1`
    ReplicationControllers,
}

impl Family {
    /// Name of the controller.
    pub fn component(self) -> &'static str {
        match self {
            Self::ReplicaSets => "replicaset-controller",
            Self::ReplicationControllers => "replication-controller",
        }
    }

    /// As owner references name it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ReplicaSets => "ReplicaSet",
            Self::ReplicationControllers => "ReplicationController",
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::ReplicaSets => "apps/v1",
            Self::ReplicationControllers => "v1",
        }
    }

    /// Makes `set` the controller of a pod.
    pub fn owner_reference(self, set: &ReplicaSet) -> OwnerReference {
        OwnerReference { api_version: self.api_version().into(), kind: self.kind().into(), ..controller_reference(set) }
    }

    /// What events are about.
    pub fn object_reference(self, set: &ReplicaSet) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.api_version().into()),
            kind: Some(self.kind().into()),
            ..reference(set)
        }
    }

    /// The metadata of the set as it is stored now.
    pub async fn live(self, client: &Client, key: &Key) -> Result<Option<ObjectMeta>, Failure> {
        let live = match self {
            Self::ReplicaSets => {
                let api: Api<ReplicaSet> = Api::namespaced(client.clone(), &key.namespace);
                api.get_opt(&key.name).await.map(|live| live.map(|live| live.metadata))
            }
            Self::ReplicationControllers => {
                let api: Api<ReplicationController> = Api::namespaced(client.clone(), &key.namespace);
                api.get_opt(&key.name).await.map(|live| live.map(|live| live.metadata))
            }
        };
        live.map_err(Failure::request("read the set again"))
    }

    /// Replaces the status of a set; one that is gone needs none.
    pub async fn write_status(
        self,
        client: &Client,
        set: &ReplicaSet,
        status: ReplicaSetStatus,
    ) -> Result<(), Failure> {
        let (key, parameters) = (Key::of(set), PostParams::default());
        let written = match self {
            Self::ReplicaSets => {
                let api: Api<ReplicaSet> = Api::namespaced(client.clone(), &key.namespace);
                let updated =
                    ReplicaSet { metadata: set.metadata.clone(), spec: set.spec.clone(), status: Some(status) };
                api.replace_status(&key.name, &parameters, &updated).await.map(drop)
            }
            Self::ReplicationControllers => {
                let api: Api<ReplicationController> = Api::namespaced(client.clone(), &key.namespace);
                api.replace_status(&key.name, &parameters, &with_status(set, status)).await.map(drop)
            }
        };
        unless_gone(written, "update the status of a set").map(drop)
    }
}
