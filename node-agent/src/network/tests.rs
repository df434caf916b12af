//! The pod network in real network namespaces.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::sync::watch;

mod adoption;
mod firewall;
mod mtu;
mod peers;
mod prefixes;
mod restored;
mod sources;

use super::{
    Network, NetworkConfig, PodNetwork,
    namespaces::{TestMachine, UPLINK, can_make_namespaces},
    netlink::Netlink,
    reconciler::{KernelCache, NetworkReconciler},
    start,
};
use crate::{
    Teardown,
    world::{Node, World},
};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

fn config(data_dir: &std::path::Path) -> NetworkConfig {
    NetworkConfig {
        node_name: "one".into(),
        node_ip: NODE,
        pod_cidr: "10.244.1.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        data_dir: data_dir.to_owned(),
    }
}

/// A node with one uplink, at whose other end is a machine outside the cluster.
fn node() -> (TestMachine, TestMachine) {
    let (node, outside) = (TestMachine::new(), TestMachine::new());
    node.join(UPLINK, (NODE, 24), &outside, (OUTSIDE, 24));
    (node, outside)
}

/// The network as its start leaves it: nothing is reconciled afterwards.
fn start_on(node: &TestMachine, config: NetworkConfig) -> Arc<Network> {
    start_following(node, config).0
}

/// As [`start_on`]; the network reconciles for as long as the sender is held.
fn start_following(node: &TestMachine, config: NetworkConfig) -> (Arc<Network>, watch::Sender<Arc<World>>) {
    let (publish, seen) = watch::channel(Arc::new(World::default()));
    (Arc::new(node.wait(async move { start(config, seen).await.unwrap() })), publish)
}

/// A reconciler of this network that no event wakes: it syncs only when it is told to.
fn reconciler_without_events(node: &TestMachine, network: &Arc<Network>) -> NetworkReconciler {
    shutdown(node, network, Teardown::Keep);
    NetworkReconciler {
        config: network.config.clone(),
        netlink: network.netlink.clone(),
        attacher: network.attacher.clone(),
        bypass: network.bypass.clone(),
        source_filter: network.source_filter.clone(),
        sysctls: network.sysctls.clone(),
        problem: watch::channel(None).0,
        resync: network.resync.clone(),
        cache: KernelCache::default(),
    }
}

/// Syncs, without an error.
fn sync(node: &TestMachine, mut reconciler: NetworkReconciler, world: World) -> NetworkReconciler {
    node.wait(async move {
        let outcome = reconciler.sync(&world).await;
        assert_eq!(outcome.errors().count(), 0, "{outcome:?}");
        reconciler
    })
}

fn attach(node: &TestMachine, network: &Arc<Network>, pod_uid: &'static str, pod: &TestMachine) -> Ipv4Addr {
    let (network, path) = (network.clone(), pod.path());
    node.wait(async move { network.attach(pod_uid, &path).await.unwrap() })
}

fn shutdown(node: &TestMachine, network: &Arc<Network>, teardown: Teardown) {
    let network = network.clone();
    node.wait(async move { network.shutdown(teardown).await.unwrap() });
}

#[test]
fn pods_of_one_node_reach_each_other_and_the_node_with_true_addresses() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let network = start_on(&node, config(dir.path()));
    let (a, b) = (TestMachine::new(), TestMachine::new());
    let (address_a, address_b) = (attach(&node, &network, "a", &a), attach(&node, &network, "b", &b));
    a.serve_who_am_i(80);
    b.serve_who_am_i(80);
    node.serve_who_am_i(80);

    assert_eq!(a.ask_who_am_i(address_b, 80).unwrap(), address_a.to_string(), "pod to pod");
    assert_eq!(b.ask_who_am_i(address_a, 80).unwrap(), address_b.to_string(), "and back");
    assert_eq!(a.ask_who_am_i(address_a, 80).unwrap(), address_a.to_string(), "a pod to itself");
    assert_eq!(node.ask_who_am_i(address_a, 80).unwrap(), NODE.to_string(), "node to pod");
    assert_eq!(a.ask_who_am_i(NODE, 80).unwrap(), address_a.to_string(), "pod to node");
    assert_eq!(a.ask_who_am_i(network.gateway(), 80).unwrap(), address_a.to_string(), "pod to gateway");
    let gateway = network.gateway();
    let refused = a.inside(move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((gateway, 53)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        socket.send(b"query").unwrap();
        socket.recv(&mut [0; 16]).unwrap_err().kind()
    });
    assert_eq!(refused, std::io::ErrorKind::WouldBlock, "a query while the agent is away waits");
    let ipv6 = a.inside(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default());
    assert!(!ipv6.contains("eth0"), "{ipv6}");
}

#[test]
fn attaching_again_changes_nothing_and_an_agent_that_comes_back_knows_its_pods() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let (a, b) = (TestMachine::new(), TestMachine::new());
    let network = start_on(&node, config(dir.path()));
    let address = attach(&node, &network, "a", &a);
    let before = node.inventory();
    assert_eq!(attach(&node, &network, "a", &a), address);
    assert_eq!(node.inventory(), before);
    shutdown(&node, &network, Teardown::Keep);
    drop(network);

    let network = start_on(&node, config(dir.path()));
    assert_eq!(attach(&node, &network, "a", &a), address);
    assert_eq!(node.inventory(), before);
    assert_ne!(attach(&node, &network, "b", &b), address);
    let retaining = network.clone();
    node.wait(async move { retaining.retain(&["a".to_owned()]).await.unwrap() });
    assert_eq!(node.inventory(), before, "b is gone");
    a.serve_who_am_i(80);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());
}

#[test]
fn a_new_sandbox_of_the_same_pod_gets_its_address_and_the_old_link_goes() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let network = start_on(&node, config(dir.path()));
    let (old, new) = (TestMachine::new(), TestMachine::new());
    let address = attach(&node, &network, "a", &old);
    assert_eq!(attach(&node, &network, "a", &new), address);
    new.serve_who_am_i(80);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());
    assert!(!old.inventory().contains("eth0"));
}

#[test]
fn a_node_that_gets_another_pod_subnet_keeps_nothing_of_the_first() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let pod = TestMachine::new();
    let network = start_on(&node, config(dir.path()));
    attach(&node, &network, "a", &pod);
    shutdown(&node, &network, Teardown::Keep);

    let moved = NetworkConfig { pod_cidr: "10.244.9.0/24".parse().unwrap(), ..config(dir.path()) };
    let network = start_on(&node, moved);
    assert!(!node.inventory().contains("10.244.1."), "{}", node.inventory());
    let address = attach(&node, &network, "a", &pod);
    assert_eq!(address, Ipv4Addr::new(10, 244, 9, 2));
    pod.serve_who_am_i(80);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());
}

#[test]
fn a_full_subnet_and_a_missing_sandbox_are_clear_errors() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let tiny = NetworkConfig { pod_cidr: "10.244.1.0/30".parse().unwrap(), ..config(dir.path()) };
    let network = start_on(&node, tiny);
    let pod = TestMachine::new();
    let attaching = network.clone();
    let missing = node.wait(async move { attaching.attach("a", "/proc/0/ns/net".as_ref()).await.unwrap_err() });
    assert!(missing.to_string().contains("/proc/0/ns/net"), "{missing}");
    attach(&node, &network, "a", &pod);
    let (attaching, path) = (network.clone(), pod.path());
    let full = node.wait(async move { attaching.attach("b", &path).await.unwrap_err() });
    assert!(full.to_string().contains("all 1 addresses of 10.244.1.0/30 are taken"), "{full}");
    let detaching = network.clone();
    node.wait(async move {
        detaching.detach("a").await.unwrap();
        detaching.detach("a").await.unwrap();
    });
    attach(&node, &network, "b", &pod);
}

#[test]
fn removal_leaves_the_node_as_it_was() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let forwarding = "/proc/sys/net/ipv4/conf/uplink/forwarding";
    node.inside(move || std::fs::write(forwarding, "0").unwrap());
    let before = node.inventory();
    let network = start_on(&node, config(dir.path()));
    let pod = TestMachine::new();
    attach(&node, &network, "a", &pod);
    assert_ne!(node.inventory(), before);
    assert_eq!(node.inside(move || std::fs::read_to_string(forwarding).unwrap()).trim(), "1");

    shutdown(&node, &network, Teardown::Remove);
    assert_eq!(node.inventory(), before);
    assert_eq!(node.inside(move || std::fs::read_to_string(forwarding).unwrap()).trim(), "0");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no state is left");
}

const SWITCH: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const FAR_SIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
const NODES: [Ipv4Addr; 3] = [NODE, Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(203, 0, 113, 1)];
const NAMES: [&str; 3] = ["one", "two", "three"];

/// Nodes `one` and `two` on a switch, and `three` behind a router, which is the switch and knows nothing of pods.
struct Cluster {
    router: TestMachine,
    nodes: Vec<TestMachine>,
    networks: Vec<Arc<Network>>,
    worlds: Vec<watch::Sender<Arc<World>>>,
    _data: Vec<tempfile::TempDir>,
}

impl Cluster {
    fn start() -> Self {
        let (router, nodes) = (TestMachine::new(), NODES.map(|_| TestMachine::new()));
        router.become_switch(SWITCH, 24);
        router.plug("port1", &nodes[0], NODES[0], 24);
        router.plug("port2", &nodes[1], NODES[1], 24);
        router.join(UPLINK, (FAR_SIDE, 24), &nodes[2], (NODES[2], 24));
        nodes[0].default_route(SWITCH);
        nodes[1].default_route(SWITCH);
        nodes[2].default_route(FAR_SIDE);
        let mut cluster = Self { router, nodes: nodes.into(), networks: vec![], worlds: vec![], _data: vec![] };
        for (index, node) in cluster.nodes.iter().enumerate() {
            let (data, (publish, seen)) = (tempfile::tempdir().unwrap(), watch::channel(Arc::new(world(&[0, 1, 2]))));
            let config = NetworkConfig {
                node_name: NAMES[index].into(),
                node_ip: NODES[index],
                pod_cidr: pod_cidr(index),
                ..config(data.path())
            };
            cluster.networks.push(Arc::new(node.wait(async move { start(config, seen).await.unwrap() })));
            cluster.worlds.push(publish);
            cluster._data.push(data);
        }
        cluster
    }

    fn pod(&self, node: usize, pod_uid: &'static str) -> (TestMachine, Ipv4Addr) {
        let pod = TestMachine::new();
        let address = attach(&self.nodes[node], &self.networks[node], pod_uid, &pod);
        pod.serve_who_am_i(80);
        (pod, address)
    }
}

fn pod_cidr(node: usize) -> ipnetwork::Ipv4Network {
    format!("10.244.{}.0/24", node + 1).parse().unwrap()
}

fn world(nodes: &[usize]) -> World {
    let node = |index: &usize| Node {
        name: NAMES[*index].into(),
        internal_ip: Some(NODES[*index]),
        pod_cidr: Some(pod_cidr(*index)),
        revision: 1,
        ..Node::default()
    };
    let nodes = nodes.iter().map(node).map(|node| (node.name.clone(), Arc::new(node))).collect();
    World { nodes, synced: true, revision: 1, ..World::default() }
}

/// Looks until `holds`.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "waited in vain for: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn pods_of_all_nodes_reach_each_other_directly_or_tunnelled_and_the_outside_masqueraded() {
    if !can_make_namespaces() {
        return;
    }
    let cluster = Cluster::start();
    let pods = [cluster.pod(0, "a"), cluster.pod(1, "b"), cluster.pod(2, "c")];
    for (from, (client, client_address)) in pods.iter().enumerate() {
        for (to, (_, server_address)) in pods.iter().enumerate() {
            let seen = client.ask_who_am_i(*server_address, 80).unwrap();
            assert_eq!(seen, client_address.to_string(), "pod of node {from} to pod of node {to}");
        }
    }
    let gateway = cluster.networks[0].gateway().to_string();
    assert_eq!(cluster.nodes[0].ask_who_am_i(pods[1].1, 80).unwrap(), NODE.to_string(), "node to pod on its link");
    assert_eq!(cluster.nodes[0].ask_who_am_i(pods[2].1, 80).unwrap(), gateway, "node to pod through the tunnel");

    cluster.router.serve_who_am_i(80);
    cluster.nodes[1].serve_who_am_i(80);
    cluster.nodes[2].serve_who_am_i(80);
    let (pod, address) = &pods[0];
    assert_eq!(pod.ask_who_am_i(SWITCH, 80).unwrap(), NODE.to_string(), "pod to outside");
    assert_eq!(pod.ask_who_am_i(NODES[1], 80).unwrap(), address.to_string(), "pod to a node on the link");
    assert_eq!(pod.ask_who_am_i(NODES[2], 80).unwrap(), NODE.to_string(), "pod to a node beyond routers");
}

#[test]
fn routes_follow_the_nodes_and_come_back_when_somebody_takes_them() {
    if !can_make_namespaces() {
        return;
    }
    let cluster = Cluster::start();
    let one = &cluster.nodes[0];
    let complete = one.inventory();
    assert!(complete.contains("fairlead.vx") && complete.contains("10.244.2.0"));

    cluster.worlds[0].send_replace(Arc::new(world(&[0, 1])));
    wait_until("the route through the tunnel to go", || !one.inventory().contains("10.244.3.0"));
    cluster.worlds[0].send_replace(Arc::new(world(&[0])));
    wait_until("the tunnel to go", || !one.inventory().contains("fairlead.vx"));
    cluster.worlds[0].send_replace(Arc::new(World { synced: false, ..world(&[0]) }));
    cluster.worlds[0].send_replace(Arc::new(world(&[0, 1, 2])));
    wait_until("the tunnel to be back", || one.inventory().contains("10.244.3.0"));

    let (_pod, address) = cluster.pod(0, "a");
    let complete = one.inventory();
    one.wait(async {
        let netlink = Netlink::open().unwrap();
        for route in netlink.routes().await.unwrap().iter().filter(|route| route.ours) {
            netlink.delete_route(route).await.unwrap();
        }
    });
    wait_until("all routes to be back", || one.inventory().len() >= complete.len());
    assert_eq!(one.ask_who_am_i(address, 80).unwrap(), NODE.to_string());
    one.wait(async {
        let netlink = Netlink::open().unwrap();
        let tunnel = netlink.link("fairlead.vx").await.unwrap().unwrap();
        netlink.delete_link(tunnel.index).await.unwrap();
    });
    wait_until("the tunnel to be back", || one.inventory().len() >= complete.len());
    one.set_link(UPLINK, false);
    assert!(!one.inventory().contains("10.244.2.0"), "the kernel took the routes with the link");
    one.set_link(UPLINK, true);
    wait_until("the routes to be back", || one.inventory().contains("10.244.2.0"));
    nft(one, "delete table ip fairlead");
    let there = || one.wait(async { super::nft::is_there("ip").await.unwrap() });
    wait_until("the table to be back", there);
}

fn nft(machine: &TestMachine, script: &'static str) {
    machine.inside(move || {
        let ran = std::process::Command::new("nft").arg(script).status();
        assert!(ran.unwrap().success(), "{script}");
    });
}

#[test]
fn removal_leaves_no_tunnel_route_or_table() {
    if !can_make_namespaces() {
        return;
    }
    let cluster = Cluster::start();
    for (node, network) in cluster.nodes.iter().zip(&cluster.networks) {
        shutdown(node, network, Teardown::Remove);
        let left = node.inventory();
        assert!(!left.contains("fairlead") && !left.contains("10.244."), "{left}");
        for family in ["ip", "inet", "arp", "netdev"] {
            assert!(!node.wait(async { super::nft::is_there(family).await.unwrap() }), "{family}");
        }
    }
}
