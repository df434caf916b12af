//! What streams can go to: the containers of this node that run, and the networks of its pods.

use std::{fs::File, sync::Arc};

use tokio::net::TcpStream;

use super::{dispatch::Workers, spec, worker::View};
use crate::{
    runtime::{Runtime, State, netns_of},
    streams::{self, ConnectError, ContainerTarget, PodTargets, TargetError},
};

/// The pods of a node, as far as streams go to them.
pub struct StreamTargets {
    workers: Workers,
    runtime: Arc<dyn Runtime>,
}

impl StreamTargets {
    /// The pods that `workers` run in `runtime`.
    pub fn new(workers: Workers, runtime: Arc<dyn Runtime>) -> Self {
        Self { workers, runtime }
    }

    fn view(&self, namespace: &str, pod: &str) -> Option<Arc<View>> {
        self.workers.find(namespace, pod).map(|worker| worker.view())
    }

    /// Whom the pod's network namespace is held by.
    async fn sandbox_pid(&self, namespace: &str, pod: &str) -> Option<u32> {
        let view = self.view(namespace, pod)?;
        match self.runtime.inspect(view.state.sandbox.id()?).await {
            Ok(Some(sandbox)) => match sandbox.state {
                State::Running { pid, .. } => Some(pid),
                State::Created | State::Exited(_) => None,
            },
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(error = error.chain(), pod, "cannot look up the network of a pod");
                None
            }
        }
    }
}

/// As the kubelet names a pod in errors.
fn full_name(namespace: &str, pod: &str) -> String {
    format!("{pod}_{namespace}")
}

#[async_trait::async_trait]
impl PodTargets for StreamTargets {
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<ContainerTarget, TargetError> {
        let view = self.view(namespace, pod).ok_or(TargetError::NoPod)?;
        let not_running = || TargetError::NotRunning(container.to_owned());
        let spec = spec::container(&view.pod, container).ok_or_else(not_running)?;
        let instance = &view.state.container(container).instance;
        let id = instance.process_id().ok_or_else(not_running)?.to_owned();
        Ok(ContainerTarget { id, tty: spec.tty == Some(true) })
    }

    fn pod(&self, namespace: &str, pod: &str) -> Result<String, TargetError> {
        let view = self.view(namespace, pod).ok_or(TargetError::NoPod)?;
        match view.state.sandbox.id() {
            Some(_) => Ok(view.pod.metadata.uid.clone().unwrap_or_default()),
            None => Err(TargetError::NoNetwork(full_name(namespace, pod))),
        }
    }

    async fn connect(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let not_running = || ConnectError::NotRunning(full_name(namespace, pod));
        let pid = self.sandbox_pid(namespace, pod).await.ok_or_else(not_running)?;
        let netns = File::open(netns_of(pid)).map_err(ConnectError::Enter)?;
        streams::connect(netns, port).await
    }
}
