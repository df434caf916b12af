//! `sessionAffinity: ClientIP`.

use std::{net::Ipv4Addr, time::Duration};

use aya::maps::{HashMap, Map, MapData};
use proxy_ebpf::{Affinity, AffinityKey};

use super::node::{NODE_IP, Node, Pod, backends, node_port_service, wait_until};
use crate::world::Service;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 40);
const TIMEOUT: Duration = Duration::from_secs(10);

fn affine_service() -> Service {
    Service { session_affinity: Some(TIMEOUT), ..node_port_service("web", SERVICE, 30080) }
}

#[test]
fn a_client_keeps_its_backend_over_sockets_protocols_and_other_backends_coming() {
    let Some(mut node) = Node::new() else { return };
    let all = node.backends::<4>().each_ref().map(Pod::endpoint);
    let mut clients: Vec<_> = (0..4).map(|_| node.client_pod().0).collect();
    let outside = node.neighbour(Ipv4Addr::new(192, 0, 2, 100));
    node.start();
    let service = Service { session_affinity: Some(Duration::from_secs(60)), ..affine_service() };
    node.serve(service.clone(), all[..3].to_vec());

    let mut seen = Vec::new();
    for client in &mut clients {
        let mut answers = client.ask_times(10, &format!("tcp {SERVICE}:80"));
        answers.extend(client.ask_times(5, &format!("tcp {NODE_IP}:30080")));
        let backends = backends(&answers);
        assert_eq!(backends.len(), 1, "{backends:?}");
        seen.extend(backends);
    }
    let mut stranger = node.stranger(&outside);
    let strangers = backends(&stranger.ask_times(10, &format!("tcp {NODE_IP}:30080")));
    assert_eq!(strangers.len(), 1, "{strangers:?}");

    node.serve(service.clone(), all.clone());
    for (client, backend) in clients.iter_mut().zip(&seen) {
        assert_eq!(backends(&client.ask_times(10, &format!("tcp {SERVICE}:80"))), std::slice::from_ref(backend));
    }
    assert_eq!(backends(&stranger.ask_times(10, &format!("tcp {NODE_IP}:30080"))), strangers);

    let without_first = all.into_iter().filter(|endpoint| endpoint.addresses[0].to_string() != seen[0]);
    node.serve(service, without_first);
    let moved = backends(&clients[0].ask_times(10, &format!("tcp {SERVICE}:80")));
    assert!(moved.len() == 1 && moved[0] != seen[0], "a backend that is gone keeps nobody: {moved:?}");
}

#[test]
fn affinity_by_the_clients_address_ends_after_its_timeout() {
    let Some(mut node) = Node::new() else { return };
    let backends = node.backends::<8>();
    let (mut client, _) = node.client_pod();
    node.start();
    node.serve(affine_service(), backends.iter().map(Pod::endpoint));
    let mut ask = || client.ask(&format!("tcp {SERVICE}:80"));
    wait_until("the client's address is learnt", || {
        ask();
        affine_picks(&node) > 0
    });
    let before = affine_picks(&node);
    let_pass(&node, TIMEOUT / 2);
    ask();
    assert_eq!(affine_picks(&node), before + 1, "each use lets it last anew");
    let_pass(&node, TIMEOUT / 2 + TIMEOUT / 4);
    ask();
    assert_eq!(affine_picks(&node), before + 2);
    let_pass(&node, TIMEOUT);
    ask();
    assert_eq!(affine_picks(&node), before + 2, "the affinity has ended");
    ask();
    assert_eq!(affine_picks(&node), before + 3, "and begins again");
}

fn affine_picks(node: &Node) -> u64 {
    let key = crate::proxy::image::key_of(&node.proxy().table().services.values().next().unwrap().frontends[0]);
    let held = node.block_on(node.proxy().held(vec![key])).unwrap();
    held[0].as_ref().unwrap().backends.iter().map(|backend| backend.counters.affine).sum()
}

/// Makes every affinity as old as if `time` had passed. The kernel's clock cannot be turned, what it is compared with
/// can.
fn let_pass(node: &Node, time: Duration) {
    let map = MapData::from_pin(node.pinned_map("AFFINITY")).unwrap();
    let mut map: HashMap<_, AffinityKey, Affinity> = Map::LruHashMap(map).try_into().unwrap();
    let entries: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
    assert!(!entries.is_empty());
    for (key, affinity) in entries {
        let last_used_ns = affinity.last_used_ns - u64::try_from(time.as_nanos()).unwrap();
        map.insert(key, Affinity { last_used_ns, ..affinity }, 0).unwrap();
    }
}
