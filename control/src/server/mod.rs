//! Composes and runs the parts of one control service.
//!
//! Order of a start: data directory, lock, certificates, store, API, bootstrap objects, listener, controllers. A stop
//! goes in reverse order, so that each part stops before those that it uses.

mod advertise;
mod certificates;
mod checks;
mod connection;
mod descriptors;
mod housekeeping;
mod listener;
mod lock;
mod store_closing;
mod tls;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fairlead_client::Api;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use kube::{Client, api::PostParams};
use rustls::crypto::ring;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    admission::quota,
    aggregation::{Aggregator, FrontProxyError},
    allocation::{self, Allocator},
    api::{
        self, Api as KubernetesApi,
        node_proxy::{AgentsError, NodeProxy, PodNetwork},
    },
    audit::{Audit, AuditError},
    auth::{
        Identity,
        account_token::TokenIssuer,
        bootstrap_token::{self, BootstrapToken},
        connection_places::{ConnectionPlaces, PlaceLimits},
        gate::Gate,
        in_flight::InFlight,
        pki::{self, Authority, PkiError, PkiFileError, ServingNames},
    },
    bootstrap::{self, Advertised, BootstrapError, KubernetesService},
    controllers::{self, Controllers, RestoreService},
    definitions,
    kinds::{AddError, Registry},
    metrics::ConnectionMetrics,
    scheduler::{self, Scheduler},
    store::{self, DamagedBases, Store},
    supervise::Supervisor,
    webhook,
};
use certificates::Certificates;
use connection::Connections;
use listener::Listener;
use lock::{DataDirLock, LockError};
use store_closing::StoreClosing;
use tls::TlsError;

/// Why a control service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Name another directory with `--data-dir`, or give this one to the service's user.
    #[error("cannot use the data directory")]
    DataDir(#[source] PkiFileError),
    /// Another control service uses the data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Keys or certificates in `pki/` are damaged or missing.
    #[error("cannot set up the certificates")]
    Pki(#[from] PkiError),
    /// The listener's certificate cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The audit policy cannot be used, or what events go to.
    #[error("cannot set up auditing")]
    Audit(#[from] AuditError),
    /// The certificate for connections to agents cannot be used.
    #[error("cannot set up the way to agents")]
    Agents(#[from] AgentsError),
    /// A kind that was asked for cannot be served beside the others.
    #[error("cannot serve the kinds that were asked for")]
    Kinds(#[source] AddError),
    /// The store's file is damaged, or was written by a newer version.
    #[error("cannot open the store {}", path.display())]
    Store {
        /// The store's file.
        path: PathBuf,
        /// Why it cannot be opened.
        source: store::OpenError,
    },
    /// Another program has the port, or this host does not have the address.
    #[error("cannot listen on {address}")]
    Listen {
        /// What `--bind` names.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The certificate for connections to extension API servers cannot be used.
    #[error("cannot set up the way to extension API servers")]
    FrontProxy(#[from] FrontProxyError),
    /// An object that every cluster has could not be written.
    #[error("cannot make the objects that every cluster has")]
    Bootstrap(#[from] BootstrapError),
    /// The administrator's kubeconfig could not be written.
    #[error("cannot write the admin kubeconfig")]
    Kubeconfig(#[source] PkiFileError),
}

/// Why a join token could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot store the join token")]
pub struct TokenError(#[source] Box<kube::Error>);

/// A running control service.
pub struct Running {
    client: Client,
    address: SocketAddr,
    ca_hash: String,
    admin_kubeconfig: PathBuf,
    api: KubernetesApi,
    listener: Listener,
    /// `None` where others run controllers and scheduler.
    workers: Option<Workers>,
    supervisor: Supervisor,
    /// `None` where nothing is audited.
    audit: Option<Audit>,
    store: StoreClosing,
    /// Released after all other parts have stopped.
    lock: DataDirLock,
}

/// What works on the objects beside the API.
struct Workers {
    controllers: Arc<Controllers>,
    scheduler: Arc<Scheduler>,
}

/// Starts a control service. When this returns, the API answers.
///
/// Boxed, as are the methods of [`Running`]: an `async fn` and all that it awaits would be compiled a second time by
/// the crate that awaits it.
pub fn start(config: Config) -> BoxFuture<'static, Result<Running, StartError>> {
    start_parts(config).boxed()
}

async fn start_parts(config: Config) -> Result<Running, StartError> {
    let audit = Audit::start(&config.audit).await?;
    let places = ConnectionPlaces::new(PlaceLimits::for_descriptors(descriptors::raise_limit()));
    pki::private_dir(&config.data_dir).map_err(StartError::DataDir)?;
    let lock = DataDirLock::take(&config.data_dir)?;
    let listen_error = |source| StartError::Listen { address: config.bind, source };
    let socket = TcpListener::bind(config.bind).await.map_err(listen_error)?;
    let address = socket.local_addr().map_err(listen_error)?;
    let advertised =
        advertise::address(&config.advertise, config.bind).map(|ip| Advertised { address: ip, port: address.port() });

    let provider = Arc::new(ring::default_provider());
    let mut certificates = Certificates::set_up(&config, address, advertised, provider.clone())?;
    let (authority, admin_kubeconfig) = (certificates.authority.clone(), certificates.admin_kubeconfig.clone());
    let serving_names = certificates.names.clone();

    let (kinds, store_dir) = (Registry::default(), config.data_dir.join("store"));
    config.features.serve(&kinds).map_err(StartError::Kinds)?;
    pki::private_dir(&store_dir).map_err(StartError::DataDir)?;
    let store_path = store_dir.join("objects.redb");
    let damaged_bases = match config.quarantine_damaged_objects {
        true => DamagedBases::Quarantine,
        false => DamagedBases::Refuse,
    };
    let opened = api::open_damaged_store(&store_path, &kinds, damaged_bases)
        .map_err(|e| StartError::Store { path: store_path, source: e })?;
    let closed = opened.closed();
    let store: Arc<dyn Store> = Arc::new(opened);
    let closing_of_store = StoreClosing::of(&store, closed);
    let network: Arc<dyn webhook::Dial> = Arc::new(PodNetwork::new(store.clone(), certificates.agents.clone()));
    definitions::controller::load(&store, &kinds, &network).await;
    let allocator = Allocator::new(config.service_cidr, config.service_node_port_range.clone());
    allocation::repair_at_start(&store, &allocator).await;
    let server_address = advertised.map_or(address, |a| SocketAddr::new(a.address.into(), a.port));
    let kinds_changed = kinds.subscribe();
    let server_address = server_address.to_string();
    let api = KubernetesApi::in_network(store.clone(), kinds, allocator.clone(), &server_address, network.clone());
    if let Some(audit) = audit.clone() {
        api.audit_through(audit.clone());
        api.metrics().add(move |scrape| audit.tell(scrape));
    }
    if config.features.evaluates_mutating_policies() {
        api.evaluate_mutating_policies();
    }
    if let Some(key) = certificates.token_key.take() {
        let url = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
        api.authorizer().facts().issue_tokens_by(TokenIssuer::new(key, url, &server_address));
    }
    let client = api.client(Identity::control("apiserver"));
    let is_bootstrapped = match bootstrap::ensure(&client, &config, advertised).await {
        Ok(()) => true,
        // The API has to be served, or nobody could make space or remove a webhook that denies it.
        Err(error) if error.is_refusal() => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what every cluster has is not complete; the API is served nevertheless"
            );
            false
        }
        Err(error) => return Err(error.into()),
    };

    let closing = CancellationToken::new();
    api.reach_nodes_through(NodeProxy::new(store.clone(), certificates.agents.clone(), network.clone()));
    let front_proxy = certificates.front_proxy.clone();
    let aggregator = Aggregator::new(store.clone(), api.published().clone(), network.clone(), front_proxy);
    api.aggregate_through(aggregator.clone());
    let told = aggregator.clone();
    api.metrics().add(move |scrape| told.tell(scrape));
    let gate =
        Gate::new(Arc::new(api.clone()), api.authorizer().clone(), api.metrics().requests().clone(), closing.clone())
            .limited_to(InFlight::new(config.max_requests_inflight, config.max_mutating_requests_inflight))
            .audited_by(audit.clone());
    let clients = certificates.clients.clone();
    let tls = tls::server_config(certificates.shown.clone(), clients.clone(), provider)?;
    let supervisor = Supervisor::default();
    let expirations = certificates.expirations.clone();
    api.metrics().add(move |scrape| expirations.tell(scrape));
    let told = places.clone();
    api.metrics().add(move |scrape| told.tell(scrape));
    let counts = Arc::new(ConnectionMetrics::default());
    let told = counts.clone();
    api.metrics().add(move |scrape| told.tell(scrape));
    let connections = Connections::new(tls, clients, gate, counts, places, closing);
    let listener = Listener::start(&supervisor, socket, connections);

    let ca_hash = authority.hash();
    let of_aggregator = api.client(Identity::control("kube-aggregator"));
    aggregator.start(&supervisor, &of_aggregator, api.kinds(), certificates.authorities.subscribe());
    start_tasks(&supervisor, &api, &store, certificates, allocator, network);
    if !is_bootstrapped {
        let (client, config) = (client.clone(), config.clone());
        supervisor.spawn("bootstrap", move |stop| {
            bootstrap::ensure_later(client.clone(), config.clone(), advertised, stop).boxed()
        });
    }
    let in_cluster = |name: &str| api.client(Identity::control(name));
    let workers = (!config.api_only).then(|| {
        let client_of_controllers = in_cluster("kube-controller-manager");
        let service = KubernetesService::new(&config, advertised).restoring(client_of_controllers.clone());
        let sign_token = api.authorizer().facts().sign_token();
        let controllers_config = controllers_config(&config, service, authority, serving_names, sign_token);
        let others_changed = api.published().subscribe();
        let controllers =
            Arc::new(controllers::start(client_of_controllers, controllers_config, kinds_changed, others_changed));
        let scheduler = Arc::new(scheduler::start(in_cluster("kube-scheduler"), controllers.informers()));
        Workers { controllers, scheduler }
    });
    checks::add(&api, &supervisor, workers.as_ref());
    tracing::info!(%address, "the API is served");
    let store = closing_of_store;
    Ok(Running { client, address, ca_hash, admin_kubeconfig, api, listener, workers, supervisor, audit, store, lock })
}

impl Running {
    /// A client in process that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The address bound to, with the true port where the configured one was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 of the CA's certificate in hex: the last part of a join token.
    pub fn ca_hash(&self) -> &str {
        &self.ca_hash
    }

    /// Path of the kubeconfig of `kubernetes-admin`, mode 0600.
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Makes a join token, `ID.SECRET.CAHASH`, that is good for `lifetime`.
    pub fn new_join_token(&self, lifetime: Duration) -> BoxFuture<'_, Result<String, TokenError>> {
        async move {
            let token = BootstrapToken::random();
            let secret = token.to_secret(bootstrap_token::expiration(Timestamp::now(), lifetime));
            Api::namespaced(self.client.clone(), bootstrap_token::NAMESPACE)
                .create(&PostParams::default(), &secret)
                .await
                .map_err(|e| TokenError(Box::new(e)))?;
            Ok(token.join_text(&self.ca_hash))
        }
        .boxed()
    }

    /// Stops: controllers first, then watches end, requests under way get their answers, and the store is closed.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        self.stop_parts().boxed()
    }

    async fn stop_parts(self) {
        self.api.health().shut_down();
        if let Some(workers) = &self.workers {
            tokio::join!(workers.scheduler.shutdown(), workers.controllers.shutdown());
        }
        self.supervisor.shutdown_within(TASKS_END_WITHIN).await;
        self.listener.drain().await;
        // Writes whose clients have gone are still under way.
        self.api.drain().await;
        if let Some(audit) = &self.audit {
            audit.shut_down().await;
        }
        let Self { client, api, workers, supervisor, store, lock, .. } = self;
        drop((client, api, workers, supervisor));
        store.wait().await;
        drop(lock);
    }
}

/// How long the service's own tasks may take to end.
const TASKS_END_WITHIN: Duration = Duration::from_secs(10);

fn controllers_config(
    config: &Config,
    kubernetes_service: RestoreService,
    authority: Arc<Authority>,
    serving: ServingNames,
    sign_token: controllers::SignToken,
) -> controllers::ControllersConfig {
    let control_names = controllers::ControlNames {
        serving,
        service_cidr: config.service_cidr,
        cluster_domain: config.cluster_domain.clone(),
        boot_id: boot_id(),
    };
    controllers::ControllersConfig {
        cluster_cidr: config.cluster_cidr,
        node_cidr_mask_size: config.node_cidr_mask_size,
        authority,
        control_names,
        kubernetes_service,
        sign_token,
        node_monitor_grace_period: config.node_monitor_grace_period,
    }
}

/// The kernel's ID of this boot; empty, which no node is taken to have, where there is none.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Starts what the service does beside answering.
fn start_tasks(
    supervisor: &Supervisor,
    api: &KubernetesApi,
    store: &Arc<dyn Store>,
    certificates: Certificates,
    allocator: Allocator,
    network: Arc<dyn webhook::Dial>,
) {
    let certificates = Arc::new(certificates);
    supervisor.spawn("certificate-renewal", move |stop| certificates.clone().renew_repeatedly(stop).boxed());
    let audited = store.clone();
    supervisor.spawn("allocation-audit", move |stop| {
        allocation::audit_repeatedly(audited.clone(), allocator.clone(), stop).boxed()
    });
    let (registry, client) = (api.kinds().clone(), api.client(Identity::control("apiserver")));
    let definitions = store.clone();
    supervisor.spawn("custom-resource-definitions", move |stop| {
        let (store, registry, client) = (definitions.clone(), registry.clone(), client.clone());
        definitions::controller::run(store, registry, client, network.clone(), stop).boxed()
    });
    let (quotas, counted_kinds) = (store.clone(), api.kinds().clone());
    supervisor.spawn("resource-quota", move |stop| quota::run(quotas.clone(), counted_kinds.clone(), stop).boxed());
    let trimmed = store.clone();
    supervisor.spawn("housekeeping", move |stop| housekeeping::run(trimmed.clone(), stop).boxed());
    let (used, secrets) = (api.authorizer().facts().used_secrets().clone(), store.clone());
    let client = api.client(Identity::control("apiserver"));
    supervisor.spawn("secret-token-use", move |stop| used.clone().run(secrets.clone(), client.clone(), stop).boxed());
    let health = api.health().clone();
    supervisor.spawn("heartbeat", move |stop| checks::beat(health.clone(), stop).boxed());
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Namespace, Service};
    use kube::api::ListParams;

    use super::*;
    use crate::small_disk::{SmallDisk, fill_to_the_brim};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_keeps_no_reads_from_being_served() {
        let disk = match SmallDisk::mount(64) {
            Ok(disk) => disk,
            Err(why) => {
                return crate::skipped::skipped(format_args!("a small file system cannot be mounted: {why}"));
            }
        };
        let mut config = Config::new(disk.path().join("data"));
        config.bind = ([127, 0, 0, 1], 0).into();
        let running = start(config.clone()).await.expect("a start");
        running
            .client()
            .request::<serde_json::Value>(
                http::Request::delete("/api/v1/namespaces/kube-system/services/kube-dns")
                    .body(Vec::new())
                    .expect("valid"),
            )
            .await
            .expect("deleted");
        // The file with the administrator's credential names the port, and is written where it differs.
        config.bind = running.address();
        running.shutdown().await;
        let ballast = disk.path().join("ballast");
        fill_to_the_brim(&ballast);

        let running = start(config).await.expect("a start on a full disk");
        let namespaces: kube::Api<Namespace> = kube::Api::all(running.client());
        assert!(!namespaces.list(&ListParams::default()).await.expect("a list").items.is_empty());
        std::fs::remove_file(&ballast).expect("removed");
        let services: kube::Api<Service> = kube::Api::namespaced(running.client(), "kube-system");
        let restored = async {
            while services.get_opt("kube-dns").await.expect("an answer").is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), restored).await.expect("restored once there is space");
        running.shutdown().await;
    }
}
