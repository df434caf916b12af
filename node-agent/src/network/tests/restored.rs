//! What another program takes from pods' links comes back.

use super::*;
use crate::network::{pod_link, service_link};

/// A node with pod `a`, which serves at port 80.
fn serving() -> (TestMachine, Arc<Network>, (TestMachine, Ipv4Addr), impl Sized) {
    let dir = tempfile::tempdir().unwrap();
    let (node, outside) = node();
    let (network, world) = start_following(&node, config(dir.path()));
    let pod = TestMachine::new();
    let address = attach(&node, &network, "a", &pod);
    pod.serve_who_am_i(80);
    (node, network, (pod, address), (dir, outside, world))
}

/// A link as that into the namespace of the Services.
fn join_services(node: &TestMachine, namespace: &TestMachine) {
    let [here, there] = [1, 2].map(|last| (Ipv4Addr::new(169, 254, 96, last), 32));
    node.join(service_link::NAME, here, namespace, there);
    node.inside(|| {
        let forwarding = format!("/proc/sys/net/ipv4/conf/{}/forwarding", service_link::NAME);
        std::fs::write(forwarding, "1").unwrap();
    });
}

const ALL_ON: &str = "1\n1\n1\n1\n";

#[test]
fn forwarding_comes_back_to_all_links_after_the_host_switched_it_off() {
    if !can_make_namespaces() {
        return;
    }
    let (node, _network, _pod, _rest) = serving();
    let namespace = TestMachine::new();
    join_services(&node, &namespace);
    let link = pod_link::host_end("a");
    let settings = [
        (format!("/proc/sys/net/ipv4/conf/{link}/forwarding"), "0"),
        (format!("/proc/sys/net/ipv4/conf/{UPLINK}/forwarding"), "0"),
        (format!("/proc/sys/net/ipv4/conf/{}/forwarding", service_link::NAME), "0"),
        (format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "2"),
    ];
    let values = |settings: Vec<String>| {
        node.inside(move || settings.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>())
    };
    let paths = settings.clone().map(|(path, _)| path).to_vec();
    assert_eq!(values(paths.clone()), ALL_ON);
    node.inside(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    });
    wait_until("forwarding to be back", || values(paths.clone()) == ALL_ON);
    let (path, value) = settings[3].clone();
    node.inside(move || std::fs::write(path, value).unwrap());
    wait_until("the strict check to be back", || values(paths.clone()) == ALL_ON);
}

#[test]
fn a_pods_link_that_is_set_down_comes_up_again_with_its_route() {
    if !can_make_namespaces() {
        return;
    }
    let (node, _network, (_pod, address), _rest) = serving();
    let before = node.inventory();
    let link: &'static str = pod_link::host_end("a").leak();
    node.set_link(link, false);
    wait_until("the link and its route to be back", || node.inventory() == before);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());

    node.set_link(link, false);
    node.set_link(link, true);
    wait_until("the route to be back", || node.inventory() == before);
    assert_eq!(node.ask_who_am_i(address, 80).unwrap(), NODE.to_string());
}
