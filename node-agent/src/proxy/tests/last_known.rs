//! A start while the API is away: the World is from disk, and the pods have not told their host ports.

use std::net::Ipv4Addr;

use super::node::{BACKEND_PORT, Node, Pod, put_service, service};
use crate::{
    Teardown,
    proxy::image::key_of,
    world::{HostPorts, Origin, World},
};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 90);

#[test]
fn after_a_reboot_the_last_known_services_are_served_before_any_pod_is_there() {
    let Some(mut node) = Node::new() else { return };
    let backends = node.backends::<2>();
    let (mut client, _) = node.client_pod();
    node.host_ports.send_replace(HostPorts::default());
    node.start();
    assert!(node.proxy().is_empty());
    assert_eq!(node.proxy().failure().as_deref(), Some("no Service is served yet"));
    node.publish(|world| {
        world.origin = Origin::Disk;
        put_service(world, service("web", SERVICE, 80), BACKEND_PORT, backends.iter().map(Pod::endpoint).collect());
    });
    assert!(!node.proxy().is_empty());
    assert_eq!(node.proxy().failure(), None);
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "));
}

#[test]
fn what_the_kernel_serves_since_an_earlier_agent_is_not_replaced_by_what_is_on_disk() {
    let Some(mut node) = Node::new() else { return };
    let backends = node.backends::<2>();
    let (mut client, _) = node.client_pod();
    node.start();
    let older = World { origin: Origin::Disk, ..World::clone(&node.world.borrow()) };
    node.serve(service("web", SERVICE, 80), backends.iter().map(Pod::endpoint));
    let key = key_of(&node.proxy().table().services.values().next().unwrap().frontends[0]);
    node.stop(Teardown::Keep);

    node.world.send_replace(std::sync::Arc::new(World { synced: true, ..older }));
    node.start();
    assert!(!node.proxy().is_empty(), "it serves what the earlier agent left");
    let held = |node: &Node| node.block_on(node.proxy().held(vec![key])).unwrap().remove(0);
    assert_eq!(held(&node).map(|held| held.backends.len()), Some(2));
    assert!(client.ask(&format!("tcp {SERVICE}:80")).starts_with("ok "));

    // What the API says is taken, and what it does not name goes.
    node.publish(|world| world.origin = Origin::Api);
    assert_eq!(held(&node), None);
}
