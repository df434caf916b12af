//! A client floods a gate over HTTP/2, and what others ask is answered nevertheless.

use std::net::SocketAddr;

use http::StatusCode;
use hyper::{body::Incoming, client::conn::http2::SendRequest, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;

/// Serves a gate to clients that are all the same user.
async fn serve(gate: Gate, identity: &Identity) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, certificate) = (listener.local_addr().expect("an address"), certificate(identity));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (gate, certificate) = (gate.clone(), certificate.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = gate.clone().answer(request.map(Body::new), certificate.clone());
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.max_concurrent_streams(4096).serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn connect(gate: &Gate, identity: &Identity) -> SendRequest<String> {
    let stream = TcpStream::connect(serve(gate.clone(), identity).await).await.expect("a connection");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://localhost{path}"))
}

/// The status of a request that is answered soon.
async fn status(gate: &Gate, identity: &Identity, (method, path): (&str, &str)) -> StatusCode {
    let mut sender = connect(gate, identity).await;
    let sent = sender.send_request(request(method, path).body("{}".to_owned()).expect("a request"));
    let answer = tokio::time::timeout(Duration::from_secs(10), sent).await;
    let answer = answer.unwrap_or_else(|_| panic!("{} {method} {path} is answered soon", identity.name));
    answer.expect("an answer").status()
}

/// Sends so many requests that the handler holds; their statuses.
async fn flood(gate: &Gate, identity: &Identity, (method, path): (&str, &str), count: usize) -> JoinSet<StatusCode> {
    let sender = connect(gate, identity).await;
    let mut answers = JoinSet::new();
    for _ in 0..count {
        let request = request(method, path).header(HOLD, "").body("{}".to_owned()).expect("a request");
        let mut sender = sender.clone();
        answers.spawn(async move {
            sender.ready().await.expect("a connection");
            let answer = sender.send_request(request).await.expect("an answer");
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                let after: u32 = answer.headers()["retry-after"].to_str().expect("a text").parse().expect("seconds");
                assert!((1..=32).contains(&after), "{after}");
            }
            assert!(!answer.headers()["x-kubernetes-pf-flowschema-uid"].is_empty());
            answer.status()
        });
    }
    answers
}

const PODS: (&str, &str) = ("GET", "/api/v1/namespaces/a/pods");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_requests_of_one_user_keep_no_one_else_from_being_served() {
    let guarded = Guarded::start(600).await;
    let gate = &guarded.gate;
    let answers = flood(gate, &user("flood"), PODS, 2000).await;
    let all = || {
        let Counts { executing, waiting, refused } = guarded.counts("global-default");
        executing + waiting + refused as usize
    };
    until("the flood has come", || all() == 2000).await;
    let counts = guarded.counts("global-default");
    assert!(counts.waiting > 100 && counts.executing < 49 && counts.refused > 1000, "{counts:?}");

    let lease = ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n");
    for _ in 0..20 {
        assert_eq!(status(gate, &node("n"), lease).await, 200, "a node renews its Lease");
        assert_eq!(status(gate, &Identity::control("kubernetes-admin"), PODS).await, 200, "the administrator");
        assert_eq!(status(gate, &user("joe"), PODS).await, 200, "another user of the same level");
        assert_eq!(status(gate, &Identity::service_account("a", "b"), PODS).await, 200, "a ServiceAccount");
        assert_ne!(status(gate, &Identity::anonymous(), ("GET", "/healthz")).await, 429, "a probe");
    }
    assert_eq!(guarded.handler.held.load(Relaxed), counts.executing, "none of the flood has gone on");

    guarded.handler.released.add_permits(2000);
    let answers = answers.join_all().await;
    let served = answers.iter().filter(|status| **status == StatusCode::OK).count();
    assert_eq!(served, counts.executing + counts.waiting, "what waited is served once it can be");
    assert_eq!(guarded.counts("global-default"), Counts { executing: 0, waiting: 0, refused: counts.refused });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stolen_credential_of_a_node_keeps_no_other_node_from_showing_that_it_lives() {
    let guarded = Guarded::start(600).await;
    let lease = |name: &str| format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    let answers = flood(&guarded.gate, &node("stolen"), ("PUT", &lease("stolen")), 1000).await;
    let all = || {
        let Counts { executing, waiting, refused } = guarded.counts("system-node-high");
        executing + waiting + refused as usize
    };
    until("the flood has come", || all() == 1000).await;
    for number in 0..20 {
        let name = format!("n{number}");
        assert_eq!(status(&guarded.gate, &node(&name), ("PUT", &lease(&name))).await, 200, "{name}");
        let own_status = format!("/api/v1/nodes/{name}/status");
        assert_eq!(status(&guarded.gate, &node(&name), ("PATCH", &own_status)).await, 200, "{name}");
    }
    guarded.handler.released.add_permits(1000);
    answers.join_all().await;
}

#[tokio::test]
async fn agents_that_take_their_lists_slowly_hold_up_no_heartbeat() {
    let guarded = Guarded::start(200).await;
    let answers = open_answers();
    let list = || {
        let list = Request::get("/api/v1/nodes?limit=500").header(LONG, "").extension(answers.clone());
        list.body(Body::empty()).expect("a request")
    };
    // All have the answer's head and take nothing of its body. Without a seat given back a few would fill the level.
    let mut slow = Vec::new();
    for number in 0..200 {
        let answer = guarded.ask(&node(&format!("n{number}")), list()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{number}");
        slow.push(answer);
    }
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
    let beat = Request::put(lease).body(Body::empty()).expect("a request");
    assert_eq!(guarded.ask(&node("n"), beat).await.status(), StatusCode::OK);
    let none = Counts { executing: 0, waiting: 0, refused: 0 };
    until("all have lost their seats", || guarded.counts("system-node-high") == none).await;
    drop(slow);
}

#[tokio::test]
async fn lists_that_are_being_made_leave_heartbeats_their_seats() {
    let guarded = Guarded::start(600).await;
    let lease = |name: &str| {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
        Request::put(path).body(Body::empty()).expect("a request")
    };
    assert_eq!(guarded.ask(&node("first"), lease("first")).await.status(), StatusCode::OK);
    let mut lists = JoinSet::new();
    for number in 0..200 {
        let list = Request::get("/api/v1/nodes?limit=500").header(HOLD, "").body(Body::empty()).expect("a request");
        lists.spawn(guarded.ask(&node(&format!("n{number}")), list));
    }
    let all = || {
        let Counts { executing, waiting, .. } = guarded.counts("system-node-high");
        executing + waiting
    };
    until("all lists have come", || all() == 200).await;
    assert!(guarded.counts("system-node-high").waiting > 0);
    for number in 0..200 {
        let name = format!("n{number}");
        // One that had to wait would be refused: nothing ends meanwhile.
        assert_eq!(guarded.ask(&node(&name), lease(&name)).await.status(), StatusCode::OK, "{name}");
    }
    guarded.handler.released.add_permits(200);
    lists.join_all().await;
}
