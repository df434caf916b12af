//! `/metrics` in the OpenMetrics text form that Prometheus reads; names are those of the kubelet, kube-proxy and
//! CoreDNS where they mean the same.

use std::{fmt, sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use k8s_openapi::api::core::v1::PodStatus;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::watch;

use crate::{
    dns::{Counts, Names},
    proxy::{MapUsage, Proxy},
    register::certificate::Validity,
    supervise::{Supervisor, TaskStatus},
};

/// Where the metrics are read.
pub struct Metrics {
    /// Value of the label of `kubelet_node_name`.
    pub node_name: String,
    /// Datapath: maps, counters, the revision it serves.
    pub proxy: Proxy,
    /// The DNS server, for its counts.
    pub names: Names,
    /// Reads the statuses of this node's pods.
    pub pods: Box<dyn Fn() -> Vec<PodStatus> + Send + Sync>,
    /// For the restarts of tasks.
    pub supervisors: Vec<Supervisor>,
    /// When this node's certificates end.
    pub certificates: CertificateTimes,
}

/// From when until when the certificates hold that are in use; `None` while there is none. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct CertificateTimes {
    /// Of the client of the API.
    pub client: watch::Sender<Option<Validity>>,
    /// Of the HTTPS server.
    pub serving: watch::Sender<Option<Validity>>,
}

/// Seconds until a certificate ends: negative once it has ended, infinite where there is none, as the kubelet says it.
fn seconds_left(certificate: Option<Validity>, now: SystemTime) -> f64 {
    let Some(Validity { until, .. }) = certificate else { return f64::INFINITY };
    match until.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(over) => -over.duration().as_secs_f64(),
    }
}

/// `GET /metrics`.
pub fn router(metrics: Metrics) -> Router {
    Router::new().route("/metrics", get(serve)).with_state(Arc::new(metrics))
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn serve(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.encode().await {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")).into_response()
        }
    }
}

impl Metrics {
    async fn encode(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        self.proxy.metrics().register(&mut registry);
        // A datapath that has ended has no metrics; its check in /livez fails.
        let usage = self.proxy.usage().await.unwrap_or_default();
        let tasks: Vec<TaskStatus> = self.supervisors.iter().flat_map(Supervisor::tasks).collect();
        let (now, CertificateTimes { client, serving }) = (SystemTime::now(), &self.certificates);
        let certificates = [client, serving].map(|times| seconds_left(*times.borrow(), now));
        let pods = PodCounts::of(&(self.pods)());
        let now = Readings { counts: self.names.counts(), pods, usage, tasks, certificates };
        now.register(&self.node_name, &mut registry);
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// What is read at the moment of a scrape.
struct Readings {
    counts: Counts,
    pods: PodCounts,
    usage: Vec<MapUsage>,
    tasks: Vec<TaskStatus>,
    /// Seconds until the client's and the server's certificates end.
    certificates: [f64; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Node {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    git_version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Task {
    task: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Map {
    map: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ContainerState {
    /// `running`: of the kubelet's values the one that is counted here.
    container_state: &'static str,
}

/// Pods and containers that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PodCounts {
    pods: u64,
    containers: u64,
}

impl PodCounts {
    fn of(statuses: &[PodStatus]) -> Self {
        let is_running = |status: &&PodStatus| status.phase.as_deref() == Some("Running");
        let containers = statuses.iter().flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        let running =
            containers.filter(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
        Self { pods: statuses.iter().filter(is_running).count() as u64, containers: running.count() as u64 }
    }
}

impl Readings {
    fn register(&self, node_name: &str, registry: &mut Registry) {
        gauges(registry, "kubelet_node_name", "The node's name", [(Node { node: node_name.to_owned() }, 1_u64)]);
        let build = Build { git_version: concat!("v", env!("CARGO_PKG_VERSION"), "+fairlead") };
        gauges(registry, "kubernetes_build_info", "The agent's version", [(build, 1_u64)]);
        gauge(registry, "kubelet_running_pods", "Pods in the phase Running", self.pods.pods);
        let running = ContainerState { container_state: "running" };
        let containers = [(running, self.pods.containers)];
        gauges(registry, "kubelet_running_containers", "Containers by state", containers);
        self.register_dns(registry);
        let entries = self.usage.iter().map(|usage| (Map { map: usage.map }, usage.entries as u64));
        gauges(registry, "fairlead_bpf_map_entries", "Entries in a BPF map", entries);
        let limits = self.usage.iter().map(|usage| (Map { map: usage.map }, usage.limit as u64));
        gauges(registry, "fairlead_bpf_map_limit", "Entries that a BPF map can hold", limits);
        let restarts = self.tasks.iter().map(|task| (Task { task: task.name }, task.restarts));
        counters(registry, "fairlead_task_restarts", "Times that a task was started again", restarts);
        let running = self.tasks.iter().map(|task| (Task { task: task.name }, u64::from(task.failure.is_none())));
        gauges(registry, "fairlead_task_running", "Whether a task runs", running);
        let [client, serving] = self.certificates;
        for (name, help, left) in [
            ("kubelet_certificate_manager_client_ttl_seconds", "Time until the API client's certificate ends", client),
            ("kubelet_certificate_manager_server_ttl_seconds", "Time until the server's certificate ends", serving),
        ] {
            let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
            gauge.set(left);
            registry.register(name, help, gauge);
        }
        register_process(registry);
    }

    fn register_dns(&self, registry: &mut Registry) {
        let counts = self.counts;
        for (name, help, count) in [
            ("coredns_dns_requests", "Queries received", counts.queries),
            ("coredns_cache_hits", "Queries answered from the cache while it was fresh", counts.cache_hits),
            ("coredns_cache_served_stale", "Queries answered from the cache beyond its time", counts.cache_stale),
            (
                "coredns_forward_max_concurrent_rejects",
                "Queries refused because too many waited already",
                counts.overloads,
            ),
            ("fairlead_dns_zone_answers", "Queries answered from the cluster's zone", counts.zone),
            ("fairlead_dns_forwards", "Queries asked of other resolvers", counts.forwards),
            ("fairlead_dns_forward_failures", "Queries that no resolver answered", counts.forward_failures),
        ] {
            counter(registry, name, help, count);
        }
    }
}

/// Prometheus' standard names for a process.
fn register_process(registry: &mut Registry) {
    let process = match procfs::process::Process::myself() {
        Ok(process) => process,
        Err(error) => return tracing::debug!(%error, "cannot measure this process"),
    };
    if let Ok(stat) = process.stat() {
        let rss = stat.rss.saturating_mul(procfs::page_size());
        gauge(registry, "process_resident_memory_bytes", "Memory of the process in RAM", rss);
        let ticks = stat.utime.saturating_add(stat.stime);
        let seconds = Counter::<f64, std::sync::atomic::AtomicU64>::default();
        seconds.inc_by(ticks as f64 / procfs::ticks_per_second() as f64);
        registry.register("process_cpu_seconds", "CPU time of the process", seconds);
        gauge(registry, "process_threads", "Threads of the process", u64::try_from(stat.num_threads).unwrap_or(0));
    }
    if let Ok(open) = process.fd_count() {
        gauge(registry, "process_open_fds", "Open file descriptors", open as u64);
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(as_gauge(value));
    registry.register(name, help, gauge);
}

fn counters<L>(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (L, u64)>)
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + fmt::Debug + Send + Sync + 'static,
{
    let family = Family::<L, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}

fn gauges<L, V>(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (L, V)>)
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + fmt::Debug + Send + Sync + 'static,
    V: Into<u64>,
{
    let family = Family::<L, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(as_gauge(value.into()));
    }
    registry.register(name, help, family);
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_is_counted() {
        let status = |phase: &str, state: &str| -> PodStatus {
            let container = serde_json::json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "state": {state: {}}});
            serde_json::from_value(serde_json::json!({"phase": phase, "containerStatuses": [container]})).unwrap()
        };
        let statuses = [status("Running", "running"), status("Running", "waiting"), status("Pending", "waiting")];
        assert_eq!(PodCounts::of(&statuses), PodCounts { pods: 2, containers: 1 });
    }

    #[test]
    fn a_scrape_has_the_fields_names_and_values() {
        let readings = Readings {
            counts: Counts { queries: 7, cache_hits: 3, ..Counts::default() },
            pods: PodCounts { pods: 2, containers: 5 },
            usage: vec![MapUsage { map: "SERVICES", entries: 10, limit: 100 }],
            tasks: vec![TaskStatus { name: "heartbeat", restarts: 4, failure: Some("it panicked".into()) }],
            certificates: [3600.5, f64::INFINITY],
        };
        let mut registry = Registry::default();
        readings.register("a", &mut registry);
        let mut scrape = String::new();
        text::encode(&mut scrape, &registry).unwrap();
        for line in [
            "kubelet_node_name{node=\"a\"} 1",
            "kubelet_running_pods 2",
            "kubelet_running_containers{container_state=\"running\"} 5",
            "coredns_dns_requests_total 7",
            "coredns_cache_hits_total 3",
            "fairlead_bpf_map_entries{map=\"SERVICES\"} 10",
            "fairlead_task_restarts_total{task=\"heartbeat\"} 4",
            "fairlead_task_running{task=\"heartbeat\"} 0",
            "kubelet_certificate_manager_client_ttl_seconds 3600.5",
            "# EOF",
        ] {
            assert!(scrape.lines().any(|got| got == line), "no line {line:?} in:\n{scrape}");
        }
        assert!(scrape.contains("process_resident_memory_bytes "));
    }

    #[test]
    fn a_certificate_that_has_ended_has_less_than_no_time_left() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        let until = |seconds| Validity {
            from: SystemTime::UNIX_EPOCH,
            until: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
        };
        assert_eq!(seconds_left(Some(until(1300)), now), 300.0);
        assert_eq!(seconds_left(Some(until(900)), now), -100.0);
        assert_eq!(seconds_left(None, now), f64::INFINITY);
    }
}
