//! Calls over real TLS, and the server that tests of webhooks have answer them.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    encode,
    store::{EventType, Key, Object},
};

/// A webhook server with TLS, on the loopback.
pub struct TestServer {
    /// Where it listens.
    pub port: u16,
    /// Its certificate, as a `caBundle`.
    pub bundle: String,
    /// How many connections were made to it.
    pub connections: Arc<AtomicUsize>,
    /// Path with query, and body, of each request, in order.
    pub requests: Arc<Mutex<Vec<(String, Value)>>>,
}

/// Answers a request to a path with a code and a body.
pub type Answering = Arc<dyn Fn(String, Value) -> BoxFuture<'static, (u16, Value)> + Send + Sync>;

impl TestServer {
    /// With a certificate for `names`.
    pub async fn start(names: &[&str], answering: Answering) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self::start_as(CertificateParams::new(names).unwrap(), answering).await
    }

    /// With a certificate that it signed itself.
    pub async fn start_as(certificate: CertificateParams, answering: Answering) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            bundle: BASE64_STANDARD.encode(certificate.pem()),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (server.connections.clone(), server.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(acceptor.clone(), stream, answering.clone(), requests.clone()));
            }
        });
        server
    }

    /// A `clientConfig` with a URL of this path.
    pub fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.port), "caBundle": self.bundle})
    }

    /// The bodies of the requests to paths that begin like this.
    pub fn bodies(&self, path: &str) -> Vec<Value> {
        let requests = self.requests.lock();
        requests.iter().filter(|(at, _)| at.starts_with(path)).map(|(_, body)| body.clone()).collect()
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    answering: Answering,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (answering, requests) = (answering.clone(), requests.clone());
        async move {
            let path = request.uri().to_string();
            let body = request.into_body().collect().await?.to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            requests.lock().push((path.clone(), body.clone()));
            let (code, answer) = answering(path, body).await;
            let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
            Ok::<_, hyper::Error>(http::Response::builder().status(code).body(Full::new(Bytes::from(text))).unwrap())
        }
    });
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

/// Connects every address to a port of the loopback, and remembers which were asked for.
#[derive(Debug)]
pub struct Redirected {
    port: u16,
    names: HashMap<&'static str, SocketAddr>,
    /// The addresses that were asked for.
    pub asked: Mutex<Vec<SocketAddr>>,
}

impl Dial for Redirected {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let found = self.names.get(host).map(|address| vec![SocketAddr::new(address.ip(), port)]);
        Box::pin(std::future::ready(found.ok_or_else(|| io::ErrorKind::NotFound.into())))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        self.asked.lock().push(address);
        Box::pin(async { Ok(TcpStream::connect(("127.0.0.1", self.port)).await?.into()) })
    }
}

/// Leads everywhere to this port.
pub fn redirected(port: u16) -> Arc<Redirected> {
    let names = HashMap::from([
        ("outside.example.com", "192.0.2.7:0".parse().unwrap()),
        ("inside.example.com", "127.0.0.1:0".parse().unwrap()),
        ("mapped.example.com", "[::ffff:127.0.0.1]:0".parse().unwrap()),
    ]);
    Arc::new(Redirected { port, names, asked: Mutex::default() })
}

fn echo() -> Answering {
    Arc::new(|_, body| Box::pin(std::future::ready((200, body))))
}

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

fn slice(endpoints: Value) -> (&'static str, &'static str, Value) {
    let slice = json!({"metadata": {"name": "hook-1", "namespace": "ns",
        "labels": {"kubernetes.io/service-name": "hook"}},
        "ports": [{"name": "other", "port": 1}, {"name": "https", "port": 8443}], "endpoints": endpoints});
    ("endpointslices.discovery.k8s.io", "ns/hook-1", slice)
}

const LONG: Duration = Duration::from_secs(10);

fn by_service(bundle: &str) -> ClientConfig {
    let service = json!({"namespace": "ns", "name": "hook", "path": "/a", "port": 443});
    ClientConfig::read(&json!({"service": service, "caBundle": bundle})).unwrap()
}

async fn posted(client: &Client, snapshot: &Snapshot) -> Result<Value, CallError> {
    client.post(snapshot, Bytes::from_static(b"{\"a\":1}"), LONG, true).await
}

#[tokio::test]
async fn a_service_is_reached_at_a_ready_endpoint_under_its_own_name() {
    let server = TestServer::start(&["hook.ns.svc"], echo()).await;
    let dial = redirected(server.port);
    let client = Client::new(by_service(&server.bundle), dial.clone()).unwrap();
    let ports = json!([{"name": "https", "port": 443}]);
    let spec = json!({"clusterIP": "10.96.0.9", "ports": ports});
    let ready = slice(json!([{"addresses": ["10.244.0.1"], "conditions": {"ready": false}},
        {"addresses": ["10.244.0.2"], "conditions": {"ready": true}}]));
    let found = snapshot(&[service(spec.clone()), ready]);
    for _ in 0..3 {
        assert_eq!(posted(&client, &found).await.unwrap(), json!({"a": 1}));
    }
    assert_eq!(*dial.asked.lock(), ["10.244.0.2:8443".parse().unwrap()], "one connection serves all");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert!(server.requests.lock().iter().all(|(path, _)| path == "/a?timeout=10s"));
    // The kept connection is to an endpoint that is ready no more.
    let moved = snapshot(&[service(spec.clone()), slice(json!([{"addresses": ["10.244.0.3"]}]))]);
    posted(&client, &moved).await.unwrap();
    assert_eq!(dial.asked.lock().last(), Some(&"10.244.0.3:8443".parse().unwrap()));

    for (objects, why) in [
        (vec![], "service \"hook\" not found"),
        (vec![service(spec.clone())], "no endpoints available for service \"hook\""),
        (vec![service(json!({"ports": [{"port": 80}]}))], "no service port 443 found for service \"hook\""),
    ] {
        let error = posted(&client, &snapshot(&objects)).await.unwrap_err().to_string();
        assert_eq!(error, format!("Post \"https://hook.ns.svc:443/a?timeout=10s\": {why}"));
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_or_by_another_authority_is_refused() {
    let (server, other) =
        (TestServer::start(&["other.ns.svc"], echo()).await, TestServer::start(&["hook.ns.svc"], echo()).await);
    let found = snapshot(&[
        service(json!({"ports": [{"name": "https", "port": 443}]})),
        slice(json!([{"addresses": ["10.244.0.2"]}])),
    ]);
    let error = async |port: u16, bundle: &str| {
        let client = Client::new(by_service(bundle), redirected(port)).unwrap();
        posted(&client, &found).await.unwrap_err().to_string()
    };
    let wrong_name = error(server.port, &server.bundle).await;
    assert!(
        wrong_name.contains("tls: failed to verify certificate: x509: certificate not valid for name"),
        "{wrong_name}"
    );
    let unknown = error(other.port, &server.bundle).await;
    assert!(unknown.ends_with("x509: certificate signed by unknown authority"), "{unknown}");
}

#[tokio::test]
async fn a_certificate_without_names_of_its_own_is_noted() {
    let notes = async |names: Vec<String>| {
        let server = TestServer::start_as(CertificateParams::new(names).unwrap(), echo()).await;
        let client = Client::new(ClientConfig::read(&server.client_config("/a")).unwrap(), Arc::new(Network)).unwrap();
        let url = format!("https://localhost:{}/a", server.port);
        let error = client.http.request(Request::post(&url).body(Full::default()).unwrap()).await.unwrap_err();
        current::gather(async { note_certificate(&error, "[::1]:8443") }).await.1
    };
    let reason = "relies on a legacy Common Name field instead of the SAN extension for subject validation";
    assert_eq!(notes(Vec::new()).await, [("missing-san.invalid-cert.kubernetes.io/::1".to_owned(), reason.to_owned())]);
    assert!(notes(vec!["other".to_owned()]).await.is_empty());
}

#[tokio::test]
async fn an_authority_that_is_its_own_server_is_taken_as_by_go() {
    let answer = async |name: &str, change: fn(&mut CertificateParams)| {
        let mut certificate = CertificateParams::new([name.to_owned()]).unwrap();
        certificate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut certificate);
        let server = TestServer::start_as(certificate, echo()).await;
        let client = Client::new(ClientConfig::read(&server.client_config("/a")).unwrap(), Arc::new(Network)).unwrap();
        posted(&client, &Snapshot::default()).await.map_err(|error| error.to_string())
    };
    assert_eq!(answer("localhost", |_| {}).await, Ok(json!({"a": 1})));
    let other = answer("other", |_| {}).await.unwrap_err();
    assert!(other.contains("certificate not valid for name"), "{other}");
    let expired = answer("localhost", |certificate| certificate.not_after = date_time_ymd(2020, 1, 1)).await;
    assert!(expired.unwrap_err().contains("x509: "), "an expired one is not");
    let early = answer("localhost", |certificate| certificate.not_before = date_time_ymd(3000, 1, 1)).await;
    assert!(early.unwrap_err().contains("x509: "), "one that is not valid yet is not");
}

#[tokio::test]
async fn a_service_does_not_lead_to_this_machine() {
    let server = TestServer::start(&["hook.ns.svc"], echo()).await;
    let dial = redirected(server.port);
    let client = Client::new(by_service(&server.bundle), dial.clone()).unwrap();
    let ports = json!([{"name": "https", "port": 443}]);
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254"] {
        let found = snapshot(&[service(json!({"ports": ports})), slice(json!([{"addresses": [address]}]))]);
        let error = posted(&client, &found).await.unwrap_err().to_string();
        assert!(error.contains("a Service may not lead to this machine"), "{error}");
    }
    for name in ["inside.example.com", "mapped.example.com", "127.0.0.1"] {
        let found = snapshot(&[service(json!({"type": "ExternalName", "externalName": name}))]);
        let error = posted(&client, &found).await.unwrap_err().to_string();
        assert!(error.contains("a Service may not lead to this machine"), "{error}");
    }
    assert!(dial.asked.lock().is_empty());
    let outside = snapshot(&[service(json!({"type": "ExternalName", "externalName": "outside.example.com"}))]);
    posted(&client, &outside).await.unwrap();
    assert_eq!(*dial.asked.lock(), ["192.0.2.7:443".parse().unwrap()]);
    let gone = snapshot(&[service(json!({"type": "ExternalName", "externalName": "gone.example.com"}))]);
    let error = posted(&client, &gone).await.unwrap_err().to_string();
    assert!(error.contains("dial tcp: lookup gone.example.com"), "{error}");
}

#[tokio::test]
async fn a_call_that_fails_says_why() {
    let answering: Answering = Arc::new(|path, _| {
        Box::pin(async move {
            match path.split('?').next().unwrap_or_default() {
                "/hang" => std::future::pending().await,
                "/text" => (200, json!("no JSON")),
                "/status" => (403, json!({"kind": "Status", "message": "not you"})),
                "/broken" => (500, json!("oh")),
                _ => (404, Value::Null),
            }
        })
    });
    let server = TestServer::start(&["localhost"], answering).await;
    let error = async |path: &str, within: Duration| {
        let client = Client::new(ClientConfig::read(&server.client_config(path)).unwrap(), Arc::new(Network)).unwrap();
        client.post(&Snapshot::default(), Bytes::from_static(b"{}"), within, true).await.unwrap_err().to_string()
    };
    let url = format!("https://localhost:{}", server.port);
    let hung = error("/hang", Duration::from_millis(20)).await;
    assert_eq!(hung, format!("Post \"{url}/hang?timeout=1s\": context deadline exceeded"));
    assert!(error("/text", LONG).await.starts_with("the answer is not JSON"));
    assert_eq!(error("/status", LONG).await, "not you");
    assert_eq!(
        error("/broken", LONG).await,
        "an error on the server (\"oh\") has prevented the request from succeeding"
    );
    assert_eq!(error("/none", LONG).await, "the server could not find the requested resource");
    let config = json!({"url": "https://127.0.0.1:1/x", "caBundle": server.bundle});
    let client = Client::new(ClientConfig::read(&config).unwrap(), Arc::new(Network)).unwrap();
    let refused = posted(&client, &Snapshot::default()).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "Post \"https://127.0.0.1:1/x?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
}

#[test]
fn a_configuration_that_cannot_be_called_says_why() {
    let error = |config: Value| {
        let made = ClientConfig::read(&config).and_then(|config| Client::new(config, Arc::new(Network)));
        made.unwrap_err()
    };
    let nothing = json!({"url": "https://localhost:1/x", "caBundle": BASE64_STANDARD.encode("nothing")});
    let nothing = error(nothing);
    assert!(matches!(nothing, ConfigError::CaBundle(TrustError::Empty)));
    assert_eq!(nothing.to_string(), "unable to load root certificates: unable to parse bytes as PEM block");
    let text = error(json!({"url": "https://localhost:1/x", "caBundle": "?"}));
    assert!(matches!(text, ConfigError::CaBundle(TrustError::Encoding(_))), "{text}");
    assert!(text.to_string().starts_with("unable to load root certificates: "), "{text}");
    assert!(matches!(error(json!({"url": "/nope"})), ConfigError::Url { .. }));
}
