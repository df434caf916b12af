//! What the agent says of a Service, against what the kernel holds.

use std::net::Ipv4Addr;

use tower::ServiceExt;

use super::node::{Node, endpoint, service};
use crate::inspect;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);

#[test]
fn inspect_shows_the_held_backends_with_their_picks_and_why_others_are_left_out() {
    let Some(mut node) = Node::new() else { return };
    let backend = node.backend();
    let (mut client, _) = node.client_pod();
    node.start();
    let dead = crate::world::Endpoint { ready: false, serving: false, ..endpoint(Ipv4Addr::new(10, 244, 0, 99)) };
    node.serve(service("web", SERVICE, 80), [backend.endpoint(), dead]);
    client.ask_times(3, &format!("tcp {SERVICE}:80"));

    let report = get(&node, inspect::router(node.proxy(), "here", "cluster.local"), "/inspect/services/default/web");
    let frontend = &report["frontends"][0];
    assert_eq!(frontend["address"], SERVICE.to_string());
    assert_eq!(frontend["backends"][0]["address"], backend.address.to_string());
    assert_eq!((&frontend["backends"][0]["held"], &frontend["backends"][0]["picks"]), (&true.into(), &3.into()));
    assert_eq!(frontend["excluded"][0]["reason"], "not ready");
    assert_eq!(report["dnsNames"][0], "web.default.svc.cluster.local");
    let maps = get(&node, inspect::router(node.proxy(), "here", "cluster.local"), "/inspect/datapath");
    assert_eq!(maps["maps"][0], serde_json::json!({"name": "SERVICES", "entries": 2, "limit": 1 << 18}));
}

fn get(node: &Node, router: axum::Router, path: &str) -> serde_json::Value {
    node.block_on(async {
        let request = axum::extract::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    })
}
