//! Composes and runs the parts of one control service.
//!
//! Order of a start: data directory, lock, certificates, store, API, bootstrap objects, listener, controllers. A stop goes the
//! other way round, so that nothing loses what it stands on.

mod advertise;
mod in_process;
mod listener;
mod lock;
mod tls;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use jiff::Timestamp;
use kube::{Api, Client, api::PostParams};
use rustls::crypto::{CryptoProvider, ring};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config,
    auth::{
        Identity,
        bootstrap_token::{self, BootstrapToken},
        gate::Gate,
        pki::{self, FileError, Pki, PkiError, ServingNames},
    },
    bootstrap::{self, Advertised, BootstrapError},
};
use listener::Listener;
use lock::{DataDirLock, LockError};
use tls::{ShownCertificate, TlsError};

/// Why a control service did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use the data directory")]
    DataDir(#[source] FileError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot set up the certificates")]
    Pki(#[from] PkiError),
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot make the objects that every cluster has")]
    Bootstrap(#[from] BootstrapError),
    #[error("cannot write the admin kubeconfig")]
    Kubeconfig(#[source] FileError),
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
    listener: Listener,
    stop: CancellationToken,
    tasks: TaskTracker,
    // Last: let go of when everything else is down.
    _lock: DataDirLock,
}

/// Starts a control service. When this returns, the API answers.
pub async fn start(config: Config) -> Result<Running, StartError> {
    pki::private_dir(&config.data_dir).map_err(StartError::DataDir)?;
    let lock = DataDirLock::take(&config.data_dir)?;
    let listen_error = |source| StartError::Listen { address: config.bind, source };
    let socket = TcpListener::bind(config.bind).await.map_err(listen_error)?;
    let address = socket.local_addr().map_err(listen_error)?;
    let advertised =
        advertise::address(&config.advertise, config.bind).map(|ip| Advertised { address: ip, port: address.port() });

    let provider = Arc::new(ring::default_provider());
    let certificates = Certificates::set_up(&config, advertised, &provider)?;
    let admin_kubeconfig = write_admin_kubeconfig(&config.data_dir, address, &certificates.pki)?;

    let router = Router::new();
    let client = in_process::client(router.clone(), Identity::control("apiserver"));
    bootstrap::ensure(&client, &config, advertised).await?;

    let closing = CancellationToken::new();
    let gate = Gate::new(router, client.clone(), closing.clone());
    let clients = Arc::new(tls::client_certificates(&certificates.pki.authority, provider.clone())?);
    let tls = tls::server_config(certificates.shown.clone(), clients.clone(), provider)?;
    let listener = Listener::start(socket, tls, clients, gate, closing);

    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(bootstrap::keep(client.clone(), config.clone(), advertised, stop.clone()));
    tracing::info!(%address, "the API is served");
    let ca_hash = certificates.pki.authority.hash();
    Ok(Running { client, address, ca_hash, admin_kubeconfig, listener, stop, tasks, _lock: lock })
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
    pub async fn new_join_token(&self, lifetime: Duration) -> Result<String, TokenError> {
        let token = BootstrapToken::random();
        let secret = token.to_secret(bootstrap_token::expiration(Timestamp::now(), lifetime));
        Api::namespaced(self.client.clone(), bootstrap_token::NAMESPACE)
            .create(&PostParams::default(), &secret)
            .await
            .map_err(|e| TokenError(Box::new(e)))?;
        Ok(token.join_text(&self.ca_hash))
    }

    /// Stops: controllers first, then watches end, requests under way get their answers, and the store is closed.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.listener.drain().await;
    }
}

/// The certificates of this run and where they come from.
struct Certificates {
    pki: Pki,
    shown: Arc<ShownCertificate>,
}

impl Certificates {
    fn set_up(config: &Config, advertised: Option<Advertised>, provider: &CryptoProvider) -> Result<Self, StartError> {
        let host_name = host_name();
        let mut names = ServingNames::of(config, host_name.as_deref());
        names.add(advertised.map(|a| a.address.into()));
        let pki = Pki::load_or_create(&config.data_dir.join("pki"), &names, OffsetDateTime::now_utc())?;
        let shown = Arc::new(ShownCertificate::new(&pki.serving, &pki.authority, provider)?);
        Ok(Self { pki, shown })
    }
}

/// The kernel's name of this host; a host without one is only reached by its addresses.
fn host_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

fn write_admin_kubeconfig(data_dir: &Path, address: SocketAddr, pki: &Pki) -> Result<PathBuf, StartError> {
    let host = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
    let server = format!("https://{}", SocketAddr::new(host, address.port()));
    let path = data_dir.join("admin.kubeconfig");
    let text = pki::admin_kubeconfig(&server, &pki.authority, &pki.admin);
    pki::write_private(&path, &text).map_err(StartError::Kubeconfig)?;
    Ok(path)
}
