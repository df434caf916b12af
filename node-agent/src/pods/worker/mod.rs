//! The worker of one pod: takes in what happens, asks `plan`, begins what it says, and reports the status that follows.
//!
//! It is the only writer of the pod's state, and does no I/O itself: actions, status writes and probes are tasks whose
//! results come back as inputs. A task that panics makes the worker panic: the dispatcher then starts a new one from
//! what the runtime has.

mod admission;
mod handle;
mod report;

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use admission::{Admission, admit};
use arc_swap::ArcSwap;
pub use handle::{Handle, Input, View, send};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use report::Report;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Context, act,
    object_waits::Waits,
    plan::{Action, BackingOff, BackoffCause, plan},
    probe::{self, ProbeKey, Probers, Verdict},
    recorder::EventType,
    resize::{self, Allocation, PodGrant, Resize, Shown},
    spec,
    state::{Finish, PodState, Volumes},
};
use crate::runtime::Container;

struct Worker {
    context: Arc<Context>,
    /// With the resources that it was allocated.
    pod: Arc<Pod>,
    /// As the API has it.
    desired: Arc<Pod>,
    /// Says when another pod's change gave this one something.
    allocation_changes: watch::Receiver<u64>,
    /// What events told of its resizes.
    shown_resize: Shown,
    /// The same, for those who follow its labels and annotations.
    pod_changes: watch::Sender<Arc<Pod>>,
    state: PodState,
    view: Arc<ArcSwap<View>>,
    inputs: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    actions: JoinSet<()>,
    /// Starts under way by container id: each ends with its container.
    starts: HashMap<String, AbortHandle>,
    probers: Probers,
    /// Back-offs that are recorded already.
    backing_off: Vec<BackingOff>,
    /// The volumes are kept as their objects are.
    follows: bool,
    /// Objects that failures wait for.
    waits: Waits,
    report: Report,
    /// The node rejects the pod, as far as it is known: the API is asked for the node before that counts.
    is_undecided: bool,
}

const INPUTS: usize = 256;

/// A worker for `pod`, whose containers `found` already exist; runs until the pod is gone or `stop` is cancelled.
pub fn new(
    context: Arc<Context>,
    pod: Arc<Pod>,
    found: Vec<Container>,
    stop: CancellationToken,
) -> (Handle, impl Future<Output = ()> + Send + 'static) {
    let (sender, inputs) = mpsc::channel(INPUTS);
    let started_at =
        pod.status.as_ref().and_then(|status| status.start_time.clone()).map_or_else(Timestamp::now, |time| time.0);
    let mut state = PodState::adopt(started_at, found);
    let allocation_changes = context.allocations.changes();
    let desired = pod;
    let reference = spec::pod_ref(&desired);
    let uid = &reference.uid;
    let asked = || PodGrant { allocated: Allocation::of(&desired), ..PodGrant::default() };
    let admission = if spec::phase_is_final(&desired) { Admission::Decided(None) } else { admit(&context, &desired) };
    let grant = context.allocations.grant(uid).unwrap_or_else(asked);
    let is_undecided = matches!(admission, Admission::AskNode);
    if let Admission::Decided(ended) = admission {
        state.ended = ended;
    }
    let pod = grant.allocated.applied_to(&desired);
    state.resume_amounts(&pod, |id| context.allocations.actuated(uid, id));
    state.resume_restarts(|id| context.allocations.is_restarting(uid, id));
    state.resize = Resize { pending: grant.pending, generation: grant.generation, ..Resize::default() };
    let shown_resize = Shown::of(&pod, &state);
    context.host_ports.update(&pod, &state);
    let status = pod.status.clone().unwrap_or_default();
    let view = Arc::new(ArcSwap::from_pointee(View { pod: desired.clone(), status, state: state.clone() }));
    let span = tracing::info_span!("pod", namespace = reference.namespace, name = reference.name);
    let waits = context.object_waits.of(&reference.uid, sender.clone());
    let handle = Handle { pod: Arc::new(reference), inputs: sender.clone(), view: view.clone() };
    let worker = Worker {
        context,
        pod_changes: watch::Sender::new(pod.clone()),
        pod,
        desired,
        allocation_changes,
        shown_resize,
        state,
        view,
        inputs,
        sender,
        actions: JoinSet::new(),
        starts: HashMap::new(),
        probers: Probers::default(),
        backing_off: Vec::new(),
        follows: false,
        waits,
        report: Report::default(),
        is_undecided,
    };
    (handle, worker.run(stop).instrument(span))
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        self.state.resume(&self.pod);
        if self.is_undecided && !self.decide_admission(&stop).await {
            return;
        }
        loop {
            let wake = self.proceed();
            if self.state.finish == Finish::Done && self.report.is_idle() && self.state.gone {
                self.context.host_ports.forget(&self.pod);
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                Some(ended) = self.actions.join_next() => unwind(ended.err()),
                written = self.report.ended() => match written {
                    Ok(written) => self.written(written),
                    Err(error) => unwind(Some(error)),
                },
                Ok(()) = self.allocation_changes.changed() => self.take_allocation(),
                () = sleep_until(wake) => {}
            }
            // What else has come meanwhile is taken in before anything is decided.
            while let Ok(input) = self.inputs.try_recv() {
                self.take(input);
            }
        }
    }

    fn take(&mut self, input: Input) {
        let now = Timestamp::now();
        match input {
            Input::Pod(pod) => self.replace_pod(pod),
            Input::Gone => self.state.gone = true,
            Input::Ended(id) => self.observe(id),
            Input::Listed(listed) => {
                self.state.discard_unknown(&listed);
                self.state.unlisted(&listed).into_iter().for_each(|id| self.observe(id));
            }
            Input::Probe(Verdict { key, healthy }) => {
                if self.state.owner_of(&key.id) == Some(&key.container)
                    && let Some(container) = spec::container(&self.pod, &key.container)
                {
                    self.state.container_mut(&key.container).health.record_verdict(container, key.kind, healthy);
                }
            }
            Input::Evicted(ended) => {
                if self.state.ended.is_none() && !self.is_ended() {
                    self.context.recorder.record(&self.pod, None, EventType::Warning, ended.reason, &ended.message);
                    self.state.evict(ended, now);
                }
            }
            Input::ObjectChanged => self.state.retry_now(now),
            Input::Outcome(outcome) => {
                if let Some(key) = outcome.awaited_object() {
                    self.waits.add(&self.context, key);
                }
                self.state.apply(*outcome, now);
            }
        }
    }

    /// Takes a version of the Pod unless a newer one is known: the answer to a write may outrun the watch.
    fn replace_pod(&mut self, pod: Arc<Pod>) {
        let revision = |pod: &Pod| {
            pod.metadata.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
        };
        if revision(&pod) >= revision(&self.desired) {
            self.desired = pod;
            self.take_allocation();
            self.pod_changes.send_if_modified(|known| {
                let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                let is_change = shown(known) != shown(&self.pod) || Allocation::of(known) != Allocation::of(&self.pod);
                known.clone_from(&self.pod);
                is_change
            });
        }
    }

    /// The pod needs nothing of the node any more.
    fn is_ended(&self) -> bool {
        self.state.gone || self.state.finish != Finish::NotYet || spec::phase_is_final(&self.desired)
    }

    /// Takes in what the pod holds of the node now.
    fn take_allocation(&mut self) {
        let uid = spec::pod_ref(&self.desired).uid;
        let update = || self.context.allocations.update(&uid, &self.desired, Timestamp::now());
        let grant = if self.is_ended() { None } else { update() };
        // One that holds nothing any more keeps what it had.
        let grant = grant.unwrap_or_else(|| PodGrant { allocated: Allocation::of(&self.pod), ..PodGrant::default() });
        self.pod = grant.allocated.applied_to(&self.desired);
        self.state.resize.pending = grant.pending;
        self.state.resize.generation = grant.generation;
    }

    /// Tells in events what became of resizes, and gives up what an ended pod held.
    fn follow_resizes(&mut self, now: Timestamp) {
        if self.is_ended() {
            self.context.allocations.release(&spec::pod_ref(&self.pod).uid, now);
            return;
        }
        let shown = Shown::of(&self.pod, &self.state);
        for (kind, reason, message) in resize::events(&self.shown_resize, &shown, &self.desired, &self.pod) {
            self.context.recorder.record(&self.pod, None, kind, reason, message);
        }
        self.shown_resize = shown;
    }

    /// Looks at a container or sandbox that may have ended.
    fn observe(&mut self, id: String) {
        if self.state.may_run(&id) {
            let (context, pod, sender) = (self.context.clone(), self.pod.clone(), self.sender.clone());
            self.actions.spawn(async move {
                if let Some(outcome) = act::observe(&context, &pod, &id).await {
                    send(&sender, Input::Outcome(Box::new(outcome))).await;
                }
            });
        }
    }

    /// Starts to keep the volumes as their objects are, once they are mounted.
    fn follow_objects(&mut self) {
        if self.state.volumes == Volumes::Mounted && !self.follows {
            self.follows = true;
            let (context, pods) = (self.context.clone(), self.pod_changes.subscribe());
            self.actions.spawn(async move { act::follow_objects(&context, pods).await });
        }
    }

    /// Records an event for each back-off, once.
    fn record_back_off(&mut self, backing_off: Vec<BackingOff>) {
        for one in backing_off.iter().filter(|one| !self.backing_off.contains(one)) {
            let message = match one.cause {
                BackoffCause::Restart => {
                    let pod = spec::pod_ref(&self.pod);
                    format!("Back-off restarting failed container {} in pod {pod}", one.container)
                }
                BackoffCause::Pull => {
                    let image = spec::any_container(&self.pod, &one.container).and_then(|one| one.image.clone());
                    format!("Back-off pulling image {:?}", image.unwrap_or_default())
                }
            };
            self.context.recorder.record(&self.pod, Some(&one.container), EventType::Warning, "BackOff", message);
        }
        self.backing_off = backing_off;
    }

    fn adjust_probers(&mut self) {
        let wanted = probe::wanted(&self.pod, &self.state);
        let state = &self.state;
        let started_at = |key: &ProbeKey| state.container(&key.container).instance.running_since();
        self.probers.adjust(wanted, &self.context, &self.pod, started_at, state.ip(), &self.sender);
    }

    /// Begins all that can begin and reports; returns when to be woken.
    fn proceed(&mut self) -> Option<Timestamp> {
        let now = Timestamp::now();
        let mut wake;
        loop {
            self.state.note_termination(&self.pod, now);
            let plan = plan(&self.pod, &self.state, now);
            wake = plan.wake;
            self.record_back_off(plan.backing_off);
            let mut begun = false;
            for action in plan.actions {
                // The last status is written before the API forgets the pod.
                if action == Action::Finish && !self.state.gone && !self.is_reported(now) {
                    continue;
                }
                begun = true;
                self.begin(action, now);
            }
            if !begun {
                break;
            }
        }
        self.cancel_starts();
        self.follow_resizes(now);
        self.context.host_ports.update(&self.pod, &self.state);
        self.follow_objects();
        self.adjust_probers();
        let write_at = self.report(now);
        [wake, write_at].into_iter().flatten().min()
    }

    fn begin(&mut self, action: Action, now: Timestamp) {
        tracing::debug!(?action, "begins");
        let before = self.state.clone();
        self.state.begin(&self.pod, &action, now);
        let started = if let Action::StartContainer { id, .. } = &action { Some(id.clone()) } else { None };
        let (context, pod, sender) = (self.context.clone(), self.pod.clone(), self.sender.clone());
        let task = self
            .actions
            .spawn(async move { act::perform(&context, &pod, &before, action, &sender).await }.in_current_span());
        self.starts.extend(started.map(|id| (id, task)));
    }

    /// Cancels the postStart hooks of containers that have ended or are being stopped.
    fn cancel_starts(&mut self) {
        let state = &self.state;
        self.starts.retain(|id, task| {
            let is_starting = state.is_starting(id);
            if !is_starting {
                task.abort();
            }
            is_starting
        });
    }
}

/// Propagates a task's panic: otherwise its action would count as under way for ever. A cancelled task is no failure.
fn unwind(ended: Option<JoinError>) {
    if let Some(error) = ended.filter(JoinError::is_panic) {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let wait = at.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(wait).unwrap_or(Duration::ZERO)).await;
        }
    }
}
