//! Composes and runs the parts of one control service.
//!
//! Order of a start: data directory, lock, certificates, store, API, bootstrap objects, listener, controllers. A stop
//! goes in reverse order, so that each part stops before those that it uses.

mod advertise;
mod certificates;
mod checks;
mod connection;
mod descriptors;
mod front_proxy_reload;
mod housekeeping;
mod http_connection;
mod limits;
mod listener;
mod lock;
mod running;
mod store_closing;
mod tasks;
mod tls;

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use fairlead_encryption::{ConfigError, Encryption};
use futures::{FutureExt, future::BoxFuture};
use rustls::crypto::ring;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
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
        connection_places::{ConnectionPlaces, PlaceLimits},
        gate::Gate,
        pki::{self, Authority, PkiError, PkiFileError, ServingNames},
        request_headers::RequestHeaderError,
        setup::{
            authentication::{AuthenticationSetup, AuthenticationSetupError},
            authorization::{AccessWebhooks, AuthorizationSetup, AuthorizationSetupError},
        },
    },
    bootstrap::{self, Advertised, BootstrapError, KubernetesService},
    controllers::{self, RestoreService},
    definitions,
    encryption_reload::{ENCRYPTION, UsedEncryption},
    file_follower::{self, FileFollower},
    kinds::{AddError, Registry},
    metrics::ConnectionMetrics,
    scheduler,
    store::{self, DamagedBases, Store, seal::Seal},
    supervise::Supervisor,
    webhook,
};
use certificates::Certificates;
use connection::Connections;
use front_proxy_reload::{FRONT_PROXY_AUTHORITIES, UsedFrontProxies};
pub use limits::RequestLimitsError;
use limits::{check_limits, request_limits};
use listener::Listener;
use lock::{DataDirLock, LockError};
use running::Workers;
use store_closing::StoreClosing;
use tls::{ListenerTls, TlsError};

pub use running::Running;

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
    /// Flags or files that say who may come in cannot be used.
    #[error("cannot set up authentication")]
    Authentication(#[from] AuthenticationSetupError),
    /// Those that say which proxies are believed cannot be used.
    #[error("cannot set up authentication by front proxies")]
    RequestHeaders(#[from] RequestHeaderError),
    /// Flags or files that say who decides cannot be used.
    #[error("cannot set up authorization")]
    Authorization(#[from] AuthorizationSetupError),
    /// The certificate for connections to agents cannot be used.
    #[error("cannot set up the way to agents")]
    Agents(#[from] AgentsError),
    /// A kind that was asked for cannot be served beside the others.
    #[error("cannot serve the kinds that were asked for")]
    Kinds(#[source] AddError),
    /// The file of `--encryption-provider-config` cannot be used.
    #[error("cannot encrypt objects as {} says", path.display())]
    Encryption {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
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
    /// Priority levels have no seats to divide.
    #[error(transparent)]
    RequestLimits(#[from] RequestLimitsError),
    /// An object that every cluster has could not be written.
    #[error("cannot make the objects that every cluster has")]
    Bootstrap(#[from] BootstrapError),
    /// The administrator's kubeconfig could not be written.
    #[error("cannot write the admin kubeconfig")]
    Kubeconfig(#[source] PkiFileError),
}

/// Starts a control service. When this returns, the API answers.
///
/// Boxed, as are the methods of [`Running`]: an `async fn` and all that it awaits would be compiled a second time by
/// the crate that awaits it.
pub fn start(config: Config) -> BoxFuture<'static, Result<Running, StartError>> {
    start_parts(config).boxed()
}

async fn start_parts(config: Config) -> Result<Running, StartError> {
    check_limits(&config)?;
    let audit = Audit::start(&config.audit).await?;
    let authorization = AuthorizationSetup::read(&config.authorization).await?;
    let places = ConnectionPlaces::new(PlaceLimits::for_descriptors(descriptors::raise_limit()));
    pki::private_dir(&config.data_dir).map_err(StartError::DataDir)?;
    let lock = DataDirLock::take(&config.data_dir)?;
    let listen_error = |source| StartError::Listen { address: config.bind, source };
    let socket = listener::listen(config.bind).map_err(listen_error)?;
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
    let encryption = match &config.encryption_provider_config {
        None => None,
        Some(path) => Some(read_encryption(path, config.encryption_provider_config_automatic_reload)?),
    };
    let seal = encryption.clone().map(|encryption| encryption as Arc<dyn Seal>);
    let opened = api::open_sealed_store(&store_path, &kinds, damaged_bases, seal)
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
    config.admission_plugins.warn_of_deprecated();
    let plugins = &config.admission_plugins;
    let api =
        KubernetesApi::in_network(store.clone(), kinds, allocator.clone(), &server_address, network.clone(), plugins);
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
    let (front_proxies, everything) = (certificates.front_proxies.clone(), authorization.allows_everything);
    let dial = network.clone();
    let authentication =
        AuthenticationSetup::read(&config.authentication, api.authorizer(), front_proxies, dial, everything).await?;
    api.authenticate_by(authentication.authenticator.clone());
    let access_webhooks = AccessWebhooks::default();
    let authorization = authorization.install(api.authorizer(), &access_webhooks);
    api.metrics().add(move |scrape| access_webhooks.tell(scrape));
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
    let (limits, flow_control) = request_limits(&config, &api, &store);
    let gate =
        Gate::new(Arc::new(api.clone()), api.authorizer().clone(), api.metrics().requests().clone(), closing.clone())
            .limited_to(limits)
            .authenticating_by(authentication.authenticator)
            .audited_by(audit.clone());
    let clients = certificates.clients.clone();
    let tls = Arc::new(ListenerTls::new(certificates.shown.clone(), clients.clone(), provider)?);
    let supervisor = Supervisor::default();
    let expirations = certificates.expirations.clone();
    api.metrics().add(move |scrape| expirations.tell(scrape));
    let told = places.clone();
    api.metrics().add(move |scrape| told.tell(scrape));
    let counts = Arc::new(ConnectionMetrics::default());
    let told = counts.clone();
    api.metrics().add(move |scrape| told.tell(scrape));
    let connections = Connections::new(tls.clone(), clients, gate, counts, places, closing);
    let listener = Listener::start(&supervisor, socket, connections);

    if let Some(control) = flow_control {
        tasks::start_flow_control(&supervisor, &api, &store, control);
    }
    let ca_hash = authority.hash();
    let of_aggregator = api.client(Identity::control("kube-aggregator"));
    aggregator.start(&supervisor, &of_aggregator, api.kinds(), certificates.authorities.subscribe());
    let front_proxies = certificates.front_proxies.clone().map(|proxies| {
        let used = file_follower::hash(proxies.authorities().as_bytes());
        (used, UsedFrontProxies { proxies, tls, told: certificates.authorities.clone() })
    });
    tasks::start(&supervisor, &api, &store, certificates, allocator, network);
    if let Some(encryption) = &encryption
        && (config.encryption_provider_config_automatic_reload || encryption.has_services())
    {
        checks::add_key_services(&api, encryption.clone());
    }
    if config.encryption_provider_config_automatic_reload
        && let (Some(path), Some(encryption)) = (config.encryption_provider_config.clone(), encryption)
    {
        let used = encryption.hash();
        let follower = FileFollower::new(ENCRYPTION, path, used, UsedEncryption::new(encryption, store.clone()));
        tasks::follow(&supervisor, &api, "encryption-provider-config", follower);
    }
    if let (Some((used, user)), Some(path)) = (front_proxies, &config.authentication.request_header.client_ca_file) {
        let follower = FileFollower::new(FRONT_PROXY_AUTHORITIES, path.clone(), used, user);
        tasks::follow(&supervisor, &api, "requestheader-client-ca-file", follower);
    }
    let jwt = authentication.jwt;
    supervisor.spawn("jwt-authenticators", move |stop| jwt.clone().run(stop).boxed());
    for (name, reload) in [("authentication-config", authentication.reload), ("authorization-config", authorization)] {
        if let Some(reload) = reload {
            tasks::follow(&supervisor, &api, name, reload);
        }
    }
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

fn read_encryption(path: &Path, is_watched: bool) -> Result<Arc<Encryption>, StartError> {
    let read =
        Encryption::read(path, is_watched).map_err(|source| StartError::Encryption { path: path.into(), source })?;
    // It has keys. A mounted Secret, as kube-apiserver's is often, may have another mode: it is no reason to refuse.
    if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0) {
        tracing::warn!(path = %path.display(), "others can read the keys of the encryption configuration");
    }
    Ok(Arc::new(read))
}

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
