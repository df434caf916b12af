//! Starts and stops the parts of one node agent, in the order in which they need each other. Decides nothing else.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Teardown, dns,
    https::{Https, HttpsError},
    inspect, network, pods, proxy,
    register::{
        self, Membership, RegisterError,
        facts::MachineFacts,
        heartbeat,
        node_object::{NodeDescription, Readiness},
        renewal::Renewal,
    },
    runtime::{self, Runtime},
    serving_certificate::ServingCertificate,
    world::{self, HostPorts, World},
};

/// A running node agent.
pub struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
    node: watch::Sender<NodeDescription>,
    pods: pods::Pods,
    dns: dns::Dns,
    proxy: proxy::Proxy,
    network: Arc<network::Network>,
}

/// Starts the agent. When this returns, the kernel serves the Services and the node is about to be Ready.
///
/// While the control service cannot be reached this waits and tries again, as does everything that runs later: what the kernel
/// serves already is not touched.
pub async fn start(config: Config) -> Result<Running, StartError> {
    make_data_dir(&config.data_dir)?;
    let runtime =
        runtime::docker::Docker::connect(&config.docker_host, &config.node_name).await.map_err(StartError::Runtime)?;
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    let mut member = join(&config).await?;
    let uplinks = network::uplinks(config.node_ip).await?;
    let node_ip = uplinks.first().ok_or(StartError::Uplink(network::UplinkError::NoAddress))?.address;
    let node = NodeDescription {
        name: config.node_name.clone(),
        internal_ip: node_ip,
        facts: MachineFacts::read(&config.data_dir),
        agent_port: config.port,
        max_pods: config.max_pods,
        runtime_version: runtime.version().await.map_err(StartError::Runtime)?,
        readiness: Readiness::NotReady { message: "the node agent is starting".into() },
    };
    insist("register this node", || heartbeat::register(&member.client, &node)).await?;
    let pod_cidr = heartbeat::pod_cidr(&member.client, &config.node_name).await.map_err(StartError::PodCidr)?;
    tracing::info!(%pod_cidr, %node_ip, "this node's pod subnet");

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    if let Some(renewal) = member.renewal.take() {
        tasks.spawn(renewal.run(stop.clone()));
    }
    let (publish, world) = watch::channel(Arc::new(World::default()));
    tasks.spawn(world::watch::run(member.client.clone(), publish, stop.clone()));
    let network =
        network::start(network_config(&config, node_ip, pod_cidr), world.clone()).await.map_err(StartError::Network)?;
    let network = Arc::new(network);
    let names = SocketAddrV4::new(network.gateway(), DNS_PORT);
    let dns = dns::start(dns_config(&config, names), world.clone()).await.map_err(StartError::Dns)?;
    let (publish_host_ports, host_ports) = watch::channel(HostPorts::default());
    let proxy = proxy::start(proxy_config(&config, &uplinks, node_ip, names), world.clone(), host_ports)
        .await
        .map_err(StartError::Proxy)?;
    let (client, pods_config) = (member.client.clone(), pods_config(&config, node_ip));
    let pods = pods::start(pods_config, client, runtime, network.clone(), world.clone(), publish_host_ports)
        .await
        .map_err(StartError::Pods)?;

    let (https, renewal) = https(&config, &member, node_ip).await?;
    tasks.spawn(renewal.run(stop.clone()));
    let router = pods.router().merge(inspect::router(&proxy, &dns.names(), &config.node_name));
    tasks.spawn(https.serve(router, stop.clone()));
    proxy.first_served().await.map_err(StartError::Proxy)?;
    let (node, changes) = watch::channel(node);
    node.send_modify(|node| node.readiness = Readiness::Ready);
    tasks.spawn(heartbeat::run(member.client.clone(), changes, stop.clone()));
    Ok(Running { stop, tasks, node, pods, dns, proxy, network })
}

impl Running {
    /// Stops every part. [`Teardown::Keep`] leaves pods running and the kernel serving; [`Teardown::Remove`] leaves neither, and
    /// says so in the API.
    pub async fn shutdown(self, teardown: Teardown) -> Result<(), StopError> {
        if teardown == Teardown::Remove {
            let message = "the node agent has taken the node down".to_owned();
            self.node.send_modify(|node| node.readiness = Readiness::NotReady { message });
        }
        self.pods.shutdown(teardown).await.map_err(StopError::Pods)?;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.proxy.shutdown(teardown).await.map_err(StopError::Proxy)?;
        self.dns.shutdown().await;
        self.network.shutdown(teardown).await.map_err(StopError::Network)
    }
}

/// Where the node's DNS server listens, on the gateway of its pod subnet.
const DNS_PORT: u16 = 53;

/// Between two tries to reach the control service.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

async fn join(config: &Config) -> Result<Membership, StartError> {
    loop {
        match register::access(&config.access, &config.node_name, &config.data_dir).await {
            Ok(member) => return Ok(member),
            Err(error) if error.is_transient() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot join yet, trying again");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Repeats `act` while the API cannot be reached or is not itself ready; other refusals are errors.
async fn insist<T, F>(what: &'static str, act: impl Fn() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    loop {
        match act().await {
            Ok(value) => return Ok(value),
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                return Err(StartError::Refused { what, source: Box::new(kube::Error::Api(status)) });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot {what} yet, trying again");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }
}

/// The agent's HTTPS server, and the renewal of its certificate.
async fn https(config: &Config, member: &Membership, address: Ipv4Addr) -> Result<(Https, Renewal), StartError> {
    let ca_pem = member.ca_pem.as_deref().ok_or(StartError::NoCa)?;
    let held = ServingCertificate {
        client: member.client.clone(),
        node_name: config.node_name.clone(),
        address,
        pki: config.data_dir.join("node/pki"),
    };
    let certificate = held.obtain(ca_pem).await.map_err(StartError::Certificate)?;
    let https = Https::bind(SocketAddr::from((address, config.port)), &certificate, ca_pem).await?;
    let validity = certificate.validity().map_err(|error| StartError::Certificate(error.into()))?;
    let renewal = Renewal::new(held.served_by(https.tls().clone()), validity);
    Ok((https, renewal))
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let result = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    result.map_err(|source| StartError::DataDir { path: path.to_owned(), source })
}

fn network_config(config: &Config, node_ip: Ipv4Addr, pod_cidr: ipnetwork::Ipv4Network) -> network::Config {
    network::Config {
        node_name: config.node_name.clone(),
        node_ip,
        pod_cidr,
        cluster_cidr: config.cluster_cidr,
        service_cidr: config.service_cidr,
        data_dir: config.data_dir.join("node"),
    }
}

fn dns_config(config: &Config, listen: SocketAddrV4) -> dns::Config {
    dns::Config {
        listen,
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        node_name: config.node_name.clone(),
    }
}

fn proxy_config(config: &Config, uplinks: &[network::Uplink], node_ip: Ipv4Addr, names: SocketAddrV4) -> proxy::Config {
    proxy::Config {
        node_name: config.node_name.clone(),
        datapath: config.datapath,
        cgroup: config.cgroup.clone(),
        bpf_pins: config.bpf_pins.clone(),
        cluster_dns: Some((config.cluster_dns, names)),
        uplinks: uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
        node_ips: vec![node_ip],
        service_cidr: Some(config.service_cidr),
    }
}

fn pods_config(config: &Config, node_ip: Ipv4Addr) -> pods::Config {
    pods::Config {
        node_name: config.node_name.clone(),
        node_ip,
        data_dir: config.data_dir.clone(),
        cluster_dns: config.cluster_dns,
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
    }
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot make the data directory {}", path.display())]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("cannot use the container runtime")]
    Runtime(#[source] runtime::Error),
    #[error("cannot become a member of the cluster")]
    Register(#[from] RegisterError),
    #[error("the control service refuses to {what}")]
    Refused { what: &'static str, source: Box<kube::Error> },
    #[error("cannot learn this node's pod subnet")]
    PodCidr(#[source] kube::runtime::watcher::Error),
    #[error("cannot find this node's address")]
    Uplink(#[from] network::UplinkError),
    #[error("cannot set up the pod network")]
    Network(#[source] network::NetworkError),
    #[error("cannot serve names")]
    Dns(#[source] dns::DnsError),
    #[error("cannot load-balance Services")]
    Proxy(#[source] proxy::ProxyError),
    #[error("cannot run pods")]
    Pods(#[source] pods::Error),
    #[error("cannot get a serving certificate")]
    Certificate(#[source] RegisterError),
    #[error("the kubeconfig names no certificate authority, so nobody who calls this agent could be verified")]
    NoCa,
    #[error("cannot serve logs and inspection")]
    Https(#[from] HttpsError),
}

/// What could not be left as it should be.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("cannot stop the pods")]
    Pods(#[source] pods::Error),
    #[error("cannot stop the datapath")]
    Proxy(#[source] proxy::ProxyError),
    #[error("cannot stop the pod network")]
    Network(#[source] network::NetworkError),
}
