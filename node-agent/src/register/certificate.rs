//! Certificates of this node: asked for through CertificateSigningRequests, kept as PEM files.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fairlead_client::{
    Api, Events,
    node_silence::{NODE_REPORTS, silent_in},
};
use futures::TryStreamExt;
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use kube::{
    Client,
    api::PostParams,
    core::ObjectMeta,
    runtime::watcher::{self, Event},
};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::RegisterError;
use crate::private_file;

/// A certificate with its key, both PEM.
pub struct Certificate {
    /// The leaf first.
    pub chain_pem: String,
    /// PKCS #8. Never logged, and kept with mode 0600.
    pub key_pem: String,
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub from: SystemTime,
    /// `notAfter`.
    pub until: SystemTime,
}

/// Client certificate: CN `system:node:NAME`, O `system:nodes`.
pub async fn request_client(client: &Client, node_name: &str) -> Result<Certificate, CertificateError> {
    let params = node_params(node_name);
    request(client, node_name, "kubernetes.io/kube-apiserver-client-kubelet", "client auth", params).await
}

/// Serving certificate of the agent's HTTPS server, for its name and address.
pub async fn request_serving(
    client: &Client,
    node_name: &str,
    address: IpAddr,
) -> Result<Certificate, CertificateError> {
    let mut params = node_params(node_name);
    let dns_name = node_name.try_into().map_err(CertificateError::Make)?;
    params.subject_alt_names = vec![SanType::DnsName(dns_name), SanType::IpAddress(address)];
    request(client, node_name, "kubernetes.io/kubelet-serving", "server auth", params).await
}

fn node_params(node_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node_name}"));
    params
}

async fn request(
    client: &Client,
    node_name: &str,
    signer: &str,
    usage: &str,
    params: CertificateParams,
) -> Result<Certificate, CertificateError> {
    let key = KeyPair::generate().map_err(CertificateError::Make)?;
    let csr_pem = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(CertificateError::Make)?;
    let wanted = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some(format!("node-{node_name}-")), ..Default::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(csr_pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["digital signature".into(), usage.into()]),
            ..Default::default()
        },
        status: None,
    };
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let created = api.create(&PostParams::default(), &wanted).await.map_err(|e| CertificateError::Ask(Box::new(e)))?;
    let name = created.metadata.name.unwrap_or_default();
    let decision = tokio::time::timeout(SIGNING_TIMEOUT, decided(&api, &name))
        .await
        .map_err(|_| CertificateError::NotSigned { name: name.clone() })?
        .map_err(|e| CertificateError::Watch(Box::new(e)))?;
    match decision {
        Some(Ok(chain_pem)) => Ok(Certificate { chain_pem, key_pem: key.serialize_pem() }),
        Some(Err(Refusal { reason, message, silent_in })) if reason == NODE_REPORTS => {
            Err(CertificateError::NodeReports { name, message, silent_in })
        }
        Some(Err(Refusal { message, .. })) => Err(CertificateError::Denied { name, message }),
        None => Err(CertificateError::NotSigned { name }),
    }
}

/// The outcome, once there is one; `None` if the watch ends before.
async fn decided(
    api: &Api<CertificateSigningRequest>,
    name: &str,
) -> Result<Option<Result<String, Refusal>>, watcher::Error> {
    let mut events = Events::new(api, watcher::Config::default().fields(&format!("metadata.name={name}")));
    while let Some(event) = events.try_next().await? {
        if let Event::InitApply(csr) | Event::Apply(csr) = event
            && let Some(outcome) = outcome(&csr)
        {
            return Ok(Some(outcome));
        }
    }
    Ok(None)
}

/// How long a signer may take.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(60);

/// What the signer gives as the reason for issuing nothing.
struct Refusal {
    /// For programs.
    reason: String,
    /// For people.
    message: String,
    /// When another decision is possible.
    silent_in: Option<Duration>,
}

/// The issued chain, or why there will be none; `None` while that is open.
fn outcome(csr: &CertificateSigningRequest) -> Option<Result<String, Refusal>> {
    let status = csr.status.as_ref()?;
    let refused = status.conditions.iter().flatten().find(|c| c.type_ == "Denied" || c.type_ == "Failed");
    if let Some(condition) = refused {
        let message = condition.message.clone().unwrap_or_else(|| condition.type_.clone());
        let reason = condition.reason.clone().unwrap_or_default();
        return Some(Err(Refusal { reason, message, silent_in: silent_in(csr) }));
    }
    let chain = status.certificate.as_ref()?;
    let unreadable =
        || Refusal { reason: String::new(), message: "the issued certificate is not PEM".to_owned(), silent_in: None };
    Some(String::from_utf8(chain.0.clone()).map_err(|_| unreadable()))
}

impl Certificate {
    /// Reads `NAME.pem` of `dir`, or what an earlier version kept as `NAME.crt` and `NAME.key`; `None` where there is
    /// neither.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, RegisterError> {
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RegisterError::Read { path, source }),
        };
        if let Some(both) = read(dir.join(format!("{name}.pem")))? {
            return Ok(Self::split(&both));
        }
        let chain = read(dir.join(format!("{name}.crt")))?;
        let key = read(dir.join(format!("{name}.key")))?;
        Ok(chain.zip(key).map(|(chain_pem, key_pem)| Self { chain_pem, key_pem }))
    }

    /// Keeps key and chain in one file, `NAME.pem`: at every moment it holds a pair that fits.
    pub fn store(&self, dir: &Path, name: &str) -> Result<(), RegisterError> {
        write_private(&dir.join(format!("{name}.pem")), format!("{}{}", self.key_pem, self.chain_pem).as_bytes())
    }

    fn split(both: &str) -> Option<Self> {
        let (chain, keys): (Vec<_>, Vec<_>) =
            pem::parse_many(both).ok()?.into_iter().partition(|block| block.tag() == "CERTIFICATE");
        let key_pem = pem::encode(keys.first()?);
        (!chain.is_empty()).then(|| Self { chain_pem: pem::encode_many(&chain), key_pem })
    }

    /// From when until when it holds.
    pub fn validity(&self) -> Result<Validity, CertificateError> {
        let (_, leaf) =
            x509_parser::pem::parse_x509_pem(self.chain_pem.as_bytes()).map_err(|_| CertificateError::Unreadable)?;
        let leaf = leaf.parse_x509().map_err(|_| CertificateError::Unreadable)?;
        // `SystemTime` ends where its seconds no longer fit 63 bits, which no certificate can name.
        let at = |time: x509_parser::time::ASN1Time| {
            let since_epoch = Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default());
            SystemTime::UNIX_EPOCH.checked_add(since_epoch).ok_or(CertificateError::Unreadable)
        };
        Ok(Validity { from: at(leaf.validity().not_before)?, until: at(leaf.validity().not_after)? })
    }

    /// Whether it was issued by `ca_pem` and holds at `now`.
    pub fn is_usable(&self, ca_pem: &str, now: SystemTime) -> bool {
        let (Ok((_, leaf)), Ok((_, ca))) = (
            x509_parser::pem::parse_x509_pem(self.chain_pem.as_bytes()),
            x509_parser::pem::parse_x509_pem(ca_pem.as_bytes()),
        ) else {
            return false;
        };
        let (Ok(leaf), Ok(ca)) = (leaf.parse_x509(), ca.parse_x509()) else { return false };
        let holds = self.validity().is_ok_and(|validity| validity.from <= now && now < validity.until);
        leaf.verify_signature(Some(ca.public_key())).is_ok() && holds
    }
}

impl Certificate {
    /// Whether it names `address` among its subject alternative names.
    pub fn names(&self, address: std::net::Ipv4Addr) -> bool {
        use x509_parser::extensions::GeneralName;
        let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(self.chain_pem.as_bytes()) else { return false };
        let Ok(leaf) = pem.parse_x509() else { return false };
        let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
        names.value.general_names.iter().any(|n| matches!(n, GeneralName::IPAddress(ip) if *ip == address.octets()))
    }
}

/// As [`private_file::write`], with this module's error.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), RegisterError> {
    private_file::write(path, bytes).map_err(|source| RegisterError::Write { path: path.to_owned(), source })
}

/// Why there is no certificate. `Denied`: approve or fix the request it names; others are tried again.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The node's name cannot stand in a certificate.
    #[error("cannot make a key and a signing request")]
    Make(#[source] rcgen::Error),
    /// The API refused the request, or was not reached.
    #[error("cannot create a CertificateSigningRequest")]
    Ask(#[source] Box<kube::Error>),
    /// The connection broke while the signature was waited for.
    #[error("cannot watch the CertificateSigningRequest")]
    Watch(#[source] Box<watcher::Error>),
    /// No signer is at work, or the request waits for a person: `fairlead get csr`.
    #[error("the CertificateSigningRequest {name} was not signed within a minute")]
    NotSigned { name: String },
    /// What the API issued is no certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// The Node of this name counts as one that reports: maybe only because this host's own agent ended just now.
    /// After `silent_in` it would count as silent, where the control service says so.
    #[error("the CertificateSigningRequest {name} was refused: {message}")]
    NodeReports { name: String, message: String, silent_in: Option<Duration> },
    /// A signer or a person refused; `message` says why.
    #[error("the CertificateSigningRequest {name} was refused: {message}")]
    Denied { name: String, message: String },
}
