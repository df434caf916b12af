//! Brings to each pod's worker what concerns it: changes of the Pod, events of the runtime. Starts workers, forgets them when they end, and removes
//! containers that belong to no pod. Decides nothing about a pod itself.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Context, Error,
    worker::{self, Handle, Input},
};
use crate::runtime::{Container, Event, PodRef};

/// The workers of this node by pod uid. Cloning shares it.
#[derive(Clone, Default)]
pub struct Workers(Arc<RwLock<HashMap<String, Handle>>>);

impl Workers {
    pub fn all(&self) -> Vec<Handle> {
        self.0.read().values().cloned().collect()
    }

    /// The worker of the pod of this name; of the newest, where an older one is still being torn down.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Handle> {
        let workers = self.0.read();
        let named = workers.values().filter(|handle| {
            let pod = handle.pod();
            pod.namespace == namespace && pod.name == name
        });
        named.max_by_key(|handle| handle.view().pod.metadata.creation_timestamp.clone()).cloned()
    }

    fn get(&self, uid: &str) -> Option<Handle> {
        self.0.read().get(uid).cloned()
    }
}

struct Dispatcher {
    context: Arc<Context>,
    workers: Workers,
    tasks: JoinSet<String>,
    /// Containers seen at the start whose pod has not been seen yet.
    orphans: HashMap<String, Vec<Container>>,
    stop: CancellationToken,
    /// Pods of a list under way.
    listed: Option<Vec<Arc<Pod>>>,
}

pub async fn run(context: Arc<Context>, workers: Workers, found: Vec<Container>, stop: CancellationToken) {
    let mut orphans: HashMap<String, Vec<Container>> = HashMap::new();
    for container in found {
        orphans.entry(container.owner.pod.uid.clone()).or_default().push(container);
    }
    let pods = Api::<Pod>::all(context.client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", context.config.node_name));
    let mut pods = watcher(pods, mine).default_backoff().boxed();
    let mut events = runtime_events(context.clone());
    let mut dispatcher =
        Dispatcher { context, workers, tasks: JoinSet::new(), orphans, stop: stop.clone(), listed: None };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            change = pods.next() => match change {
                Some(Ok(change)) => dispatcher.pod_changed(change).await,
                Some(Err(error)) => tracing::warn!(%error, "the watch of this node's pods failed; it is tried again"),
                None => break,
            },
            Some(event) = events.next() => dispatcher.runtime_changed(event).await,
            Some(ended) = dispatcher.tasks.join_next() => dispatcher.worker_ended(ended),
        }
    }
    while dispatcher.tasks.join_next().await.is_some() {}
}

impl Dispatcher {
    async fn pod_changed(&mut self, change: watcher::Event<Pod>) {
        match change {
            watcher::Event::Init => self.listed = Some(Vec::new()),
            watcher::Event::InitApply(pod) => self.listed.get_or_insert_default().push(Arc::new(pod)),
            watcher::Event::InitDone => self.synchronise().await,
            watcher::Event::Apply(pod) => self.apply(Arc::new(pod)).await,
            watcher::Event::Delete(pod) => self.gone(&pod.metadata.uid.unwrap_or_default()).await,
        }
    }

    /// A full list has come: what is not in it is gone.
    async fn synchronise(&mut self) {
        let listed = self.listed.take().unwrap_or_default();
        let uids: Vec<_> = listed.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        if let Err(error) = self.context.network.retain(&uids).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what earlier pods left in the network stays for now"
            );
        }
        for pod in listed {
            self.apply(pod).await;
        }
        self.context.host_ports.complete();
        for handle in self.workers.all() {
            let uid = &handle.pod().uid;
            if !uids.contains(uid) {
                handle.send(Input::Gone).await;
            }
        }
        for (uid, containers) in std::mem::take(&mut self.orphans) {
            tracing::info!(uid, containers = containers.len(), "removing containers whose pod is gone");
            let context = self.context.clone();
            tokio::spawn(async move { super::act::remove_orphan(&context, &uid, &containers).await });
        }
        super::act::remove_unknown_directories(&self.context, &uids).await;
    }

    async fn apply(&mut self, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(handle) = self.workers.get(&uid) {
            handle.send(Input::Pod(pod)).await;
            return;
        }
        let found = self.orphans.remove(&uid).unwrap_or_default();
        let (handle, worker) = worker::new(self.context.clone(), pod, found, self.stop.clone());
        self.workers.0.write().insert(uid.clone(), handle);
        self.tasks.spawn(async move {
            worker.await;
            uid
        });
    }

    async fn gone(&mut self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.send(Input::Gone).await;
        }
    }

    async fn runtime_changed(&mut self, change: RuntimeChange) {
        match change {
            RuntimeChange::Event(event) => {
                if let Some(handle) = self.workers.get(&event.owner.pod.uid) {
                    handle.send(Input::Runtime(event.id)).await;
                }
            }
            RuntimeChange::Back => {
                for handle in self.workers.all() {
                    handle.send(Input::Resync).await;
                }
            }
        }
    }

    fn worker_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.workers.0.write().remove(&uid);
            }
            Err(error) => tracing::error!(%error, "a pod's worker ended abnormally"),
        }
    }
}

enum RuntimeChange {
    Event(Event),
    /// Events come from now on; some may have been missed.
    Back,
}

/// The runtime's events, over its restarts.
fn runtime_events(context: Arc<Context>) -> BoxStream<'static, RuntimeChange> {
    const FIRST_WAIT: Duration = Duration::from_millis(100);
    const LONGEST_WAIT: Duration = Duration::from_secs(5);
    let connections = futures::stream::unfold((context, FIRST_WAIT, true), |(context, mut wait, first)| async move {
        loop {
            match context.runtime.events().await {
                Ok(events) => {
                    if !first && let Err(error) = context.runtime.prepare().await {
                        tracing::warn!(error = error.chain(), "the container runtime is back, but not ready");
                    }
                    let changes = futures::stream::iter([RuntimeChange::Back]).chain(events.map(RuntimeChange::Event));
                    return Some((changes, (context, FIRST_WAIT, false)));
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), "the container runtime does not answer; trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    });
    connections.flatten().boxed()
}

/// Leaves nothing of any pod on the node.
pub async fn remove_everything(context: &Context) -> Result<(), Error> {
    let containers = context.runtime.list().await.map_err(|source| Error::Remove { source })?;
    let mut pods: HashMap<PodRef, Vec<String>> = HashMap::new();
    for container in containers {
        pods.entry(container.owner.pod).or_default().push(container.id);
    }
    let removals = pods.values().flatten().map(|id| context.runtime.remove(id));
    let removed: Result<Vec<()>, _> = futures::stream::iter(removals).buffer_unordered(16).try_collect().await;
    removed.map_err(|source| Error::Remove { source })?;
    context.network.retain(&[]).await.map_err(|source| Error::Detach { source })?;
    super::act::remove_unknown_directories(context, &[]).await;
    context.runtime.uninstall().await.map_err(|source| Error::Remove { source })
}
