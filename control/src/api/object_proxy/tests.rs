//! The proxy before real servers, which stand for those in pods.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    response::{Html, IntoResponse, Response},
    routing::any,
};
use futures::future::BoxFuture;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    api::node_proxy::{agent_tests::Lab, stream_tests::ask},
    auth::Identity,
    webhook::{Dial, Stream},
};

const POD: &str = "/api/v1/namespaces/a/pods/p:8080/proxy";

/// Leads from the pod's address to the server of this test, and nowhere else.
#[derive(Debug)]
struct ToServer(SocketAddr);

impl Dial for ToServer {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            match address.to_string().as_str() {
                "10.244.1.7:8080" => Ok(TcpStream::connect(self.0).await?.into()),
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// Says what it was asked; has a page, a redirect, and a path that switches to an echo.
fn server() -> Router {
    let told = |request: axum::extract::Request| async move {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
        let names = ["authorization", "cookie", "x-forwarded-uri", "accept-encoding"].map(header).join(" ");
        let first = format!("{} {} {names}\n", request.method(), request.uri());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        [first.as_bytes(), &body].concat()
    };
    let echo = |request: axum::extract::Request| async move {
        let answer = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "echo")];
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(hyper::upgrade::on(request).await.unwrap()));
            tokio::io::copy(&mut from, &mut to).await.ok();
            to.shutdown().await.ok();
        });
        (StatusCode::SWITCHING_PROTOCOLS, answer).into_response()
    };
    let moved = || async { (StatusCode::FOUND, [(header::LOCATION, "/login?next=/")]).into_response() };
    let cors = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    Router::new()
        .route("/", any(move || async move { (cors, Html("<a href='/x'>x</a>")) }))
        .route("/moved", any(moved))
        .route("/echo", any(echo))
        .fallback(told)
}

/// A cluster with the pod `p` and the Service `s` before it, whose port `web` leads to it.
async fn lab() -> Lab {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = TowerToHyperService::new(server());
            let builder = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { drop(builder.serve_connection_with_upgrades(TokioIo::new(tcp), service).await) });
        }
    });
    let lab = Lab::leading_to_pods_by(Some(Arc::new(ToServer(address))));
    let named = |kind: &str, name: &str, more: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    lab.create("/api/v1/namespaces", named("Namespace", "a", json!({}))).await;
    lab.create("/api/v1/namespaces/a/serviceaccounts", named("ServiceAccount", "default", json!({}))).await;
    let containers = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    lab.create("/api/v1/namespaces/a/pods", named("Pod", "p", containers)).await;
    let ips = json!({"status": {"podIP": "10.244.1.7", "podIPs": [{"ip": "10.244.1.7"}]}});
    lab.patch("/api/v1/namespaces/a/pods/p/status", ips).await;
    let ports = json!({"spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]}});
    lab.create("/api/v1/namespaces/a/services", named("Service", "s", ports)).await;
    let target = json!({"kind": "Pod", "namespace": "a", "name": "p"});
    let endpoints = json!({"subsets": [{"addresses": [{"ip": "10.244.1.7", "targetRef": target}],
        "ports": [{"name": "web", "port": 8080}]}]});
    lab.create("/api/v1/namespaces/a/endpoints", named("Endpoints", "s", endpoints)).await;
    lab
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "api:6443")
}

async fn answer(lab: &Lab, request: Request<Body>) -> Response<Incoming> {
    let admin = Identity { groups: vec!["system:masters".into()], ..Identity::control("admin") };
    tokio::time::timeout(Duration::from_secs(20), ask(lab, admin, request)).await.expect("it is answered")
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_of_every_method_go_to_the_pod_as_they_are() {
    let lab = lab().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let asked = request(method, &format!("{POD}/a%2Fb/?c=d;e"))
            .header("authorization", "Bearer secret")
            .header("cookie", "a=b")
            .header("accept-encoding", "gzip");
        let got = text(answer(&lab, asked.body("a body".into()).unwrap()).await).await;
        assert_eq!(got, format!("{method} /a%2Fb/?c=d;e - a=b {POD}/a%2Fb/ -\na body"));
    }
    let by_service = request("GET", "/api/v1/namespaces/a/services/s:web/proxy/x").body(Body::empty()).unwrap();
    let path = "/api/v1/namespaces/a/services/s:web/proxy/x";
    assert_eq!(text(answer(&lab, by_service).await).await, format!("GET /x - - {path} -\n"));
}

#[tokio::test]
async fn the_query_is_the_servers_own() {
    let lab = lab().await;
    for (method, query) in [
        ("GET", "limit=all"),
        ("GET", "labelSelector=(("),
        ("POST", "dryRun=true"),
        ("PATCH", "force=1"),
        ("GET", "watch=1"),
    ] {
        let asked = request(method, &format!("{POD}/x?{query}")).body(Body::empty()).unwrap();
        let got = text(answer(&lab, asked).await).await;
        assert_eq!(got.split(" -").next(), Some(&*format!("{method} /x?{query}")), "{got}");
    }
}

#[tokio::test]
async fn a_node_cannot_pass_off_the_pod_of_another_as_its_own() {
    let lab = lab().await;
    let get = || request("GET", &format!("{POD}/x")).body(Body::empty()).unwrap();
    assert_eq!(answer(&lab, get()).await.status(), StatusCode::OK);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}});
    lab.create("/api/v1/nodes", node).await;
    let refused = answer(&lab, get()).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(text(refused).await.contains("address not allowed"));
}

#[tokio::test]
async fn pages_and_redirects_lead_through_the_proxy() {
    let lab = lab().await;
    let get = |path: &str| request("GET", path).body(Body::empty()).unwrap();
    let page = answer(&lab, get(&format!("{POD}/"))).await;
    assert!(!page.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    assert_eq!(text(page).await, format!("<a href=\"{POD}/x\">x</a>"));
    let moved = answer(&lab, get(&format!("{POD}/moved"))).await;
    assert_eq!(moved.status(), StatusCode::FOUND);
    assert_eq!(moved.headers()[header::LOCATION], format!("{POD}/login?next=/"));
    let slash = answer(&lab, get(&format!("{POD}?a=b"))).await;
    assert_eq!(slash.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(slash.headers()[header::LOCATION], format!("{POD}/?a=b"));
    // The length is the page's own: nothing is read of a HEAD.
    let head = answer(&lab, request("HEAD", &format!("{POD}/")).body(Body::empty()).unwrap()).await;
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "18");
}

#[tokio::test]
async fn a_connection_switches_protocols_through_the_proxy() {
    let lab = lab().await;
    let asked = request("GET", &format!("{POD}/echo")).header("connection", "Upgrade").header("upgrade", "echo");
    let mut switched = answer(&lab, asked.body(Body::empty()).unwrap()).await;
    assert_eq!(switched.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(switched.headers()[header::UPGRADE], "echo");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut switched).await.unwrap());
    stream.write_all(b"there and back").await.unwrap();
    let mut got = [0; 14];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"there and back");
    // Who does not switch, says so.
    let asked = request("GET", &format!("{POD}/x")).header("connection", "Upgrade").header("upgrade", "echo");
    let refused = answer(&lab, asked.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text(refused).await.contains("invalid upgrade response: status code 200"));
}

#[tokio::test]
async fn what_does_not_answer_is_said() {
    let lab = lab().await;
    for (path, code, message) in [
        ("pods/p:81/proxy/", 503, "error trying to reach service: dial tcp 10.244.1.7:81: connection refused"),
        ("pods/q/proxy/", 404, "pods \\\"q\\\" not found"),
        ("services/s/proxy/", 503, "no endpoints available for service \\\"s\\\""),
        ("services/s:99/proxy/", 503, "no service port 99 found for service \\\"s\\\""),
    ] {
        let asked = request("GET", &format!("/api/v1/namespaces/a/{path}")).body(Body::empty()).unwrap();
        let answered = answer(&lab, asked).await;
        assert_eq!(answered.status().as_u16(), code, "{path}");
        let text = text(answered).await;
        assert!(text.contains(message), "{path}: {text}");
    }
    let trace = answer(&lab, request("TRACE", &format!("{POD}/")).body(Body::empty()).unwrap()).await;
    assert_eq!(trace.status(), StatusCode::METHOD_NOT_ALLOWED);
}
