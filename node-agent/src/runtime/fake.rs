//! A runtime in memory for tests: containers are entries in a map, and misbehave on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use super::{
    Container, ContainerOwner, ContainerSpec, Credentials, Error, Event, ExecResult, Exit, Image, ImageUser,
    LocalImage, LogChunk, LogOptions, Process, ResourceUpdate, Role, Runtime, SandboxSpec, State, StreamOptions,
    Summary, fake_process::FakeProcesses,
};

/// How the runtime misbehaves, once for each that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next call of this name never returns.
    Hang(&'static str),
    /// The next call of this name panics.
    Panic(&'static str),
    /// The next container that is inspected ends just after it was seen running: its event is sent before the answer.
    EndWhileInspected,
}

/// Containers in memory.
pub struct FakeRuntime {
    inner: Mutex<Inner>,
    events: broadcast::Sender<Event>,
    /// Notified by each call.
    called: Notify,
    /// Commands that were started with streams.
    pub processes: FakeProcesses,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, Container>,
    made: u32,
    faults: Vec<Fault>,
    calls: Vec<(&'static str, String)>,
    is_mute: bool,
    ends_event_streams: bool,
    images: Vec<LocalImage>,
    holds_images: bool,
}

/// What names of images in the registry begin with; their ids are their names.
pub const REGISTRY: &str = "registry/";

fn image(reference: &str) -> Image {
    Image { id: "fake://image".into(), user: ImageUser::Uid(0), engine_id: reference.into() }
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            events: broadcast::channel(1024).0,
            called: Notify::new(),
            processes: FakeProcesses::default(),
        }
    }
}

impl FakeRuntime {
    /// Adds a fault, which happens once.
    pub fn put(&self, fault: Fault) {
        self.inner.lock().faults.push(fault);
    }

    /// Sends no events from now on.
    pub fn stop_events(&self) {
        self.inner.lock().is_mute = true;
    }

    /// Whether each stream of events ends at once from now on.
    pub fn end_event_streams(&self, ends: bool) {
        self.inner.lock().ends_event_streams = ends;
    }

    /// An image that is there, whoever brought it.
    pub fn add_image(&self, id: &str, tag: &str, size_bytes: u64) {
        let tags = BTreeSet::from([tag.to_owned()]);
        self.inner.lock().images.push(LocalImage { id: id.into(), tags, size_bytes, is_used: false });
    }

    /// The images that were added or pulled, and not removed, in that order.
    pub fn local_images(&self) -> Vec<LocalImage> {
        self.inner.lock().images.clone()
    }

    /// Whether removals of images fail from now on.
    pub fn hold_images(&self, holds: bool) {
        self.inner.lock().holds_images = holds;
    }

    /// Calls of this name so far: what each was about.
    pub fn calls(&self, name: &str) -> Vec<String> {
        self.inner.lock().calls.iter().filter(|(called, _)| *called == name).map(|(_, what)| what.clone()).collect()
    }

    /// Waits until there was a call of this name that `wanted` accepts.
    pub async fn wait_call(&self, name: &str, wanted: impl Fn(&str) -> bool) {
        let waiting = async {
            loop {
                let called = self.called.notified();
                if self.calls(name).iter().any(|what| wanted(what)) {
                    return;
                }
                called.await;
            }
        };
        let calls = || self.inner.lock().calls.clone();
        assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "no such call: {:?}", calls());
    }

    /// The id of the latest container of this name that exists.
    pub fn id(&self, container: &str) -> Option<String> {
        let inner = self.inner.lock();
        let named = inner.containers.values().filter(|one| name(&one.owner) == container);
        named.max_by_key(|one| one.owner.attempt).map(|one| one.id.clone())
    }

    /// Ids of all containers.
    pub fn ids(&self) -> Vec<String> {
        self.inner.lock().containers.keys().cloned().collect()
    }

    /// A container that nobody asked for.
    pub fn add(&self, owner: ContainerOwner) -> String {
        self.create(owner)
    }

    /// Ends a container by itself.
    pub fn exit(&self, id: &str, code: i32) {
        let mut inner = self.inner.lock();
        let Some(container) = inner.containers.get_mut(id) else { return };
        let started_at = match container.state {
            State::Running { started_at, .. } => Some(started_at),
            _ => return,
        };
        let finished_at = Timestamp::now();
        container.state =
            State::Exited(Exit { code, started_at, finished_at, oom_killed: false, error: String::new() });
        let event = Event { id: id.to_owned(), owner: container.owner.clone() };
        if !inner.is_mute {
            // No receiver is not an error: nobody listens then.
            self.events.send(event).ok();
        }
    }

    fn create(&self, owner: ContainerOwner) -> String {
        let mut inner = self.inner.lock();
        inner.made += 1;
        let id = format!("{}-{}", name(&owner), inner.made);
        let container = Container { id: id.clone(), owner, image_id: "image".into(), state: State::Created };
        inner.containers.insert(id.clone(), container);
        id
    }

    async fn called(&self, call: &'static str, what: &str) {
        let (hangs, panics) = {
            let mut inner = self.inner.lock();
            inner.calls.push((call, what.to_owned()));
            (take(&mut inner.faults, Fault::Hang(call)), take(&mut inner.faults, Fault::Panic(call)))
        };
        self.called.notify_waiters();
        assert!(!panics, "{call} was told to panic");
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}

fn take(faults: &mut Vec<Fault>, fault: Fault) -> bool {
    let found = faults.iter().position(|one| *one == fault);
    found.map(|at| faults.remove(at)).is_some()
}

fn name(owner: &ContainerOwner) -> &str {
    match &owner.role {
        Role::Sandbox => "sandbox",
        Role::Container { name, .. } => name,
    }
}

#[async_trait::async_trait]
impl Runtime for FakeRuntime {
    fn scheme(&self) -> &'static str {
        "fake"
    }

    async fn version(&self) -> Result<String, Error> {
        Ok("fake://1".into())
    }

    async fn image_dir(&self) -> Result<Option<PathBuf>, Error> {
        Ok(Some("/".into()))
    }

    async fn prepare(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Every image is there, but for those of the registry that were not pulled.
    async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        let is_here = |image: &LocalImage| image.tags.contains(reference);
        let is_absent = reference.starts_with(REGISTRY) && !self.inner.lock().images.iter().any(is_here);
        Ok((!is_absent).then(|| image(reference)))
    }

    async fn pull(&self, reference: &str, _: Option<&Credentials>) -> Result<Image, Error> {
        self.called("pull", reference).await;
        if !reference.starts_with(REGISTRY) {
            return Err(Error::NotFound { what: reference.into() });
        }
        if self.image(reference).await?.is_none() {
            self.add_image(reference, reference, 1 << 20);
        }
        Ok(image(reference))
    }

    /// Those that were added or pulled; used by the containers that name them.
    async fn images(&self) -> Result<Vec<LocalImage>, Error> {
        let inner = self.inner.lock();
        let is_used = |image: &LocalImage| inner.containers.values().any(|one| one.image_id == image.id);
        Ok(inner.images.iter().map(|image| LocalImage { is_used: is_used(image), ..image.clone() }).collect())
    }

    async fn remove_image(&self, image: &LocalImage) -> Result<bool, Error> {
        self.called("remove_image", &image.id).await;
        if self.inner.lock().holds_images {
            return Err(Error::Refused { operation: "remove the image", message: "read-only file system".into() });
        }
        self.inner.lock().images.retain(|one| one.id != image.id);
        Ok(true)
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error> {
        self.called("create_sandbox", &spec.owner.pod.name).await;
        Ok(self.create(spec.owner.clone()))
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error> {
        self.called("create_container", name(&spec.owner)).await;
        let id = self.create(spec.owner.clone());
        if let Some(container) = self.inner.lock().containers.get_mut(&id) {
            container.image_id.clone_from(&spec.image);
        }
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<(), Error> {
        self.called("start", id).await;
        let mut inner = self.inner.lock();
        let container = inner.containers.get_mut(id).ok_or_else(|| Error::NotFound { what: id.into() })?;
        container.state = State::Running { started_at: Timestamp::now(), pid: std::process::id() };
        Ok(())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        self.called("stop", &format!("{id} {}", grace.as_secs())).await;
        self.exit(id, 143);
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        self.called("remove", id).await;
        self.exit(id, 137);
        self.inner.lock().containers.remove(id);
        Ok(())
    }

    async fn update(&self, id: &str, update: &ResourceUpdate) -> Result<(), Error> {
        let ResourceUpdate { cpu_shares, cpu_quota_us, memory_bytes } = update;
        let what = [("shares", cpu_shares), ("quota", cpu_quota_us), ("memory", memory_bytes)];
        let what = what.into_iter().filter_map(|(name, value)| Some(format!(" {name}={}", (*value)?)));
        self.called("update", &format!("{id}{}", what.collect::<String>())).await;
        Ok(())
    }

    /// A mebibyte, whoever asks.
    async fn memory_usage(&self, id: &str) -> Result<Option<u64>, Error> {
        self.called("memory_usage", id).await;
        Ok(Some(1 << 20))
    }

    async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        self.called("inspect", id).await;
        let seen = self.inner.lock().containers.get(id).cloned();
        let is_app = seen.as_ref().is_some_and(|container| container.owner.role != Role::Sandbox);
        if is_app && take(&mut self.inner.lock().faults, Fault::EndWhileInspected) {
            self.exit(id, 3);
            let again = async {
                while self.calls("inspect").iter().filter(|inspected| *inspected == id).count() < 2 {
                    tokio::task::yield_now().await;
                }
            };
            // Who does not look again after the event gets the outdated answer all the same.
            if tokio::time::timeout(Duration::from_secs(2), again).await.is_err() {
                eprintln!("nobody looked again at {id}");
            }
        }
        Ok(seen)
    }

    async fn list(&self) -> Result<Vec<Container>, Error> {
        Ok(self.inner.lock().containers.values().cloned().collect())
    }

    async fn summaries(&self) -> Result<Vec<Summary>, Error> {
        self.called("summaries", "").await;
        let inner = self.inner.lock();
        let summaries = inner.containers.values().map(|container| Summary {
            id: container.id.clone(),
            owner: container.owner.clone(),
            is_running: matches!(container.state, State::Running { .. }),
        });
        Ok(summaries.collect())
    }

    fn logs(&self, _: &str, _: &LogOptions) -> BoxStream<'static, Result<LogChunk, Error>> {
        futures::stream::empty().boxed()
    }

    /// Every command succeeds at once, but for `hang`.
    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
        _: usize,
    ) -> Result<Option<ExecResult>, Error> {
        self.called("exec", &format!("{id} {}", command.join(" "))).await;
        if command.first().is_some_and(|command| command == "hang") {
            tokio::time::sleep(timeout).await;
            return Ok(None);
        }
        Ok(Some(ExecResult { exit_code: 0, output: Vec::new() }))
    }

    async fn start_exec(&self, id: &str, command: &[String], streams: StreamOptions) -> Result<Process, Error> {
        self.called("start_exec", &format!("{id} {}", command.join(" "))).await;
        self.processes.start(command, streams)
    }

    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<Process, Error> {
        self.called("attach", id).await;
        self.processes.attach(streams)
    }

    async fn events(&self) -> Result<BoxStream<'static, Event>, Error> {
        self.called("events", "").await;
        if self.inner.lock().ends_event_streams {
            return Ok(futures::stream::empty().boxed());
        }
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        Ok(events.filter_map(|event| futures::future::ready(event.ok())).boxed())
    }

    async fn uninstall(&self) -> Result<(), Error> {
        Ok(())
    }
}
