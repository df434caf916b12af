//! The API beside the real kube-apiserver and etcd: writes, lists, watches, memory and starts, one contestant after
//! the other in each round. RBAC and managedFields are on, and no controllers run.
//!
//! `FAIRLEAD_BENCH_SCALE` is the share of the sizes in percent, for a quick look: above 100 only the pods become more.
//! `FAIRLEAD_BENCH_PODS` is how many pods there are when memory and restarts are measured. `FAIRLEAD_BENCH_PARTS` names
//! the parts that are measured, separated by commas; all, unless it is given.
//!
//! Rates depend on what else the machine does; the processor time that a server takes for one operation hardly does.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use kube::Client;

use crate::{
    api_admission, api_load,
    api_watchers::{self, Deliveries},
    api_writes,
    contestant::Server,
    fairlead_server::FairleadServer,
    kit::Result,
    kube_apiserver::{self, KubeApiServer},
    kubernetes::WITHOUT_LIMITS,
    parts::Parts,
    report::{Report, percentile},
};

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Each is asked for a list so many times; the median counts.
const ROUNDS: usize = 7;
/// Writers that create together.
const WRITERS: usize = 64;

/// The steps, numbered as they stand in the table.
const STEPS: [&str; 25] = [
    "1: durable creates of pods by 1 writer, 1/s",
    "2: durable creates of pods by 64 writers, 1/s",
    "3: list of all pods as JSON, ms",
    "4: list of all pods as a Table, ms",
    "5: list of all pods as protobuf, ms",
    "6: list of a hundredth of the pods by label, ms",
    "7: updates by 1 writer, 1/s",
    "8: server-side applies by 1 writer, 1/s",
    "9: deliveries to watchers over TLS, 1/s",
    "10: delivery, 99th percentile, ms",
    "11: resident memory (with etcd's), MiB",
    "12: resident memory over the JSON size of the pods",
    "13: start with an empty data directory to the first answered GET, s",
    "14: restart to the first answered GET of a pod, s",
    "15: pods at the restart",
    "16: JSON size of the pods, MiB",
    "17: processor time of the server per create by 1 writer, µs",
    "18: processor time of the server per create by 64 writers, µs",
    "19: processor time of the server per list of all pods as JSON, ms",
    "20: processor time of the server per update, µs",
    "21: processor time of the server per server-side apply, µs",
    "22: processor time of the server per delivery, µs",
    "23: creates of ConfigMaps by 1 writer, 1/s",
    "24: the same with a ValidatingAdmissionPolicy of five CEL expressions, 1/s",
    "25: the same with a validating webhook on loopback, 1/s",
];

/// How much is measured.
struct Sizes {
    alone: usize,
    pods: usize,
    large: usize,
    writes: usize,
    watchers: usize,
    events: usize,
}

impl Sizes {
    fn given() -> Result<Self> {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<usize>()).transpose();
        let percent = number("FAIRLEAD_BENCH_SCALE")?.unwrap_or(100);
        let pods = (10_000 * percent / 100).max(1);
        // Each delivery of an event to a watcher costs: ten times as many of both would be a hundred times the work.
        let scaled = |full: usize| (full * percent.min(100) / 100).max(1);
        Ok(Self {
            alone: scaled(500),
            pods,
            large: number("FAIRLEAD_BENCH_PODS")?.unwrap_or(pods),
            writes: scaled(500),
            watchers: scaled(1000),
            events: scaled(1000),
        })
    }
}

/// The parts, in this order.
const CREATES: &str = "creates";
const LISTS: &str = "lists";
const UPDATES: &str = "updates";
const ADMISSION: &str = "admission";
const WATCHES: &str = "watches";
const MEMORY: &str = "memory";

/// Figures of one server, by step.
type Figures = Vec<(usize, f64)>;

pub fn run(peers: &Path, dir: &Path) -> Result {
    let sizes = Sizes::given()?;
    let mut report = Report::new("api", "API", "step", "as the step says");
    for step in STEPS {
        report.note(step);
    }
    report.note(format!(
        "{} pods, {} watchers of {} events; RBAC and managedFields on, no controllers",
        sizes.pods, sizes.watchers, sizes.events
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime
        .block_on(async {
            let work = tempfile::tempdir()?;
            let mut servers = Vec::new();
            let start = Instant::now();
            let server = FairleadServer::start(work.path(), &["--api-only"]).await?;
            first_answer(&server.config, "/version").await?;
            report.add("fairlead", 13.0, start.elapsed().as_secs_f64());
            servers.push(Server::Fairlead(server));
            match kube_apiserver::missing(peers, &kube_apiserver::PARTS) {
                Some(why) => report.note(why),
                None => {
                    let start = Instant::now();
                    let server = KubeApiServer::start(peers, &work.path().join("kubernetes"), &WITHOUT_LIMITS).await?;
                    report.add("Kubernetes", 13.0, start.elapsed().as_secs_f64());
                    servers.push(Server::Kubernetes(server));
                }
            }
            let outcome = measure(&sizes, &mut servers, &mut report).await;
            outcome.map_err(|error| {
                let ended: Vec<String> = servers.iter_mut().filter_map(Server::ended).collect();
                format!("{error}\n{}", ended.join("\n")).into()
            })
        })
        .map_err(|error: Box<dyn std::error::Error + Send + Sync>| error)?;
    report.publish(dir)
}

async fn measure(sizes: &Sizes, servers: &mut [Server], report: &mut Report) -> Result {
    let parts = Parts::given(&[CREATES, LISTS, UPDATES, ADMISSION, WATCHES, MEMORY])?;
    // One step of all servers before the next: what else the machine does meets them alike.
    if parts.measures(CREATES) || parts.measures(LISTS) || parts.measures(MEMORY) {
        creates(sizes, servers, report).await?;
    }
    if parts.measures(LISTS) {
        lists(servers, report).await?;
    }
    if parts.measures(UPDATES) {
        for server in &*servers {
            let client = Client::try_from(server.config().clone())?;
            api_writes::default_service_account(&client).await?;
            let before = server.processor_seconds()?;
            report.add(server.name(), 7.0, api_writes::update(&client, sizes.writes).await?);
            let between = server.processor_seconds()?;
            report.add(server.name(), 8.0, api_writes::apply(&client, sizes.writes).await?);
            report.add(server.name(), 20.0, (between - before) / sizes.writes as f64 * 1e6);
            report.add(server.name(), 21.0, (server.processor_seconds()? - between) / sizes.writes as f64 * 1e6);
        }
    }
    if parts.measures(ADMISSION) {
        for server in &*servers {
            let client = Client::try_from(server.config().clone())?;
            for (step, rate) in (23..).zip(api_admission::creates(&client, sizes.writes).await?) {
                report.add(server.name(), f64::from(step), rate);
            }
        }
    }
    if parts.measures(WATCHES) {
        for server in &*servers {
            let clock = || server.processor_seconds();
            let Deliveries { per_second, p99_ms, processor_micros } =
                api_watchers::deliveries(server.config(), sizes.watchers, sizes.events, clock).await?;
            report.add(server.name(), 9.0, per_second);
            report.add(server.name(), 10.0, p99_ms);
            report.add(server.name(), 22.0, processor_micros);
        }
    }
    if parts.measures(MEMORY) {
        for server in servers {
            if sizes.large > sizes.pods {
                let clients = api_load::clients(server.config(), WRITERS)?;
                api_writes::create_pods(&clients, "large", sizes.pods..sizes.large).await?;
            }
            for (step, figure) in memory_and_restart(server).await? {
                report.add(server.name(), step as f64, figure);
            }
            report.add(server.name(), 15.0, sizes.large.max(sizes.pods) as f64);
        }
    }
    Ok(())
}

/// Creates the pods: some by one writer, the others by many.
async fn creates(sizes: &Sizes, servers: &[Server], report: &mut Report) -> Result {
    for server in servers {
        let client = Client::try_from(server.config().clone())?;
        // No controller makes it, and admission asks for it.
        api_writes::default_service_account(&client).await?;
        let before = server.processor_seconds()?;
        let rate = api_writes::create_pods(&[client], "alone", 0..sizes.alone).await?;
        report.add(server.name(), 1.0, rate);
        report.add(server.name(), 17.0, (server.processor_seconds()? - before) / sizes.alone as f64 * 1e6);
    }
    for server in servers {
        let clients = api_load::clients(server.config(), WRITERS)?;
        let before = server.processor_seconds()?;
        let rate = api_writes::create_pods(&clients, "many", sizes.alone..sizes.pods).await?;
        report.add(server.name(), 2.0, rate);
        let created = sizes.pods.saturating_sub(sizes.alone) as f64;
        report.add(server.name(), 18.0, (server.processor_seconds()? - before) / created * 1e6);
    }
    Ok(())
}

/// The lists, asked of each server in turn.
async fn lists(servers: &[Server], report: &mut Report) -> Result {
    let selected = format!("{PODS}?labelSelector=hundredth%3D7");
    for (step, path, accept) in [(3, PODS, JSON), (4, PODS, TABLE), (5, PODS, PROTOBUF), (6, &*selected, JSON)] {
        let mut times = vec![(Vec::new(), Vec::new()); servers.len()];
        for _ in 0..ROUNDS {
            for (server, (times, processor)) in servers.iter().zip(&mut times) {
                let client = Client::try_from(server.config().clone())?;
                // The connection is made before the clock starts.
                api_writes::get(&client, "/version", JSON).await?;
                let (before, start) = (server.processor_seconds()?, Instant::now());
                api_writes::get(&client, path, accept).await?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
                processor.push((server.processor_seconds()? - before) * 1e3);
            }
        }
        for (server, (times, processor)) in servers.iter().zip(&mut times) {
            report.add(server.name(), f64::from(step), percentile(times, 0.5));
            if step == 3 {
                report.add(server.name(), 19.0, percentile(processor, 0.5));
            }
        }
    }
    Ok(())
}

async fn memory_and_restart(server: &mut Server) -> Result<Figures> {
    let resident = server.resident_mib()?;
    let client = Client::try_from(server.config().clone())?;
    let json = api_writes::get(&client, PODS, JSON).await? as f64 / (1024.0 * 1024.0);
    drop(client);
    server.stop();
    let start = Instant::now();
    server.start()?;
    first_answer(&server.config().clone(), &format!("{PODS}/{}", api_writes::pod_name("alone", 0))).await?;
    let restart = start.elapsed().as_secs_f64();
    Ok(vec![(11, resident), (12, resident / json), (14, restart), (16, json)])
}

/// Waits until `path` is answered.
async fn first_answer(config: &kube::Config, path: &str) -> Result {
    let client = Client::try_from(config.clone())?;
    let start = Instant::now();
    while let Err(error) = api_writes::get(&client, path, JSON).await {
        if start.elapsed() > Duration::from_secs(300) {
            return Err(error);
        }
        // How often is looked, not a guess of how long it takes.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
