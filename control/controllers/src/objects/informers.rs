//! The shared watches: one informer per kind that the controllers or the scheduler read, and the names its objects are
//! found by.

use std::sync::Arc;

use fairlead_client::{Api, Events, Object};
use fairlead_kinds::kinds::secret::ACCOUNT_NAME;
use futures::{FutureExt, StreamExt};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1::{
            ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
            ServiceAccount,
        },
        discovery::v1::EndpointSlice,
        policy::v1::PodDisruptionBudget,
        rbac::v1::ClusterRole,
        storage::v1::VolumeAttributesClass,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{Client, Resource, runtime::watcher};

pub use super::candidates::{orphans_for, pods_for, selectors_for};
use super::{
    owners::controller_of,
    pod_state::is_finished,
    replication_controller::as_replica_set,
    volume_references::{claim_names, class_of_volume, classes_of_claim},
};
use crate::engine::{Informer, Tasks, watch::everything};

/// Where nodes renew their Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Name of the ConfigMap with the cluster's CA certificate in each namespace.
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// One informer per kind, shared by the scheduler and all controllers.
pub struct Informers {
    /// All of the cluster, as with each kind here that says nothing else.
    pub namespaces: Arc<Informer<Namespace>>,
    /// Kept by name.
    pub nodes: Arc<Informer<Node>>,
    /// Heartbeats of the nodes, in `kube-node-lease`.
    pub leases: Arc<Informer<Lease>>,
    /// Indexed: a controller finds its own pods without a look at the others.
    pub pods: Arc<Informer<Pod>>,
    /// Read by the EndpointSlice and Endpoints controllers.
    pub services: Arc<Informer<Service>>,
    /// The old form of slices.
    pub endpoints: Arc<Informer<Endpoints>>,
    /// Written by their controller, and by others.
    pub endpoint_slices: Arc<Informer<EndpointSlice>>,
    /// Each namespace has its `default`.
    pub service_accounts: Arc<Informer<ServiceAccount>>,
    /// Only those called `kube-root-ca.crt`.
    pub root_cas: Arc<Informer<ConfigMap>>,
    /// Read by their own controller and by that of Deployments.
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    /// ReplicationControllers, in the form of ReplicaSets.
    pub replication_controllers: Arc<Informer<ReplicaSet>>,
    /// Read by their own controller.
    pub deployments: Arc<Informer<Deployment>>,
    /// Read by their own controller.
    pub daemon_sets: Arc<Informer<DaemonSet>>,
    /// Read by their own controller, and for the pods that disruption budgets expect.
    pub stateful_sets: Arc<Informer<StatefulSet>>,
    /// The templates that DaemonSets and StatefulSets had.
    pub revisions: Arc<Informer<ControllerRevision>>,
    /// Read by their own controller, and by the scheduler before it preempts pods.
    pub disruption_budgets: Arc<Informer<PodDisruptionBudget>>,
    /// All of the cluster, indexed by owner and selector.
    pub jobs: Arc<Informer<Job>>,
    /// Read by their own controller.
    pub cron_jobs: Arc<Informer<CronJob>>,
    /// Certificates that nodes ask for.
    pub signing_requests: Arc<Informer<CertificateSigningRequest>>,
    /// All of the cluster.
    pub cluster_roles: Arc<Informer<ClusterRole>>,
    /// Only those that hold tokens of ServiceAccounts, indexed by account.
    pub token_secrets: Arc<Informer<Secret>>,
    /// All of the cluster, indexed by the VolumeAttributesClasses that they name.
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    /// All of the cluster, indexed by the VolumeAttributesClass that they name.
    pub volumes: Arc<Informer<PersistentVolume>>,
    /// All of the cluster.
    pub attributes_classes: Arc<Informer<VolumeAttributesClass>>,
}

impl Informers {
    /// Informers whose watches do not run yet.
    pub fn new() -> Self {
        Self {
            namespaces: Informer::new(None),
            nodes: Informer::new(None),
            leases: Informer::new(None),
            pods: Informer::new(Some(pod_index)),
            services: Informer::new(Some(service_index)),
            endpoints: Informer::new(None),
            endpoint_slices: Informer::new(Some(slice_index)),
            service_accounts: Informer::new(None),
            root_cas: Informer::new(None),
            replica_sets: Informer::new(Some(replica_set_index)),
            replication_controllers: Informer::new(Some(replica_set_index)),
            deployments: Informer::new(Some(deployment_index)),
            daemon_sets: Informer::new(Some(|set| {
                vec![selector_index(&set.metadata, set.spec.as_ref().map(|s| &s.selector))]
            })),
            stateful_sets: Informer::new(Some(|set| {
                vec![selector_index(&set.metadata, set.spec.as_ref().map(|s| &s.selector))]
            })),
            revisions: Informer::new(Some(|revision| owner_index(&revision.metadata))),
            disruption_budgets: Informer::new(Some(|budget| {
                vec![selector_index(&budget.metadata, budget.spec.as_ref().and_then(|s| s.selector.as_ref()))]
            })),
            jobs: Informer::new(Some(job_index)),
            cron_jobs: Informer::new(None),
            signing_requests: Informer::new(Some(signing_request_index)),
            cluster_roles: Informer::new(None),
            token_secrets: Informer::new(Some(token_secret_index)),
            claims: Informer::new(Some(claim_index)),
            volumes: Informer::new(Some(volume_index)),
            attributes_classes: Informer::new(None),
        }
    }

    /// Starts the watches.
    pub fn run(&self, client: &Client, tasks: &Tasks) {
        let leases = Api::<Lease>::namespaced(client.clone(), LEASE_NAMESPACE);
        let root_cas = watcher::Config::default().fields(&format!("metadata.name={ROOT_CA}"));
        follow(tasks, &self.namespaces, Api::all(client.clone()), everything());
        follow(tasks, &self.nodes, Api::all(client.clone()), everything());
        follow(tasks, &self.leases, leases, everything());
        follow(tasks, &self.pods, Api::all(client.clone()), everything());
        follow(tasks, &self.services, Api::all(client.clone()), everything());
        follow(tasks, &self.endpoints, Api::all(client.clone()), everything());
        follow(tasks, &self.endpoint_slices, Api::all(client.clone()), everything());
        follow(tasks, &self.service_accounts, Api::all(client.clone()), everything());
        follow(tasks, &self.root_cas, Api::all(client.clone()), root_cas);
        follow(tasks, &self.replica_sets, Api::all(client.clone()), everything());
        follow_as(tasks, &self.replication_controllers, Api::all(client.clone()), as_replica_set);
        follow(tasks, &self.deployments, Api::all(client.clone()), everything());
        follow(tasks, &self.daemon_sets, Api::all(client.clone()), everything());
        follow(tasks, &self.stateful_sets, Api::all(client.clone()), everything());
        follow(tasks, &self.revisions, Api::all(client.clone()), everything());
        follow(tasks, &self.disruption_budgets, Api::all(client.clone()), everything());
        follow(tasks, &self.jobs, Api::all(client.clone()), everything());
        follow(tasks, &self.cron_jobs, Api::all(client.clone()), everything());
        follow(tasks, &self.signing_requests, Api::all(client.clone()), everything());
        follow(tasks, &self.cluster_roles, Api::all(client.clone()), everything());
        let tokens = watcher::Config::default().fields("type=kubernetes.io/service-account-token");
        follow(tasks, &self.token_secrets, Api::all(client.clone()), tokens);
        follow(tasks, &self.claims, Api::all(client.clone()), everything());
        follow(tasks, &self.volumes, Api::all(client.clone()), everything());
        follow(tasks, &self.attributes_classes, Api::all(client.clone()), everything());
    }

    /// The state of every informer.
    pub fn status(&self) -> Vec<InformerStatus> {
        vec![
            InformerStatus::of(&self.namespaces),
            InformerStatus::of(&self.nodes),
            InformerStatus::of(&self.leases),
            InformerStatus::of(&self.pods),
            InformerStatus::of(&self.services),
            InformerStatus::of(&self.endpoints),
            InformerStatus::of(&self.endpoint_slices),
            InformerStatus::of(&self.service_accounts),
            InformerStatus::of(&self.root_cas),
            InformerStatus::of(&self.replica_sets),
            InformerStatus {
                kind: "replicationcontrollers".into(),
                ..InformerStatus::of(&self.replication_controllers)
            },
            InformerStatus::of(&self.deployments),
            InformerStatus::of(&self.daemon_sets),
            InformerStatus::of(&self.stateful_sets),
            InformerStatus::of(&self.revisions),
            InformerStatus::of(&self.disruption_budgets),
            InformerStatus::of(&self.jobs),
            InformerStatus::of(&self.cron_jobs),
            InformerStatus::of(&self.signing_requests),
            InformerStatus::of(&self.cluster_roles),
            InformerStatus::of(&self.token_secrets),
            InformerStatus::of(&self.claims),
            InformerStatus::of(&self.volumes),
            InformerStatus::of(&self.attributes_classes),
        ]
    }
}

/// One informer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InformerStatus {
    /// Plural name of its kind.
    pub kind: String,
    /// Whether its first listing is complete.
    pub synced: bool,
    /// How many objects it holds.
    pub objects: usize,
    /// How often one of its handlers panicked.
    pub handler_panics: u64,
}

impl InformerStatus {
    fn of<K: Resource<DynamicType = ()> + Send + Sync + 'static>(informer: &Informer<K>) -> Self {
        Self {
            kind: K::plural(&()).into_owned(),
            synced: informer.synced().is_synced(),
            objects: informer.len(),
            handler_panics: informer.handler_panics(),
        }
    }
}

impl Default for Informers {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts the one watch of a kind.
fn follow<K: Object>(tasks: &Tasks, informer: &Arc<Informer<K>>, api: Api<K>, config: watcher::Config) {
    let informer = informer.clone();
    tasks.spawn("informer", move |stop| informer.clone().run(Events::new(&api, config.clone()), stop).boxed());
}

/// Starts the one watch of a kind whose objects are kept in the form of another.
fn follow_as<W: Object, K: Resource + Send + Sync + 'static>(
    tasks: &Tasks,
    informer: &Arc<Informer<K>>,
    api: Api<W>,
    convert: fn(W) -> K,
) {
    let informer = informer.clone();
    let convert = move |event: watcher::Result<watcher::Event<W>>| {
        event.map(|event| match event {
            watcher::Event::Apply(object) => watcher::Event::Apply(convert(object)),
            watcher::Event::Delete(object) => watcher::Event::Delete(convert(object)),
            watcher::Event::InitApply(object) => watcher::Event::InitApply(convert(object)),
            watcher::Event::Init => watcher::Event::Init,
            watcher::Event::InitDone => watcher::Event::InitDone,
        })
    };
    tasks.spawn("informer", move |stop| {
        informer.clone().run(Events::new(&api, everything()).map(convert), stop).boxed()
    });
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

fn token_secret_index(secret: &Secret) -> Vec<String> {
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let annotations = secret.metadata.annotations.as_ref();
    let account = annotations.and_then(|all| all.get(ACCOUNT_NAME));
    account.map(|account| of_account(namespace, account)).into_iter().collect()
}

fn claim_index(claim: &PersistentVolumeClaim) -> Vec<String> {
    classes_of_claim(claim).iter().map(|class| naming_attributes_class(class)).collect()
}

fn volume_index(volume: &PersistentVolume) -> Vec<String> {
    class_of_volume(volume).iter().map(|class| naming_attributes_class(class)).collect()
}

pub(super) fn replica_set_index(set: &ReplicaSet) -> Vec<String> {
    let mut names = owner_index(&set.metadata);
    names.push(selector_index(&set.metadata, set.spec.as_ref().map(|s| &s.selector)));
    names
}

fn job_index(job: &Job) -> Vec<String> {
    let mut names = owner_index(&job.metadata);
    names.push(selector_index(&job.metadata, job.spec.as_ref().and_then(|spec| spec.selector.as_ref())));
    names
}

fn deployment_index(deployment: &Deployment) -> Vec<String> {
    vec![selector_index(&deployment.metadata, deployment.spec.as_ref().map(|s| &s.selector))]
}

fn signing_request_index(csr: &CertificateSigningRequest) -> Vec<String> {
    csr.spec.username.as_deref().and_then(node_of_user).map(requested_by).into_iter().collect()
}

/// The node that a user name speaks for.
pub fn node_of_user(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| !name.is_empty())
}

/// By one label that the selector asks for; an object without that label is not selected.
fn selector_index(meta: &ObjectMeta, selector: Option<&LabelSelector>) -> String {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    match selector.and_then(|s| s.match_labels.as_ref()).and_then(|labels| labels.first_key_value()) {
        Some((key, value)) => selecting(namespace, key, value),
        None => selecting_by_expressions(namespace),
    }
}

/// One label of the selector suffices: a pod that lacks it is not selected.
fn service_index(service: &Service) -> Vec<String> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.and_then(|s| s.first_key_value()).map(|(k, v)| vec![selecting(namespace, k, v)]).unwrap_or_default()
}

fn slice_index(slice: &EndpointSlice) -> Vec<String> {
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

fn owner_index(meta: &ObjectMeta) -> Vec<String> {
    if let Some(owner) = controller_of(meta) {
        return vec![owned_by(&owner.uid)];
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let by_label = meta.labels.iter().flatten().map(|(key, value)| labelled_orphans(namespace, key, value));
    std::iter::once(orphans_in(namespace)).chain(by_label).collect()
}
