//! The controllers: one file each, all ordinary clients of the API.
//!
//! A controller is a watch, a pure decision and the requests that carry it out. They share their watches
//! ([`Informers`]) and the machinery in [`crate::engine`], and know nothing of each other: what one writes, another
//! sees as an event. One thing is written nowhere: for how long nodes have been silent ([`Heartbeats`]), by which node
//! lifecycle and certificate signing decide.

mod certificate_signing;
mod claiming;
mod cluster_role_aggregation;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod event_ttl;
mod expectations;
#[cfg(test)]
mod fixtures;
mod garbage_collector;
mod history;
mod job;
mod kubernetes_service;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod own_writes;
mod pod_gc;
mod pod_owners;
mod pod_requests;
mod pod_template;
mod replica_set;
mod root_ca;
mod served;
mod service_account;
mod service_account_tokens;
mod stateful_set;
mod taint_eviction;
mod ttl_after_finished;
mod volume_protection;

use std::{sync::Arc, time::Duration};

use fairlead_pki::Authority;
use futures::future::BoxFuture;
use ipnetwork::Ipv4Network;
use kube::Client;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

pub use self::{
    certificate_signing::ControlNames,
    service_account_tokens::{SignToken, TokenOf},
};
use self::{
    node_lifecycle::Heartbeats,
    served::{Currency, ServedKinds},
};
use crate::{
    engine::{QueueStats, Recorder, Tasks, start_recorder},
    objects::informers::Informers,
    supervise::TaskStatus,
};

/// Makes what is missing of a Service and its endpoints, and repairs what differs.
pub type RestoreService = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Box<kube::Error>>> + Send + Sync>;

/// Settings of the controllers.
#[derive(Clone)]
pub struct ControllersConfig {
    /// Pod subnets of nodes are cut from here.
    pub cluster_cidr: Ipv4Network,
    /// Prefix length of one node's pod subnet.
    pub node_cidr_mask_size: u8,
    /// Signs the certificates of nodes; its own certificate is published in every namespace.
    pub authority: Arc<Authority>,
    /// Restores the Service through which pods reach the API.
    pub kubernetes_service: RestoreService,
    /// What nodes get no serving certificate for.
    pub control_names: ControlNames,
    /// Signs the tokens in Secrets.
    pub sign_token: SignToken,
    /// How long a node may miss its Lease before it is NotReady.
    pub node_monitor_grace_period: Duration,
}

/// What every controller is given.
struct Context {
    client: Client,
    config: ControllersConfig,
    informers: Arc<Informers>,
    recorder: Recorder,
    kinds: ServedKinds,
    currency: Currency,
    heartbeats: Arc<Mutex<Heartbeats>>,
}

/// The running controllers.
pub struct Controllers {
    tasks: Arc<Tasks>,
    informers: Arc<Informers>,
}

/// Starts all controllers. They wait for their first listings by themselves, and end with [`Controllers::shutdown`].
///
/// `kinds_changed` changes its value whenever the API begins or ceases to serve a kind; `others_changed`, when that is
/// so for one of another server behind it.
pub fn start(
    client: Client,
    config: ControllersConfig,
    kinds_changed: watch::Receiver<u64>,
    others_changed: watch::Receiver<u64>,
) -> Controllers {
    let tasks = Arc::new(Tasks::default());
    let informers = Arc::new(Informers::default());
    let recorder = start_recorder(client.clone(), &tasks);
    let (kinds, currency) = served::start(&client, [kinds_changed, others_changed], &tasks);
    let heartbeats = Arc::new(Mutex::new(Heartbeats::new(config.node_monitor_grace_period, Instant::now())));
    let context = Context { client, config, informers: informers.clone(), recorder, kinds, currency, heartbeats };
    certificate_signing::start(&context, &tasks);
    cluster_role_aggregation::start(&context, &tasks);
    daemon_set::start(&context, &tasks);
    deployment::start(&context, &tasks);
    disruption::start(&context, &tasks);
    replica_set::start(&context, &tasks);
    job::start(&context, &tasks);
    cron_job::start(&context, &tasks);
    ttl_after_finished::start(&context, &tasks);
    endpoint_slice::start(&context, &tasks);
    endpoint_slice_mirroring::start(&context, &tasks);
    endpoints::start(&context, &tasks);
    node_ipam::start(&context, &tasks);
    node_lifecycle::start(&context, &tasks);
    taint_eviction::start(&context, &tasks);
    pod_gc::start(&context, &tasks);
    stateful_set::start(&context, &tasks);
    service_account::start(&context, &tasks);
    service_account_tokens::start(&context, &tasks);
    root_ca::start(&context, &tasks);
    kubernetes_service::start(&context, &tasks);
    let removed = namespace::start(&context, &tasks);
    garbage_collector::start(&context, &tasks, removed);
    event_ttl::start(&context, &tasks);
    volume_protection::start(&context, &tasks);
    informers.run(&context.client, &tasks);
    Controllers { tasks, informers }
}

impl Controllers {
    /// The watches that the controllers share, for the scheduler to share as well.
    pub fn informers(&self) -> &Arc<Informers> {
        &self.informers
    }

    /// Every task and how often it was started again.
    pub fn tasks(&self) -> Vec<TaskStatus> {
        self.tasks.status()
    }

    /// The counters of every controller's queue.
    pub fn queues(&self) -> Vec<QueueStats> {
        self.tasks.queues()
    }

    /// Stops the watches, and returns when the requests under way have ended.
    pub async fn shutdown(&self) {
        self.tasks.shutdown().await;
    }
}
