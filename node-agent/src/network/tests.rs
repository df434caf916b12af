//! The pod network in real network namespaces.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::sync::watch;

use super::{
    Config, Network, PodNetwork,
    namespaces::{Machine, can_make_namespaces},
    start,
};
use crate::{Teardown, world::World};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

fn config(data_dir: &std::path::Path) -> Config {
    Config {
        node_name: "one".into(),
        node_ip: NODE,
        pod_cidr: "10.244.1.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        data_dir: data_dir.to_owned(),
    }
}

/// A node with one uplink, at whose other end is a machine outside the cluster.
fn node() -> (Machine, Machine) {
    let (node, outside) = (Machine::new(), Machine::new());
    node.join("uplink", (NODE, 24), &outside, (OUTSIDE, 24));
    (node, outside)
}

fn start_on(node: &Machine, config: Config) -> Arc<Network> {
    let (_world, seen) = watch::channel(Arc::new(World::default()));
    Arc::new(node.wait(async move { start(config, seen).await.unwrap() }))
}

fn attach(node: &Machine, network: &Arc<Network>, pod_uid: &'static str, pod: &Machine) -> Ipv4Addr {
    let (network, path) = (network.clone(), pod.path());
    node.wait(async move { network.attach(pod_uid, &path).await.unwrap() })
}

fn shutdown(node: &Machine, network: &Arc<Network>, teardown: Teardown) {
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
    let (a, b) = (Machine::new(), Machine::new());
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
}

#[test]
fn attaching_again_changes_nothing_and_an_agent_that_comes_back_knows_its_pods() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let (a, b) = (Machine::new(), Machine::new());
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
    let (old, new) = (Machine::new(), Machine::new());
    let address = attach(&node, &network, "a", &old);
    assert_eq!(attach(&node, &network, "a", &new), address);
    new.serve_who_am_i(80);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());
    assert!(!old.inventory().contains("eth0"));
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
    let pod = Machine::new();
    attach(&node, &network, "a", &pod);
    assert_ne!(node.inventory(), before);
    assert_eq!(node.inside(move || std::fs::read_to_string(forwarding).unwrap()).trim(), "1");

    shutdown(&node, &network, Teardown::Remove);
    assert_eq!(node.inventory(), before);
    assert_eq!(node.inside(move || std::fs::read_to_string(forwarding).unwrap()).trim(), "0");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no state is left");
}
