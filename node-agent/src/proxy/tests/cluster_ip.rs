//! Clients of a ClusterIP.

use std::net::Ipv4Addr;

use super::node::{NODE_IP, Node, endpoint, privileged, serve, service, tally};
use crate::{Teardown, config::DatapathChoice, proxy::Datapath};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);

#[test]
fn a_pod_reaches_every_backend_through_the_cluster_ip_and_sees_the_service_as_its_peer() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let backends = [node.pod(), node.pod()];
    backends.iter().for_each(|pod| pod.serve(8080));
    let client_pod = node.pod();
    let proxy = node.start();
    node.publish(&proxy, |world| {
        world.put(service("web", SERVICE, 80), 8080, backends.iter().map(|pod| endpoint(pod.address)).collect());
    });

    let mut client = node.client(&client_pod.namespace);
    for kind in ["tcp", "udp", "udp-connected"] {
        let answers = client.ask_times(40, &format!("{kind} {SERVICE}:80"));
        let expected = format!("sees {} peer {SERVICE}:80", client_pod.address);
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
    node.stop(&proxy, Teardown::Remove);
}

#[test]
fn an_unconnected_udp_socket_stays_on_its_backend_until_that_goes() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let backends = [node.pod(), node.pod(), node.pod()];
    backends.iter().for_each(|pod| pod.serve(8080));
    let client_pod = node.pod();
    let proxy = node.start();
    let all: Vec<_> = backends.iter().map(|pod| endpoint(pod.address)).collect();
    node.publish(&proxy, |world| world.put(service("dns", SERVICE, 53), 8080, all.clone()));
    let mut client = node.client(&client_pod.namespace);
    let first = client.ask(&format!("hold socket udp {SERVICE}:53"));
    let backend = first.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(tally(&client.ask_times(10, "again socket")).into_keys().collect::<Vec<_>>(), [backend.clone()]);

    let kept: Vec<_> = all.iter().filter(|endpoint| endpoint.addresses[0].to_string() == backend).cloned().collect();
    let mut grown = all.clone();
    grown.rotate_left(1);
    grown.truncate(2);
    grown.extend(kept);
    node.publish(&proxy, |world| world.put(service("dns", SERVICE, 53), 8080, grown));
    assert_eq!(tally(&client.ask_times(5, "again socket")).into_keys().collect::<Vec<_>>(), [backend.clone()]);

    let others: Vec<_> = all.iter().filter(|endpoint| endpoint.addresses[0].to_string() != backend).cloned().collect();
    node.publish(&proxy, |world| world.put(service("dns", SERVICE, 53), 8080, others));
    let moved = tally(&client.ask_times(5, "again socket"));
    assert!(moved.len() == 1 && !moved.contains_key(&backend), "{moved:?}");
    node.stop(&proxy, Teardown::Remove);
}

#[test]
fn a_service_without_endpoints_and_an_undefined_port_are_refused_at_once() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let client_pod = node.pod();
    let proxy = node.start();
    node.publish(&proxy, |world| world.put(service("empty", SERVICE, 80), 8080, Vec::new()));
    let mut client = node.client(&client_pod.namespace);
    for kind in ["tcp", "tcp6", "udp", "udp-connected"] {
        assert_eq!(client.ask(&format!("{kind} {SERVICE}:80")), "error ConnectionRefused", "{kind}");
        assert_eq!(client.ask(&format!("{kind} {SERVICE}:81")), "error ConnectionRefused", "{kind}");
    }
    node.stop(&proxy, Teardown::Remove);
}

#[test]
fn a_restarted_agent_continues_with_what_is_in_the_kernel() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let backend = node.pod();
    backend.serve(8080);
    let client_pod = node.pod();
    let first = node.start();
    node.publish(&first, |world| world.put(service("web", SERVICE, 80), 8080, vec![endpoint(backend.address)]));
    let mut client = node.client(&client_pod.namespace);
    assert!(client.ask(&format!("hold old tcp {SERVICE}:80")).starts_with("ok "));
    node.stop(&first, Teardown::Keep);
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "), "served without an agent");

    let second = node.start();
    node.publish(&second, |_| {});
    assert!(client.ask("again old").starts_with("ok "));
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "));
    node.stop(&second, Teardown::Remove);
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("error "), "nothing is left in the kernel");
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let pod = node.pod();
    pod.serve(8080);
    let proxy = node.start();
    node.publish(&proxy, |world| world.put(service("web", SERVICE, 80), 8080, vec![endpoint(pod.address)]));
    let mut client = node.client(&pod.namespace);
    for kind in ["tcp", "udp"] {
        let answer = client.ask(&format!("{kind} {SERVICE}:80"));
        assert_eq!(answer, format!("ok {0} sees {0} peer {SERVICE}:80", pod.address));
    }
    node.stop(&proxy, Teardown::Remove);
}

#[test]
fn the_cluster_dns_address_leads_to_this_nodes_server_over_both_protocols() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let client_pod = node.pod();
    let dns = Ipv4Addr::new(10, 96, 0, 10);
    node.dns = Some((dns, std::net::SocketAddrV4::new(NODE_IP, 5353)));
    serve(&node.host, NODE_IP, 5353);
    let proxy = node.start();
    node.publish(&proxy, |_| {});
    let mut client = node.client(&client_pod.namespace);
    for kind in ["tcp", "udp", "udp-connected"] {
        let answer = client.ask(&format!("{kind} {dns}:53"));
        assert_eq!(answer, format!("ok {NODE_IP} sees {} peer {dns}:53", client_pod.address), "{kind}");
    }
    node.stop(&proxy, Teardown::Remove);
}

#[test]
fn auto_takes_userspace_where_hooks_cannot_be_attached_and_says_why() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let backend = node.pod();
    backend.serve(8080);
    let client_pod = node.pod();
    node.datapath = DatapathChoice::Auto;
    node.cgroup_for_hooks = Some("/nowhere".into());
    let proxy = node.start();
    let Datapath::Userspace { reason } = proxy.datapath() else { panic!("there is no such cgroup") };
    assert!(reason.contains("/nowhere"), "{reason}");
    node.publish(&proxy, |world| world.put(service("web", SERVICE, 80), 8080, vec![endpoint(backend.address)]));
    let mut client = node.client(&client_pod.namespace);
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "));
    node.stop(&proxy, Teardown::Remove);
}
