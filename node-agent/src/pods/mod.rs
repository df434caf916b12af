//! The kubelet's part: runs the pods that are bound to this node, and reports them.
//!
//! One worker per pod. A worker takes in changes (of the Pod, of the runtime, of probes), asks `plan` what to do next,
//! begins it, and reports the status that follows. What the runtime has is learned from its events, and again from a
//! list every few seconds: a lost event is never final. This file only starts and ends all that.
//!
//! ```text
//! API watch ──┐                      ┌─> act: runtime, network, volumes ──> Outcome ─┐
//! runtime ────┼─> dispatch ─> worker ┼─> probers ────────────────────────> Verdict ──┼─> worker
//! objects ────┘                      └─> status writes ──────────────────> Pod ──────┘
//! ```
//!
//! - *action*: one thing to do for a pod (`plan`), performed by `act`, whose result is an *outcome*.
//! - *instance*: one container in the runtime; a container of the spec has a new one at each restart.
//! - *garbage*: instances that are of no use, and are to be removed.
//! - *adoption*: taking over what an earlier agent, or a worker that panicked, left running.

mod act;
mod admission;
mod adoption;
mod api_retry;
mod backoff;
mod container_spec;
mod dispatch;
mod downward;
mod env;
mod expand;
mod host_ports;
mod image;
mod image_gc;
mod kept;
mod logs;
mod machine;
mod mounted_file;
mod names;
mod object_waits;
mod objects;
mod outcome;
mod plan;
mod probe;
mod pull_secret;
mod quantity;
mod recorder;
mod relist;
mod resize;
mod security;
mod spec;
mod state;
mod status;
mod stream_targets;
#[cfg(test)]
mod tests;
mod token;
mod transition;
mod volume_limits;
mod volumes;
mod worker;

use crate::deadline;
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use admission::AdmittingNode;
use host_ports::HostPortPublisher;
use image_gc::{KeptPulls, PulledImages};
use kept::{Kept, KeptPods};
use kube::Client;
use machine::Machine;
use object_waits::ObjectWaits;
use objects::Objects;
use parking_lot::Mutex;
use recorder::Recorder;
use resize::{Allocations, Capacity, KeptAllocations, Requests};
use stream_targets::StreamTargets;
use tokio::sync::watch;

use crate::{
    Teardown,
    image_gc_policy::ImageGcPolicy,
    last_known::{self, LastKnown, LastKnownError},
    network::PodNetwork,
    runtime::{self, Runtime, deadlines::Deadlines},
    streams::Streams,
    supervise::Supervisor,
    world::{HostPorts, Node, World},
};

/// Configuration of the pod lifecycle on one node.
#[derive(Clone, Debug)]
pub struct PodsConfig {
    /// As pods name it in `spec.nodeName`.
    pub node_name: String,
    /// Address of the node, which pods with the host's network have too.
    pub node_ip: Ipv4Addr,
    /// Pods' files live in `node/pods/UID/` of it; the seccomp profiles of `type: Localhost` in `seccomp/`.
    pub data_dir: PathBuf,
    /// Nameserver of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Ipv4Addr,
    /// Suffix of the search list of pods with `dnsPolicy: ClusterFirst`, such as `cluster.local`.
    pub cluster_domain: String,
    /// The host's resolver configuration, for pods with `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    /// Others are rejected.
    pub max_pods: usize,
    /// When unused images are removed.
    pub image_gc: ImageGcPolicy,
}

impl PodsConfig {
    fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("node/pods")
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    /// Where the pods are kept as last known.
    fn last_known(&self) -> LastKnown<KeptPods> {
        LastKnown::new(&self.data_dir.join("node/last-known"), "pods", KeptPods::VERSION).reading_from(KeptPods::OLDEST)
    }

    /// Where is kept what the pods were allocated.
    fn kept_allocations(&self) -> LastKnown<KeptAllocations> {
        let directory = self.data_dir.join("node/last-known");
        LastKnown::new(&directory, "allocations", KeptAllocations::VERSION).reading_from(KeptAllocations::OLDEST)
    }

    /// Where is kept which images are the agent's.
    fn kept_pulls(&self) -> LastKnown<KeptPulls> {
        LastKnown::new(&self.data_dir.join("node/last-known"), "pulled-images", KeptPulls::VERSION)
    }

    fn seccomp_dir(&self) -> PathBuf {
        self.data_dir.join("seccomp")
    }
}

/// What every worker needs of its surroundings.
pub(crate) struct Context {
    config: PodsConfig,
    client: Client,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn PodNetwork>,
    world: watch::Receiver<Arc<World>>,
    host_ports: HostPortPublisher,
    recorder: Recorder,
    pulled_images: PulledImages,
    kept: Kept,
    allocations: Allocations,
    objects: Objects,
    object_waits: ObjectWaits,
    machine: Machine,
    host: security::Host,
    relist_every: Duration,
}

impl Context {
    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.pod_dir(uid)
    }

    /// This node as it was last seen; `None` before that.
    fn node(&self) -> Option<Arc<Node>> {
        self.world.borrow().nodes.get(self.config.node_name.as_str()).cloned()
    }

    /// This node as `node` says.
    fn this_node<'a>(&'a self, node: Option<&'a Node>) -> AdmittingNode<'a> {
        AdmittingNode { name: &self.config.node_name, node }
    }
}

/// The pods of one node, until [`Pods::shutdown`].
pub struct Pods {
    context: Arc<Context>,
    workers: dispatch::Workers,
    /// Writes down what the node knows of its pods, and their events; ends after `supervisor`, so that the last change
    /// is written.
    keeper: Supervisor,
    supervisor: Supervisor,
    streams: Streams,
}

/// Why pods could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// Below the data directory.
    #[error("cannot create {path}")]
    CreateDirectory { path: PathBuf, source: std::io::Error },
    /// The runtime does not list its containers.
    #[error("cannot take over the containers of this node")]
    Adopt { source: runtime::Error },
    /// A container could not be stopped or removed.
    #[error("cannot remove the containers of this node")]
    Remove { source: runtime::Error },
    /// A pod's link is still there.
    #[error("cannot detach the pods of this node from the network")]
    Detach { source: crate::network::AttachError },
    /// The file of the node's last known pods is still there.
    #[error("cannot forget the pods of this node")]
    Forget { source: LastKnownError },
}

/// Starts to run the pods bound to `config.node_name`. Containers that an earlier agent left are adopted where they
/// still have a pod, and removed where they do not. While the API is away, the pods are those that this node last knew.
/// Their host ports are published to `host_ports`.
pub async fn start(
    config: PodsConfig,
    client: Client,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn PodNetwork>,
    world: watch::Receiver<Arc<World>>,
    host_ports: watch::Sender<HostPorts>,
) -> Result<Pods, PodsError> {
    let runtime = Arc::new(Deadlines::new(runtime));
    start_with(config, client, runtime, network, world, host_ports, dispatch::RELIST).await
}

/// [`start`] with the time between two lists of the runtime's containers.
async fn start_with(
    config: PodsConfig,
    client: Client,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn PodNetwork>,
    world: watch::Receiver<Arc<World>>,
    host_ports: watch::Sender<HostPorts>,
    relist_every: Duration,
) -> Result<Pods, PodsError> {
    create_directory(&config.pods_dir())?;
    let (recorder, event_writer) = Recorder::new(client.clone(), &config.node_name);
    let last_known = config.last_known();
    let kept = Kept::new(last_known.load_or_warn(), &config.node_name);
    let objects = Objects::new(client.clone(), kept.clone());
    let (object_waits, machine) = (ObjectWaits::default(), Machine::measure());
    let host = security::Host::measure();
    let resources = Requests { cpu: machine.cpus.saturating_mul(1000), memory: machine.memory };
    let allocations = Allocations::load(Capacity { resources, pods: config.max_pods }, config.kept_allocations());
    let host_ports = HostPortPublisher::new(host_ports);
    let kept_pulls = config.kept_pulls();
    let pulled_images = PulledImages::new(kept_pulls.load_or_warn());
    let context = Arc::new(Context {
        config,
        client,
        runtime,
        network,
        world,
        host_ports,
        recorder,
        pulled_images,
        kept,
        allocations,
        objects,
        object_waits,
        machine,
        host,
        relist_every,
    });
    let found = context.runtime.list().await.map_err(|source| PodsError::Adopt { source })?;
    let (workers, supervisor, keeper) = (dispatch::Workers::default(), Supervisor::new(), Supervisor::new());
    // Before the dispatcher makes changes: none is missed.
    let snapshots = context.kept.snapshots();
    keeper.spawn("last-known-pods", move |stop| {
        last_known::keep(last_known.clone(), snapshots.clone(), kept::Snapshot::to_keep, stop)
    });
    let pulls = context.pulled_images.snapshots();
    keeper.spawn("pulled-images", move |stop| {
        last_known::keep(kept_pulls.clone(), pulls.clone(), |pulls| Some(pulls.clone()), stop)
    });
    keeper.spawn("event-recorder", move |stop| event_writer.clone().run(stop));
    let allocations = context.allocations.clone();
    keeper.spawn("allocations", move |stop| allocations.clone().keep(stop));
    let collected = context.clone();
    supervisor.spawn("image-gc", move |stop| image_gc::run(collected.clone(), stop));
    let (limited, running) = (context.clone(), workers.clone());
    supervisor.spawn("volume-limits", move |stop| volume_limits::run(limited.clone(), running.clone(), stop));
    let (first, dispatched, known) = (Mutex::new(Some(found)), context.clone(), workers.clone());
    supervisor.spawn("pods", move |stop| {
        let (context, workers, found) = (dispatched.clone(), known.clone(), first.lock().take());
        dispatch::keep(context, workers, found, stop)
    });
    let streams =
        Streams::new(Arc::new(StreamTargets::new(workers.clone(), context.runtime.clone())), context.runtime.clone());
    Ok(Pods { context, workers, keeper, supervisor, streams })
}

impl Pods {
    /// Logs, the list of pods, and streams to containers, as the kubelet serves them. The router does not authenticate:
    /// the server that it is mounted in does.
    pub fn router(&self) -> axum::Router {
        logs::router(self.context.clone(), self.workers.clone()).merge(self.streams.router())
    }

    /// The tasks that write down what the node knows of its pods, and their events.
    pub fn keeper(&self) -> &Supervisor {
        &self.keeper
    }

    /// Reads the statuses of all pods of this node, as they are reported to the API.
    pub fn statuses(&self) -> impl Fn() -> Vec<k8s_openapi::api::core::v1::PodStatus> + Send + Sync + use<> {
        let workers = self.workers.clone();
        move || workers.all().iter().map(|worker| worker.view().status.clone()).collect()
    }

    /// The task that all workers belong to.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Ends all workers. `Teardown::Keep` leaves the containers running for the next agent; `Teardown::Remove` leaves
    /// none, nor their files, and says in the API that nothing here is ready.
    pub async fn shutdown(self, teardown: Teardown) -> Result<(), PodsError> {
        self.streams.shutdown().await;
        self.supervisor.shutdown().await;
        self.keeper.shutdown().await;
        if teardown == Teardown::Keep {
            return Ok(());
        }
        let config = &self.context.config;
        let forgotten = config.last_known().remove().and_then(|()| config.kept_allocations().remove());
        let forgotten = forgotten.and_then(|()| config.kept_pulls().remove());
        act::write_taken_down(&self.context, &self.workers.all()).await;
        dispatch::remove_everything(&self.context).await?;
        forgotten.map_err(|source| PodsError::Forget { source })
    }
}

fn create_directory(path: &Path) -> Result<(), PodsError> {
    std::fs::create_dir_all(path).map_err(|source| PodsError::CreateDirectory { path: path.to_owned(), source })
}
