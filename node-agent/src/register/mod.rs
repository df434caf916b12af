//! How this node becomes and stays a member of the cluster: credentials, its Node object, its Lease.

pub mod assignment;
pub mod certificate;
pub mod conditions;
pub mod facts;
pub mod heartbeat;
pub mod join_token;
mod joining;
pub mod live_client;
pub mod measurements;
pub mod node_object;
mod node_requests;
pub mod pinned_ca;
pub mod renewal;
pub mod silence_wait;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::config::Access;
use certificate::CertificateError;
use join_token::JoinTokenError;
use live_client::LiveClient;
use renewal::Renewal;

/// The node's credentials and where they serve.
pub struct Membership {
    /// Follows renewed certificates: clones need not be made anew.
    pub api: LiveClient,
    /// PEM of the cluster's CA: verifies who calls this agent. `None` where a kubeconfig without one was given.
    pub ca_pem: Option<String>,
    /// Of the client's certificate; `None` where a kubeconfig says who this node is.
    pub renewal: Option<Renewal>,
}

/// Why the node has no client of the API with credentials of its own.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// It is missing, or no kubeconfig.
    #[error("cannot read the kubeconfig {}", path.display())]
    Kubeconfig { path: PathBuf, source: kube::config::KubeconfigError },
    /// TLS cannot be set up with these credentials.
    #[error("cannot make an API client for {server}")]
    Client { server: String, source: Box<kube::Error> },
    /// Write it as `https://HOST:6443`.
    #[error("the server address {server:?} is not a URL like https://10.0.0.1:6443")]
    ServerUrl { server: String },
    /// Copy the whole token from `fairlead token create`.
    #[error("the join token is not usable")]
    Token(#[from] JoinTokenError),
    /// The server is away, or has another CA than the token says.
    #[error("cannot verify the control service at {server}")]
    PinnedCa { server: String, source: pinned_ca::PinnedCaError },
    /// The API gave no certificate.
    #[error("cannot get a certificate for this node")]
    Certificate(#[from] CertificateError),
    /// A file of `node/pki/` could not be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// A file of `node/pki/` is there and cannot be read.
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

    /// Where it was refused because a node of this name still reports: after how long that would count as silent.
    pub fn reporting_node_silent_in(&self) -> Option<Duration> {
        match self {
            // An older control service does not say it, and counts by its grace, of which this is the default.
            Self::Certificate(CertificateError::NodeReports { silent_in, .. }) => {
                Some(silent_in.unwrap_or(Duration::from_secs(40)))
            }
            _ => None,
        }
    }
}

/// Makes a client of the API: from the kubeconfig, from the certificate of an earlier join, or by joining now.
pub async fn access(access: &Access, node_name: &str, data_dir: &Path) -> Result<Membership, RegisterError> {
    match access {
        Access::Kubeconfig(path) => by_kubeconfig(path).await,
        Access::Join { server, token } => joining::join(server, token, node_name, &data_dir.join("node/pki")).await,
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
    let connected =
        live_client::connect(config).map_err(|source| RegisterError::Client { server, source: Box::new(source) })?;
    Ok(Membership { api: LiveClient::new(connected), ca_pem, renewal: None })
}
