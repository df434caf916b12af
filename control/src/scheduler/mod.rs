//! The scheduler: gives every pending pod a node.
//!
//! One loop owns all state: what the watches tell goes in, a placement comes out ([`cluster`], pure), is assumed at once, and its
//! binding is sent while the next pod is placed. A pod that nothing can take waits for a change that could help it; nothing polls.

mod affinity;
mod bind;
mod cluster;
mod filter;
mod neighbours;
mod node;
mod pod;
mod resources;
mod score;
mod spread;
pub mod taints;
mod waiting;
mod watch;

use std::{collections::HashMap, time::Duration};

use kube::Client;
use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{bind::Ended, cluster::Cluster, pod::SeenPod, waiting::Waiting, watch::Seen};
use crate::controllers::engine::{Recorder, Tasks};

/// Most requests under way at a time.
const IN_FLIGHT: usize = 64;
/// How long after nodes came or went the pods that wait are told the new count.
const REVIEW: Duration = Duration::from_secs(5);

/// The running scheduler.
pub struct Scheduler {
    tasks: Tasks,
}

/// Starts the scheduler. It waits for its first listings by itself, and ends with [`Scheduler::shutdown`].
pub fn start(client: Client) -> Scheduler {
    let tasks = Tasks::default();
    let (recorder, writer) = Recorder::new(client.clone(), tasks.stop());
    tasks.spawn("event-recorder", writer);
    let (seen, watches) = watch::start(&client, tasks.stop());
    for watch in watches {
        tasks.spawn("scheduler-watch", watch);
    }
    let loop_ = Loop {
        client,
        recorder,
        cluster: Cluster::default(),
        waiting: Waiting::default(),
        requests: JoinSet::new(),
        pods: HashMap::new(),
        listed: Listed::default(),
        review_at: None,
    };
    tasks.spawn("scheduler", loop_.run(seen, tasks.stop()));
    Scheduler { tasks }
}

impl Scheduler {
    /// Stops, and returns when the bindings under way have ended.
    pub async fn shutdown(self) {
        self.tasks.shutdown().await;
    }
}

#[derive(Default)]
struct Listed {
    pods: bool,
    nodes: bool,
}

struct Loop {
    client: Client,
    recorder: Recorder,
    cluster: Cluster,
    waiting: Waiting,
    requests: JoinSet<Ended>,
    /// uid of the pod that each request is for.
    pods: HashMap<Id, String>,
    listed: Listed,
    review_at: Option<Instant>,
}

impl Loop {
    async fn run(mut self, mut seen: mpsc::Receiver<Seen>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let timer = self.fire(Instant::now());
            while let Ok(event) = seen.try_recv() {
                self.saw(event);
            }
            while let Some(ended) = self.requests.try_join_next_with_id() {
                self.ended(ended);
            }
            if self.may_place() {
                self.place_next();
                // Lets the binding start, and the watches and other requests of this thread go on.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                _ = stop.cancelled() => {}
                event = seen.recv() => match event {
                    Some(event) => self.saw(event),
                    None => break,
                },
                Some(ended) = self.requests.join_next_with_id(), if !self.requests.is_empty() => self.ended(ended),
                _ = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
        while self.requests.join_next().await.is_some() {}
    }

    fn may_place(&self) -> bool {
        self.listed.pods && self.listed.nodes && self.requests.len() < IN_FLIGHT && self.waiting.has_ready()
    }

    fn fire(&mut self, now: Instant) -> Option<Instant> {
        if self.review_at.is_some_and(|at| at <= now) {
            self.review_at = None;
            self.waiting.retry_where(|_| true);
        }
        let back_off = self.waiting.fire(now);
        [back_off, self.review_at].into_iter().flatten().min()
    }

    fn place_next(&mut self) {
        let Some(pod) = self.waiting.next() else { return };
        let uid = pod.uid.clone();
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        let request = match self.cluster.choose(&pod.needs) {
            Ok(node) => {
                self.cluster.place(&uid, &node, pod.needs.clone());
                self.requests.spawn(bind::bind(client, recorder, pod, node))
            }
            Err(refused) => {
                let message = refused.message();
                if !self.waiting.unschedulable(&uid, &message) {
                    return;
                }
                self.requests.spawn(bind::tell(client, recorder, pod, message))
            }
        };
        self.pods.insert(request.id(), uid);
    }

    fn ended(&mut self, joined: Result<(Id, Ended), tokio::task::JoinError>) {
        let (id, ended) = match joined {
            Ok((id, ended)) => (id, ended),
            Err(error) => (error.id(), Ended::Failed),
        };
        let Some(uid) = self.pods.remove(&id) else { return };
        match ended {
            // A bound pod stays on record until the watch shows its node: an older event may still be on its way.
            Ended::Bound | Ended::Told => {}
            Ended::Superseded | Ended::Failed if !self.waiting.has(&uid) => {}
            Ended::Superseded | Ended::Failed => {
                self.free(&uid);
                self.waiting.failed(&uid, Instant::now());
            }
        }
    }

    fn saw(&mut self, event: Seen) {
        match event {
            Seen::Pod(pod) => self.saw_pod(*pod),
            Seen::PodGone { uid } => {
                self.waiting.gone(&uid);
                self.free(&uid);
            }
            Seen::PodsListed { uids } => {
                self.listed.pods = true;
                self.waiting.retain(&uids);
                for uid in self.cluster.pods_beyond(&uids) {
                    self.free(&uid);
                }
            }
            Seen::Node(node) => {
                let name = node.name.clone();
                if self.cluster.set_node(*node) {
                    self.node_changed(&name);
                }
            }
            Seen::NodeGone { name } => {
                self.cluster.remove_node(&name);
                self.review_later();
            }
            Seen::NodesListed { names } => {
                self.listed.nodes = true;
                for name in self.cluster.nodes_beyond(&names) {
                    self.cluster.remove_node(&name);
                    self.review_later();
                }
            }
        }
    }

    fn saw_pod(&mut self, pod: SeenPod) {
        if pod.finished {
            self.waiting.gone(&pod.uid);
            self.free(&pod.uid);
        } else if let Some(node) = &pod.node {
            self.waiting.gone(&pod.uid);
            self.cluster.place(&pod.uid, node, pod.needs.into());
            // It may be the neighbour that another waits for.
            self.waiting.retry_where(|needs| needs.neighbours.cares());
        } else if pod.pending {
            self.waiting.seen(pod.key, pod.uid, pod.needs, pod.told);
        } else {
            self.waiting.gone(&pod.uid);
        }
    }

    fn free(&mut self, uid: &str) {
        // A pod that kept others away may have done so beyond its own node.
        let repelled = self.cluster.repels(uid);
        if let Some(node) = self.cluster.remove_pod(uid) {
            let cluster = &self.cluster;
            self.waiting.retry_where(|needs| repelled || needs.neighbours.cares() || cluster.can_take(&node, needs));
        }
    }

    fn node_changed(&mut self, name: &str) {
        let cluster = &self.cluster;
        self.waiting.retry_where(|needs| cluster.can_take(name, needs));
        self.review_later();
    }

    /// The reasons that waiting pods were told name the number of nodes.
    fn review_later(&mut self) {
        if self.review_at.is_none() && self.waiting.has_unschedulable() {
            self.review_at = Some(Instant::now() + REVIEW);
        }
    }
}
