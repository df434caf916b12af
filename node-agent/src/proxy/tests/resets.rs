//! Clients whose backend leaves.

use std::net::Ipv4Addr;

use super::node::{Node, endpoint, privileged, service, tally, wait_until};
use crate::{Teardown, world::Endpoint};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);

#[test]
fn sockets_of_a_backend_that_is_gone_are_closed_in_every_namespace_and_others_are_not() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let (leaving, staying) = (node.pod(), node.pod());
    leaving.serve(8080);
    staying.serve(8080);
    let client_pod = node.pod();
    let proxy = node.start();
    node.publish(&proxy, |world| world.put(service("web", SERVICE, 80), 8080, vec![endpoint(leaving.address)]));
    let host = node.host.clone();
    let mut clients = [node.client(&client_pod.namespace), node.client(&host)];
    for client in &mut clients {
        for (name, kind) in [("stream", "tcp"), ("mapped", "tcp6"), ("datagrams", "udp-connected")] {
            assert!(client.ask(&format!("hold {name} {kind} {SERVICE}:80")).starts_with("ok "), "{kind}");
        }
        assert!(client.ask(&format!("hold direct tcp {}:8080", leaving.address)).starts_with("ok "));
    }

    let draining = Endpoint { ready: false, terminating: true, ..endpoint(leaving.address) };
    node.publish(&proxy, |world| {
        world.put(service("web", SERVICE, 80), 8080, vec![draining, endpoint(staying.address)])
    });
    for client in &mut clients {
        wait_until("connected datagram sockets leave a backend that drains", || {
            client.ask("again datagrams").starts_with("error ")
        });
        assert!(client.ask("again stream").starts_with("ok "), "a draining backend keeps its streams");
    }

    node.publish(&proxy, |world| world.put(service("web", SERVICE, 80), 8080, vec![endpoint(staying.address)]));
    for client in &mut clients {
        for name in ["stream", "mapped"] {
            wait_until("streams to a backend that is gone end", || {
                client.ask(&format!("again {name}")).starts_with("error ")
            });
        }
        assert!(client.ask("again direct").starts_with("ok "), "what did not go through the Service is left alone");
        let answers = client.ask_times(3, &format!("tcp {SERVICE}:80"));
        assert_eq!(tally(&answers).into_keys().collect::<Vec<_>>(), [staying.address.to_string()]);
    }
    node.stop(&proxy, Teardown::Remove);
}

#[test]
fn deleting_a_service_leaves_its_streams_alone() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let backend = node.pod();
    backend.serve(8080);
    let client_pod = node.pod();
    let proxy = node.start();
    let web = service("web", SERVICE, 80);
    node.publish(&proxy, |world| world.put(web.clone(), 8080, vec![endpoint(backend.address)]));
    let mut client = node.client(&client_pod.namespace);
    assert!(client.ask(&format!("hold stream tcp {SERVICE}:80")).starts_with("ok "));
    assert!(client.ask(&format!("hold datagrams udp-connected {SERVICE}:80")).starts_with("ok "));
    node.publish(&proxy, |world| {
        world.services.remove(&web.name);
        world.slices.remove(&web.name);
    });
    wait_until("connected datagram sockets are closed", || client.ask("again datagrams").starts_with("error "));
    assert!(client.ask("again stream").starts_with("ok "));
    assert_eq!(client.ask(&format!("tcp {SERVICE}:80")), "error ConnectionRefused");
    node.stop(&proxy, Teardown::Remove);
}
