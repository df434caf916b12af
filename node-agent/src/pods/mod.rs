//! The kubelet's part: runs the pods that are bound to this node, and reports them.
//!
//! One worker a pod. A worker takes in changes (of the Pod, of the runtime, of probes), asks `plan` what to do next, begins it, and reports the
//! status that follows. Nothing polls. What is here only starts and ends all that.

mod act;
mod adoption;
mod backoff;
mod container_spec;
mod dispatch;
mod downward;
mod env;
mod expand;
mod host_ports;
mod image;
mod logs;
mod machine;
mod names;
mod objects;
mod outcome;
mod plan;
mod probe;
mod pull_secret;
mod quantity;
mod recorder;
mod spec;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod transition;
mod volumes;
mod worker;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use host_ports::HostPortBook;
use kube::Client;
use machine::Machine;
use objects::Objects;
use recorder::Recorder;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    Teardown,
    network::PodNetwork,
    runtime::{self, Runtime},
    world::{HostPorts, World},
};

/// Configuration of the pod lifecycle on one node.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// Pods' files live in `node/pods/UID/` of it.
    pub data_dir: PathBuf,
    /// Nameserver of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    /// The host's resolver configuration, which `dnsPolicy: Default` hands on.
    pub resolv_conf: PathBuf,
}

impl Config {
    fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("node/pods")
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }
}

/// What every worker needs of its surroundings.
pub(crate) struct Context {
    config: Config,
    client: Client,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn PodNetwork>,
    world: watch::Receiver<Arc<World>>,
    host_ports: HostPortBook,
    recorder: Recorder,
    objects: Objects,
    machine: Machine,
}

impl Context {
    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.pod_dir(uid)
    }
}

/// The pods of one node, until [`Pods::shutdown`].
pub struct Pods {
    context: Arc<Context>,
    workers: dispatch::Workers,
    stop: CancellationToken,
    dispatcher: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("create {path}")]
    CreateDirectory { path: PathBuf, source: std::io::Error },
    #[error("take over the containers of this node")]
    Adopt { source: runtime::Error },
    #[error("remove the containers of this node")]
    Remove { source: runtime::Error },
    #[error("detach the pods of this node from the network")]
    Detach { source: crate::network::AttachError },
}

/// Starts to run the pods bound to `config.node_name`. Containers that an earlier agent left are adopted where they still have a pod, and
/// removed where they do not. The pods' host ports are published to `host_ports`.
pub async fn start(
    config: Config,
    client: Client,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn PodNetwork>,
    world: watch::Receiver<Arc<World>>,
    host_ports: watch::Sender<HostPorts>,
) -> Result<Pods, Error> {
    create_directory(&config.pods_dir())?;
    let recorder = Recorder::start(client.clone(), &config.node_name);
    let (objects, machine) = (Objects::new(client.clone()), Machine::measure());
    let host_ports = HostPortBook::new(host_ports);
    let context = Arc::new(Context { config, client, runtime, network, world, host_ports, recorder, objects, machine });
    let found = context.runtime.list().await.map_err(|source| Error::Adopt { source })?;
    let stop = CancellationToken::new();
    let workers = dispatch::Workers::default();
    let dispatcher = dispatch::run(context.clone(), workers.clone(), found, stop.clone());
    let dispatcher = tokio::spawn(dispatcher.instrument(tracing::info_span!("pods")));
    Ok(Pods { context, workers, stop, dispatcher })
}

impl Pods {
    /// `/containerLogs/{namespace}/{pod}/{container}` and `/pods`, as the kubelet serves them. Whoever mounts it authenticates.
    pub fn router(&self) -> axum::Router {
        logs::router(self.context.clone(), self.workers.clone())
    }

    /// Reads the statuses of all pods of this node, as they are reported to the API.
    pub fn statuses(&self) -> impl Fn() -> Vec<k8s_openapi::api::core::v1::PodStatus> + Send + Sync + use<> {
        let workers = self.workers.clone();
        move || workers.all().iter().map(|worker| worker.view().status.clone()).collect()
    }

    /// Ends all workers. `Teardown::Keep` leaves the containers running for the next agent; `Teardown::Remove` leaves none, nor their files,
    /// and says in the API that nothing here is ready.
    pub async fn shutdown(self, teardown: Teardown) -> Result<(), Error> {
        self.stop.cancel();
        if let Err(error) = self.dispatcher.await {
            tracing::error!(%error, "the pods' dispatcher ended abnormally");
        }
        self.context.recorder.drain().await;
        if teardown == Teardown::Keep {
            return Ok(());
        }
        act::tell_taken_down(&self.context, &self.workers.all()).await;
        dispatch::remove_everything(&self.context).await
    }
}

fn create_directory(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::CreateDirectory { path: path.to_owned(), source })
}
