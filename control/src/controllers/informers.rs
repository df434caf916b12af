//! The kinds that controllers watch, each once, and under which names their objects are found.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        coordination::v1::Lease,
        core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use super::{
    engine::{Informer, Tasks},
    owners::controller_of,
};

/// Where nodes renew their Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// One informer a kind, shared by all controllers.
pub struct Informers {
    pub namespaces: Arc<Informer<Namespace>>,
    pub nodes: Arc<Informer<Node>>,
    pub leases: Arc<Informer<Lease>>,
    pub pods: Arc<Informer<Pod>>,
    pub services: Arc<Informer<Service>>,
    pub endpoints: Arc<Informer<Endpoints>>,
    pub endpoint_slices: Arc<Informer<EndpointSlice>>,
    pub service_accounts: Arc<Informer<ServiceAccount>>,
    /// Only those called `kube-root-ca.crt`.
    pub root_cas: Arc<Informer<ConfigMap>>,
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    pub deployments: Arc<Informer<Deployment>>,
}

impl Informers {
    pub fn new() -> Self {
        Self {
            namespaces: Informer::new(None),
            nodes: Informer::new(None),
            leases: Informer::new(None),
            pods: Informer::new(Some(pod_names)),
            services: Informer::new(Some(service_names)),
            endpoints: Informer::new(None),
            endpoint_slices: Informer::new(Some(slice_names)),
            service_accounts: Informer::new(None),
            root_cas: Informer::new(None),
            replica_sets: Informer::new(Some(|set| vec![owner_name(&set.metadata)])),
            deployments: Informer::new(None),
        }
    }

    /// Starts the watches. Handlers must be registered by now.
    pub fn run(&self, client: &Client, tasks: &Tasks) {
        let leases = Api::<Lease>::namespaced(client.clone(), LEASE_NAMESPACE);
        let root_cas = watcher::Config::default().fields(&format!("metadata.name={}", super::root_ca::NAME));
        follow(tasks, &self.namespaces, Api::all(client.clone()), all());
        follow(tasks, &self.nodes, Api::all(client.clone()), all());
        follow(tasks, &self.leases, leases, all());
        follow(tasks, &self.pods, Api::all(client.clone()), all());
        follow(tasks, &self.services, Api::all(client.clone()), all());
        follow(tasks, &self.endpoints, Api::all(client.clone()), all());
        follow(tasks, &self.endpoint_slices, Api::all(client.clone()), all());
        follow(tasks, &self.service_accounts, Api::all(client.clone()), all());
        follow(tasks, &self.root_cas, Api::all(client.clone()), root_cas);
        follow(tasks, &self.replica_sets, Api::all(client.clone()), all());
        follow(tasks, &self.deployments, Api::all(client.clone()), all());
    }
}

impl Default for Informers {
    fn default() -> Self {
        Self::new()
    }
}

/// One list in one answer: in process, pages only add requests.
pub fn all() -> watcher::Config {
    watcher::Config { page_size: None, ..Default::default() }
}

/// Starts the one watch of a kind. What nobody here reads is not kept.
pub fn follow<K>(tasks: &Tasks, informer: &Arc<Informer<K>>, api: Api<K>, config: watcher::Config)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = watcher(api, config).modify(|object| object.meta_mut().managed_fields = None).default_backoff();
    tasks.spawn("informer", informer.clone().run(events, tasks.stop()));
}

fn pod_names(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut names = vec![owner_name(&pod.metadata)];
    if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) {
        names.push(on_node(node));
    }
    for (key, value) in pod.metadata.labels.iter().flatten() {
        names.push(labelled(namespace, key, value));
    }
    names
}

/// One label of the selector suffices: a pod that lacks it is not selected.
fn service_names(service: &Service) -> Vec<String> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.and_then(|s| s.first_key_value()).map(|(k, v)| vec![selecting(namespace, k, v)]).unwrap_or_default()
}

fn slice_names(slice: &EndpointSlice) -> Vec<String> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let service = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
    service.map(|name| vec![of_service(namespace, name)]).unwrap_or_default()
}

/// Index name of the objects that `uid` controls.
pub fn owned_by(uid: &str) -> String {
    format!("owner:{uid}")
}

/// Index name of the objects of a namespace that nothing controls.
pub fn orphans_in(namespace: &str) -> String {
    format!("orphan:{namespace}")
}

/// Index name of the pods bound to a node.
pub fn on_node(node: &str) -> String {
    format!("node:{node}")
}

/// Index name of the pods of a namespace with one label.
pub fn labelled(namespace: &str, key: &str, value: &str) -> String {
    format!("label:{namespace}/{key}={value}")
}

/// Index name of the Services of a namespace whose selector asks for one label.
pub fn selecting(namespace: &str, key: &str, value: &str) -> String {
    format!("selecting:{namespace}/{key}={value}")
}

/// Index name of the EndpointSlices of a Service.
pub fn of_service(namespace: &str, service: &str) -> String {
    format!("service:{namespace}/{service}")
}

fn owner_name(meta: &ObjectMeta) -> String {
    match controller_of(meta) {
        Some(owner) => owned_by(&owner.uid),
        None => orphans_in(meta.namespace.as_deref().unwrap_or_default()),
    }
}
