//! Membership by a join token: the node gets a client certificate of its own, and uses that from then on.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fairlead_client::transport::ConnectedClient;
use kube::config::AuthInfo;

use super::{
    Membership, RegisterError,
    certificate::{self, Certificate},
    join_token::JoinToken,
    live_client::{self, LiveClient},
    pinned_ca,
    renewal::{Renewable, Renewal},
};

/// Uses the certificate in `pki` while there is a valid one for this server's CA; requests one with the token
/// otherwise.
pub async fn join(server: &str, token: &str, node_name: &str, pki: &Path) -> Result<Membership, RegisterError> {
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
    let endpoint = JoinEndpoint { url, ca_der, bearer: token.bearer() };
    let kept = Certificate::load(pki, NAME)?.filter(|kept| kept.is_usable(&ca_pem, std::time::SystemTime::now()));
    let certificate = match kept {
        Some(kept) => kept,
        None => {
            tracing::info!(server, node = node_name, "joining the cluster");
            let issued = certificate::request_client(&endpoint.with_token()?.client, node_name).await?;
            issued.store(pki, NAME)?;
            issued
        }
    };
    certificate::write_private(&ca_file, ca_pem.as_bytes())?;
    let api = LiveClient::new(endpoint.with_certificate(&certificate)?);
    let held = ClientCertificate { endpoint, node_name: node_name.to_owned(), pki: pki.to_owned(), api: api.clone() };
    let renewal = Renewal::new(held, certificate.validity()?);
    Ok(Membership { api, ca_pem: Some(ca_pem), renewal: Some(renewal) })
}

/// File name of the certificate.
const NAME: &str = "client";

/// The CA of an earlier join, when it is the one that the token names: then the agent starts while the server is away.
fn kept_ca(file: &Path, pin: &[u8; 32]) -> Option<Vec<u8>> {
    let der = pem::parse(std::fs::read(file).ok()?).ok()?.into_contents();
    pinned_ca::has_hash(&der, pin).then_some(der)
}

/// The server and the credentials with which a node that has no certificate yet reaches it.
pub(super) struct JoinEndpoint {
    /// `https://HOST:PORT`, without a path.
    pub url: http::Uri,
    /// The only CA that is trusted there: the token pins it.
    pub ca_der: Vec<u8>,
    /// The bootstrap token, `ID.SECRET`.
    pub bearer: String,
}

impl JoinEndpoint {
    /// A client that authenticates with the join token.
    pub(super) fn with_token(&self) -> Result<ConnectedClient, RegisterError> {
        self.client(AuthInfo { token: Some(self.bearer.clone().into()), ..Default::default() })
    }

    /// A client that authenticates with a certificate.
    pub(super) fn with_certificate(&self, certificate: &Certificate) -> Result<ConnectedClient, RegisterError> {
        self.client(AuthInfo {
            client_certificate_data: Some(STANDARD.encode(&certificate.chain_pem)),
            client_key_data: Some(STANDARD.encode(&certificate.key_pem).into()),
            ..Default::default()
        })
    }

    fn client(&self, auth_info: AuthInfo) -> Result<ConnectedClient, RegisterError> {
        let mut config = kube::Config::new(self.url.clone());
        config.root_cert = Some(vec![self.ca_der.clone()]);
        config.auth_info = auth_info;
        let server = self.url.to_string();
        live_client::connect(config).map_err(|source| RegisterError::Client { server, source: Box::new(source) })
    }
}

/// The certificate that this node's API client shows.
struct ClientCertificate {
    endpoint: JoinEndpoint,
    node_name: String,
    pki: PathBuf,
    api: LiveClient,
}

#[async_trait::async_trait]
impl Renewable for ClientCertificate {
    fn purpose(&self) -> &'static str {
        "API client"
    }

    /// By the certificate's own authority, or, where the server was away for too long, as at the first join.
    async fn request(&self, expired: bool) -> Result<Certificate, Box<dyn std::error::Error + Send + Sync>> {
        let client = if expired { self.endpoint.with_token()?.client } else { self.api.client().clone() };
        Ok(certificate::request_client(&client, &self.node_name).await?)
    }

    fn take_up(&self, certificate: &Certificate) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let next = self.endpoint.with_certificate(certificate)?;
        certificate.store(&self.pki, NAME)?;
        self.api.replace(next);
        Ok(())
    }
}
