//! The pod lifecycle against a real Docker Engine or a runtime in memory, with an API and a pod network made for the
//! tests.

mod admission;
mod api;
mod engine;
mod ephemeral;
mod faults;
mod files;
mod health;
mod last_known;
mod level_triggered;
mod lifecycle;
mod planning;
mod resize;
mod security;
mod speed;
mod status_writes;
mod volume_limits;

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use api::{FakeApi, Presence};
use engine::Engine;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::{Pods, PodsConfig};
use crate::{
    Teardown,
    image_gc_policy::ImageGcPolicy,
    network::{AttachError, PodNetwork},
    runtime::{Runtime, docker::Docker, fake::FakeRuntime},
    world::{HostPorts, World},
};

/// Between two lists of a runtime in memory.
const RELIST: Duration = Duration::from_millis(100);

/// A node: an agent's pods over one runtime and one API.
pub(super) struct Node {
    pub api: FakeApi,
    /// Where the runtime is Docker's.
    pub engine: Option<Arc<Engine>>,
    network: Arc<FakeNetwork>,
    pub runtime: Arc<dyn Runtime>,
    pub pods: Option<Pods>,
    data: tempfile::TempDir,
    _world: watch::Sender<Arc<World>>,
    world: watch::Receiver<Arc<World>>,
}

impl Node {
    /// `None`, after saying why, where this machine cannot run the test.
    pub async fn start() -> Option<Self> {
        let engine = Arc::new(Engine::start()?);
        let runtime = Docker::connect(&engine.host(), "n1").await.unwrap();
        Some(Self::with(Arc::new(runtime), Some(engine)).await)
    }

    /// A node whose containers are only in memory, and misbehave as the test says.
    pub async fn in_memory() -> (Self, Arc<FakeRuntime>) {
        let runtime = Arc::new(FakeRuntime::default());
        (Self::with(runtime.clone(), None).await, runtime)
    }

    async fn with(runtime: Arc<dyn Runtime>, engine: Option<Arc<Engine>>) -> Self {
        let world = World { synced: true, ..Default::default() };
        let (sender, world) = watch::channel(Arc::new(world));
        let data = tempfile::tempdir().unwrap();
        let (api, network) = (FakeApi::default(), Arc::default());
        let mut node = Self { api, engine, network, runtime, pods: None, data, _world: sender, world };
        node.start_agent().await;
        node
    }

    pub async fn start_agent(&mut self) {
        let config = PodsConfig {
            node_name: "n1".into(),
            node_ip: Ipv4Addr::LOCALHOST,
            data_dir: self.data.path().to_owned(),
            cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            // By the disk of this machine nothing is to go.
            image_gc: ImageGcPolicy { high_threshold_percent: 100, ..ImageGcPolicy::default() },
        };
        let runtime = self.runtime.clone();
        let (host_ports, _) = watch::channel(HostPorts::default());
        let (client, network, world) = (self.api.client(), self.network.clone(), self.world.clone());
        // A list in memory costs nothing; one of the Engine's is as rare as on a real node.
        let relist_every = if self.engine.is_some() { super::dispatch::RELIST } else { RELIST };
        let pods = super::start_with(config, client, runtime, network, world, host_ports, relist_every).await;
        self.pods = Some(pods.unwrap());
    }

    pub async fn stop_agent(&mut self, teardown: Teardown) {
        if let Some(pods) = self.pods.take() {
            pods.shutdown(teardown).await.unwrap();
        }
    }

    /// Waits until the pod of this name satisfies `condition`, which gets `Null` once it is gone.
    async fn wait(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.api.changes();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let pod = self.api.get("pods", "default", name).unwrap_or_default();
            if condition(&pod) {
                return pod;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, changes.recv()).await.is_err() {
                panic!("{name} was to be {what}, and is {}", serde_json::to_string_pretty(&pod["status"]).unwrap());
            }
        }
    }

    pub async fn wait_ready(&self, name: &str) -> Value {
        self.wait(name, "Ready", is_ready).await
    }

    pub async fn wait_gone(&self, name: &str) {
        self.wait(name, "gone", Value::is_null).await;
    }

    /// Waits until an event with this reason is recorded; returns its message.
    pub async fn wait_event(&self, reason: &str) -> String {
        let mut changes = self.api.changes();
        loop {
            if let Some(event) = self.api.list("events").iter().find(|event| event["reason"] == reason) {
                return event["message"].as_str().unwrap_or_default().to_owned();
            }
            let change = tokio::time::timeout(Duration::from_secs(60), changes.recv()).await;
            assert!(
                change.is_ok(),
                "no event {reason} among {:?}",
                self.api.list("events").iter().map(|e| &e["reason"]).collect::<Vec<_>>()
            );
        }
    }

    async fn logs(&self, path: &str) -> String {
        use tower::ServiceExt;
        let request = http::Request::get(format!("/containerLogs/{path}")).body(axum::body::Body::empty()).unwrap();
        let router = self.pods.as_ref().unwrap().router();
        let answer = router.oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Waits until the log satisfies `condition`: what a container writes is there a little later.
    async fn wait_logs(&self, path: &str, condition: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let log = self.logs(path).await;
            if condition(&log) {
                return log;
            }
            assert!(Instant::now() < deadline, "the log of {path} is {log:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn containers(&self) -> usize {
        self.runtime.list().await.unwrap().len()
    }
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == Some("True")
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// Remembers who is attached, and gives everyone the loopback address.
#[derive(Default)]
struct FakeNetwork {
    attached: Mutex<BTreeSet<String>>,
    /// The next call of `retain` panics.
    panics: AtomicBool,
    /// Nobody can be attached.
    refuses: AtomicBool,
    /// Calls of `attach`, and of `detach`.
    calls: [AtomicUsize; 2],
}

#[async_trait::async_trait]
impl PodNetwork for FakeNetwork {
    async fn attach(&self, pod_uid: &str, netns: &Path) -> Result<Ipv4Addr, AttachError> {
        let source =
            |source: std::io::Error| AttachError { operation: "open the namespace".into(), source: source.into() };
        self.calls[0].fetch_add(1, Ordering::Relaxed);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(source(std::io::Error::from_raw_os_error(libc::ENOBUFS)));
        }
        std::fs::metadata(netns).map_err(source)?;
        self.attached.lock().insert(pod_uid.to_owned());
        Ok(Ipv4Addr::LOCALHOST)
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), AttachError> {
        self.calls[1].fetch_add(1, Ordering::Relaxed);
        self.attached.lock().remove(pod_uid);
        Ok(())
    }

    async fn retain(&self, keep: &[String]) -> Result<(), AttachError> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "retain was told to panic");
        self.attached.lock().retain(|uid| keep.contains(uid));
        Ok(())
    }
}
