//! What the agent says of a Service, against what the kernel holds.

use std::net::{Ipv4Addr, SocketAddrV4};

use tower::ServiceExt;

use super::node::{Node, endpoint, service, wait_until};
use crate::{
    dns::{self, Dns},
    inspect,
    world::{Endpoint, Service, ServiceKind},
};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);

#[test]
fn inspect_shows_the_held_backends_with_their_picks_and_why_others_are_left_out() {
    let Some(mut node) = Node::new() else { return };
    let backend = node.backend();
    let (mut client, _) = node.client_pod();
    node.start();
    let dead = Endpoint { ready: false, serving: false, ..endpoint(Ipv4Addr::new(10, 244, 0, 99)) };
    node.serve(service("web", SERVICE, 80), [backend.endpoint(), dead]);
    client.ask_times(3, &format!("tcp {SERVICE}:80"));

    let dns = dns(&node);
    let report = get(&node, &dns, "/inspect/services/default/web");
    let frontend = &report["frontends"][0];
    assert_eq!(frontend["address"], SERVICE.to_string());
    assert_eq!(frontend["backends"][0]["address"], backend.address.to_string());
    assert_eq!((&frontend["backends"][0]["held"], &frontend["backends"][0]["picks"]), (&true.into(), &3.into()));
    assert_eq!(frontend["excluded"][0]["reason"], "not ready");
    let record =
        serde_json::json!({"name": "web.default.svc.cluster.local", "type": "A", "data": [SERVICE.to_string()]});
    assert_eq!(report["dns"]["records"][0], record);
    assert_eq!(report.get("noFrontendsBecause"), None);
    let maps = get(&node, &dns, "/inspect/datapath");
    assert_eq!(maps["maps"][0], serde_json::json!({"name": "SERVICES", "entries": 2, "limit": 1 << 18}));
}

#[test]
fn inspect_shows_where_the_names_of_a_service_lead_that_the_datapath_has_nothing_to_do_with() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    let alive = Ipv4Addr::new(10, 244, 0, 98);
    let dead = Endpoint { ready: false, serving: false, ..endpoint(Ipv4Addr::new(10, 244, 0, 99)) };
    let headless = Service { kind: ServiceKind::Headless, ..service("db", SERVICE, 80) };
    node.serve(headless, [endpoint(alive), dead]);
    let alias = Service { kind: ServiceKind::ExternalName("www.example.org".into()), ..service("search", SERVICE, 80) };
    node.serve(alias, []);
    let dns = dns(&node);

    let report = get(&node, &dns, "/inspect/services/default/db");
    assert!(report["noFrontendsBecause"].as_str().is_some_and(|why| why.contains("headless")), "{report}");
    assert_eq!(report["frontends"], serde_json::json!([]));
    assert_eq!(report["dns"]["records"][0]["data"], serde_json::json!([alive.to_string()]));
    assert_eq!(report["dns"]["endpoints"][0]["address"], alive.to_string());
    assert_eq!(report["dns"]["excluded"][0]["reason"], "not ready");

    let report = get(&node, &dns, "/inspect/services/default/search");
    let record =
        serde_json::json!({"name": "search.default.svc.cluster.local", "type": "CNAME", "data": ["www.example.org"]});
    assert_eq!(report["dns"]["records"], serde_json::json!([record]));
    assert!(report["noFrontendsBecause"].as_str().is_some_and(|why| why.contains("alias")), "{report}");
}

/// The node's DNS server, once it knows what was published.
fn dns(node: &Node) -> Dns {
    let config = dns::DnsConfig {
        listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        cluster_domain: "cluster.local".into(),
        resolv_conf: "/dev/null".into(),
        node_name: "here".into(),
    };
    let world = node.world.subscribe();
    let revision = world.borrow().revision;
    let dns = node.block_on(dns::start(config, world)).unwrap();
    wait_until("the DNS server to know the Services", || dns.revision() >= revision);
    dns
}

fn get(node: &Node, dns: &Dns, path: &str) -> serde_json::Value {
    let router = inspect::router(node.proxy(), &dns.names(), "here");
    node.block_on(async {
        let request = axum::extract::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    })
}
