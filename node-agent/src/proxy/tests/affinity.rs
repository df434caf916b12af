//! `sessionAffinity: ClientIP`.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::node::{NODE_IP, Node, endpoint, node_port_service, privileged, tally};
use crate::{Teardown, world::Service};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 40);

#[test]
fn a_client_keeps_its_backend_over_sockets_protocols_and_other_backends_coming() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let backends = [node.pod(), node.pod(), node.pod(), node.pod()];
    backends.iter().for_each(|pod| pod.serve(8080));
    let clients: Vec<_> = (0..4).map(|_| node.pod()).collect();
    let outside = node.neighbour(Ipv4Addr::new(192, 0, 2, 100));
    let proxy = node.start();
    let service =
        Service { session_affinity: Some(Duration::from_secs(60)), ..node_port_service("web", SERVICE, 30080) };
    let all: Vec<_> = backends.iter().map(|pod| endpoint(pod.address)).collect();
    node.publish(&proxy, |world| world.put(service.clone(), 8080, all[..3].to_vec()));

    let mut seen = Vec::new();
    let mut processes: Vec<_> = clients.iter().map(|pod| node.client(&pod.namespace)).collect();
    for client in &mut processes {
        let mut answers = client.ask_times(10, &format!("tcp {SERVICE}:80"));
        answers.extend(client.ask_times(5, &format!("tcp {NODE_IP}:30080")));
        let tally = tally(&answers);
        assert_eq!(tally.len(), 1, "{tally:?}");
        seen.extend(tally.into_keys());
    }
    let mut stranger = node.stranger(&outside);
    let stranger_backend = tally(&stranger.ask_times(10, &format!("tcp {NODE_IP}:30080")));
    assert_eq!(stranger_backend.len(), 1, "{stranger_backend:?}");

    node.publish(&proxy, |world| world.put(service.clone(), 8080, all.clone()));
    for (client, backend) in processes.iter_mut().zip(&seen) {
        assert_eq!(
            tally(&client.ask_times(10, &format!("tcp {SERVICE}:80"))).into_keys().collect::<Vec<_>>(),
            [backend.clone()]
        );
    }
    assert_eq!(tally(&stranger.ask_times(10, &format!("tcp {NODE_IP}:30080"))).len(), 1);

    let without_first: Vec<_> =
        all.iter().filter(|endpoint| endpoint.addresses[0].to_string() != seen[0]).cloned().collect();
    node.publish(&proxy, |world| world.put(service.clone(), 8080, without_first));
    let moved = tally(&processes[0].ask_times(10, &format!("tcp {SERVICE}:80")));
    assert!(moved.len() == 1 && !moved.contains_key(&seen[0]), "a backend that is gone keeps nobody: {moved:?}");
    node.stop(&proxy, Teardown::Remove);
}

#[test]
fn affinity_by_the_clients_address_ends_after_its_timeout() {
    if !privileged() {
        return;
    }
    let mut node = Node::new();
    let backends: Vec<_> = (0..8).map(|_| node.pod()).collect();
    backends.iter().for_each(|pod| pod.serve(8080));
    let client_pod = node.pod();
    let proxy = node.start();
    let service =
        Service { session_affinity: Some(Duration::from_secs(1)), ..node_port_service("web", SERVICE, 30080) };
    node.publish(&proxy, |world| {
        world.put(service.clone(), 8080, backends.iter().map(|pod| endpoint(pod.address)).collect());
    });
    let mut client = node.client(&client_pod.namespace);
    let affine = |node: &Node| -> u64 {
        let key = crate::proxy::image::key_of(&proxy.table().services.values().next().unwrap().frontends[0]);
        let held = node.block_on(proxy.held(vec![key])).unwrap();
        held[0].as_ref().unwrap().backends.iter().map(|backend| backend.counters.affine).sum()
    };
    let started = Instant::now();
    while affine(&node) == 0 {
        assert!(started.elapsed() < Duration::from_secs(5), "the client's address is not learnt");
        client.ask(&format!("tcp {SERVICE}:80"));
    }
    // The kernel's clock decides; a pause longer than the timeout is the only way to see it pass.
    std::thread::sleep(Duration::from_millis(1100));
    let before = affine(&node);
    client.ask(&format!("tcp {SERVICE}:80"));
    assert_eq!(affine(&node), before, "the affinity has ended");
    client.ask(&format!("tcp {SERVICE}:80"));
    assert_eq!(affine(&node), before + 1, "and begins again");
    node.stop(&proxy, Teardown::Remove);
}
