//! Clients of a ClusterIP.

use std::net::Ipv4Addr;

use super::node::{NODE_IP, Node, Pod, backends, serve, service, tally};
use crate::{Teardown, config::DatapathChoice, proxy::Datapath};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);

#[test]
fn a_pod_reaches_every_backend_through_the_cluster_ip_and_sees_the_service_as_its_peer() {
    let Some(mut node) = Node::new() else { return };
    let backends = node.backends::<2>();
    let (mut client, client_address) = node.client_pod();
    node.start();
    node.serve(service("web", SERVICE, 80), backends.iter().map(Pod::endpoint));

    for kind in ["tcp", "udp", "udp-connected"] {
        let answers = client.ask_times(40, &format!("{kind} {SERVICE}:80"));
        let expected = format!("sees {} peer {SERVICE}:80", client_address);
        assert!(
            answers.iter().all(|answer| answer.starts_with("ok ") && answer.ends_with(&expected)),
            "{kind}: {answers:?}"
        );
        assert_eq!(tally(&answers).len(), 2, "{kind}: {answers:?}");
    }
    for kind in ["tcp6", "udp6"] {
        let answer = client.ask(&format!("{kind} {SERVICE}:80"));
        assert!(answer.ends_with(&format!("peer [::ffff:{SERVICE}]:80")), "{kind}: {answer}");
    }
}

#[test]
fn an_unconnected_udp_socket_stays_on_its_backend_until_that_goes() {
    let Some(mut node) = Node::new() else { return };
    let pods = node.backends::<3>();
    let (mut client, _) = node.client_pod();
    node.start();
    let all: Vec<_> = pods.iter().map(Pod::endpoint).collect();
    node.serve(service("dns", SERVICE, 53), all.clone());
    let first = client.ask(&format!("hold socket udp {SERVICE}:53"));
    let backend = first.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(backends(&client.ask_times(10, "again socket")), std::slice::from_ref(&backend));

    let kept: Vec<_> = all.iter().filter(|endpoint| endpoint.addresses[0].to_string() == backend).cloned().collect();
    let mut grown = all.clone();
    grown.rotate_left(1);
    grown.truncate(2);
    grown.extend(kept);
    node.serve(service("dns", SERVICE, 53), grown);
    assert_eq!(backends(&client.ask_times(5, "again socket")), std::slice::from_ref(&backend));

    let others: Vec<_> = all.iter().filter(|endpoint| endpoint.addresses[0].to_string() != backend).cloned().collect();
    node.serve(service("dns", SERVICE, 53), others);
    let moved = backends(&client.ask_times(5, "again socket"));
    assert!(moved.len() == 1 && moved[0] != backend, "{moved:?}");
}

#[test]
fn a_service_without_endpoints_and_an_undefined_port_are_refused_at_once() {
    let Some(mut node) = Node::new() else { return };
    let (mut client, _) = node.client_pod();
    node.start();
    node.serve(service("empty", SERVICE, 80), []);
    for kind in ["tcp", "tcp6", "udp", "udp-connected"] {
        assert_eq!(client.ask(&format!("{kind} {SERVICE}:80")), "error ConnectionRefused", "{kind}");
        assert_eq!(client.ask(&format!("{kind} {SERVICE}:81")), "error ConnectionRefused", "{kind}");
    }
}

#[test]
fn a_udp_socket_connects_to_what_nobody_serves_and_learns_its_own_address() {
    for datapath in [DatapathChoice::Ebpf, DatapathChoice::Userspace] {
        let Some(mut node) = Node::new() else { return };
        node.datapath = datapath;
        let backend = node.backend();
        let (mut in_pod, pod_address) = node.client_pod();
        let host = node.host.clone();
        let mut on_host = node.client(&host);
        node.start();
        node.serve(service("web", SERVICE, 80), [backend.endpoint()]);
        let empty = Ipv4Addr::new(10, 96, 0, 21);
        node.serve(service("empty", empty, 80), []);
        for (client, address) in [(&mut in_pod, pod_address), (&mut on_host, NODE_IP)] {
            for nobody in [format!("{SERVICE}:81"), format!("{empty}:80")] {
                let answer = client.ask(&format!("source {nobody}"));
                assert_eq!(answer, format!("ok {address} peer {nobody}"), "{datapath:?}");
                let answer = client.ask(&format!("udp-connected {nobody}"));
                assert_eq!(answer, "error ConnectionRefused", "{datapath:?}: what is sent is refused");
            }
            let answer = client.ask(&format!("udp-connected {SERVICE}:80"));
            assert!(answer.starts_with(&format!("ok {}", backend.address)), "{datapath:?}: {answer}");
        }
    }
}

#[test]
fn a_restarted_agent_continues_with_what_is_in_the_kernel() {
    let Some(mut node) = Node::new() else { return };
    let backend = node.backend();
    let (mut client, _) = node.client_pod();
    node.start();
    node.serve(service("web", SERVICE, 80), [backend.endpoint()]);
    assert!(client.ask(&format!("hold old tcp {SERVICE}:80")).starts_with("ok "));
    node.stop(Teardown::Keep);
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "), "served without an agent");

    node.start();
    node.publish(|_| {});
    assert!(client.ask("again old").starts_with("ok "));
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "));
    node.stop(Teardown::Remove);
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("error "), "nothing is left in the kernel");
}

#[test]
fn datagrams_to_nobody_stay_on_the_node_while_no_agent_runs() {
    let Some(mut node) = Node::new() else { return };
    let (mut client, _) = node.client_pod();
    let host = node.host.clone();
    let mut on_host = node.client(&host);
    let prohibited = || {
        let routes = host.command("ip").args(["route", "show", "type", "prohibit"]).output().unwrap();
        String::from_utf8(routes.stdout).unwrap()
    };
    node.start();
    node.serve(service("empty", SERVICE, 80), []);
    assert_eq!(client.ask(&format!("udp-connected {SERVICE}:80")), "error ConnectionRefused");
    node.stop(Teardown::Keep);
    assert_eq!(client.ask(&format!("udp-connected {SERVICE}:80")), "error HostUnreachable");
    assert_eq!(on_host.ask(&format!("udp-connected {SERVICE}:80")), "error PermissionDenied");
    node.start();
    node.publish(|_| {});
    assert_eq!(client.ask(&format!("udp-connected {SERVICE}:80")), "error ConnectionRefused");
    assert!(prohibited().contains("169.254.96.2"), "{}", prohibited());
    node.stop(Teardown::Remove);
    assert_eq!(prohibited(), "");
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.backend();
    node.start();
    node.serve(service("web", SERVICE, 80), [pod.endpoint()]);
    let mut client = node.client(&pod.namespace);
    for kind in ["tcp", "udp"] {
        let answer = client.ask(&format!("{kind} {SERVICE}:80"));
        assert_eq!(answer, format!("ok {0} sees {0} peer {SERVICE}:80", pod.address));
    }
}

#[test]
fn the_cluster_dns_address_leads_to_this_nodes_server_over_both_protocols() {
    let Some(mut node) = Node::new() else { return };
    let (mut client, client_address) = node.client_pod();
    let dns = Ipv4Addr::new(10, 96, 0, 10);
    node.dns = Some((dns, std::net::SocketAddrV4::new(NODE_IP, 5353)));
    serve(&node.host, NODE_IP, 5353);
    node.start();
    node.publish(|_| {});
    for kind in ["tcp", "udp", "udp-connected"] {
        let answer = client.ask(&format!("{kind} {dns}:53"));
        assert_eq!(answer, format!("ok {NODE_IP} sees {} peer {dns}:53", client_address), "{kind}");
    }
}

#[test]
fn auto_takes_userspace_where_hooks_cannot_be_attached_and_says_why() {
    let Some(mut node) = Node::new() else { return };
    let backend = node.backend();
    let (mut client, _) = node.client_pod();
    node.datapath = DatapathChoice::Auto;
    node.cgroup_for_hooks = Some("/nowhere".into());
    node.start();
    let Datapath::Userspace { reason } = node.proxy().datapath() else { panic!("there is no such cgroup") };
    assert!(reason.contains("/nowhere"), "{reason}");
    node.serve(service("web", SERVICE, 80), [backend.endpoint()]);
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "));
}
