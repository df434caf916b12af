//! The shared watches: one informer per kind that the controllers or the scheduler read.

use std::sync::Arc;

use fairlead_client::{Api, Events, Object};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::{
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
};
use kube::{Client, Resource, runtime::watcher};

use super::{
    informer_index::{
        claim_index, deployment_index, job_index, owner_index, pod_index, replica_set_index, selector_index,
        service_index, signing_request_index, slice_index, token_secret_index, volume_index,
    },
    replication_controller::as_replica_set,
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
