//! Clients of a NodePort: on the node, in pods, and on hosts outside through the packet hooks.

use std::net::Ipv4Addr;

use super::{
    node::{BACKEND_PORT, NODE_IP, backends, node_port_service, put_service, tally},
    two_nodes::{EXTERNAL, OTHER_NODE, OTHER_POD, STRANGER, TwoNodes, there},
};
use crate::{
    Teardown,
    world::{Endpoint, ExternalTrafficPolicy, Node as WorldNode, Service},
};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 30);
fn local(service: Service) -> Service {
    Service { external_traffic_policy: ExternalTrafficPolicy::Local, ..service }
}

#[test]
fn the_node_and_its_pods_reach_a_node_port_on_every_address_of_every_node() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    let (mut in_pod, _) = nodes.node.client_pod();
    nodes.node.start();
    let here = nodes.here();
    nodes.node.publish(|world| {
        put_service(world, local(node_port_service("web", SERVICE, 30080)), BACKEND_PORT, vec![here, there()]);
        let other =
            WorldNode { name: "there".into(), internal_ip: Some(OTHER_NODE), revision: 1, ..WorldNode::default() };
        world.nodes.insert("there".into(), other.into());
    });
    let host = nodes.node.host.clone();
    let mut on_host = nodes.node.client(&host);
    for address in [NODE_IP, OTHER_NODE] {
        for client in [&mut on_host, &mut in_pod] {
            let answers = client.ask_times(30, &format!("tcp {address}:30080"));
            assert!(answers.iter().all(|answer| answer.ends_with(&format!("peer {address}:30080"))), "{answers:?}");
            assert_eq!(tally(&answers).len(), 2, "policy Local is for clients outside: {answers:?}");
            assert!(client.ask(&format!("udp {address}:30081")).starts_with("ok "));
        }
    }
    assert!(on_host.ask("tcp 127.0.0.1:30080").starts_with("ok "));
    assert_eq!(in_pod.ask("tcp 127.0.0.1:30080"), "error ConnectionRefused", "a pod's loopback is its own");
}

#[test]
fn a_host_outside_reaches_backends_here_with_its_own_address_and_others_with_the_nodes() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.start();
    let here = nodes.here();
    let pod = nodes.pod.address;
    let service = Service { external_ips: vec![EXTERNAL], ..node_port_service("web", SERVICE, 30080) };
    nodes.node.serve(service, [here, there()]);
    let mut client = nodes.node.stranger(&nodes.outside);
    for to in [format!("{NODE_IP}:30080"), format!("{EXTERNAL}:80"), format!("{SERVICE}:80")] {
        let mut answers = client.ask_times(30, &format!("tcp {to}"));
        answers.sort();
        answers.dedup();
        let expected =
            [format!("ok {pod} sees {STRANGER} peer {to}"), format!("ok {OTHER_POD} sees {NODE_IP} peer {to}")];
        assert_eq!(answers, expected);
    }
    for to in [format!("{NODE_IP}:30081"), format!("{EXTERNAL}:80"), format!("{SERVICE}:80")] {
        let answers = client.ask_times(30, &format!("udp {to}"));
        assert!(answers.iter().all(|answer| answer.ends_with(&format!("peer {to}"))), "{answers:?}");
        assert_eq!(tally(&answers).len(), 2, "{answers:?}");
    }
    nodes.node.stop(Teardown::Remove);
    assert!(client.ask(&format!("tcp {NODE_IP}:30080")).starts_with("error "));
}

#[test]
fn policy_local_keeps_the_clients_address_and_drops_where_only_others_have_endpoints() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.start();
    let here = nodes.here();
    let pod = nodes.pod.address;
    nodes.node.serve(local(node_port_service("web", SERVICE, 30080)), [here, there()]);
    let mut client = nodes.node.stranger(&nodes.outside);
    let answers = client.ask_times(10, &format!("tcp {NODE_IP}:30080"));
    assert!(answers.iter().all(|answer| answer.starts_with(&format!("ok {pod} sees {STRANGER}"))), "{answers:?}");

    nodes.node.serve(local(node_port_service("web", SERVICE, 30080)), [there()]);
    assert_eq!(client.ask(&format!("tcp {NODE_IP}:30080")), "error TimedOut");
    nodes.node.serve(local(node_port_service("web", SERVICE, 30080)), []);
    assert_eq!(client.ask(&format!("tcp {NODE_IP}:30080")), "error ConnectionRefused");
}

#[test]
fn without_endpoints_a_host_outside_is_refused_at_once() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.start();
    let service = Service { external_ips: vec![EXTERNAL], ..node_port_service("web", SERVICE, 30080) };
    nodes.node.serve(service, []);
    let mut client = nodes.node.stranger(&nodes.outside);
    for to in [format!("{NODE_IP}:30080"), format!("{EXTERNAL}:80"), format!("{SERVICE}:80")] {
        assert_eq!(client.ask(&format!("tcp {to}")), "error ConnectionRefused", "{to}");
    }
    assert_eq!(client.ask(&format!("udp-connected {NODE_IP}:30081")), "error ConnectionRefused");
}

#[test]
fn an_open_connection_stays_on_its_backend_until_that_is_gone_and_is_then_reset() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.start();
    let (here, pod) = (nodes.here(), nodes.pod.address);
    nodes.node.serve(node_port_service("web", SERVICE, 30080), [here.clone()]);
    let mut client = nodes.node.stranger(&nodes.outside);
    assert!(client.ask(&format!("hold open tcp {NODE_IP}:30080")).starts_with("ok "));
    assert!(client.ask(&format!("hold datagrams udp {NODE_IP}:30081")).starts_with(&format!("ok {pod}")));
    let draining = Endpoint { ready: false, serving: true, terminating: true, ..here };
    nodes.node.serve(node_port_service("web", SERVICE, 30080), [draining, there()]);
    assert_eq!(backends(&client.ask_times(5, &format!("tcp {NODE_IP}:30080"))), [OTHER_POD.to_string()]);
    assert!(client.ask("again datagrams").starts_with(&format!("ok {OTHER_POD}")), "datagrams move at once");
    assert!(client.ask("again open").starts_with(&format!("ok {pod}")), "a draining backend keeps its streams");
    nodes.node.serve(node_port_service("web", SERVICE, 30080), [there()]);
    assert_eq!(client.ask("again open"), "error ConnectionReset");
}

#[test]
fn datagrams_in_fragments_reach_backends_here_and_elsewhere() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.start();
    let here = nodes.here();
    nodes.node.serve(node_port_service("web", SERVICE, 30080), [here, there()]);
    let mut client = nodes.node.stranger(&nodes.outside);
    let answers = client.ask_times(30, &format!("udp-large {NODE_IP}:30081"));
    assert!(answers.iter().all(|answer| answer.ends_with(&format!("peer {NODE_IP}:30081"))), "{answers:?}");
    assert_eq!(tally(&answers).len(), 2, "{answers:?}");
}

#[test]
fn a_backend_that_refuses_a_datagram_is_told_to_the_client_outside_as_the_node_port() {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.start();
    let mut client = nodes.node.stranger(&nodes.outside);
    for refusing in [nodes.here(), there()] {
        // Nothing serves this target port.
        nodes.node.publish(|world| {
            put_service(world, node_port_service("web", SERVICE, 30080), 8081, vec![refusing.clone()])
        });
        let answer = client.ask(&format!("udp-connected {NODE_IP}:30081"));
        assert_eq!(answer, "error ConnectionRefused", "{:?}", refusing.addresses);
    }
}
