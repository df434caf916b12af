//! Routes changes to the worker of the pod that they concern: changes of the Pod, events and lists of the runtime.
//! Starts workers, restarts those that panicked, forgets them when they end, and removes containers that belong to no
//! pod. Decides nothing about a pod itself.
//!
//! Where the API is away at the start, the pods are those that the node last knew, until the API lists them. Until then
//! nothing is removed for having no pod.

mod revival;
mod runtime_changes;
mod workers;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use fairlead_client::{Api, Events};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use revival::Revivals;
pub use runtime_changes::RELIST;
use runtime_changes::{RuntimeChange, runtime_changes};
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
pub use workers::Workers;

use super::{
    Context, PodsError,
    kept::{self, API_ANSWERS_WITHIN},
    spec,
    worker::{self, Input},
};
use crate::runtime::{Container, PodRef, Role, Summary};

struct Dispatcher {
    context: Arc<Context>,
    workers: Workers,
    tasks: JoinSet<()>,
    /// Whose worker each task is.
    uids: HashMap<task::Id, String>,
    revivals: Revivals,
    /// Containers seen at the start whose pod has not been seen yet.
    orphans: HashMap<String, Vec<Container>>,
    /// Uids of the latest list of the runtime that had no pod. Two lists in a row make an orphan: a pod may be on its
    /// way.
    without_pod: HashSet<String>,
    /// Pods that the node last knew, until they are started or the API has listed the pods.
    last_known: Vec<Arc<Pod>>,
    /// All pods of the node are known.
    synced: bool,
    stop: CancellationToken,
    /// Pods of a list under way.
    listed: Option<Vec<Arc<Pod>>>,
}

/// [`run`] from what the runtime has now, unless `found` says it. After a panic all workers are gone with their
/// dispatcher: new ones take over what runs.
pub async fn keep(context: Arc<Context>, workers: Workers, found: Option<Vec<Container>>, stop: CancellationToken) {
    let found = match found {
        Some(found) => found,
        None => {
            workers.clear();
            let listed = revival::list(&context, "of this node");
            let Some(found) = stop.run_until_cancelled(listed).await else { return };
            found
        }
    };
    run(context, workers, found, stop).await;
}

/// Dispatches until `stop` is cancelled, and then waits for the workers. `found` are the containers that an earlier
/// agent left.
async fn run(context: Arc<Context>, workers: Workers, found: Vec<Container>, stop: CancellationToken) {
    let mut orphans: HashMap<String, Vec<Container>> = HashMap::new();
    for container in found {
        orphans.entry(container.owner.pod.uid.clone()).or_default().push(container);
    }
    let pods = Api::<Pod>::all(context.client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", context.config.node_name));
    let mut pods = Events::new(&pods, mine);
    let mut changes = runtime_changes(context.runtime.clone(), context.relist_every);
    let mut dispatcher = Dispatcher {
        last_known: context.kept.pods(),
        context,
        workers,
        tasks: JoinSet::new(),
        uids: HashMap::new(),
        revivals: Revivals::default(),
        orphans,
        without_pod: HashSet::new(),
        synced: false,
        stop: stop.clone(),
        listed: None,
    };
    let patience = tokio::time::sleep(API_ANSWERS_WITHIN);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            change = pods.next() => match change {
                Some(Ok(change)) => dispatcher.pod_changed(change).await,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of this node's pods failed; it is tried again");
                    if kept::is_away(&error) {
                        dispatcher.start_last_known().await;
                    }
                }
                None => break,
            },
            () = &mut patience, if !dispatcher.last_known.is_empty() => dispatcher.start_last_known().await,
            Some(change) = changes.next() => dispatcher.runtime_changed(change).await,
            Some(ended) = dispatcher.tasks.join_next_with_id() => dispatcher.worker_ended(ended),
            (uid, found) = dispatcher.revivals.next() => dispatcher.revive(uid, found).await,
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
            watcher::Event::Apply(pod) => {
                let pod = Arc::new(pod);
                self.context.kept.insert_pod(&pod);
                self.apply(pod).await;
            }
            watcher::Event::Delete(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                self.context.kept.remove_pod(&uid);
                self.gone(&uid).await;
            }
        }
    }

    /// The API is away: the pods that the node last knew are started, or go on.
    async fn start_last_known(&mut self) {
        let pods = by_age(std::mem::take(&mut self.last_known));
        if !pods.is_empty() {
            tracing::warn!(pods = pods.len(), "the API is away: the pods are those that this node last knew");
        }
        self.context.allocations.adopt(&pods, &self.orphans, Timestamp::now());
        for pod in pods {
            self.apply(pod).await;
        }
    }

    /// A full list has come: what is not in it is gone.
    async fn synchronise(&mut self) {
        let listed = by_age(self.listed.take().unwrap_or_default());
        self.last_known.clear();
        self.context.kept.replace_pods(&listed);
        let uids: Vec<_> = listed.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        if let Err(error) = self.context.network.retain(&uids).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what earlier pods left in the network was not removed"
            );
        }
        // What is gone leaves its place before its successors are admitted.
        for handle in self.workers.all() {
            let uid = &handle.pod().uid;
            if !uids.contains(uid) {
                self.context.allocations.release(uid, Timestamp::now());
            }
        }
        self.context.allocations.adopt(&listed, &self.orphans, Timestamp::now());
        for pod in listed {
            self.apply(pod).await;
        }
        self.context.host_ports.complete(|uid| self.workers.get(uid).is_some());
        self.synced = true;
        for handle in self.workers.all() {
            let uid = &handle.pod().uid;
            if !uids.contains(uid) {
                self.gone(uid).await;
            }
        }
        for (uid, containers) in std::mem::take(&mut self.orphans) {
            let ids = containers.into_iter().map(|one| (one.id, one.owner.role)).collect();
            self.remove_orphan(uid, ids);
        }
        super::act::remove_unknown_directories(&self.context, &uids).await;
    }

    async fn apply(&mut self, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if spec::phase_is_final(&pod) {
            // Before a pod that the scheduler put in its place is admitted.
            self.context.allocations.release(&uid, Timestamp::now());
        }
        if let Some(revival) = self.revivals.get_mut(&uid) {
            revival.pod = pod;
        } else if let Some(handle) = self.workers.get(&uid) {
            handle.send(Input::Pod(pod)).await;
        } else {
            let found = self.orphans.remove(&uid).unwrap_or_default();
            self.start_worker(uid, pod, found);
        }
    }

    fn start_worker(&mut self, uid: String, pod: Arc<Pod>, found: Vec<Container>) {
        let (handle, worker) = worker::new(self.context.clone(), pod, found, self.stop.clone());
        self.workers.insert(uid.clone(), handle);
        let task = self.tasks.spawn(worker);
        self.uids.insert(task.id(), uid);
    }

    async fn gone(&mut self, uid: &str) {
        // As above.
        self.context.allocations.release(uid, Timestamp::now());
        if let Some(revival) = self.revivals.get_mut(uid) {
            revival.gone = true;
        } else if let Some(handle) = self.workers.get(uid) {
            handle.send(Input::Gone).await;
        }
    }

    async fn runtime_changed(&mut self, change: RuntimeChange) {
        match change {
            RuntimeChange::Ended(event) => {
                if let Some(handle) = self.workers.get(&event.owner.pod.uid) {
                    handle.send(Input::Ended(event.id)).await;
                }
            }
            RuntimeChange::Listed(summaries) => self.runtime_listed(summaries).await,
        }
    }

    /// Tells each worker which containers its pod has, and removes those of pods that there are not.
    async fn runtime_listed(&mut self, summaries: Vec<Summary>) {
        let mut by_pod: HashMap<String, Vec<Summary>> = HashMap::new();
        for summary in summaries {
            by_pod.entry(summary.owner.pod.uid.clone()).or_default().push(summary);
        }
        for handle in self.workers.all() {
            let listed = by_pod.remove(&handle.pod().uid).unwrap_or_default();
            if !handle.view().state.agrees_with(&listed) {
                handle.send(Input::Listed(listed)).await;
            }
        }
        if !self.synced {
            return;
        }
        let seen_before = std::mem::take(&mut self.without_pod);
        for (uid, containers) in by_pod {
            if seen_before.contains(&uid) {
                let ids = containers.into_iter().map(|one| (one.id, one.owner.role)).collect();
                self.remove_orphan(uid, ids);
            } else {
                self.without_pod.insert(uid);
            }
        }
    }

    fn remove_orphan(&self, uid: String, containers: Vec<(String, Role)>) {
        tracing::info!(uid, containers = containers.len(), "removing containers whose pod is gone");
        let context = self.context.clone();
        tokio::spawn(async move { super::act::remove_orphan(&context, &uid, containers).await });
    }

    fn worker_ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(uid) = self.uids.remove(&id) else { return };
        let Err(error) = ended else {
            self.revivals.forget(&uid);
            self.workers.remove(&uid);
            return;
        };
        // The handle stays for those who read logs: it shows what the worker last knew.
        let Some(handle) = self.workers.get(&uid) else { return };
        let pod = handle.view().pod.clone();
        let wait = self.revivals.begin(self.context.clone(), uid, pod);
        tracing::error!(pod = %handle.pod(), %error, ?wait, "a pod's worker panicked; it is restarted");
    }

    /// Restarts the worker of a pod whose back-off is over.
    async fn revive(&mut self, uid: String, found: Vec<Container>) {
        if let Some(revival) = self.revivals.take(&uid) {
            self.start_worker(uid.clone(), revival.pod, found);
            if revival.gone {
                self.gone(&uid).await;
            }
        }
    }
}

/// Oldest first, as the kubelet admits them: of two pods that do not fit together the older one stays.
fn by_age(mut pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|created| created.0));
    pods
}

/// Removes every pod from the node.
pub async fn remove_everything(context: &Context) -> Result<(), PodsError> {
    let containers = context.runtime.list().await.map_err(|source| PodsError::Remove { source })?;
    let mut pods: HashMap<PodRef, Vec<String>> = HashMap::new();
    for container in containers {
        pods.entry(container.owner.pod).or_default().push(container.id);
    }
    let removals = pods.values().flatten().map(|id| context.runtime.remove(id));
    let removed: Result<Vec<()>, _> = futures::stream::iter(removals).buffer_unordered(16).try_collect().await;
    removed.map_err(|source| PodsError::Remove { source })?;
    context.network.retain(&[]).await.map_err(|source| PodsError::Detach { source })?;
    super::act::remove_unknown_directories(context, &[]).await;
    context.runtime.uninstall().await.map_err(|source| PodsError::Remove { source })
}
