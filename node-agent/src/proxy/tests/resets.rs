//! Clients whose backend leaves.

use std::net::Ipv4Addr;

use super::{
    client::Client,
    node::{NODE_IP, Node, backends, node_port_service, service, wait_until},
};
use crate::world::{Endpoint, Node as WorldNode};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);

#[test]
fn sockets_of_a_backend_that_is_gone_are_closed_in_every_namespace_and_others_are_not() {
    let Some(mut node) = Node::new() else { return };
    let [leaving, staying] = node.backends();
    let (in_pod, _) = node.client_pod();
    node.start();
    node.serve(service("web", SERVICE, 80), [leaving.endpoint()]);
    let host = node.host.clone();
    let mut clients = [in_pod, node.client(&host)];
    for client in &mut clients {
        for (name, kind) in [("stream", "tcp"), ("mapped", "tcp6"), ("datagrams", "udp-connected")] {
            assert!(client.ask(&format!("hold {name} {kind} {SERVICE}:80")).starts_with("ok "), "{kind}");
        }
        assert!(client.ask(&format!("hold direct tcp {}:8080", leaving.address)).starts_with("ok "));
    }

    let draining = Endpoint { ready: false, terminating: true, ..leaving.endpoint() };
    node.serve(service("web", SERVICE, 80), [draining, staying.endpoint()]);
    for client in &mut clients {
        wait_until("connected datagram sockets leave a backend that drains", || {
            client.ask("again datagrams").starts_with("error ")
        });
        assert!(client.ask("again stream").starts_with("ok "), "a draining backend keeps its streams");
    }

    node.serve(service("web", SERVICE, 80), [staying.endpoint()]);
    for client in &mut clients {
        for name in ["stream", "mapped"] {
            wait_until("streams to a backend that is gone end", || {
                client.ask(&format!("again {name}")).starts_with("error ")
            });
        }
        assert!(client.ask("again direct").starts_with("ok "), "what did not go through the Service is left alone");
        let answers = client.ask_times(3, &format!("tcp {SERVICE}:80"));
        assert_eq!(backends(&answers), [staying.address.to_string()]);
    }
}

#[test]
fn deleting_a_service_leaves_its_streams_alone() {
    let Some(mut node) = Node::new() else { return };
    let backend = node.backend();
    let (mut client, _) = node.client_pod();
    node.start();
    let web = service("web", SERVICE, 80);
    node.serve(web.clone(), [backend.endpoint()]);
    assert!(client.ask(&format!("hold stream tcp {SERVICE}:80")).starts_with("ok "));
    assert!(client.ask(&format!("hold datagrams udp-connected {SERVICE}:80")).starts_with("ok "));
    node.publish(|world| {
        world.services.remove(&web.name);
        world.slices.remove(&web.name);
    });
    wait_until("connected datagram sockets are closed", || client.ask("again datagrams").starts_with("error "));
    assert!(client.ask("again stream").starts_with("ok "));
    assert_eq!(client.ask(&format!("tcp {SERVICE}:80")), "error ConnectionRefused");
}

#[test]
fn a_datagram_socket_that_connected_while_nobody_served_is_closed_when_somebody_does() {
    let Some(mut node) = Node::new() else { return };
    let backend = node.backend();
    let (mut client, _) = node.client_pod();
    let empty = Ipv4Addr::new(10, 96, 0, 51);
    node.start();
    node.serve(service("web", SERVICE, 80), []);
    node.serve(service("empty", empty, 80), []);
    let refused = "error ConnectionRefused";
    for (name, to) in [("early", SERVICE), ("other", empty)] {
        assert_eq!(client.ask(&format!("hold {name} udp-connected {to}:80")), refused);
    }
    assert_eq!(client.ask(&format!("hold undefined udp-connected {SERVICE}:81")), refused);
    node.serve(service("web", SERVICE, 80), [backend.endpoint()]);
    // One that is asked too often is not answered for a moment: the kernel limits ICMP errors.
    let is_open = |answer: &str| [refused, "error WouldBlock"].contains(&answer);
    wait_until("the socket is closed", || !is_open(&client.ask("again early")));
    let answer = client.ask(&format!("udp-connected {SERVICE}:80"));
    assert!(answer.starts_with(&format!("ok {}", backend.address)), "{answer}");
    for name in ["other", "undefined"] {
        wait_until("what is not served is refused still", || client.ask(&format!("again {name}")) == refused);
    }
}

#[test]
fn datagram_sockets_that_a_node_port_refused_are_closed_on_every_address_when_somebody_serves() {
    let Some(mut node) = Node::new() else { return };
    let backend = node.backend();
    let (mut in_pod, _) = node.client_pod();
    let host = node.host.clone();
    let mut on_host = node.client(&host);
    let other_node = Ipv4Addr::new(192, 0, 2, 2);
    node.start();
    node.publish(|world| {
        let other = WorldNode { name: "there".into(), internal_ip: Some(other_node), ..WorldNode::default() };
        world.nodes.insert("there".into(), other.into());
    });
    // UDP is on the port above.
    node.serve(node_port_service("web", SERVICE, 30080), []);
    node.serve(node_port_service("empty", Ipv4Addr::new(10, 96, 0, 51), 30090), []);
    let refused = "error ConnectionRefused";
    let hold = |client: &mut Client, to: &str| {
        assert_eq!(client.ask(&format!("hold {to} udp-connected {to}")), refused, "{to}");
    };
    let of_nodes = [NODE_IP, other_node].map(|address| format!("{address}:30081"));
    let loopback = ["127.0.0.1:30081", "127.1.2.3:30081"].map(str::to_owned);
    for to in &of_nodes {
        hold(&mut in_pod, to);
    }
    for to in of_nodes.iter().chain(&loopback) {
        hold(&mut on_host, to);
    }
    let empty = format!("{NODE_IP}:30091");
    hold(&mut on_host, &empty);
    node.serve(node_port_service("web", SERVICE, 30080), [backend.endpoint()]);
    let is_open = |answer: &str| [refused, "error WouldBlock"].contains(&answer);
    for to in &of_nodes {
        wait_until("the pod's socket is closed", || !is_open(&in_pod.ask(&format!("again {to}"))));
    }
    for to in of_nodes.iter().chain(&loopback) {
        wait_until("the host's socket is closed", || !is_open(&on_host.ask(&format!("again {to}"))));
    }
    wait_until("what is not served is refused still", || on_host.ask(&format!("again {empty}")) == refused);
}
