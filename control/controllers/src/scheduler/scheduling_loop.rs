//! The loop that owns the scheduler's state: takes what the informers show, places the next pod, and sends what that
//! asks for.

use std::{
    cell::LazyCell,
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use kube::Client;
use tokio::{
    task::{AbortHandle, Id, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    bind::{self, Nomination, Preempted, RequestOutcome},
    cluster::{Candidate, Cluster},
    event_mapper::EventMapper,
    pod::{self, PodInfo},
    preemption::{self, Facts, NoPreemption, Preemption},
    queue::{QueuedPod, SchedulingQueue},
    queueing_hints::{PodChange, Waiting, may_help},
    rejection::Plugin,
    stats::SchedulerCounters,
};
use crate::engine::{Deadline, Recorder};

/// Most requests under way at a time.
const IN_FLIGHT: usize = 64;
/// How long after nodes were added or deleted the waiting pods are tried again, so that their reasons name the new
/// count.
const REVIEW: Duration = Duration::from_secs(5);
/// How often all waiting pods are tried again, whatever happened. Source: kube-scheduler's
/// `podMaxInUnschedulablePodsDuration`.
const FLUSH: Duration = Duration::from_secs(300);

/// Places pods, one after the other.
pub struct SchedulingLoop {
    client: Client,
    recorder: Recorder,
    events: Arc<EventMapper>,
    counters: Arc<SchedulerCounters>,
    cluster: Cluster,
    queue: SchedulingQueue,
    requests: JoinSet<RequestOutcome>,
    /// uid of the pod that each request is for.
    pods: HashMap<Id, String>,
    review_at: Option<Instant>,
    flush_at: Deadline,
}

impl SchedulingLoop {
    /// An empty cluster and queue; `events` fills them.
    pub fn new(client: Client, recorder: Recorder, events: Arc<EventMapper>, counters: Arc<SchedulerCounters>) -> Self {
        Self {
            client,
            recorder,
            events,
            counters,
            cluster: Cluster::default(),
            queue: SchedulingQueue::default(),
            requests: JoinSet::new(),
            pods: HashMap::new(),
            review_at: None,
            flush_at: Deadline::from(Instant::now(), FLUSH),
        }
    }

    /// Waits for the first listings, then places pods until it is stopped and its requests have ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let synced = async {
            for informer in self.events.synced() {
                informer.wait().await;
            }
        };
        if stop.run_until_cancelled(synced).await.is_none() {
            return;
        }
        self.events.restart();
        while !stop.is_cancelled() {
            self.take_events();
            while let Some(ended) = self.requests.try_join_next_with_id() {
                self.request_ended(ended);
            }
            let timer = self.release_due(Instant::now());
            self.count_pending();
            if self.requests.len() < IN_FLIGHT && self.queue.has_ready() {
                self.place_next();
                // Lets the binding start, and the other tasks of this thread run.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                _ = stop.cancelled() => {}
                _ = self.events.changed() => {}
                Some(ended) = self.requests.join_next_with_id(), if !self.requests.is_empty() => {
                    self.request_ended(ended);
                }
                _ = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
        while self.requests.join_next().await.is_some() {}
    }

    /// Queues the pods whose time has come; returns when the next one's comes.
    fn release_due(&mut self, now: Instant) -> Option<Instant> {
        if self.review_at.is_some_and(|at| at <= now) {
            self.review_at = None;
            self.queue.retry_where(now, |_| true);
        }
        if self.flush_at.instant().is_some_and(|at| at <= now) {
            self.flush_at = Deadline::from(now, FLUSH);
            self.queue.retry_where(now, |_| true);
        }
        let back_off = self.queue.release_due(now);
        [back_off, self.review_at, self.flush_at.instant()].into_iter().flatten().min()
    }

    fn count_pending(&self) {
        let (active, backing_off, waiting) = self.queue.lengths();
        self.counters.active.store(active, Relaxed);
        self.counters.backing_off.store(backing_off, Relaxed);
        self.counters.waiting.store(waiting, Relaxed);
    }

    fn place_next(&mut self) {
        let Some(pod) = self.queue.next() else { return };
        let uid = pod.uid.clone();
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        let begin = Instant::now();
        let siblings = self.events.siblings_of(&pod);
        let candidate = Candidate { uid: &uid, needs: &pod.needs, siblings: siblings.as_ref() };
        let choice = self.cluster.choose(candidate);
        self.counters.attempt_duration.observe(begin.elapsed());
        let request = match choice {
            Ok(node) => {
                self.settle_nomination(&uid, &node);
                self.cluster.place(&uid, &node, pod.needs.clone());
                self.requests.spawn(bind::bind(client, recorder, pod, node))
            }
            Err(refused) => {
                self.counters.unschedulable.fetch_add(1, Relaxed);
                self.queue.rejected(&uid, refused.rejections.clone());
                let preemption = (refused.nodes > 0).then(|| self.preemption(candidate));
                let (message, nomination) = match preemption {
                    // It is unschedulable when its request has ended: until then it counts as binding.
                    Some(Ok(preemption)) => {
                        let request = self.preempt(pod, preemption, refused.message());
                        self.pods.insert(request.id(), uid);
                        return;
                    }
                    Some(Err(why)) => {
                        let is_over = matches!(why, NoPreemption::NoCandidates(_));
                        let ends = is_over && self.cluster.nominated().node_of(&uid).is_some();
                        let nomination = if ends { Nomination::Ended } else { Nomination::Kept };
                        (format!("{} preemption: {}", refused.message(), why.reason()), nomination)
                    }
                    None => (refused.message(), Nomination::Kept),
                };
                let is_news = self.queue.unschedulable(&uid, &message, Instant::now());
                if nomination == Nomination::Ended {
                    self.denominate(&uid);
                } else if !is_news {
                    return;
                }
                self.requests.spawn(bind::report_unschedulable(client, recorder, pod, message, nomination))
            }
        };
        self.pods.insert(request.id(), uid);
    }

    /// Whether others are to make room for a pod, and who.
    fn preemption(&self, pod: Candidate) -> Result<Preemption, NoPreemption> {
        let budgets = LazyCell::new(|| self.events.budgets());
        let state_of = |pod: &pod::Needs| self.events.state_of(pod);
        let begin = Instant::now();
        let decision = preemption::decide(&self.cluster, pod, &Facts { budgets: &budgets, state_of: &state_of });
        self.counters.preemption_duration.observe(begin.elapsed());
        decision
    }

    fn preempt(&mut self, pod: QueuedPod, preemption: Preemption, message: String) -> AbortHandle {
        self.counters.preemption_attempts.fetch_add(1, Relaxed);
        if self.cluster.nominated().node_of(&pod.uid).is_some_and(|node| node != preemption.node) {
            self.denominate(&pod.uid);
        }
        let nominated = self.cluster.nominated_mut();
        let outranked = nominated.outranked(&preemption.node, pod.needs.priority);
        for (uid, _) in &outranked {
            nominated.remove(uid);
        }
        nominated.insert(&pod.uid, pod.key.clone(), &preemption.node, pod.needs.clone());
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        self.requests.spawn(bind::preempt(client, recorder, pod, preemption, outranked, message))
    }

    fn request_ended(&mut self, joined: Result<(Id, RequestOutcome), tokio::task::JoinError>) {
        let (id, outcome) = match joined {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), RequestOutcome::Failed),
        };
        let Some(uid) = self.pods.remove(&id) else { return };
        match outcome {
            RequestOutcome::Reported => {}
            RequestOutcome::NotReported => self.queue.not_reported(&uid),
            RequestOutcome::Preempted(preempted) => {
                let message = self.preempted(&uid, preempted);
                self.queue.unschedulable(&uid, &message, Instant::now());
                // Its victims may have gone while nobody asked for this pod.
                self.queue.retry(&uid, Instant::now());
            }
            RequestOutcome::PreemptionFailed(preempted) => {
                self.counters.errors.fetch_add(1, Relaxed);
                self.preempted(&uid, preempted);
                self.queue.failed(&uid, Instant::now());
            }
            // A bound pod stays on record until the watch shows its node: an older event may still be on its way.
            RequestOutcome::Bound => {
                self.counters.scheduled.fetch_add(1, Relaxed);
                if let Some(since) = self.queue.added_at(&uid) {
                    self.counters.pod_duration.observe(since.elapsed());
                }
            }
            RequestOutcome::Superseded | RequestOutcome::Failed => {
                self.counters.errors.fetch_add(1, Relaxed);
                if self.queue.has(&uid) {
                    self.denominate(&uid);
                    self.free(&uid);
                    self.queue.failed(&uid, Instant::now());
                }
            }
        }
    }

    /// Takes down what a preemption did; returns why its pod has no node yet.
    fn preempted(&mut self, uid: &str, done: Preempted) -> String {
        self.counters.preemption_victims.fetch_add(done.victims as u64, Relaxed);
        self.cluster.nominated_mut().written_at(uid, done.revision);
        done.message
    }

    fn take_events(&mut self) {
        let pending = self.events.take();
        for (name, labels) in pending.namespaces {
            let was_known = self.cluster.namespaces().contains_key(&name);
            if self.cluster.set_namespace(name, labels) {
                // Labels that change may end what keeps any pod away; a new namespace has no pods yet.
                self.queue.retry_where(Instant::now(), |waiting| {
                    waiting.rejections.may_be_by(Plugin::InterPodAffinity)
                        && (was_known || waiting.needs.neighbours.selects_namespaces())
                });
            }
        }
        for (name, node) in pending.nodes {
            match node {
                Some(node) => {
                    if self.cluster.set_node(node) {
                        self.node_changed(&name);
                    }
                }
                None => {
                    self.cluster.remove_node(&name);
                    self.review_later();
                }
            }
        }
        for (uid, pod) in pending.pods {
            match pod {
                Some(pod) => self.pod_changed(pod),
                None => {
                    self.queue.remove(&uid);
                    self.denominate(&uid);
                    self.free(&uid);
                }
            }
        }
    }

    fn pod_changed(&mut self, pod: PodInfo) {
        if pod.finished {
            self.queue.remove(&pod.uid);
            self.denominate(&pod.uid);
            self.free(&pod.uid);
        } else if let Some(node) = &pod.node {
            // One that this scheduler placed is counted already, and helps others only now that it is bound.
            let was_queued = self.queue.has(&pod.uid);
            self.queue.remove(&pod.uid);
            self.settle_nomination(&pod.uid, node);
            let after = Arc::new(pod.needs);
            let before = self.cluster.place(&pod.uid, node, after.clone());
            if let Some(before) = before.as_deref().filter(|before| **before != *after) {
                self.retry_after(node, PodChange::Updated { before, after: &after });
            }
            if was_queued || before.is_none() {
                self.retry_after(node, PodChange::Placed(&after));
            }
        } else if pod.pending {
            self.nomination_seen(&pod);
            self.queue.upsert(pod, Instant::now());
        } else {
            self.queue.remove(&pod.uid);
            self.denominate(&pod.uid);
        }
    }

    /// Takes over what a pod's status says of its nomination, unless a request that decides about it is under way: its
    /// result comes later.
    fn nomination_seen(&mut self, pod: &PodInfo) {
        let is_under_way = self.pods.values().any(|uid| *uid == pod.uid);
        if is_under_way || self.cluster.nominated().is_newer_than(&pod.uid, pod.revision) {
            return;
        }
        match &pod.nominated {
            Some(node) => {
                let needs = Arc::new(pod.needs.clone());
                self.cluster.nominated_mut().insert(&pod.uid, pod.key.clone(), node, needs);
            }
            None => self.denominate(&pod.uid),
        }
    }

    /// A pod is placed on `node`: what was kept for it elsewhere is free.
    fn settle_nomination(&mut self, uid: &str, node: &str) {
        match self.cluster.nominated().node_of(uid) {
            Some(kept) if kept != node => self.denominate(uid),
            _ => self.cluster.nominated_mut().remove(uid),
        }
    }

    /// Gives the room that was kept for a pod to others.
    fn denominate(&mut self, uid: &str) {
        let nominated = self.cluster.nominated_mut();
        if let Some(node) = nominated.node_of(uid).map(str::to_owned) {
            nominated.remove(uid);
            let cluster = &self.cluster;
            self.queue.retry_where(Instant::now(), |waiting| cluster.can_take(&node, waiting.needs));
        }
    }

    fn free(&mut self, uid: &str) {
        if let Some((node, freed)) = self.cluster.remove_pod(uid) {
            self.retry_after(&node, PodChange::Ended(&freed));
        }
    }

    /// Tries the pods again that the change of a pod on `node` may help.
    fn retry_after(&mut self, node: &str, change: PodChange) {
        let cluster = &self.cluster;
        let helps = |waiting: Waiting| {
            may_help(waiting, change, cluster.namespaces(), || cluster.can_take(node, waiting.needs))
        };
        self.queue.retry_where(Instant::now(), helps);
    }

    fn node_changed(&mut self, name: &str) {
        let cluster = &self.cluster;
        self.queue.retry_where(Instant::now(), |waiting| cluster.can_take(name, waiting.needs));
        self.review_later();
    }

    /// The reasons of waiting pods name the number of nodes.
    fn review_later(&mut self) {
        if self.review_at.is_none() && self.queue.has_unschedulable() {
            self.review_at = Deadline::from(Instant::now(), REVIEW).instant();
        }
    }
}
