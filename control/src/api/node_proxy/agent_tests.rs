//! The proxy against an agent of its own making, over real TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    response::{IntoResponse, Response},
    routing::any,
};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{Agents, NodeProxy, PodNetwork, stream_tests};
use crate::{
    allocation::Allocator,
    api::{Api, open_store},
    auth::{
        Identity,
        pki::{Authority, CertificateSubject, Usage},
    },
    kinds::Registry,
    webhook::Dial,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A control service's proxy, and what is needed to put agents behind it.
pub(in crate::api) struct Lab {
    pub(super) authority: Authority,
    client: kube::Client,
    network: PodNetwork,
    pub(in crate::api) api: Api,
    _dir: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        Self::leading_to_pods_by(None)
    }

    /// One whose proxy of pods leads there by a network of the test's own.
    pub(in crate::api) fn leading_to_pods_by(network: Option<Arc<dyn Dial>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let (authority, _) = Authority::create(now).unwrap();
        let subject =
            CertificateSubject { common_name: "system:kube-apiserver".into(), ..CertificateSubject::default() };
        let own = authority.issue(&subject, Usage::Client, HOUR, now).unwrap();
        let kinds = Registry::default();
        let store = Arc::new(open_store(&dir.path().join("store"), &kinds).unwrap());
        let allocator = Allocator::new("10.96.0.0/12".parse().unwrap(), 30000..=32767);
        let api = Api::new(store.clone(), kinds, allocator, "127.0.0.1:6443");
        let agents = Agents::new(&authority, &own, Arc::new(ring::default_provider())).unwrap();
        let to_pods = network.unwrap_or_else(|| Arc::new(PodNetwork::new(store.clone(), agents.clone())));
        api.reach_nodes_through(NodeProxy::new(store, agents.clone(), to_pods));
        let network = PodNetwork::new(api.store_handle(), agents);
        Self { authority, client: api.client(Identity::control("test")), network, api, _dir: dir }
    }

    /// The agent of a node: a TLS server that shows a certificate of `authority` for 127.0.0.1 and insists on one of
    /// the cluster's.
    pub(super) async fn agent(&self, authority: &Authority, node: &str) -> SocketAddr {
        self.server(authority, &format!("system:node:{node}"), "system:nodes").await
    }

    async fn server(&self, authority: &Authority, name: &str, group: &str) -> SocketAddr {
        let now = OffsetDateTime::now_utc();
        let subject = CertificateSubject {
            common_name: name.to_owned(),
            organization: Some(group.to_owned()),
            addresses: vec![[127, 0, 0, 1].into()],
            ..CertificateSubject::default()
        };
        let issued = authority.issue(&subject, Usage::Server, HOUR, now).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = TowerToHyperService::new(agent_router());
                    // The caller going away is how most of these end.
                    drop(
                        auto::Builder::new(TokioExecutor::new())
                            .serve_connection_with_upgrades(TokioIo::new(tls), service)
                            .await,
                    );
                });
            }
        });
        address
    }

    pub(in crate::api) async fn create(&self, path: &str, object: Value) {
        let request = http::Request::post(path).header("content-type", "application/json");
        self.client.request::<Value>(request.body(object.to_string().into_bytes()).unwrap()).await.unwrap();
    }

    pub(super) async fn node_at(&self, name: &str, address: SocketAddr) {
        self.create("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})).await;
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address.ip().to_string()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
        self.patch(&format!("/api/v1/nodes/{name}/status"), status).await;
    }

    pub(in crate::api) async fn patch(&self, path: &str, patch: Value) {
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        self.client.request::<Value>(request.body(patch.to_string().into_bytes()).unwrap()).await.unwrap();
    }

    pub(super) async fn delete(&self, path: &str) {
        self.client.request::<Value>(http::Request::delete(path).body(Vec::new()).unwrap()).await.unwrap();
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = self.api.answer_as(Identity::control("test"), request).await;
        let code = response.status().as_u16();
        (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }
}

/// Takes connections to the pod `10.244.1.7:80`, which says what it hears; to no other.
async fn connect_to_pod(Path(address): Path<String>, request: Request) -> Response {
    let is_upgrade = request.headers().get("upgrade").is_some_and(|to| to == "tcp");
    if address != "10.244.1.7:80" || !is_upgrade {
        return (http::StatusCode::BAD_GATEWAY, "connect: connection refused\n").into_response();
    }
    tokio::spawn(async move {
        let mut upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut text = [0; 5];
        upgraded.read_exact(&mut text).await.unwrap();
        upgraded.write_all(&text).await.unwrap();
    });
    (http::StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "tcp")], "").into_response()
}

/// Says what it was asked; streams without end under `/endless`, and refuses under `/containerLogs/…/gone`.
fn agent_router() -> Router {
    let echo = |request: Request| async move {
        let has_token = request.headers().contains_key("authorization");
        format!("{} {} token={has_token}", request.method(), request.uri())
    };
    let endless = || async {
        let line = futures::stream::iter([Ok::<_, std::io::Error>("line\n")]);
        Body::from_stream(line.chain(futures::stream::pending()))
    };
    let elsewhere = || async { axum::response::Redirect::temporary("https://api:6443/api/v1/secrets") };
    Router::new()
        .route("/endless", any(endless))
        .route("/podConnections/{address}", any(connect_to_pod))
        .route("/elsewhere", any(elsewhere))
        .route("/switched", any(|| async { (http::StatusCode::SWITCHING_PROTOCOLS, [("upgrade", "tcp")]) }))
        .route("/exec/default/web/{container}", any(stream_tests::exec))
        .route("/containerLogs/default/web/gone", any(|| async { (http::StatusCode::NOT_FOUND, "no such log\n") }))
        .fallback(echo)
}

fn pod(containers: &[&str], node: &str) -> Value {
    let containers: Vec<Value> = containers.iter().map(|c| json!({"name": c, "image": "i"})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"nodeName": node, "containers": containers}})
}

fn running(containers: &[&str]) -> Value {
    let status = |name: &&str| {
        json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}}})
    };
    json!({"status": {"containerStatuses": containers.iter().map(status).collect::<Vec<_>>()}})
}

#[tokio::test]
async fn a_log_comes_from_the_agent_of_the_pods_node() {
    let lab = Lab::new();
    let address = lab.agent(&lab.authority, "n1").await;
    lab.node_at("n1", address).await;
    lab.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}))
        .await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    lab.create("/api/v1/namespaces/default/serviceaccounts", account).await;
    lab.create("/api/v1/namespaces/default/pods", pod(&["a", "gone"], "n1")).await;
    let log = "/api/v1/namespaces/default/pods/web/log";

    let (code, text) = lab.get(log).await;
    assert!(code == 400 && text.contains("choose one of: [a gone]"), "{code} {text}");
    let (code, text) = lab.get(&format!("{log}?container=a")).await;
    assert!(code == 400 && text.contains("is waiting to start: ContainerCreating"), "{code} {text}");

    lab.patch("/api/v1/namespaces/default/pods/web/status", running(&["a", "gone"])).await;
    let (code, text) = lab.get(&format!("{log}?container=a&follow=true&tailLines=3")).await;
    assert_eq!((code, text.as_str()), (200, "GET /containerLogs/default/web/a?follow=true&tailLines=3 token=false"));
    let (code, text) = lab.get(&format!("{log}?container=gone")).await;
    assert!(code == 404 && text.contains(r#""message":"no such log""#), "{code} {text}");
    let (code, _) = lab.get("/api/v1/namespaces/default/pods/other/log").await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_nodes_proxy_passes_on_path_and_query_and_never_the_callers_credential() {
    let lab = Lab::new();
    lab.node_at("n1", lab.agent(&lab.authority, "n1").await).await;
    let mut request = http::Request::post("/api/v1/nodes/n1/proxy/inspect/a%2Fb?x=1").body(Body::from("text")).unwrap();
    request.headers_mut().insert("authorization", "Bearer secret".parse().unwrap());
    let response = lab.api.answer_as(Identity::control("test"), request).await;
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "POST /inspect/a%2Fb?x=1 token=false");
    assert_eq!(lab.get("/api/v1/nodes/n1/proxy").await.1, "GET / token=false");
}

#[tokio::test]
async fn what_an_agent_streams_arrives_while_it_still_streams() {
    let lab = Lab::new();
    lab.node_at("n1", lab.agent(&lab.authority, "n1").await).await;
    let request = http::Request::get("/api/v1/nodes/n1/proxy/endless").body(Body::empty()).unwrap();
    let response = lab.api.answer_as(Identity::control("test"), request).await;
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "line\n");
}

#[tokio::test]
async fn an_agent_sends_no_client_elsewhere_and_takes_no_connection_over() {
    let lab = Lab::new();
    lab.node_at("n1", lab.agent(&lab.authority, "n1").await).await;
    for (path, why) in [("elsewhere", "attempted to redirect this request"), ("switched", "switched protocols")] {
        let request = http::Request::get(format!("/api/v1/nodes/n1/proxy/{path}")).body(Body::empty()).unwrap();
        let response = lab.api.answer_as(Identity::control("test"), request).await;
        assert_eq!((response.status().as_u16(), response.headers().get("location")), (502, None));
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains(why), "{path}: {text:?}");
    }
}

#[tokio::test]
async fn an_agent_that_is_away_or_false_is_said_to_be() {
    let lab = Lab::new();
    let (other, _) = Authority::create(OffsetDateTime::now_utc()).unwrap();
    lab.node_at("false", lab.agent(&other, "false").await).await;
    let (code, text) = lab.get("/api/v1/nodes/false/proxy/").await;
    assert!(code == 502 && text.contains("is not the agent of node"), "{code} {text}");

    // A node that says its agent were at the address of the API server, or of another node's agent.
    let servers =
        [("system:kube-apiserver", "system:masters"), ("system:node:n2", "system:nodes"), ("system:node:n1", "others")];
    for (number, (name, group)) in servers.into_iter().enumerate() {
        let node = if number == 2 { "n1".to_owned() } else { format!("elsewhere{number}") };
        lab.node_at(&node, lab.server(&lab.authority, name, group).await).await;
        let (code, text) = lab.get(&format!("/api/v1/nodes/{node}/proxy/api/v1/secrets")).await;
        assert!(code == 502 && text.contains("its certificate is not that of the node"), "{name}: {code} {text}");
    }

    // Bound and closed again: nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    lab.node_at("away", nobody).await;
    let (code, text) = lab.get("/api/v1/nodes/away/proxy/").await;
    assert!(code == 503 && text.contains("ServiceUnavailable") && text.contains("away"), "{code} {text}");

    lab.create("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "new"}})).await;
    let (code, text) = lab.get("/api/v1/nodes/new/proxy/").await;
    assert!(code == 503 && text.contains("has not registered yet"), "{code} {text}");
    assert_eq!(lab.get("/api/v1/nodes/none/proxy/").await.0, 404);
}

#[tokio::test]
async fn pods_are_reached_through_the_agents_of_their_nodes() {
    let lab = Lab::new();
    let address = lab.agent(&lab.authority, "n1").await;
    lab.node_at("n1", address).await;
    lab.patch("/api/v1/nodes/n1", json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}})).await;

    let stream = lab.network.connect("10.244.1.7:80".parse().unwrap()).await.unwrap();
    let mut stream = TokioIo::new(stream);
    stream.write_all(b"hello").await.unwrap();
    let mut text = [0; 5];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");

    let refused = lab.network.connect("10.244.1.8:80".parse().unwrap()).await.err().unwrap();
    assert_eq!(refused.to_string(), "connect: connection refused");
    // No pod's address: by the host's own network.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.network.connect(elsewhere.local_addr().unwrap()).await.unwrap();
    elsewhere.accept().await.unwrap();
}
