//! Clients of a pod's host port: on the node, in pods, and on hosts outside, on both datapaths.

use std::{net::Ipv4Addr, sync::Arc};

use proxy_ebpf::ServiceKey;

use super::{
    node::{NODE_IP, Node, Pod, privileged, wait_until},
    node_port::Place,
};
use crate::{
    Teardown,
    config::DatapathChoice,
    proxy::{Proxy, image::key_of},
    world::{HostPort, ObjectName, PodHostPorts, Protocol},
};

const PORT: u16 = 8099;
const LOOPBACK_PORT: u16 = 8098;

#[test]
fn ebpf_leads_a_host_port_to_its_pod_until_the_pod_is_gone() {
    if privileged() {
        run(DatapathChoice::Ebpf);
    }
}

#[test]
fn userspace_leads_a_host_port_to_its_pod_until_the_pod_is_gone() {
    if privileged() {
        run(DatapathChoice::Userspace);
    }
}

fn run(choice: DatapathChoice) {
    let mut place = Place::new();
    place.node.datapath = choice;
    let client_pod = place.node.pod();
    let proxy = place.node.start();
    place.node.publish(&proxy, |_| ());
    place.node.host_ports.send_modify(|book| {
        book.pods.insert("uid".into(), Arc::new(ports_of(&place.pod)));
    });
    let keys = wait_until_held(&place.node, &proxy);

    let host = place.node.host.clone();
    let mut on_host = place.node.client(&host);
    let mut in_pod = place.node.client(&client_pod.namespace);
    let mut outside = place.node.stranger(&place.outside);
    let pod = place.pod.address;
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

    place.node.host_ports.send_modify(|book| book.pods.clear());
    wait_until("the host ports to be gone", || held(&place.node, &proxy, &keys) == 0);
    for client in [&mut on_host, &mut in_pod, &mut outside] {
        let refused = || client.ask(&format!("tcp {NODE_IP}:{PORT}")) == "error ConnectionRefused";
        wait_until("a refusal", refused);
    }
    place.node.stop(&proxy, Teardown::Remove);
}

/// TCP and UDP on all addresses of the node, TCP on its loopback.
fn ports_of(pod: &Pod) -> PodHostPorts {
    let port =
        |host_ip, host_port, protocol| HostPort { name: "".into(), host_ip, host_port, container_port: 8080, protocol };
    let ports = vec![
        port(None, PORT, Protocol::Tcp),
        port(None, PORT, Protocol::Udp),
        port(Some(Ipv4Addr::LOCALHOST), LOOPBACK_PORT, Protocol::Tcp),
    ];
    PodHostPorts { pod: ObjectName::new("default", "web"), address: pod.address, ports }
}

/// The keys of the pod's frontends, once all are served.
fn wait_until_held(node: &Node, proxy: &Proxy) -> Vec<ServiceKey> {
    let mut keys = Vec::new();
    wait_until("the host ports to be served", || {
        let entry = proxy.table().pod(&ObjectName::new("default", "web")).cloned();
        keys = entry.iter().flat_map(|entry| &entry.frontends).map(key_of).collect();
        !keys.is_empty() && held(node, proxy, &keys) == keys.len()
    });
    keys
}

fn held(node: &Node, proxy: &Proxy, keys: &[ServiceKey]) -> usize {
    node.block_on(proxy.held(keys.to_vec())).unwrap().iter().flatten().count()
}
