//! Calls of webhooks: HTTPS to a URL or to a Service of the cluster, with JSON there and back.
//!
//! A Service is reached at its ClusterIP, and where it has none, at one of its ready endpoints. The certificate must be
//! for `NAME.NAMESPACE.svc` and signed by the `caBundle`; without one, by an authority that the system trusts.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig as TlsConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::store::Snapshot;

/// Where a webhook is, and whom it must prove to be.
#[derive(Clone)]
pub struct ClientConfig {
    target: Target,
    /// `/convert`
    path: String,
    tls: Arc<TlsConfig>,
}

#[derive(Clone, Debug)]
enum Target {
    Host { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

/// Why a webhook cannot be called at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// `url` is no URL with a host.
    #[error("cannot read the URL {url:?}")]
    Url { url: String },
    /// `caBundle` has no certificate.
    #[error("unable to load root certificates: {why}")]
    CaBundle { why: String },
    /// No protocol version of TLS is left.
    #[error("cannot set up TLS: {why}")]
    Tls { why: String },
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("service {namespace}/{name} not found")]
    NoService { namespace: String, name: String },
    #[error("no endpoints available for service \"{name}\"")]
    NoEndpoints { name: String },
    #[error("Post \"{url}\": context deadline exceeded")]
    Timeout { url: String },
    #[error("Post \"{url}\": {why}")]
    Request { url: String, why: String },
    #[error("the server responded with the status code {code} but did not return more information: {body}")]
    Refused { code: u16, body: String },
    #[error("the answer is not JSON: {source}")]
    Answer { source: serde_json::Error },
}

/// The largest answer that is read.
const MAX_ANSWER: usize = 32 << 20;
/// How much of a refusal's text is shown.
const SHOWN: usize = 512;

impl ClientConfig {
    /// Reads a `WebhookClientConfig`.
    pub fn read(config: &Value) -> Result<Self, ConfigError> {
        let service = &config["service"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (target, path) = match config["url"].as_str() {
            Some(url) => {
                let wrong = || ConfigError::Url { url: url.to_owned() };
                let uri: Uri = url.parse().map_err(|_| wrong())?;
                let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
                (Target::Host { host, port: uri.port_u16().unwrap_or(443) }, uri.path().to_owned())
            }
            None => {
                let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
                let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
                (Target::Service { namespace, name, port }, text(&service["path"]))
            }
        };
        let tls = tls(config["caBundle"].as_str().unwrap_or_default())?;
        Ok(Self { target, path: if path.is_empty() { "/".to_owned() } else { path }, tls })
    }

    /// Whom the certificate must name.
    fn server_name(&self) -> String {
        match &self.target {
            Target::Host { host, .. } => host.clone(),
            Target::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    fn url(&self) -> String {
        let (Target::Host { port, .. } | Target::Service { port, .. }) = &self.target;
        format!("https://{}:{port}{}", self.server_name(), self.path)
    }

    /// Where to connect to.
    fn address(&self, snapshot: &Snapshot) -> Result<(String, u16), CallError> {
        match &self.target {
            Target::Host { host, port } => Ok((host.clone(), *port)),
            Target::Service { namespace, name, port } => address_of_service(snapshot, namespace, name, *port),
        }
    }
}

fn tls(bundle: &str) -> Result<Arc<TlsConfig>, ConfigError> {
    let mut roots = RootCertStore::empty();
    let wrong = |why: String| ConfigError::CaBundle { why };
    if bundle.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    } else {
        let text = BASE64_STANDARD.decode(bundle).map_err(|error| wrong(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("unable to parse bytes as PEM block".to_owned()));
        }
    }
    let config = TlsConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::Tls { why: error.to_string() })?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn address_of_service(snapshot: &Snapshot, namespace: &str, name: &str, port: u16) -> Result<(String, u16), CallError> {
    let missing = || CallError::NoService { namespace: namespace.to_owned(), name: name.to_owned() };
    let object = snapshot.get("services", &format!("{namespace}/{name}")).ok_or_else(missing)?;
    let service: Value = serde_json::from_slice(object.json()).map_err(|source| CallError::Answer { source })?;
    let spec = &service["spec"];
    if let Some(host) = spec["externalName"].as_str().filter(|_| spec["type"] == "ExternalName") {
        return Ok((host.to_owned(), port));
    }
    let named = spec["ports"].as_array().into_iter().flatten().find(|one| one["port"] == port);
    let Some(service_port) = named else {
        let why = format!("no service port {port} found for service {name:?}");
        return Err(CallError::Request { url: format!("https://{name}.{namespace}.svc:{port}"), why });
    };
    match spec["clusterIP"].as_str().and_then(|address| address.parse::<IpAddr>().ok()) {
        Some(address) => Ok((address.to_string(), port)),
        None => endpoint(snapshot, namespace, name, &service_port["name"])
            .ok_or_else(|| CallError::NoEndpoints { name: name.to_owned() }),
    }
}

/// A ready endpoint of a Service without address.
fn endpoint(snapshot: &Snapshot, namespace: &str, name: &str, port_name: &Value) -> Option<(String, u16)> {
    let prefix = format!("{namespace}/");
    let slices = snapshot.list("endpointslices.discovery.k8s.io", &prefix, None);
    let own = slices.filter(|(_, slice)| {
        slice.header.labels.iter().any(|(key, value)| &**key == "kubernetes.io/service-name" && **value == *name)
    });
    for (_, slice) in own {
        let Ok(slice) = serde_json::from_slice::<Value>(slice.json()) else { continue };
        let named = |port: &&Value| port["name"].as_str().unwrap_or_default() == port_name.as_str().unwrap_or_default();
        let port = slice["ports"].as_array().and_then(|ports| ports.iter().find(named))?["port"].as_u64();
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
        let found = slice["endpoints"].as_array().and_then(|endpoints| endpoints.iter().find(ready));
        if let (Some(port), Some(found)) = (port.and_then(|port| u16::try_from(port).ok()), found)
            && let Some(address) = found["addresses"][0].as_str()
        {
            return Some((address.to_owned(), port));
        }
    }
    None
}

/// Posts `body` to a webhook; answers with the JSON that comes back.
pub async fn call(
    config: &ClientConfig,
    snapshot: &Snapshot,
    body: &Value,
    timeout: Duration,
) -> Result<Value, CallError> {
    let address = config.address(snapshot)?;
    match tokio::time::timeout(timeout, post(config, address, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Timeout { url: config.url() }),
    }
}

async fn post(config: &ClientConfig, (host, port): (String, u16), body: &Value) -> Result<Value, CallError> {
    let failed = |why: String| CallError::Request { url: config.url(), why };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| failed(error.to_string()))?;
    let name = ServerName::try_from(config.server_name()).map_err(|error| failed(error.to_string()))?;
    let connector = TlsConnector::from(config.tls.clone());
    let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    // Ends with the sender; an error of the connection is one of the request.
    let connection = tokio::spawn(connection);
    let request = Request::post(config.path.as_str())
        .header(header::HOST, config.server_name())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| failed(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        let code = response.status();
        let text = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let text = text.map_err(|error| failed(error.to_string()))?.to_bytes();
        if !code.is_success() {
            let body = String::from_utf8_lossy(&text).chars().take(SHOWN).collect();
            return Err(CallError::Refused { code: code.as_u16(), body });
        }
        serde_json::from_slice(&text).map_err(|source| CallError::Answer { source })
    }
    .await;
    connection.abort();
    answer
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig").field("target", &self.target).field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        encode,
        store::{EventType, Key, Object},
    };

    fn snapshot(objects: &[(&str, &str, Value)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (resource, key, object) in objects {
            let object = Object::new(encode::unserved(object), 1, EventType::Added);
            snapshot.load(Key { resource: (*resource).into(), name: (*key).into() }, Arc::new(object));
        }
        snapshot
    }

    fn service(spec: Value) -> (&'static str, &'static str, Value) {
        ("services", "ns/hook", json!({"metadata": {"name": "hook", "namespace": "ns"}, "spec": spec}))
    }

    #[test]
    fn a_service_is_reached_by_its_address_or_a_ready_endpoint() {
        let config = json!({"service": {"namespace": "ns", "name": "hook", "path": "/convert", "port": 443}});
        let config = ClientConfig::read(&config).unwrap();
        assert_eq!(
            (config.server_name(), config.url()),
            ("hook.ns.svc".into(), "https://hook.ns.svc:443/convert".into())
        );
        let ports = json!([{"name": "https", "port": 443}]);
        let with_address = snapshot(&[service(json!({"clusterIP": "10.96.0.9", "ports": ports}))]);
        assert_eq!(config.address(&with_address).unwrap(), ("10.96.0.9".to_owned(), 443));

        let headless = service(json!({"clusterIP": "None", "ports": ports}));
        let slice = json!({"metadata": {"name": "hook-1", "namespace": "ns",
            "labels": {"kubernetes.io/service-name": "hook"}},
            "ports": [{"name": "https", "port": 8443}],
            "endpoints": [{"addresses": ["10.244.0.1"], "conditions": {"ready": false}},
                {"addresses": ["10.244.0.2"]}]});
        let slice = ("endpointslices.discovery.k8s.io", "ns/hook-1", slice);
        let by_endpoint = snapshot(&[headless.clone(), slice]);
        assert_eq!(config.address(&by_endpoint).unwrap(), ("10.244.0.2".to_owned(), 8443));

        let error = |snapshot: &Snapshot| config.address(snapshot).unwrap_err().to_string();
        assert_eq!(error(&snapshot(&[headless])), "no endpoints available for service \"hook\"");
        assert_eq!(error(&snapshot(&[])), "service ns/hook not found");
        let other = snapshot(&[service(json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}))]);
        assert!(error(&other).ends_with("no service port 443 found for service \"hook\""), "{}", error(&other));
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let config = json!({"url": "https://localhost:1/x", "caBundle": BASE64_STANDARD.encode("nothing")});
        assert!(matches!(ClientConfig::read(&config), Err(ConfigError::CaBundle { .. })));
        assert!(matches!(ClientConfig::read(&json!({"url": "/nope"})), Err(ConfigError::Url { .. })));
    }
}
