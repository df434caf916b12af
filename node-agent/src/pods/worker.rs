//! The worker of one pod: takes in what happens, asks `plan`, begins what it says, and reports the status that follows.
//!
//! It is the only writer of the pod's state, and does no I/O itself: actions, status writes and probes are tasks whose results come back as
//! inputs.

use std::{future::Future, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Context, act,
    objects::ObjectKey,
    outcome::Outcome,
    plan::{Action, BackingOff, From, plan},
    probe::{self, ProbeKey, Probers, Verdict},
    recorder::EventType,
    spec,
    state::{Finish, Instance, PodState, Volumes},
    status::{self, Place},
};
use crate::runtime::{Container, PodRef};

#[derive(Debug)]
pub enum Input {
    Pod(Arc<Pod>),
    /// The Pod is no more in the API.
    Gone,
    /// The runtime has news of this container.
    Runtime(String),
    /// The runtime was away: everything is to be looked at.
    Resync,
    /// An object that a failure waits for has changed.
    ObjectChanged,
    /// Boxed: the queue of every pod has room for many inputs, and the others are small.
    Outcome(Box<Outcome>),
    Probe(Verdict),
}

/// What others may see of a pod.
#[derive(Clone, Debug)]
pub struct View {
    pub pod: Arc<Pod>,
    pub status: PodStatus,
    pub state: PodState,
}

#[derive(Clone)]
pub struct Handle {
    pod: Arc<PodRef>,
    inputs: mpsc::Sender<Input>,
    view: Arc<ArcSwap<View>>,
}

impl Handle {
    pub fn pod(&self) -> &PodRef {
        &self.pod
    }

    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Not an error where the worker has ended meanwhile: it is then past caring.
    pub async fn send(&self, input: Input) {
        if self.inputs.send(input).await.is_err() {
            tracing::debug!(pod = %self.pod, "the worker has ended");
        }
    }
}

struct Worker {
    context: Arc<Context>,
    pod: Arc<Pod>,
    state: PodState,
    view: Arc<ArcSwap<View>>,
    inputs: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    actions: JoinSet<()>,
    probers: Probers,
    /// Told of already.
    backing_off: Vec<BackingOff>,
    /// The volumes are kept as their objects are.
    follows: bool,
    write: JoinSet<Result<Option<Pod>, kube::Error>>,
    write_failures: u32,
    write_not_before: Option<Timestamp>,
    /// Since when news is held back for a start that is near.
    held_since: Option<Timestamp>,
}

const INPUTS: usize = 256;
/// A start that takes longer (a postStart hook, a slow engine) holds no news back.
const LONGEST_HOLD: SignedDuration = SignedDuration::from_secs(10);

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
    let state = PodState::adopt(started_at, found);
    context.host_ports.update(&pod, &state);
    let status = pod.status.clone().unwrap_or_default();
    let view = Arc::new(ArcSwap::from_pointee(View { pod: pod.clone(), status, state: state.clone() }));
    let reference = spec::pod_ref(&pod);
    let span = tracing::info_span!("pod", namespace = reference.namespace, name = reference.name);
    let handle = Handle { pod: Arc::new(reference), inputs: sender.clone(), view: view.clone() };
    let worker = Worker {
        context,
        pod,
        state,
        view,
        inputs,
        sender,
        actions: JoinSet::new(),
        probers: Probers::default(),
        backing_off: Vec::new(),
        follows: false,
        write: JoinSet::new(),
        write_failures: 0,
        write_not_before: None,
        held_since: None,
    };
    (handle, worker.run(stop).instrument(span))
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        self.state.resume(&self.pod);
        loop {
            let wake = self.proceed();
            if self.state.finish == Finish::Done && self.write.is_empty() && self.state.gone {
                self.context.host_ports.forget(&self.pod);
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                Some(ended) = self.actions.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an action ended abnormally");
                    }
                }
                Some(written) = self.write.join_next() => match written {
                    Ok(written) => self.written(written),
                    Err(error) => tracing::error!(%error, "a status write ended abnormally"),
                },
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
            Input::Runtime(id) => self.observe(id),
            Input::Resync => {
                let sandbox = self.state.sandbox.id().map(str::to_owned);
                let containers =
                    self.state.containers.values().filter_map(|container| container.instance.id().map(str::to_owned));
                let ids: Vec<_> = sandbox.into_iter().chain(containers).collect();
                ids.into_iter().for_each(|id| self.observe(id));
            }
            Input::Probe(Verdict { key, healthy }) => {
                if self.state.owner_of(&key.id) == Some(&key.container)
                    && let Some(container) = spec::container(&self.pod, &key.container)
                {
                    self.state.container_mut(&key.container).health.judge(container, key.kind, healthy);
                }
            }
            Input::ObjectChanged => self.state.retry_now(now),
            Input::Outcome(outcome) => {
                if let Some(key) = outcome.awaits() {
                    self.await_object(key.clone());
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
        if revision(&pod) >= revision(&self.pod) {
            self.pod = pod;
        }
    }

    /// Looks at a container, where its state could have changed without an action's doing.
    fn observe(&mut self, id: String) {
        let sandbox = self.state.sandbox.id() == Some(&id);
        let running = self.state.owner_of(&id).map(|name| &self.state.container(name).instance);
        let running = matches!(running, Some(Instance::Running { .. } | Instance::Stopping { .. }));
        if sandbox || running {
            let (context, pod, sender) = (self.context.clone(), self.pod.clone(), self.sender.clone());
            self.actions.spawn(async move {
                if let Some(outcome) = act::observe(&context, &pod, &id).await {
                    send(&sender, Input::Outcome(Box::new(outcome))).await;
                }
            });
        }
    }

    fn await_object(&mut self, key: ObjectKey) {
        let (context, sender) = (self.context.clone(), self.sender.clone());
        self.actions.spawn(async move {
            let watched = context.objects.watch(&key);
            if watched.read().await.is_ok() {
                watched.changes().await;
                send(&sender, Input::ObjectChanged).await;
            }
        });
    }

    /// Starts to keep the volumes as their objects are, once they are mounted.
    fn follow_objects(&mut self) {
        if self.state.volumes == Volumes::Mounted && !self.follows {
            self.follows = true;
            let (context, pod) = (self.context.clone(), self.pod.clone());
            self.actions.spawn(async move { act::follow_objects(&context, pod).await });
        }
    }

    /// Records an event for each back-off, once.
    fn tell_back_off(&mut self, backing_off: Vec<BackingOff>) {
        for one in &backing_off {
            if self.backing_off.contains(one) {
                continue;
            }
            let message = match one.from {
                From::Restart => {
                    format!(
                        "Back-off restarting failed container {} in pod {}",
                        one.container,
                        spec::pod_ref(&self.pod)
                    )
                }
                From::Pull => {
                    let image =
                        spec::container(&self.pod, &one.container).and_then(|container| container.image.as_deref());
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
            let plan = plan(&self.pod, &self.state, now);
            wake = plan.wake;
            self.tell_back_off(plan.backing_off);
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
        self.context.host_ports.update(&self.pod, &self.state);
        self.follow_objects();
        self.adjust_probers();
        let write_at = self.report(now);
        [wake, write_at].into_iter().flatten().min()
    }

    fn begin(&mut self, action: Action, now: Timestamp) {
        tracing::debug!(?action, "begins");
        let before = self.state.clone();
        self.state.begin(&action, now);
        let (context, pod, sender) = (self.context.clone(), self.pod.clone(), self.sender.clone());
        self.actions
            .spawn(async move { act::perform(&context, &pod, &before, action, &sender).await }.in_current_span());
    }

    fn desired(&self, now: Timestamp) -> PodStatus {
        let place = Place { node_ip: self.context.config.node_ip, scheme: self.context.runtime.scheme() };
        status::status(&self.pod, &self.state, place, now)
    }

    fn is_reported(&self, now: Timestamp) -> bool {
        let current = self.pod.status.clone().unwrap_or_default();
        self.write.is_empty() && status::patch("", &current, &self.desired(now)).is_none()
    }

    /// Writes the status where it differs from what the API has; one write at a time, the latest wins. Returns when to try again.
    fn report(&mut self, now: Timestamp) -> Option<Timestamp> {
        let desired = self.desired(now);
        self.view.store(Arc::new(View { pod: self.pod.clone(), status: desired.clone(), state: self.state.clone() }));
        if self.state.gone || self.state.finish != Finish::NotYet || !self.write.is_empty() {
            return None;
        }
        if let Some(at) = self.write_not_before.filter(|at| *at > now) {
            return Some(at);
        }
        let current = self.pod.status.clone().unwrap_or_default();
        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        let patch = status::patch(&uid, &current, &desired)?;
        if self.start_is_near() && current.start_time.is_some() {
            let until = self.held_since.get_or_insert(now).saturating_add(LONGEST_HOLD).unwrap_or(now);
            if now < until {
                return Some(until);
            }
        }
        self.held_since = None;
        let (context, pod) = (self.context.clone(), self.pod.clone());
        self.write.spawn(async move { act::write_status(&context, &pod, patch).await });
        None
    }

    /// A container is about to start: its news goes out with what precedes it, in one write.
    fn start_is_near(&self) -> bool {
        let starting = |instance: &Instance| {
            matches!(instance, Instance::Starting { .. } | Instance::Created { .. } | Instance::Creating)
        };
        self.pod.metadata.deletion_timestamp.is_none()
            && self.state.ended.is_none()
            && self.state.containers.values().any(|c| starting(&c.instance) && c.last.is_none())
    }

    fn written(&mut self, written: Result<Option<Pod>, kube::Error>) {
        match written {
            Ok(pod) => {
                self.write_failures = 0;
                self.write_not_before = None;
                if let Some(pod) = pod {
                    self.replace_pod(Arc::new(pod));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the status was not written; it is tried again");
                self.write_failures = (self.write_failures + 1).min(6);
                let wait = Duration::from_millis(250 << self.write_failures);
                self.write_not_before = Timestamp::now().saturating_add(wait).ok();
            }
        }
    }
}

pub async fn send(sender: &mpsc::Sender<Input>, input: Input) {
    if sender.send(input).await.is_err() {
        tracing::debug!("the worker has ended");
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
