//! Streams to pods, from a client of the API over HTTP to an agent and back.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tokio_util::sync::CancellationToken;

use super::agent_tests::Lab;
use crate::{
    auth::{
        Identity,
        client_certificate::CertificateIdentity,
        gate::{ConnectionCertificate, Gate},
    },
    request::ConnectionPermit,
    upgrade::UpgradedAnswer,
};

/// The agent's answer: switches to a protocol that says what was asked, and then sends back what it gets; `deaf` reads
/// nothing, and sends heartbeats.
pub async fn exec(Path(container): Path<String>, request: Request) -> Response {
    if container == "stopped" {
        return (StatusCode::INTERNAL_SERVER_ERROR, "container not found (\"stopped\")").into_response();
    }
    let protocol = request.headers()[header::UPGRADE].clone();
    let asked = format!("{} {} {:?}\n", request.method(), request.uri(), request.headers().get("authorization"));
    tokio::spawn(async move {
        let mut upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        upgraded.write_all(asked.as_bytes()).await.unwrap();
        if container == "deaf" {
            while upgraded.write_all(b".").await.is_ok() && upgraded.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return;
        }
        let (mut from, mut to) = tokio::io::split(upgraded);
        tokio::io::copy(&mut from, &mut to).await.ok();
        to.shutdown().await.ok();
    });
    let headers = [(header::CONNECTION, "Upgrade".parse().unwrap()), (header::UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// A node with an agent, and a pod on it with the containers `c`, `stopped` and `deaf`.
async fn lab() -> Lab {
    let lab = Lab::new();
    let address = lab.agent(&lab.authority, "n1").await;
    lab.node_at("n1", address).await;
    lab.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}))
        .await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    lab.create("/api/v1/namespaces/default/serviceaccounts", account).await;
    let containers = ["c", "stopped", "deaf"].map(|name| json!({"name": name, "image": "i"}));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "n1", "containers": containers}});
    lab.create("/api/v1/namespaces/default/pods", pod).await;
    lab
}

/// Sends a request of `identity` over a connection, which may switch protocols, through all that is before the API.
pub(in crate::api) async fn ask(lab: &Lab, identity: Identity, request: http::Request<Body>) -> Response<Incoming> {
    Front::default().ask(lab, identity, request).await
}

/// What is before the API: a listener for one connection, and the gate.
struct Front {
    permits: Arc<Semaphore>,
    ask_again_every: Duration,
    /// What cuts the connection that switched protocols last.
    upgraded: Arc<Mutex<Option<UpgradedAnswer>>>,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(1)),
            ask_again_every: Duration::from_secs(60),
            upgraded: Arc::default(),
        }
    }
}

impl Front {
    async fn ask(&self, lab: &Lab, identity: Identity, request: http::Request<Body>) -> Response<Incoming> {
        let (server, client) = tokio::io::duplex(4096);
        let api = &lab.api;
        let (metrics, closing) = (api.metrics().requests().clone(), CancellationToken::new());
        let gate = Gate::new(Arc::new(api.clone()), api.authorizer().clone(), metrics, closing)
            .asking_again_every(self.ask_again_every);
        let held = CertificateIdentity { identity, not_after: i64::MAX };
        let shown: Arc<ConnectionCertificate> = Arc::new(Some(Ok(held)));
        let permit = ConnectionPermit(Arc::new(self.permits.clone().acquire_owned().await.unwrap()));
        let upgraded = self.upgraded.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(permit.clone());
            let answer = gate.clone().answer(request.map(Body::new), shown.clone());
            let upgraded = upgraded.clone();
            async move {
                let answer = answer.await;
                *upgraded.lock() = answer.extensions().get().cloned();
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        tokio::spawn(serving.with_upgrades());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    /// Waits until nothing of the connection is left.
    async fn wait_for_the_end(&self) {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.permits.acquire()).await;
        drop(ended.expect("it ends").unwrap());
    }
}

fn upgrade(method: &str, path_and_query: &str) -> http::Request<Body> {
    let path = format!("/api/v1/namespaces/default/pods/web/{path_and_query}");
    let request = http::Request::builder().method(method).uri(path).header(header::HOST, "api");
    let request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "SPDY/3.1");
    request.header(header::AUTHORIZATION, "Bearer secret").body(Body::empty()).unwrap()
}

async fn refusal(response: Response<Incoming>) -> (u16, String) {
    let code = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn bytes_go_to_the_agent_and_back_in_the_protocol_that_the_client_asked_for() {
    let lab = lab().await;
    for method in ["GET", "POST"] {
        let request = upgrade(method, "exec?container=c&command=cat&stdin=true&stdout=true");
        let response = ask(&lab, Identity::control("test"), request).await;
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[header::UPGRADE], "SPDY/3.1");
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let wanted = format!("{method} /exec/default/web/c?input=1&output=1&command=cat None\n");
        let mut asked = vec![0; wanted.len()];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(String::from_utf8(asked).unwrap(), wanted);
        stream.write_all(b"hello").await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }
}

#[tokio::test]
async fn a_stream_keeps_its_connections_permit_until_it_has_ended() {
    let (lab, front) = (lab().await, Front::default());
    let request = upgrade("GET", "exec?container=c&command=cat&stdin=true&stdout=true");
    let response = front.ask(&lab, Identity::control("test"), request).await;
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.read_u8().await.unwrap();
    assert_eq!(front.permits.available_permits(), 0);
    drop(stream);
    front.wait_for_the_end().await;
}

#[tokio::test]
async fn a_client_that_goes_away_while_the_agent_reads_nothing_is_noticed() {
    let (lab, front) = (lab().await, Front::default());
    let request = upgrade("GET", "exec?container=deaf&command=cat&stdin=true&stdout=true");
    let response = front.ask(&lab, Identity::control("test"), request).await;
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let held_up = Duration::from_millis(300);
    while tokio::time::timeout(held_up, stream.write_all(&[0; 4096])).await.is_ok() {}
    drop(stream);
    front.wait_for_the_end().await;
}

#[tokio::test]
async fn a_log_goes_over_a_websocket_where_the_client_asks_for_one() {
    let lab = lab().await;
    let user = Identity::control("test");
    run_container(&lab).await;
    for (protocol, wanted) in [
        ("binary.k8s.io", Message::binary(b"GET /containerLogs/default/web/c? token=false".to_vec())),
        ("base64.binary.k8s.io", Message::text("R0VUIC9jb250YWluZXJMb2dzL2RlZmF1bHQvd2ViL2M/IHRva2VuPWZhbHNl")),
    ] {
        let front = Front::default();
        let response = front.ask(&lab, user.clone(), log_over_websocket("13", protocol)).await;
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], protocol);
        let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let messages: Vec<Message> =
            socket.filter_map(|message| async { message.ok().filter(|message| !message.is_empty()) }).collect().await;
        assert_eq!(messages, [wanted]);
        front.wait_for_the_end().await;
        let UpgradedAnswer(cut) = front.upgraded.lock().take().unwrap();
        let unwatched = tokio::time::timeout(Duration::from_secs(30), cut.cancelled()).await;
        unwatched.expect("nobody watches over a log that has ended");
    }
}

#[tokio::test]
async fn a_log_over_a_websocket_is_refused_before_the_agent_is_asked_and_counts_as_a_stream() {
    let (lab, user) = (lab().await, Identity::control("test"));
    run_container(&lab).await;
    // Nobody is there to ask.
    lab.patch("/api/v1/nodes/n1/status", json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}))
        .await;
    let refused = async |version: &str, protocol: &str| {
        let response = ask(&lab, user.clone(), log_over_websocket(version, protocol)).await;
        let told = response.headers().get(header::SEC_WEBSOCKET_VERSION).cloned();
        (response.status().as_u16(), told)
    };
    assert_eq!(refused("8", "binary.k8s.io").await, (400, Some("13".parse().unwrap())));
    assert_eq!(refused("13", "v4.channel.k8s.io").await, (403, None));
    assert_eq!(refused("13", "binary.k8s.io").await, (503, None));
    let streams = &lab.api.inner.nodes.get().unwrap().streams;
    let held: Vec<_> = std::iter::from_fn(|| streams.admit(&user.name).ok()).collect();
    assert_eq!(refused("13", "binary.k8s.io").await, (429, None));
    drop(held);
    assert_eq!(refused("13", "binary.k8s.io").await, (503, None));
}

/// Says of the container `c` that it runs.
async fn run_container(lab: &Lab) {
    let status = json!({"status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}}}]}});
    lab.patch("/api/v1/namespaces/default/pods/web/status", status).await;
}

fn log_over_websocket(version: &str, protocol: &str) -> http::Request<Body> {
    let mut request = upgrade("GET", "log?container=c");
    for (name, value) in [
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, version),
        (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        (header::SEC_WEBSOCKET_PROTOCOL, protocol),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn what_the_agent_refuses_comes_as_it_is_and_what_is_no_stream_with_kubernetes_words() {
    let lab = lab().await;
    let ask = async |request| refusal(ask(&lab, Identity::control("test"), request).await).await;
    let refused = ask(upgrade("POST", "exec?container=stopped&stdout=1")).await;
    assert_eq!(refused, (500, "container not found (\"stopped\")".to_owned()));
    let (code, text) = ask(upgrade("POST", "exec?stdout=1")).await;
    assert!(code == 400 && text.contains("choose one of: [c stopped deaf]"), "{code} {text}");
    let mut request = upgrade("GET", "exec?container=c&stdout=1");
    request.headers_mut().remove(header::UPGRADE);
    let (code, text) = ask(request).await;
    assert!(code == 400 && text.contains("Upgrade request required"), "{code} {text}");
    assert_eq!(ask(upgrade("PUT", "exec?container=c")).await.0, 405);
    assert_eq!(ask(upgrade("POST", "exec/more?container=c")).await.0, 404);
}

#[tokio::test]
async fn who_may_only_get_may_not_run_commands_by_a_websocket() {
    let lab = lab().await;
    let joe = || Identity::authenticated("joe".into(), Vec::new());
    for (name, verb) in [("nothing", "delete"), ("looks", "get"), ("runs", "create")] {
        let_joe(&lab, name, verb).await;
        let response = ask(&lab, joe(), upgrade("GET", "exec?container=c&stdout=1")).await;
        match name {
            "nothing" => {
                let (code, text) = refusal(response).await;
                assert!(code == 403 && text.contains("cannot get resource"), "{code} {text}");
            }
            "looks" => {
                let (code, text) = refusal(response).await;
                assert!(code == 403 && text.contains(r#"pods \"web\" is forbidden: ""#), "{code} {text}");
            }
            _ => assert_eq!(response.status(), 101),
        }
    }
}

#[tokio::test]
async fn a_stream_is_cut_when_its_user_may_still_get_it_but_no_more_create_it() {
    let lab = lab().await;
    let_joe(&lab, "looks", "get").await;
    let_joe(&lab, "runs", "create").await;
    let front = Front { ask_again_every: Duration::from_millis(1), ..Front::default() };
    let joe = Identity::authenticated("joe".into(), Vec::new());
    let response = front.ask(&lab, joe, upgrade("GET", "exec?container=c&stdin=1&stdout=1")).await;
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let early = tokio::time::timeout(Duration::from_millis(50), front.permits.acquire()).await;
    assert!(early.is_err(), "one that is still allowed goes on");
    lab.delete(&format!("{RBAC}/rolebindings/runs")).await;
    front.wait_for_the_end().await;
    drop(tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut Vec::new())).await.expect("it is cut"));
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

/// Binds the user joe to a role of this name, which has one verb of `pods/exec`.
async fn let_joe(lab: &Lab, name: &str, verb: &str) {
    let rules = json!([{"verbs": [verb], "apiGroups": [""], "resources": ["pods/exec"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
        "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name}, "subjects": [{"kind": "User", "name": "joe"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}});
    lab.create(&format!("{RBAC}/roles"), role).await;
    lab.create(&format!("{RBAC}/rolebindings"), binding).await;
}
