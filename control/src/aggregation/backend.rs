//! One APIService with a Service behind it, read once: which group and version, where its server is, whom it must prove
//! to be, and whether it is available.

use std::sync::Arc;

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use rustls::{
    ClientConfig as TlsConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;

use super::front_proxy::FrontProxy;
use crate::webhook::{self, ConfigError, Connector, Dial, TrustError, WebhookTarget};

/// The resource of APIServices in the store.
pub const RESOURCE: &str = "apiservices.apiregistration.k8s.io";

/// Sends requests to the endpoints of one Service, over connections that are kept.
pub type Http = legacy::Client<HttpsConnector<Connector>, Body>;

/// A version of an API group that another server answers for.
#[derive(Clone)]
pub struct Backend {
    /// Of the APIService: `v1beta1.metrics.k8s.io`.
    pub name: String,
    /// Never empty.
    pub group: String,
    /// `v1beta1`
    pub version: String,
    /// `spec.groupPriorityMinimum`
    pub group_priority: i64,
    /// `spec.versionPriority`
    pub version_priority: i64,
    /// Always a Service.
    pub target: WebhookTarget,
    /// Whether its condition `Available` is true.
    pub available: bool,
    trusted: Trusted,
    http: Result<Http, ConfigError>,
    unverified: Result<Http, ConfigError>,
}

/// Which certificates are taken from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trusted {
    /// `spec.caBundle`, in base64.
    bundle: String,
    /// `spec.insecureSkipTLSVerify`
    any: bool,
}

/// What connections of all backends are made with.
#[derive(Clone)]
pub struct Dialer {
    /// The network.
    pub dial: Arc<dyn Dial>,
    /// What is shown to the servers.
    pub front_proxy: Arc<FrontProxy>,
}

impl Backend {
    /// Reads an APIService; nothing for one that this server answers itself. Connections of `before` are kept where
    /// they would be made in the same way.
    pub fn read(object: &Value, before: Option<&Self>, dialer: &Dialer) -> Option<Self> {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = spec["service"].as_object()?;
        let of_service = |field: &str| service.get(field).map(text).unwrap_or_default();
        let port = service.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let target = WebhookTarget::Service { namespace: of_service("namespace"), name: of_service("name"), port };
        let trusted = Trusted { bundle: text(&spec["caBundle"]), any: spec["insecureSkipTLSVerify"] == true };
        let group = text(&spec["group"]);
        if group.is_empty() {
            // The core group is this server's own.
            return None;
        }
        let same = before.filter(|before| before.target == target && before.trusted == trusted);
        let (http, unverified) = match same {
            Some(before) => (before.http.clone(), before.unverified.clone()),
            None => (trusted.http(&target, dialer), insecure(&target, dialer)),
        };
        Some(Self {
            name: text(&object["metadata"]["name"]),
            group,
            version: text(&spec["version"]),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
            version_priority: spec["versionPriority"].as_i64().unwrap_or_default(),
            target,
            available: is_available(object),
            trusted,
            http,
            unverified,
        })
    }

    /// `apis/GROUP/VERSION`
    pub fn root(&self) -> String {
        format!("apis/{}/{}", self.group, self.version)
    }

    /// What sends requests to it, or why nothing can be sent.
    pub fn http(&self) -> Result<&Http, &ConfigError> {
        self.http.as_ref()
    }

    /// The same, without a look at whom the certificate names: it tells only whether somebody answers.
    pub fn unverified(&self) -> Result<&Http, &ConfigError> {
        self.unverified.as_ref()
    }

    /// Whether the two are the same but for being available.
    pub fn is_like(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.group_priority, one.version_priority, one.target.clone(), one.trusted.clone());
        key(self) == key(other)
    }
}

/// Whether the condition `Available` is true.
fn is_available(object: &Value) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Available" && condition["status"] == "True")
}

impl Trusted {
    fn http(&self, target: &WebhookTarget, dialer: &Dialer) -> Result<Http, ConfigError> {
        if self.any {
            return insecure(target, dialer);
        }
        let bundle = BASE64_STANDARD.decode(&self.bundle).map_err(TrustError::from);
        let verifier = bundle.and_then(|bundle| webhook::verifier(&bundle)).map_err(ConfigError::CaBundle)?;
        http(target, dialer, Arc::new(verifier))
    }
}

/// Sends requests to a server that need not prove who it is.
fn insecure(target: &WebhookTarget, dialer: &Dialer) -> Result<Http, ConfigError> {
    http(target, dialer, any_certificate())
}

fn http(target: &WebhookTarget, dialer: &Dialer, verifier: Arc<dyn ServerCertVerifier>) -> Result<Http, ConfigError> {
    let tls = TlsConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ConfigError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(dialer.front_proxy.clone());
    Ok(webhook::pooled(webhook::connector(target, dialer.dial.clone(), tls)?))
}

/// For servers that need not prove who they are.
pub fn any_certificate() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AnyCertificate(ring::default_provider()))
}

/// Takes every certificate whose key the server holds: `insecureSkipTLSVerify`.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
