//! What streams can go to: the containers of this node that run, and the networks of its pods.

use std::{fs::File, io, sync::Arc};

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
    async fn sandbox(&self, namespace: &str, pod: &str) -> Option<Sandbox> {
        let view = self.view(namespace, pod)?;
        let id = view.state.sandbox.id()?;
        match self.runtime.inspect(id).await {
            Ok(Some(sandbox)) => match sandbox.state {
                State::Running { pid, .. } => Some(Sandbox { id: id.to_owned(), pid }),
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

/// What holds a pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sandbox {
    id: String,
    pid: u32,
}

/// Opens the network namespace of the sandbox that `inspect` tells. `None` where none runs, or where it has ended
/// meanwhile: its pid may then be that of another process, in another network.
async fn open_netns<F>(inspect: impl Fn() -> F) -> io::Result<Option<File>>
where
    F: Future<Output = Option<Sandbox>>,
{
    let Some(sandbox) = inspect().await else { return Ok(None) };
    let opened = File::open(netns_of(sandbox.pid));
    if inspect().await != Some(sandbox) {
        return Ok(None);
    }
    opened.map(Some)
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
        let spec = spec::any_container(&view.pod, container).ok_or_else(not_running)?;
        let instance = &view.state.container(container).instance;
        let id = instance.process_id().ok_or_else(not_running)?.to_owned();
        Ok(ContainerTarget { id, tty: spec.tty == Some(true) })
    }

    fn pod_uid(&self, namespace: &str, pod: &str) -> Result<String, TargetError> {
        let view = self.view(namespace, pod).ok_or(TargetError::NoPod)?;
        match view.state.sandbox.id() {
            Some(_) => Ok(view.pod.metadata.uid.clone().unwrap_or_default()),
            None => Err(TargetError::NoNetwork(full_name(namespace, pod))),
        }
    }

    async fn connect(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let not_running = || ConnectError::NotRunning(full_name(namespace, pod));
        let netns = open_netns(|| self.sandbox(namespace, pod)).await.map_err(ConnectError::Enter)?;
        streams::connect(netns.ok_or_else(not_running)?, port).await
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Whether a namespace is opened where inspections tell this, one after the other.
    async fn is_opened(told: [Option<(&str, u32)>; 2]) -> bool {
        let told = told.map(|told| told.map(|(id, pid)| Sandbox { id: id.to_owned(), pid }));
        let told = Mutex::new(told.into_iter());
        open_netns(|| std::future::ready(told.lock().next().flatten())).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn a_sandbox_that_ended_while_its_network_was_opened_is_not_connected_to() {
        let own = std::process::id();
        assert!(is_opened([Some(("a", own)), Some(("a", own))]).await);
        for later in [None, Some(("a", own.wrapping_add(1))), Some(("b", own))] {
            assert!(!is_opened([Some(("a", own)), later]).await, "{later:?}");
        }
        assert!(!is_opened([None, None]).await);
        // Gone when it is opened, which is no error of this node.
        assert!(!is_opened([Some(("a", u32::MAX)), None]).await);
    }
}
