//! An extension API server with real TLS, which wants to see the certificate of the front proxy.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use crate::auth::pki::Authority;

pub const GROUP: &str = "wardle.example.com";
pub const ROOT: &str = "/apis/wardle.example.com/v1alpha1";

/// A request as the server got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub method: Method,
    pub uri: String,
    pub headers: HeaderMap,
    pub body: String,
    /// Common name of the client's certificate.
    pub client: Option<String>,
}

/// How the server answers; changed while it runs.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Of every answer, if it is to be no good one.
    pub failing: Option<u16>,
    /// It speaks only version by version, and Swagger 2.0.
    pub plain: bool,
    /// Names of the objects that it has.
    pub flunders: Vec<String>,
}

/// The server.
pub struct ExtensionServer {
    pub port: u16,
    /// Its certificate, as a `caBundle`.
    pub bundle: String,
    pub got: Arc<Mutex<Vec<Got>>>,
    pub manner: Arc<Mutex<Manner>>,
    /// How many watches are under way.
    pub watches: watch::Sender<usize>,
    /// How many connections there were.
    pub connections: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Shared {
    got: Arc<Mutex<Vec<Got>>>,
    manner: Arc<Mutex<Manner>>,
    watches: watch::Sender<usize>,
    client: Option<String>,
}

impl ExtensionServer {
    /// With a certificate for `name`; takes client certificates that `front_proxy` signed, and no others.
    pub async fn start(name: &str, front_proxy: &Authority) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(front_proxy.certificate().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            bundle: BASE64_STANDARD.encode(certificate.pem()),
            got: Arc::default(),
            manner: Arc::default(),
            watches: watch::Sender::new(0),
            connections: Arc::default(),
        };
        let connections = server.connections.clone();
        let (got, manner, watches) = (server.got.clone(), server.manner.clone(), server.watches.clone());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let shared =
                    Shared { got: got.clone(), manner: manner.clone(), watches: watches.clone(), client: None };
                tokio::spawn(serve(acceptor.clone(), stream, shared));
            }
        });
        server
    }

    /// The requests of users to paths that begin like this: not those of the aggregation itself.
    pub fn got(&self, path: &str) -> Vec<Got> {
        let of_users = |got: &&Got| !got.headers["x-remote-user"].to_str().unwrap_or("").ends_with("aggregator");
        self.got.lock().iter().filter(of_users).filter(|got| got.uri.starts_with(path)).cloned().collect()
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, mut shared: Shared) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    shared.client = stream.get_ref().1.peer_certificates().map(|chain| common_name(&chain[0]));
    let service = hyper::service::service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(request, shared).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    drop(connection.with_upgrades().await);
}

fn common_name(certificate: &CertificateDer<'_>) -> String {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).unwrap();
    certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

async fn answer(mut request: Request<Incoming>, shared: Shared) -> Response<Body> {
    let (uri, path) = (request.uri().to_string(), request.uri().path().to_owned());
    let mut got = Got {
        method: request.method().clone(),
        uri: uri.clone(),
        headers: request.headers().clone(),
        body: String::new(),
        client: shared.client.clone(),
    };
    if path.ends_with("/connect") {
        shared.got.lock().push(got);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let (mut from, mut to) = tokio::io::split(&mut stream);
            drop(tokio::io::copy(&mut from, &mut to).await);
        });
        return Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "echo")
            .body(Body::empty())
            .unwrap();
    }
    if path.ends_with("/streamed") {
        // The answer begins before the request has ended.
        shared.got.lock().push(got);
        return Response::new(Body::new(request.into_body()));
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    got.body = String::from_utf8_lossy(&body).into_owned();
    let (method, accept) = (got.method.clone(), got.headers.get(header::ACCEPT).cloned());
    shared.got.lock().push(got);
    let manner = shared.manner.lock().clone();
    let json = |value: Value| {
        Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(value.to_string()))
            .unwrap()
    };
    let empty = |code: u16| Response::builder().status(code).body(Body::empty()).unwrap();
    if let Some(code) = manner.failing {
        return empty(code);
    }
    if uri.contains("silent=1") {
        return std::future::pending().await;
    }
    let asks_aggregated = accept.is_some_and(|accept| accept.to_str().unwrap().contains("APIGroupDiscoveryList"));
    let flunders = format!("{ROOT}/flunders");
    let of_namespace = path.starts_with(&format!("{ROOT}/namespaces/")) && path.ends_with("/flunders");
    match (method.as_str(), path.as_str()) {
        ("GET", "/apis") if asks_aggregated && !manner.plain => {
            let mut response = json(aggregated());
            let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            response
        }
        ("GET", "/openapi/v3") if !manner.plain => {
            let url = format!("/openapi/v3{ROOT}?hash=ABC");
            json(json!({"paths": {&ROOT[1..]: {"serverRelativeURL": url}, "api/v1": {"serverRelativeURL": "/evil"}}}))
        }
        ("GET", _) if path == format!("/openapi/v3{ROOT}") && !manner.plain => json(json!({"openapi": "3.0.0"})),
        ("GET", "/openapi/v2") => json(swagger()),
        ("GET", ROOT) => json(plain()),
        ("GET", _) if uri.contains("watch=") => {
            let (watches, first) = (shared.watches.clone(), "{\"type\":\"ADDED\"}\n");
            watches.send_modify(|count| *count += 1);
            let under_way = UnderWay(watches);
            let first = futures::stream::iter([Ok::<_, Infallible>(first)]);
            let rest = futures::stream::pending().map(move |never: Infallible| {
                let _ = &under_way;
                match never {}
            });
            Response::new(Body::from_stream(first.chain(rest)))
        }
        ("GET", _) if path == flunders || of_namespace => {
            let object = |name: &String| json!({"metadata": {"name": name, "uid": name}});
            let items: Vec<Value> = manner.flunders.iter().map(object).collect();
            json(json!({"kind": "FlunderList", "apiVersion": "wardle.example.com/v1alpha1",
                "metadata": {"resourceVersion": "1"}, "items": items}))
        }
        ("DELETE", _) if of_namespace => {
            shared.manner.lock().flunders.clear();
            json(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
        }
        ("GET", _) if path.ends_with("/elsewhere") => Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, "https://evil.example.com/")
            .body(Body::empty())
            .unwrap(),
        ("POST", _) => {
            let mut response = json(json!({"kind": "Flunder"}));
            *response.status_mut() = StatusCode::CREATED;
            response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
            response
        }
        _ => empty(404),
    }
}

/// Counts a watch until it ends.
struct UnderWay(watch::Sender<usize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn aggregated() -> Value {
    let verbs = json!(["create", "delete", "deletecollection", "get", "list", "watch"]);
    let kind = json!({"group": GROUP, "version": "v1alpha1", "kind": "Flunder"});
    let resources = json!([{"resource": "flunders", "responseKind": kind, "scope": "Namespaced",
        "singularResource": "flunder", "verbs": verbs}]);
    let versions = json!([{"version": "v1alpha1", "resources": resources, "freshness": "Current"}]);
    let evil = json!({"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": []}]});
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "items": [{"metadata": {"name": GROUP}, "versions": versions}, evil]})
}

fn plain() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
            "verbs": ["get", "list"], "shortNames": ["fl"]},
        {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]})
}

fn swagger() -> Value {
    let get = json!({"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/Flunder"}}}}});
    json!({"swagger": "2.0", "paths": {format!("{ROOT}/flunders"): get, "/api/v1/pods": {"get": {}}},
        "definitions": {"Flunder": {"type": "object"}, "Unused": {}}})
}

/// Where everything leads to that is connected to.
pub fn anywhere() -> SocketAddr {
    "10.244.0.7:8443".parse().unwrap()
}
