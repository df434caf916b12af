//! The names by which objects are found in the shared watches: each names a set of objects, and says which objects
//! are in it.

use fairlead_kinds::kinds::secret::ACCOUNT_NAME;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        batch::v1::Job,
        certificates::v1::CertificateSigningRequest,
        core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::{
    owners::controller_of,
    pod_state::is_finished,
    volume_references::{claim_names, class_of_volume, classes_of_claim},
};

/// Index name of the objects that `uid` controls.
pub fn owned_by(uid: &str) -> String {
    format!("owner:{uid}")
}

/// Index name of the objects of a namespace that nothing controls.
pub fn orphans_in(namespace: &str) -> String {
    format!("orphan:{namespace}")
}

/// Index name of the objects of a namespace with one label that nothing controls.
pub fn labelled_orphans(namespace: &str, key: &str, value: &str) -> String {
    format!("orphan:{namespace}/{key}={value}")
}

/// Index name of the signing requests that a node made.
pub fn requested_by(node: &str) -> String {
    format!("requester:{node}")
}

/// Index name of the pods that have ended.
pub const FINISHED: &str = "finished";

/// Index name of the pods bound to a node.
pub fn on_node(node: &str) -> String {
    format!("node:{node}")
}

/// Index name of the Secrets with tokens of an account.
pub fn of_account(namespace: &str, account: &str) -> String {
    format!("account:{namespace}/{account}")
}

/// Index name of the pods of a namespace whose volumes name a claim.
pub fn using_claim(namespace: &str, claim: &str) -> String {
    format!("claim:{namespace}/{claim}")
}

/// Index name of the volumes and claims that name a VolumeAttributesClass.
pub fn naming_attributes_class(class: &str) -> String {
    format!("attributes-class:{class}")
}

/// Index name of the pods of a namespace with one label.
pub fn labelled(namespace: &str, key: &str, value: &str) -> String {
    format!("label:{namespace}/{key}={value}")
}

/// Index name of the objects of a namespace whose selector asks for expressions only, and for no label by value.
pub fn selecting_by_expressions(namespace: &str) -> String {
    format!("selecting:{namespace}")
}

/// Index name of the objects (Services, ReplicaSets, Deployments) of a namespace whose selector asks for one label.
pub fn selecting(namespace: &str, key: &str, value: &str) -> String {
    format!("selecting:{namespace}/{key}={value}")
}

/// Index name of the EndpointSlices of a Service.
pub fn of_service(namespace: &str, service: &str) -> String {
    format!("service:{namespace}/{service}")
}

pub(super) fn pod_index(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut names = owner_index(&pod.metadata);
    if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) {
        names.push(on_node(node));
    }
    if is_finished(pod) {
        names.push(FINISHED.into());
    }
    names.extend(claim_names(pod).map(|claim| using_claim(namespace, &claim)));
    for (key, value) in pod.metadata.labels.iter().flatten() {
        names.push(labelled(namespace, key, value));
    }
    names
}

pub(super) fn token_secret_index(secret: &Secret) -> Vec<String> {
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let annotations = secret.metadata.annotations.as_ref();
    let account = annotations.and_then(|all| all.get(ACCOUNT_NAME));
    account.map(|account| of_account(namespace, account)).into_iter().collect()
}

pub(super) fn claim_index(claim: &PersistentVolumeClaim) -> Vec<String> {
    classes_of_claim(claim).iter().map(|class| naming_attributes_class(class)).collect()
}

pub(super) fn volume_index(volume: &PersistentVolume) -> Vec<String> {
    class_of_volume(volume).iter().map(|class| naming_attributes_class(class)).collect()
}

pub(super) fn replica_set_index(set: &ReplicaSet) -> Vec<String> {
    let mut names = owner_index(&set.metadata);
    names.push(selector_index(&set.metadata, set.spec.as_ref().map(|s| &s.selector)));
    names
}

pub(super) fn job_index(job: &Job) -> Vec<String> {
    let mut names = owner_index(&job.metadata);
    names.push(selector_index(&job.metadata, job.spec.as_ref().and_then(|spec| spec.selector.as_ref())));
    names
}

pub(super) fn deployment_index(deployment: &Deployment) -> Vec<String> {
    vec![selector_index(&deployment.metadata, deployment.spec.as_ref().map(|s| &s.selector))]
}

pub(super) fn signing_request_index(csr: &CertificateSigningRequest) -> Vec<String> {
    csr.spec.username.as_deref().and_then(node_of_user).map(requested_by).into_iter().collect()
}

/// The node that a user name speaks for.
pub fn node_of_user(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| !name.is_empty())
}

/// By one label that the selector asks for; an object without that label is not selected.
pub(super) fn selector_index(meta: &ObjectMeta, selector: Option<&LabelSelector>) -> String {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    match selector.and_then(|s| s.match_labels.as_ref()).and_then(|labels| labels.first_key_value()) {
        Some((key, value)) => selecting(namespace, key, value),
        None => selecting_by_expressions(namespace),
    }
}

/// One label of the selector suffices: a pod that lacks it is not selected.
pub(super) fn service_index(service: &Service) -> Vec<String> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.and_then(|s| s.first_key_value()).map(|(k, v)| vec![selecting(namespace, k, v)]).unwrap_or_default()
}

pub(super) fn slice_index(slice: &EndpointSlice) -> Vec<String> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let service = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
    service.map(|name| vec![of_service(namespace, name)]).unwrap_or_default()
}

pub(super) fn owner_index(meta: &ObjectMeta) -> Vec<String> {
    if let Some(owner) = controller_of(meta) {
        return vec![owned_by(&owner.uid)];
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let by_label = meta.labels.iter().flatten().map(|(key, value)| labelled_orphans(namespace, key, value));
    std::iter::once(orphans_in(namespace)).chain(by_label).collect()
}
