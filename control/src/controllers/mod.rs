//! The controllers: one file each, all ordinary clients of the API.
//!
//! A controller is a watch, a pure decision and the requests that carry it out. They share their watches ([`Informers`]) and the
//! machinery in [`engine`], and know nothing of each other: what one writes, another sees as an event.

mod deployment;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
pub mod engine;
mod event_ttl;
mod garbage_collector;
pub mod informers;
mod namespace;
mod node_ipam;
mod node_lifecycle;
pub(crate) mod owners;
mod pod_gc;
pub(crate) mod pod_state;
mod replica_set;
mod root_ca;
mod served;
mod service_account;
mod taint_eviction;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ipnetwork::Ipv4Network;
use kube::Client;

use self::{
    engine::{Recorder, Tasks},
    informers::Informers,
};

/// What the controllers are told at their start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pod subnets of nodes are cut from here.
    pub cluster_cidr: Ipv4Network,
    /// Prefix length of one node's pod subnet.
    pub node_cidr_mask_size: u8,
    /// The cluster's CA certificate, published in every namespace.
    pub ca_pem: String,
    /// How long a node may miss its Lease before it is NotReady.
    pub node_monitor_grace_period: Duration,
}

/// What every controller is given.
struct Context {
    client: Client,
    config: Config,
    informers: Informers,
    recorder: Recorder,
}

/// The running controllers.
pub struct Controllers {
    tasks: Arc<Tasks>,
}

/// Starts all controllers. They wait for their first listings by themselves, and end with [`Controllers::shutdown`].
pub fn start(client: Client, config: Config) -> Controllers {
    let tasks = Arc::new(Tasks::default());
    let (recorder, writer) = Recorder::new(client.clone(), tasks.stop());
    tasks.spawn("event-recorder", writer);
    let context = Context { client, config, informers: Informers::new(), recorder };
    deployment::start(&context, &tasks);
    replica_set::start(&context, &tasks);
    endpoint_slice::start(&context, &tasks);
    endpoint_slice_mirroring::start(&context, &tasks);
    endpoints::start(&context, &tasks);
    node_ipam::start(&context, &tasks);
    node_lifecycle::start(&context, &tasks);
    taint_eviction::start(&context, &tasks);
    pod_gc::start(&context, &tasks);
    service_account::start(&context, &tasks);
    root_ca::start(&context, &tasks);
    let removed = namespace::start(&context, &tasks);
    garbage_collector::start(&context, &tasks, removed);
    event_ttl::start(&context, &tasks);
    // Last: handlers that register after a watch began would miss its first listing.
    context.informers.run(&context.client, &tasks);
    Controllers { tasks }
}

impl Controllers {
    /// Stops the watches, and returns when the requests under way have ended.
    pub async fn shutdown(self) {
        self.tasks.shutdown().await;
    }
}
