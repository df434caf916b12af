//! How many pods the controllers of some pods ask for.

use fairlead_kinds::kinds::api_version::group_and_version;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::Client;

use super::super::served::ServedKinds;
use crate::{
    engine::{Informer, Key, api_code},
    objects::{informers::Informers, owners::controller_of},
};

/// Why it cannot be told how many pods there should be.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// The controller of the pod is gone, or another has its name.
    #[error("found no controllers for pod \"{pod}\"")]
    NoController {
        /// Name of the pod.
        pod: String,
    },
    /// The kind of the controller has no scale.
    #[error("{resource} does not implement the scale subresource")]
    NoScale {
        /// Plural name, with the group.
        resource: String,
    },
    /// The API does not serve the kind of the controller.
    #[error("no matches for kind \"{kind}\" in version \"{version}\"")]
    NotServed {
        /// Of the owner reference.
        kind: String,
        /// `apiVersion` of the owner reference.
        version: String,
    },
    /// The API could not be asked for the scale.
    #[error("cannot read the scale of a controller: {0}")]
    Request(#[source] Box<kube::Error>),
}

/// What the controllers of some pods ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// Sum over the controllers, each counted once.
    pub pods: i32,
    /// Pods without a controller.
    pub unmanaged: Vec<String>,
}

/// Finds controllers: those of Kubernetes in the informers, others by their scale subresource.
pub struct PodControllers {
    sets: Arc<Informer<ReplicaSet>>,
    replication_controllers: Arc<Informer<ReplicaSet>>,
    deployments: Arc<Informer<Deployment>>,
    stateful_sets: Arc<Informer<StatefulSet>>,
    kinds: ServedKinds,
    client: Client,
}

/// A controller's uid and how many pods it asks for.
type ControllerScale = (String, i32);

impl PodControllers {
    /// Reads `informers`, and asks the API through `client` for what they do not hold.
    pub fn new(informers: &Informers, kinds: ServedKinds, client: Client) -> Self {
        Self {
            sets: informers.replica_sets.clone(),
            replication_controllers: informers.replication_controllers.clone(),
            deployments: informers.deployments.clone(),
            stateful_sets: informers.stateful_sets.clone(),
            kinds,
            client,
        }
    }

    /// How many pods the controllers of `pods` ask for.
    pub async fn scale_of(&self, pods: &[Arc<Pod>]) -> Result<Scale, ScaleError> {
        let mut unmanaged = Vec::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let name = || pod.metadata.name.clone().unwrap_or_default();
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged.push(name());
                continue;
            };
            if !seen.insert(&owner.uid) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let found = match self.known(owner, namespace) {
                Some(found) => Some(found),
                None => self.by_subresource(owner, namespace).await?,
            };
            let (uid, scale) = found.ok_or_else(|| ScaleError::NoController { pod: name() })?;
            scales.insert(uid, scale);
        }
        Ok(Scale { pods: scales.values().fold(0, |sum: i32, scale| sum.saturating_add(*scale)), unmanaged })
    }

    /// One of Kubernetes' own kinds. Pods of a Deployment's sets are the Deployment's.
    fn known(&self, owner: &OwnerReference, namespace: &str) -> Option<ControllerScale> {
        let key = Key::new(namespace, &owner.name);
        match (owner.kind.as_str(), group_and_version(&owner.api_version).0) {
            ("ReplicationController", "") => {
                let found = self.replication_controllers.get(&key)?;
                scale(&owner.uid, found.metadata.uid.as_ref(), found.spec.as_ref().and_then(|s| s.replicas))
            }
            ("ReplicaSet", "apps" | "extensions") => {
                let set = self.sets.get(&key).filter(|set| set.metadata.uid.as_ref() == Some(&owner.uid))?;
                match controller_of(&set.metadata) {
                    Some(deployment) if deployment.kind == "Deployment" => {
                        let found = self.deployments.get(&Key::new(namespace, &deployment.name))?;
                        let replicas = found.spec.as_ref().and_then(|s| s.replicas);
                        scale(&deployment.uid, found.metadata.uid.as_ref(), replicas)
                    }
                    _ => scale(&owner.uid, set.metadata.uid.as_ref(), set.spec.as_ref().and_then(|s| s.replicas)),
                }
            }
            ("StatefulSet", "apps") => {
                let found = self.stateful_sets.get(&key)?;
                scale(&owner.uid, found.metadata.uid.as_ref(), found.spec.as_ref().and_then(|s| s.replicas))
            }
            _ => None,
        }
    }

    async fn by_subresource(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<ControllerScale>, ScaleError> {
        let not_served = || ScaleError::NotServed { kind: owner.kind.clone(), version: owner.api_version.clone() };
        let mut kinds = self.kinds.clone();
        let kinds = kinds.wait_for(Option::is_some).await.map_err(|_| not_served())?.clone();
        let group = group_and_version(&owner.api_version).0;
        let served = kinds.iter().flat_map(|found| &found.kinds);
        let mut served = served.filter(|served| served.resource.group == group && served.resource.kind == owner.kind);
        let served = served.next().ok_or_else(not_served)?;
        if !served.scale {
            return Err(ScaleError::NoScale { resource: served.name() });
        }
        match served.api(&self.client, namespace).get_scale(&owner.name).await {
            Ok(found) => Ok(scale(&owner.uid, found.metadata.uid.as_ref(), found.spec.and_then(|s| s.replicas))),
            Err(error) if api_code(&error) == Some(404) => Ok(None),
            Err(error) => Err(ScaleError::Request(Box::new(error))),
        }
    }
}

/// `None` where another has the name.
fn scale(wanted: &str, found: Option<&String>, replicas: Option<i32>) -> Option<ControllerScale> {
    (found.map(String::as_str) == Some(wanted)).then(|| (wanted.to_owned(), replicas.unwrap_or(1).max(0)))
}
