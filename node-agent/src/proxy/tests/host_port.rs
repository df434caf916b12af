//! Clients of a pod's host port: on the node, in pods, and on hosts outside, on both datapaths.

use std::{net::Ipv4Addr, sync::Arc};

use proxy_ebpf::ServiceKey;

use super::{
    node::{BACKEND_PORT, NODE_IP, Node, Pod, wait_until},
    two_nodes::TwoNodes,
};
use crate::{
    config::DatapathChoice,
    proxy::image::key_of,
    world::{HostPort, ObjectName, PodHostPorts, Protocol},
};

const PORT: u16 = 8099;
const LOOPBACK_PORT: u16 = 8098;

#[test]
fn ebpf_leads_a_host_port_to_its_pod_until_the_pod_is_gone() {
    run(DatapathChoice::Ebpf);
}

#[test]
fn userspace_leads_a_host_port_to_its_pod_until_the_pod_is_gone() {
    run(DatapathChoice::Userspace);
}

fn run(choice: DatapathChoice) {
    let Some(mut nodes) = TwoNodes::new() else { return };
    nodes.node.datapath = choice;
    let (mut in_pod, _) = nodes.node.client_pod();
    nodes.node.start();
    nodes.node.publish(|_| ());
    nodes.node.host_ports.send_modify(|book| {
        book.pods.insert("uid".into(), Arc::new(ports_of(&nodes.pod)));
    });
    let keys = wait_until_held(&nodes.node);

    let host = nodes.node.host.clone();
    let mut on_host = nodes.node.client(&host);
    let mut outside = nodes.node.stranger(&nodes.outside);
    let pod = nodes.pod.address;
    for client in [&mut on_host, &mut in_pod, &mut outside] {
        for protocol in ["tcp", "udp", "udp-connected"] {
            let answer = client.ask(&format!("{protocol} {NODE_IP}:{PORT}"));
            assert!(answer.starts_with(&format!("ok {pod} ")), "{protocol}: {answer}");
        }
    }
    for port in [PORT, LOOPBACK_PORT] {
        let answer = on_host.ask(&format!("tcp 127.0.0.1:{port}"));
        assert!(answer.starts_with(&format!("ok {pod} ")), "{port}: {answer}");
        assert_eq!(
            in_pod.ask(&format!("tcp 127.0.0.1:{port}")),
            "error ConnectionRefused",
            "a pod's loopback is its own"
        );
    }
    for client in [&mut on_host, &mut outside] {
        let answer = client.ask(&format!("tcp {NODE_IP}:{LOOPBACK_PORT}"));
        assert_eq!(answer, "error ConnectionRefused", "with a hostIP only that address answers");
    }

    nodes.node.host_ports.send_modify(|book| book.pods.clear());
    wait_until("the host ports to be gone", || held(&nodes.node, &keys) == 0);
    for client in [&mut on_host, &mut in_pod, &mut outside] {
        let refused = || client.ask(&format!("tcp {NODE_IP}:{PORT}")) == "error ConnectionRefused";
        wait_until("a refusal", refused);
    }
}

/// TCP and UDP on all addresses of the node, TCP on its loopback.
fn ports_of(pod: &Pod) -> PodHostPorts {
    let port = |host_ip, host_port, protocol| HostPort {
        name: "".into(),
        host_ip,
        host_port,
        container_port: BACKEND_PORT,
        protocol,
    };
    let ports = vec![
        port(None, PORT, Protocol::Tcp),
        port(None, PORT, Protocol::Udp),
        port(Some(Ipv4Addr::LOCALHOST), LOOPBACK_PORT, Protocol::Tcp),
    ];
    PodHostPorts { pod: ObjectName::new("default", "web"), address: pod.address, ports }
}

/// The keys of the pod's frontends, once all are served.
fn wait_until_held(node: &Node) -> Vec<ServiceKey> {
    let mut keys = Vec::new();
    wait_until("the host ports to be served", || {
        let entry = node.proxy().table().pod(&ObjectName::new("default", "web")).cloned();
        keys = entry.iter().flat_map(|entry| &entry.frontends).map(key_of).collect();
        !keys.is_empty() && held(node, &keys) == keys.len()
    });
    keys
}

fn held(node: &Node, keys: &[ServiceKey]) -> usize {
    node.block_on(node.proxy().held(keys.to_vec())).unwrap().iter().flatten().count()
}
