//! Heartbeats when the connection to the API leads nowhere, and nobody has said so.

use axum::{Json, routing::patch};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use super::*;
use crate::{
    deadline::AnswerError,
    freezing_proxy::FreezingProxy,
    register::{
        heartbeat::{run_every, tests::node},
        live_client::KEEP_ALIVE,
        node_requests::NodeRequests,
    },
};

/// More than anything here takes, on a busy machine too.
const LONG: Duration = Duration::from_secs(60);
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";

/// A client of an API with these routes, and the proxy between them.
async fn connect(trusted: Router) -> (LiveClient, FreezingProxy, CancellationToken) {
    let (ca, start) = (Ca::new(), SystemTime::now());
    let (mut endpoint, address, _, stop) = serve_trusted(&ca, &ca.issue("node", start), trusted).await;
    let proxy = FreezingProxy::before(address).await;
    endpoint.url = format!("https://{}", proxy.address()).parse().unwrap();
    let connected = endpoint.with_certificate(&ca.issue("system:kube-apiserver", start)).unwrap();
    (LiveClient::new(connected), proxy, stop)
}

#[tokio::test]
async fn heartbeats_go_over_a_new_connection_when_the_old_one_leads_nowhere() {
    const BEAT: Duration = Duration::from_millis(500);
    let (beats, mut heard) = mpsc::unbounded_channel();
    let renew = move || {
        let beats = beats.clone();
        async move {
            beats.send(()).unwrap();
            Json(serde_json::json!({}))
        }
    };
    let (api, proxy, stop) = connect(Router::new().route(LEASE, patch(renew))).await;
    let (_node, changes) = watch::channel(node());
    let running = tokio::spawn(run_every(BEAT, api, changes, true, stop.clone()));
    for _ in 0..2 {
        timeout(LONG, heard.recv()).await.expect("heartbeats flow").unwrap();
    }
    proxy.freeze();
    let (frozen, before) = (Instant::now(), proxy.accepted());
    proxy.serve_new_connections();
    // One that was on its way may still come.
    while proxy.accepted() == before {
        tokio::task::yield_now().await;
        assert!(frozen.elapsed() < LONG, "no new connection");
    }
    timeout(LONG, heard.recv()).await.expect("a heartbeat").unwrap();
    timeout(LONG, heard.recv()).await.expect("and the next").unwrap();
    // It takes two beats; by its pings alone the client would notice after this.
    assert!(frozen.elapsed() < KEEP_ALIVE.interval, "{:?}", frozen.elapsed());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn after_a_write_that_nobody_answers_all_that_is_asked_goes_over_a_new_connection() {
    let (api, proxy, stop) = connect(Router::new().route("/who", get(|| async { "welcome" }))).await;
    let ask = || api.client().request_text(http::Request::get("/who").body(Vec::new()).unwrap());
    assert_eq!(ask().await.unwrap(), "welcome");
    proxy.freeze();
    proxy.serve_new_connections();
    let late = NodeRequests { api: &api, limit: Duration::from_millis(200) }.answer(ask()).await;
    assert!(matches!(late, Err(AnswerError::Late(_))), "{late:?}");
    assert_eq!(timeout(KEEP_ALIVE.interval, ask()).await.expect("at once").unwrap(), "welcome");
    assert_eq!(proxy.accepted(), 2);
    stop.cancel();
}
