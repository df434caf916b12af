//! How this node becomes and stays a member of the cluster: credentials, its Node object, its Lease.

pub mod certificate;
pub mod facts;
pub mod heartbeat;
pub mod join_token;
pub mod node_object;
pub mod pinned_ca;

use std::path::{Path, PathBuf};

use kube::{Client, config::AuthInfo};

use crate::config::Access;
use certificate::{Certificate, CertificateError};
use join_token::{JoinToken, JoinTokenError};

/// The node's credentials and where they serve.
pub struct Membership {
    pub client: Client,
    /// PEM of the cluster's CA: verifies who calls this agent. `None` where a kubeconfig without one was given.
    pub ca_pem: Option<String>,
}

/// Why the node could not get at the API with credentials of its own.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("cannot read the kubeconfig {}", path.display())]
    Kubeconfig { path: PathBuf, source: kube::config::KubeconfigError },
    #[error("cannot make an API client for {server}")]
    Client { server: String, source: Box<kube::Error> },
    #[error("the server address {server:?} is not a URL like https://10.0.0.1:6443")]
    ServerUrl { server: String },
    #[error("the join token is not usable")]
    Token(#[from] JoinTokenError),
    #[error("cannot verify the control service at {server}")]
    PinnedCa { server: String, source: pinned_ca::PinnedCaError },
    #[error("cannot get a certificate for this node")]
    Certificate(#[from] CertificateError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

impl RegisterError {
    /// Whether trying again may help: the server is away, or not itself ready.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::PinnedCa { source, .. } => matches!(source, pinned_ca::PinnedCaError::Connect(error)
                if error.kind() != std::io::ErrorKind::InvalidData),
            Self::Certificate(CertificateError::Ask(error)) => !matches!(&**error, kube::Error::Api(s) if s.code < 500),
            Self::Certificate(CertificateError::NotSigned { .. } | CertificateError::Watch(_)) => true,
            _ => false,
        }
    }
}

/// Gets at the API: by the kubeconfig, by the certificate of an earlier join, or by joining now.
pub async fn access(access: &Access, node_name: &str, data_dir: &Path) -> Result<Membership, RegisterError> {
    match access {
        Access::Kubeconfig(path) => by_kubeconfig(path).await,
        Access::Join { server, token } => by_joining(server, token, node_name, &data_dir.join("node/pki")).await,
    }
}

async fn by_kubeconfig(path: &Path) -> Result<Membership, RegisterError> {
    let wrap = |source| RegisterError::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = kube::config::Kubeconfig::read_from(path).map_err(wrap)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.map_err(wrap)?;
    let ca_pem = config.root_cert.as_ref().map(|certificates| {
        let blocks: Vec<_> = certificates.iter().map(|der| pem::Pem::new("CERTIFICATE", der.clone())).collect();
        pem::encode_many(&blocks)
    });
    let server = config.cluster_url.to_string();
    let client =
        Client::try_from(config).map_err(|source| RegisterError::Client { server, source: Box::new(source) })?;
    Ok(Membership { client, ca_pem })
}

/// Lives on the certificate in `pki` when there is a good one for this server's CA; asks for one with the token otherwise.
async fn by_joining(server: &str, token: &str, node_name: &str, pki: &Path) -> Result<Membership, RegisterError> {
    let url: http::Uri = server
        .parse()
        .ok()
        .filter(|url: &http::Uri| url.scheme_str() == Some("https") && url.host().is_some())
        .ok_or_else(|| RegisterError::ServerUrl { server: server.to_owned() })?;
    let token: JoinToken = token.parse()?;
    let ca_file = pki.join("ca.crt");
    let ca_der = match kept_ca(&ca_file, &token.ca_sha256) {
        Some(kept) => kept,
        None => pinned_ca::fetch(&url, &token.ca_sha256)
            .await
            .map_err(|source| RegisterError::PinnedCa { server: server.to_owned(), source })?,
    };
    let ca_pem = pem::encode(&pem::Pem::new("CERTIFICATE", ca_der.clone()));
    let config = |auth_info: AuthInfo| {
        let mut config = kube::Config::new(url.clone());
        config.root_cert = Some(vec![ca_der.clone()]);
        config.auth_info = auth_info;
        Client::try_from(config)
            .map_err(|source| RegisterError::Client { server: server.to_owned(), source: Box::new(source) })
    };
    let kept = Certificate::load(pki, "client")?.filter(|kept| kept.is_usable(&ca_pem, std::time::SystemTime::now()));
    if kept.is_none() {
        tracing::info!(server, node = node_name, "joining the cluster");
        let joiner = config(AuthInfo { token: Some(token.bearer().into()), ..Default::default() })?;
        certificate::request_client(&joiner, node_name).await?.store(pki, "client")?;
    }
    certificate::write_private(&ca_file, ca_pem.as_bytes())?;
    let client = config(AuthInfo {
        client_certificate: Some(pki.join("client.crt").display().to_string()),
        client_key: Some(pki.join("client.key").display().to_string()),
        ..Default::default()
    })?;
    Ok(Membership { client, ca_pem: Some(ca_pem) })
}

/// The CA of an earlier join, when it is the one that the token names: then the agent starts while the server is away.
fn kept_ca(file: &Path, pin: &[u8; 32]) -> Option<Vec<u8>> {
    let der = pem::parse(std::fs::read(file).ok()?).ok()?.into_contents();
    pinned_ca::has_hash(&der, pin).then_some(der)
}
