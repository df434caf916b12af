//! Starts and stops the parts of one node agent, in the order in which they need each other. Decides nothing else.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use futures::{
    FutureExt,
    future::{BoxFuture, LocalBoxFuture},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::error::{StartError, StopError};
use self::{
    control_addresses::control_addresses,
    late_routes::LateRoutes,
    part_configs::{dns_config, network_config, pods_config, proxy_config},
    runtime_at_start::{RUNTIME_ANSWERS_WITHIN, connect_unless_known, wait_for_runtime},
};
use crate::{
    Config, Teardown, dns,
    health::{
        Health, Severity,
        endpoints::{self, Detail},
        metrics::{self, CertificateTimes, Metrics},
        monitor::{self, Parts},
        probes::{self, ProbeResults},
    },
    https::{Https, HttpsRoutes},
    inspect,
    last_known::{self, LastKnown, LastKnownError},
    network,
    pod_connections::PodConnections,
    pods, proxy,
    register::{
        self, Membership, RegisterError,
        assignment::Assignment,
        facts::MachineFacts,
        measurements::Measured,
        node_object::{NodeDescription, NodeState},
        renewal::Renewal,
    },
    retry::retry_while_transient,
    runtime::Runtime,
    serving_certificate::ServingCertificate,
    supervise::Supervisor,
    world::{self, HostPorts, KeptWorld, World, watch::WatchHealth},
};

mod control_addresses;
mod error;
mod late_routes;
mod membership;
mod part_configs;
mod registration;
mod runtime_at_start;

/// A running node agent.
pub struct Running {
    supervisor: Supervisor,
    kept: KeptFiles,
    node: watch::Sender<NodeDescription>,
    pods: pods::Pods,
    pod_connections: PodConnections,
    dns: dns::Dns,
    proxy: proxy::Proxy,
    network: Arc<network::Network>,
}

/// Starts the agent. When this returns, the kernel serves the Services and the node is about to be Ready.
///
/// A node that ran before comes up from what it last knew where the control service is away: names, hooks, then pods.
/// One that never ran waits for it. Everything that runs later retries for as long as it takes: what the kernel serves
/// already is not touched.
///
/// `stop` ends the start with [`StartError::Stopped`] while the node has not joined, which may take long: nothing is on
/// the host yet. From then on the start goes to its end.
///
/// Boxed, as is [`Running::shutdown`]: an `async fn` and all that it awaits would be compiled a second time by the
/// crate that awaits it.
pub fn start(config: Config, stop: CancellationToken) -> BoxFuture<'static, Result<Running, StartError>> {
    start_parts(config, stop).boxed()
}

async fn start_parts(config: Config, stop: CancellationToken) -> Result<Running, StartError> {
    make_data_dir(&config.data_dir)?;
    let kept = KeptFiles::of(&config);
    let last_known = kept.assignment.load_or_warn();
    let runtime = connect_unless_known(&config, last_known.as_ref(), RUNTIME_ANSWERS_WITHIN).await?;
    let mut member = membership::join(&config, &stop).await?;
    let uplinks = network::uplinks(config.node_ip).await?;
    let node_ip = uplinks.first().ok_or(StartError::Uplink(network::UplinkError::NoAddress))?.address;
    let node = NodeDescription {
        name: config.node_name.clone(),
        internal_ip: node_ip,
        facts: MachineFacts::read(&config.data_dir),
        agent_port: config.port,
        max_pods: config.max_pods,
        runtime_version: runtime_version(runtime.as_deref(), last_known.as_ref()).await?,
        state: registration::starting(),
    };
    let supervisor = Supervisor::new();
    let certificates = CertificateTimes::default();
    if let Some(renewal) = member.renewal.take() {
        supervise_renewal(&supervisor, "client-certificate", renewal.telling(certificates.client.clone()));
    }
    let node = watch::Sender::new(node);
    let patience = registration::Patience::default();
    let assignment = registration::assignment(&member.api, &node, last_known, patience, &supervisor).await?;
    let pod_cidr = assignment.pod_cidr;
    tracing::info!(%pod_cidr, %node_ip, "this node's pod subnet");

    let (world, api_watch) = watch_world(member.api.client(), &kept.world, &supervisor);
    let subnet =
        supervise_assignment(&supervisor, &config.node_name, assignment, kept.assignment.clone(), world.clone());
    let network =
        network::start(network_config(&config, node_ip, pod_cidr), world.clone()).await.map_err(StartError::Network)?;
    let network = Arc::new(network);
    let names = SocketAddrV4::new(network.gateway(), DNS_PORT);
    let dns = dns::start(dns_config(&config, names), world.clone()).await.map_err(StartError::Dns)?;
    let (publish_host_ports, host_ports) = watch::channel(HostPorts::default());
    let control_service = control_addresses(&config.access).await;
    let proxy_config = proxy_config(&config, &uplinks, node_ip, names, control_service);
    let proxy = proxy::start(proxy_config, world.clone(), host_ports).await.map_err(StartError::Proxy)?;
    if proxy.is_empty() {
        // Hooks before pods: a container that starts finds its Services.
        served_or_api_away(&proxy, &world, &api_watch).await?;
    }
    let (publish_probes, probes) = watch::channel(ProbeResults::default());
    let health = Arc::new(health(&supervisor, &proxy, &network, &dns, &probes, &api_watch));
    let (late, pod_connections) = (LateRoutes::default(), PodConnections::new(pod_cidr));
    let trusted = late
        .router()
        .merge(pod_connections.router())
        .merge(inspect::router(&proxy, &dns.names(), &config.node_name))
        .merge(endpoints::router(health.clone(), Detail::Reasons));
    let routes = HttpsRoutes { trusted, open: endpoints::router(health.clone(), Detail::Names) };
    let (client, config_of_pods) = (member.api.client().clone(), pods_config(&config, node_ip));
    let start_pods = async {
        let runtime = match runtime {
            Some(runtime) => runtime,
            None => wait_for_runtime(&config, &node, &publish_probes).await.map_err(StartError::Runtime)?,
        };
        let (attached, world) = (network.clone(), world.clone());
        let pods = pods::start(config_of_pods, client, runtime.clone(), attached, world, publish_host_ports)
            .await
            .map_err(StartError::Pods)?;
        health.add_tasks_of(pods.supervisor());
        health.add_tasks_of(pods.keeper());
        let supervisors =
            [&supervisor, proxy.supervisor(), network.supervisor(), dns.supervisor(), pods.supervisor(), pods.keeper()];
        let metrics = Metrics {
            node_name: config.node_name.clone(),
            proxy: proxy.clone(),
            names: dns.names(),
            pods: Box::new(pods.statuses()),
            supervisors: supervisors.map(Supervisor::clone).to_vec(),
            certificates: certificates.clone(),
        };
        late.set(pods.router().merge(metrics::router(metrics)));
        Ok((runtime, pods))
    };
    // Together: `/readyz` says what pods wait for, and pods do not wait for the API, which signs the certificate.
    let ((), (runtime, pods)) =
        tokio::try_join!(serve_https(&config, &member, node_ip, routes, &supervisor, &certificates), start_pods)?;
    let (runtime_to_probe, domain) = (runtime.clone(), config.cluster_domain.clone());
    supervisor.spawn("probes", move |stop| {
        probes::run(runtime_to_probe.clone(), names, domain.clone(), publish_probes.clone(), stop)
    });
    served_or_api_away(&proxy, &world, &api_watch).await?;
    node.send_modify(|node| node.state = NodeState::default());
    let measured = Measured { data_dir: config.data_dir.clone(), image_dir: image_dir(&*runtime).await };
    let parts = Parts {
        probes,
        proxy: proxy.clone(),
        network: network.clone(),
        subnet,
        thresholds: config.eviction_hard.clone(),
    };
    let described = node.clone();
    supervisor.spawn("conditions", move |stop| monitor::run(parts.clone(), measured.clone(), described.clone(), stop));
    Ok(Running { supervisor, kept, node, pods, pod_connections, dns, proxy, network })
}

/// Whether this node ran before and can start from what it last knew, without its container runtime and the API.
pub fn ran_before(config: &Config) -> bool {
    KeptFiles::of(config).assignment.load_or_warn().is_some()
}

impl Running {
    /// Stops every part. [`Teardown::Keep`] leaves pods running and the kernel serving; [`Teardown::Remove`] leaves
    /// neither, and says so in the API.
    pub fn shutdown(self, teardown: Teardown) -> LocalBoxFuture<'static, Result<(), StopError>> {
        self.stop_parts(teardown).boxed_local()
    }

    async fn stop_parts(self, teardown: Teardown) -> Result<(), StopError> {
        if teardown == Teardown::Remove {
            self.node.send_modify(|node| node.state = NodeState::not_running("the node agent has taken the node down"));
        }
        self.pods.shutdown(teardown).await.map_err(StopError::Pods)?;
        self.supervisor.shutdown().await;
        self.pod_connections.shutdown().await;
        if teardown == Teardown::Remove {
            // A node that is gone knows nothing any more.
            self.kept.remove().map_err(StopError::LastKnown)?;
        }
        self.proxy.shutdown(teardown).await.map_err(StopError::Proxy)?;
        self.dns.shutdown().await;
        self.network.shutdown(teardown).await.map_err(StopError::Network)
    }
}

/// Where what this node last knew is kept, in `node/last-known/` of the data directory.
struct KeptFiles {
    assignment: LastKnown<Assignment>,
    world: LastKnown<KeptWorld>,
}

impl KeptFiles {
    fn of(config: &Config) -> Self {
        let directory = config.data_dir.join("node/last-known");
        Self {
            assignment: LastKnown::new(&directory, "assignment", Assignment::VERSION),
            world: LastKnown::new(&directory, "world", KeptWorld::VERSION).reading_from(KeptWorld::OLDEST),
        }
    }

    fn remove(&self) -> Result<(), LastKnownError> {
        self.assignment.remove()?;
        self.world.remove()
    }
}

async fn runtime_version(runtime: Option<&dyn Runtime>, last_known: Option<&Assignment>) -> Result<String, StartError> {
    match (runtime, last_known) {
        (Some(runtime), _) => runtime.version().await.map_err(StartError::Runtime),
        (None, last_known) => Ok(last_known.map(|known| known.runtime_version.clone()).unwrap_or_default()),
    }
}

async fn image_dir(runtime: &dyn Runtime) -> Option<PathBuf> {
    runtime.image_dir().await.unwrap_or_else(|error| {
        tracing::warn!(error = error.chain(), "the file system of images is not measured");
        None
    })
}

/// Watches the API from what this node last knew, which is replaced by the first complete listing.
fn watch_world(
    client: &kube::Client,
    kept: &LastKnown<KeptWorld>,
    supervisor: &Supervisor,
) -> (watch::Receiver<Arc<World>>, watch::Receiver<WatchHealth>) {
    let last_known = kept.load_or_warn().map(World::from).unwrap_or_default();
    let (publish, world) = watch::channel(Arc::new(last_known));
    let (publish_health, api_watch) = watch::channel(WatchHealth::default());
    let client = client.clone();
    supervisor.spawn("api-watch", move |stop| {
        world::watch::run(client.clone(), publish.clone(), publish_health.clone(), stop)
    });
    let (kept, snapshots) = (kept.clone(), world.clone());
    supervisor.spawn("last-known-world", move |stop| {
        last_known::keep(kept.clone(), snapshots.clone(), |world| KeptWorld::of(world), stop)
    });
    (world, api_watch)
}

/// Keeps the assignment on disk, and tells where the API gives this node another pod subnet than the one in use.
fn supervise_assignment(
    supervisor: &Supervisor,
    node_name: &str,
    in_use: Assignment,
    kept: LastKnown<Assignment>,
    world: watch::Receiver<Arc<World>>,
) -> watch::Receiver<Option<String>> {
    let (publish, problem) = watch::channel(None);
    let node_name = node_name.to_owned();
    supervisor.spawn("assignment", move |stop| {
        register::assignment::follow(
            node_name.clone(),
            in_use.clone(),
            kept.clone(),
            world.clone(),
            publish.clone(),
            stop,
        )
    });
    problem
}

/// Waits until Services are served, or it is clear that they are not soon: the API is away and nothing is last known of
/// it.
async fn served_or_api_away(
    proxy: &proxy::Proxy,
    world: &watch::Receiver<Arc<World>>,
    api_watch: &watch::Receiver<WatchHealth>,
) -> Result<(), StartError> {
    let mut api_watch = api_watch.clone();
    let api_away = async {
        // Where a World is known, it is served now, unless the kernel holds what an earlier agent left: that goes on.
        if world.borrow().synced && proxy.is_empty() {
            return std::future::pending().await;
        }
        if api_watch.wait_for(|health| health.failure(Instant::now()).is_some()).await.is_err() {
            std::future::pending().await
        }
    };
    tokio::select! {
        served = proxy.first_served() => served.map_err(StartError::Proxy),
        () = api_away => Ok(()),
    }
}

fn supervise_renewal(supervisor: &Supervisor, name: &'static str, renewal: Renewal) {
    let renewal = Arc::new(tokio::sync::Mutex::new(renewal));
    supervisor.spawn(name, move |stop| {
        let renewal = renewal.clone();
        async move { renewal.lock().await.run(stop).await }
    });
}

/// What `/livez`, `/readyz` and `/healthz` look at.
fn health(
    supervisor: &Supervisor,
    proxy: &proxy::Proxy,
    network: &Arc<network::Network>,
    dns: &dns::Dns,
    probes: &watch::Receiver<ProbeResults>,
    api_watch: &watch::Receiver<WatchHealth>,
) -> Health {
    let (for_datapath, for_network, for_api) = (proxy.clone(), network.clone(), api_watch.clone());
    let for_warnings = network.clone();
    let (for_runtime, for_dns) = (probes.clone(), probes.clone());
    Health::default()
        .check("ping", Severity::Dead, || None)
        .check("datapath", Severity::NotReady, move || for_datapath.failure())
        .check("network", Severity::NotReady, move || for_network.problem())
        .check("network-warnings", Severity::Warning, move || for_warnings.warning())
        .check("dns", Severity::NotReady, move || for_dns.borrow().dns.clone())
        .check("runtime", Severity::NotReady, move || for_runtime.borrow().runtime.clone())
        .check("api-watch", Severity::NotReady, move || for_api.borrow().failure(Instant::now()))
        .tasks_of(supervisor)
        .tasks_of(proxy.supervisor())
        .tasks_of(network.supervisor())
        .tasks_of(dns.supervisor())
}

/// Where the node's DNS server listens, on the gateway of its pod subnet.
const DNS_PORT: u16 = 53;

/// Serves `routes` on the agent's port, with a certificate that is renewed. Waits while the API, which signs it, is
/// away.
async fn serve_https(
    config: &Config,
    member: &Membership,
    address: Ipv4Addr,
    routes: HttpsRoutes,
    supervisor: &Supervisor,
    certificates: &CertificateTimes,
) -> Result<(), StartError> {
    let ca_pem = member.ca_pem.as_deref().ok_or(StartError::NoCa)?;
    let held = ServingCertificate {
        client: member.api.client().clone(),
        node_name: config.node_name.clone(),
        address,
        pki: config.data_dir.join("node/pki"),
    };
    let obtain = || held.obtain(ca_pem);
    let certificate = retry_while_transient("get a serving certificate", RegisterError::is_transient, obtain)
        .await
        .map_err(StartError::Certificate)?;
    let https = Https::bind(SocketAddr::from((address, config.port)), &certificate, ca_pem).await?;
    let validity = certificate.validity().map_err(|error| StartError::Certificate(error.into()))?;
    let renewal = Renewal::new(held.served_by(https.tls().clone()), validity);
    supervise_renewal(supervisor, "serving-certificate", renewal.telling(certificates.serving.clone()));
    let https = Arc::new(https);
    supervisor.spawn("https", move |stop| https.clone().serve(routes.clone(), stop));
    Ok(())
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let result = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    result.map_err(|source| StartError::DataDir { path: path.to_owned(), source })
}
