//! Requests through the gate: what has a seat and for how long, and what ends when a credential is withdrawn.

use futures::StreamExt;
use http::HeaderValue;
use http_body_util::BodyExt;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::*;
use crate::{
    api::open_store,
    auth::{
        access_webhook::tests::full_webhook,
        authorizer::ChainLink,
        bootstrap_token::{BootstrapToken, NAMESPACE, expiration},
        client_certificate::CertificateIdentity,
        connection_places::{ConnectionPlaces, PlaceLimits},
        held_body,
    },
    encode,
    flow_control::in_flight::InFlight,
    kinds::Registry,
    metrics::Metrics,
    request::{Verb, held_bytes::HeldBytes},
    store::{Change, Expect, Key, Store, Write},
};

/// Answers everything by switching protocols.
struct Switching(UpgradedAnswer);

#[async_trait::async_trait]
impl Handler for Switching {
    fn is_long_running(&self, _: &RequestInfo) -> bool {
        false
    }

    async fn answer(&self, _: RequestInfo, request: Request<Body>) -> Response<Body> {
        assert!(request.headers().contains_key(AUDIT_ID), "a server behind this one logs the same id");
        let mut response = Response::default();
        response.extensions_mut().insert(self.0.clone());
        response
    }
}

/// A gate before `handler`, and the token of somebody whom it lets through as long as the token is not withdrawn.
struct Guarded {
    gate: Gate,
    token: BootstrapToken,
    store: Arc<dyn Store>,
    withdraw: Write,
    _dir: tempfile::TempDir,
}

impl Guarded {
    async fn start(handler: impl Handler) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(open_store(&dir.path().join("store"), &Registry::default()).unwrap());
        let token = BootstrapToken::random();
        let secret = token.to_secret(expiration(Timestamp::now(), Duration::from_secs(100_000)));
        let key = Key { resource: "secrets".into(), name: format!("{NAMESPACE}/{}", token.secret_name()).into() };
        let kind = Registry::default().snapshot().by_path("", "v1", "secrets").unwrap();
        let draft = encode::draft(&kind, &serde_json::to_value(&secret).unwrap());
        let write = Write { key: key.clone(), expect: Expect::Absent, change: Change::Put(draft) };
        let stored = store.write_one(write).await.unwrap();
        let metrics = Metrics::default().requests().clone();
        let authorizer = Authorizer::new(store.clone());
        let gate = Gate::new(Arc::new(handler), authorizer, metrics, CancellationToken::new())
            .asking_again_every(Duration::from_millis(1));
        let withdraw = Write { key, expect: Expect::At(stored.revision), change: Change::Delete };
        Self { gate, token, store, withdraw, _dir: dir }
    }

    fn request(&self) -> http::request::Builder {
        let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        Request::post(requests).header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }
}

/// Answers everything with one line and no end.
struct Endless;

#[async_trait::async_trait]
impl Handler for Endless {
    fn is_long_running(&self, _: &RequestInfo) -> bool {
        true
    }

    async fn answer(&self, _: RequestInfo, _: Request<Body>) -> Response<Body> {
        let first = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"one"))]);
        Response::new(Body::from_stream(first.chain(futures::stream::pending())))
    }
}

/// Says that it was asked, and waits to be let go on.
struct Slow {
    asked: Notify,
    released: Notify,
}

#[async_trait::async_trait]
impl Handler for Slow {
    fn is_long_running(&self, info: &RequestInfo) -> bool {
        info.verb == Verb::Watch
    }

    async fn answer(&self, info: RequestInfo, _: Request<Body>) -> Response<Body> {
        if info.verb != Verb::Watch {
            self.asked.notify_one();
            self.released.notified().await;
        }
        Response::new(Body::empty())
    }
}

/// Answers a node that reads.
fn ask_as_node(gate: &Gate, path: &str) -> impl Future<Output = Response<Body>> + use<> {
    let node = Identity::authenticated("system:node:n".into(), vec!["system:nodes".into()]);
    let certificate = CertificateIdentity { identity: node, not_after: i64::MAX };
    let request = Request::get(path).body(Body::empty()).unwrap();
    gate.clone().answer(request, Arc::new(Some(Ok(certificate))))
}

#[tokio::test]
async fn a_path_with_an_empty_part_is_refused_to_who_may_not_ask_it() {
    let guarded = Guarded::start(Endless).await;
    for (path, what) in [
        ("/api/v1/namespaces/a//pods", "forbidden: User \"system:node:n\" cannot get resource \"\""),
        ("/api/v1/namespaces//configmaps", "configmaps is forbidden: User \"system:node:n\" cannot list resource"),
        ("//api/v1/configmaps", "configmaps is forbidden: User \"system:node:n\" cannot list resource"),
    ] {
        let refused = ask_as_node(&guarded.gate, path).await;
        assert_eq!(refused.status(), 403, "{path}");
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(status["message"].as_str().unwrap().starts_with(what), "{path}: {status}");
    }
}

#[tokio::test]
async fn what_is_too_much_is_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open_store(&dir.path().join("store"), &Registry::default()).unwrap());
    let slow = Arc::new(Slow { asked: Notify::new(), released: Notify::new() });
    let metrics = Metrics::default().requests().clone();
    let authorizer = Authorizer::new(store);
    let gate = Gate::new(slow.clone(), authorizer, metrics, CancellationToken::new()).limited_to(InFlight::new(1, 1));
    let ask = |path: &str| ask_as_node(&gate, path);
    let first = tokio::spawn(ask("/api/v1/nodes"));
    slow.asked.notified().await;
    let refused = ask("/api/v1/secrets").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &HeaderValue::from_static("1")));
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "Too many requests, please try again later.\n");
    assert_eq!(ask("/api/v1/nodes?watch=1").await.status(), 200, "a watch needs no seat");
    slow.released.notify_one();
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(ask("/api/v1/secrets").await.status(), 403, "there is a seat again, but no right");
}

/// Answers everything with a long text.
struct Long;

#[async_trait::async_trait]
impl Handler for Long {
    fn is_long_running(&self, _: &RequestInfo) -> bool {
        false
    }

    async fn answer(&self, _: RequestInfo, _: Request<Body>) -> Response<Body> {
        Response::new(Body::from(vec![b'x'; 4 * held_body::PIECE]))
    }
}

#[tokio::test]
async fn an_answer_keeps_its_seat_until_it_is_sent() {
    let guarded = Guarded::start(Long).await;
    let gate = guarded.gate.clone().limited_to(InFlight::new(1, 1));
    let ask = |upgrade: bool| {
        let request = guarded.request();
        let request = if upgrade { request.header(header::UPGRADE, "x") } else { request };
        gate.clone().answer(request.body(Body::empty()).unwrap(), Arc::new(None))
    };
    for upgrade in [false, true] {
        let first = ask(upgrade).await;
        assert_eq!(first.status(), 200);
        assert_eq!(ask(false).await.status(), 429, "the first is not sent yet");
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes().len(), 4 * held_body::PIECE);
    }
    assert_eq!(ask(false).await.status(), 200);
}

/// Answers everything with a text that is made while it is sent, and holds more memory than there is until then.
struct MadeLater;

#[async_trait::async_trait]
impl Handler for MadeLater {
    fn is_long_running(&self, _: &RequestInfo) -> bool {
        false
    }

    async fn answer(&self, _: RequestInfo, _: Request<Body>) -> Response<Body> {
        let piece = || Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b'x'; held_body::PIECE]));
        let mut response = Response::new(Body::from_stream(futures::stream::iter([piece(), piece()])));
        response.extensions_mut().insert(HeldBytes(1 << 40));
        response
    }
}

#[tokio::test]
async fn the_memory_of_an_answer_that_is_made_while_it_is_sent_is_counted() {
    let guarded = Guarded::start(MadeLater).await;
    let gate = guarded.gate.clone().limited_to(InFlight::default());
    let first = ask_as_node(&gate, "/api/v1/nodes").await;
    assert_eq!(first.status(), 200, "the first is always sent");
    assert_eq!(ask_as_node(&gate, "/api/v1/nodes").await.status(), 429, "the first is not sent yet");
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes().len(), 2 * held_body::PIECE);
    assert_eq!(ask_as_node(&gate, "/api/v1/nodes").await.status(), 200);
}

#[tokio::test]
async fn a_watch_ends_when_its_users_credential_is_withdrawn_and_not_before() {
    let guarded = Guarded::start(Endless).await;
    let request = guarded.request().body(Body::empty()).unwrap();
    let mut body = guarded.gate.clone().answer(request, Arc::new(None)).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");

    let early = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
    assert!(early.is_err(), "a watch that is still allowed goes on");
    guarded.store.write_one(guarded.withdraw).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
    assert!(end.expect("it ends in time").is_none());
}

#[tokio::test]
async fn a_watch_that_cannot_be_asked_about_for_long_ends() {
    let guarded = Guarded::start(Endless).await;
    let request = guarded.request().body(Body::empty()).unwrap();
    let mut body = guarded.gate.clone().answer(request, Arc::new(None)).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    let webhook = ChainLink::Webhook(Arc::new(full_webhook(guarded._dir.path()).await));
    guarded.gate.authorizer.decide_by(vec![webhook, ChainLink::AlwaysAllow]);
    let end = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
    assert!(end.expect("it ends in time").is_none());
    let request = guarded.request().body(Body::empty()).unwrap();
    assert_eq!(guarded.gate.clone().answer(request, Arc::new(None)).await.status(), 429);
}

#[tokio::test]
async fn a_connection_that_switched_protocols_is_cut_when_its_credential_is_withdrawn() {
    let cut = CancellationToken::new();
    let guarded = Guarded::start(Switching(UpgradedAnswer(cut.clone()))).await;
    let request = guarded.request().header(header::UPGRADE, "websocket").body(Body::empty()).unwrap();
    guarded.gate.clone().answer(request, Arc::new(None)).await;
    let early = tokio::time::timeout(Duration::from_millis(50), cut.cancelled()).await;
    assert!(early.is_err(), "one that is still allowed goes on");
    guarded.store.write_one(guarded.withdraw).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), cut.cancelled()).await.expect("it is cut in time");
}

#[tokio::test]
async fn a_good_token_moves_its_connection_out_of_the_strangers() {
    let guarded = Guarded::start(Endless).await;
    let places = ConnectionPlaces::new(PlaceLimits::for_descriptors(1024));
    let place = places.admit([10, 0, 0, 1].into());
    let ask = async |token: Option<&str>| {
        let request = guarded.request().extension(place.clone()).body(Body::empty()).unwrap();
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(header::AUTHORIZATION);
        if let Some(token) = token {
            parts.headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        guarded.gate.clone().answer(Request::from_parts(parts, body), Arc::new(None)).await.status()
    };
    assert_eq!(ask(None).await, StatusCode::FORBIDDEN);
    assert!(place.is_strangers());
    assert_eq!(ask(Some("abcdef.0123456789abcdef")).await, StatusCode::UNAUTHORIZED);
    assert!(place.is_strangers());
    assert_eq!(ask(Some(&guarded.token.to_string())).await, StatusCode::OK);
    assert!(!place.is_strangers());
}

#[tokio::test]
async fn a_connection_that_switched_protocols_beyond_its_users_share_makes_room() {
    let cut = CancellationToken::new();
    let guarded = Guarded::start(Switching(UpgradedAnswer(cut.clone()))).await;
    let places =
        ConnectionPlaces::new(PlaceLimits { users: 0, nodes: 0, system: 0, ..PlaceLimits::for_descriptors(1024) });
    let place = places.admit([10, 0, 0, 1].into());
    let request = guarded.request().header(header::UPGRADE, "websocket").extension(place.clone());
    guarded.gate.clone().answer(request.body(Body::empty()).unwrap(), Arc::new(None)).await;
    assert!(place.is_strangers() && !cut.is_cancelled());
    let others = (0..places.limits().of_one_address).map(|_| places.admit([10, 0, 0, 1].into()));
    let _others: Vec<_> = others.collect();
    tokio::time::timeout(Duration::from_secs(30), cut.cancelled()).await.expect("it makes room in time");
}

#[tokio::test]
async fn a_connection_whose_token_is_withdrawn_is_a_strangers_again() {
    let guarded = Guarded::start(Endless).await;
    let places = ConnectionPlaces::new(PlaceLimits::for_descriptors(1024));
    let place = places.admit([10, 0, 0, 1].into());
    let [good, late] = [(), ()].map(|()| guarded.request().extension(place.clone()).body(Body::empty()).unwrap());
    let ask = async |request| guarded.gate.clone().answer(request, Arc::new(None)).await.status();
    assert_eq!(ask(good).await, StatusCode::OK);
    assert!(!place.is_strangers());
    guarded.store.write_one(guarded.withdraw).await.unwrap();
    assert_eq!(ask(late).await, StatusCode::UNAUTHORIZED);
    assert!(place.is_strangers());
}

#[tokio::test]
async fn the_connection_of_a_front_proxy_is_its_own_though_a_visitor_is_refused() {
    let guarded = Guarded::start(Endless).await;
    let places = ConnectionPlaces::new(PlaceLimits::for_descriptors(1024));
    let place = places.admit([10, 0, 0, 1].into());
    let proxy = FrontProxyConnection::of("gateway", i64::MAX);
    place.belongs_to(&proxy.holder());
    let visit = async |proxy: &FrontProxyConnection| {
        let request = Request::get("/api/v1/pods").header(header::AUTHORIZATION, "Bearer abcdef.0123456789abcdef");
        let request = request.extension(place.clone()).extension(proxy.clone()).body(Body::empty()).unwrap();
        guarded.gate.clone().answer(request, Arc::new(None)).await.status()
    };
    assert_eq!(visit(&proxy).await, StatusCode::UNAUTHORIZED);
    assert!(!place.is_strangers());
    assert_eq!(visit(&FrontProxyConnection::of("gateway", 0)).await, StatusCode::UNAUTHORIZED);
    assert!(place.is_strangers(), "its certificate has expired");
}

#[tokio::test]
async fn the_connection_of_a_front_proxy_takes_a_share_once_there_is_one() {
    let guarded = Guarded::start(Endless).await;
    // One share, which another connection of the proxy holds.
    let places =
        ConnectionPlaces::new(PlaceLimits { users: 1, nodes: 0, system: 0, ..PlaceLimits::for_descriptors(1024) });
    let proxy = FrontProxyConnection::of("gateway", i64::MAX);
    let [first, second] = [1, 2].map(|host| places.admit([10, 0, 0, host].into()));
    first.belongs_to(&proxy.holder());
    second.belongs_to(&proxy.holder());
    assert!(!first.is_strangers() && second.is_strangers());
    drop(first);
    let visit = Request::get("/version").extension(second.clone()).extension(proxy).body(Body::empty()).unwrap();
    drop(guarded.gate.clone().answer(visit, Arc::new(None)).await);
    assert!(!second.is_strangers());
}

/// Answers everything with a short text.
struct Short;

#[async_trait::async_trait]
impl Handler for Short {
    fn is_long_running(&self, _: &RequestInfo) -> bool {
        false
    }

    async fn answer(&self, _: RequestInfo, _: Request<Body>) -> Response<Body> {
        Response::new(Body::from("short"))
    }
}

#[tokio::test]
async fn a_short_answer_keeps_its_seat_where_the_client_may_leave_it_untaken() {
    let guarded = Guarded::start(Short).await;
    for (version, status) in [(Version::HTTP_11, 200), (Version::HTTP_2, 429)] {
        let gate = guarded.gate.clone().limited_to(InFlight::new(1, 1));
        let ask = || {
            let request = guarded.request().version(version).body(Body::empty()).unwrap();
            gate.clone().answer(request, Arc::new(None))
        };
        let first = ask().await;
        assert_eq!(ask().await.status(), status, "{version:?}");
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "short");
        assert_eq!(ask().await.status(), 200);
    }
}

#[tokio::test]
async fn a_refusal_repeats_little_of_a_long_request() {
    let guarded = Guarded::start(Short).await;
    let name = "n".repeat(14_000);
    for path in [
        format!("/api/v1/namespaces/{name}/pods/{name}"),
        format!("/apis/{name}/v1/{name}"),
        format!("/{name}"),
        format!("/api/v1/pods?limit={name}"),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = guarded.gate.clone().answer(request, Arc::new(None)).await;
        assert!(answer.status().is_client_error());
        assert!(answer.into_body().collect().await.unwrap().to_bytes().len() < 4096);
    }
}
