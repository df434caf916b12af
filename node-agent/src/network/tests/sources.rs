//! What a pod may send, and from which address.

use std::{net::UdpSocket, process::Command, time::Duration};

use super::*;
use crate::network::{pod_link, source_filter::SourceFilter};

/// `from` sends from an address that is not its own and then from its own: the second alone comes to `to`.
pub(super) fn assert_only_own_source_passes(from: (&TestMachine, Ipv4Addr), to: (&TestMachine, Ipv4Addr)) {
    let socket = to.0.inside(|| std::net::UdpSocket::bind("0.0.0.0:7777").unwrap());
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let (own, target) = (from.1, to.1);
    from.0.inside(move || {
        let foreign = [Ipv4Addr::new(10, 244, 1, 200), Ipv4Addr::new(10, 96, 0, 10), OUTSIDE];
        for source in foreign {
            let mut add = std::process::Command::new("ip");
            add.args(["address", "add", &source.to_string(), "dev", "lo"]);
            assert!(add.status().unwrap().success(), "{source}");
        }
        for source in foreign.into_iter().chain([own]) {
            let socket = std::net::UdpSocket::bind((source, 0)).unwrap();
            socket.send_to(&source.octets(), (target, 7777)).unwrap();
        }
    });
    let mut message = [0; 4];
    let (_, sender) = socket.recv_from(&mut message).unwrap();
    assert_eq!((Ipv4Addr::from(message), sender.ip()), (own, own.into()));
}

#[test]
fn a_pod_sends_from_its_own_address_alone() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    let network = start_on(&node, config(dir.path()));
    let (a, b) = (TestMachine::new(), TestMachine::new());
    let (address_a, address_b) = (attach(&node, &network, "a", &a), attach(&node, &network, "b", &b));
    assert_only_own_source_passes((&a, address_a), (&b, address_b));
    assert_only_own_source_passes((&b, address_b), (&node, NODE));

    // Links that an earlier agent made without the setting get it from the next one.
    shutdown(&node, &network, Teardown::Keep);
    drop(network);
    let link = pod_link::host_end("a");
    let setting = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
    let unset = setting.clone();
    node.inside(move || std::fs::write(unset, "0").unwrap());
    let _network = start_on(&node, config(dir.path()));
    assert_eq!(node.inside(move || std::fs::read_to_string(setting).unwrap()).trim(), "1");
}

/// A node whose administrator wants the loose check everywhere, and pods `a` and `b` on it.
struct LooseNode {
    node: TestMachine,
    network: Arc<Network>,
    a: (TestMachine, Ipv4Addr),
    b: (TestMachine, Ipv4Addr),
    _others: (TestMachine, tempfile::TempDir, watch::Sender<Arc<World>>),
}

impl LooseNode {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, outside) = node();
        node.inside(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap());
        let (network, publish) = start_following(&node, config(dir.path()));
        let (a, b) = (TestMachine::new(), TestMachine::new());
        let (address_a, address_b) = (attach(&node, &network, "a", &a), attach(&node, &network, "b", &b));
        Self { node, network, a: (a, address_a), b: (b, address_b), _others: (outside, dir, publish) }
    }
}

#[test]
fn a_pod_sends_from_its_own_address_alone_whatever_the_host_says_of_reverse_paths() {
    if !can_make_namespaces() {
        return;
    }
    let loose = LooseNode::start();
    assert_only_own_source_passes((&loose.a.0, loose.a.1), (&loose.b.0, loose.b.1));
    assert_only_own_source_passes((&loose.b.0, loose.b.1), (&loose.node, NODE));

    for table in ["delete table inet fairlead", "delete table arp fairlead"] {
        nft(&loose.node, table);
    }
    let there = || loose.node.wait(async { SourceFilter::is_there().await.unwrap() });
    wait_until("the tables to be back", there);
    let link = pod_link::host_end("a");
    let set = || {
        let listed = loose.node.inside(|| Command::new("nft").args(["list", "table", "inet", "fairlead"]).output());
        String::from_utf8(listed.unwrap().stdout).unwrap()
    };
    wait_until("the pods to be in them", || set().contains(&link));
    let detaching = loose.network.clone();
    loose.node.wait(async move { detaching.detach("a").await.unwrap() });
    attach(&loose.node, &loose.network, "c", &TestMachine::new());
    assert!(!set().contains(&link), "{}", set());
}

/// A datagram from `from` to `to`; without waiting.
fn send(machine: &TestMachine, from: Ipv4Addr, to: (Ipv4Addr, u16)) {
    machine.inside(move || UdpSocket::bind((from, 0)).unwrap().send_to(b"text", to).unwrap());
}

#[test]
fn a_pod_is_no_neighbour_by_another_address() {
    if !can_make_namespaces() {
        return;
    }
    let loose = LooseNode::start();
    let (pod, own) = &loose.a;
    // On the link as the pod sees it, so that it asks for the node's MAC under this name.
    let foreign = Ipv4Addr::new(192, 0, 2, 77);
    pod.inside(|| {
        let add = Command::new("ip").args(["address", "add", "192.0.2.77/24", "dev", "eth0"]).status();
        assert!(add.unwrap().success());
    });
    send(pod, foreign, (NODE, 7777));
    // The pod has asked in vain once the kernel gives the neighbour up.
    wait_until("the request to be given up or answered", || {
        let shown = pod.inside(|| Command::new("ip").args(["neighbour", "show", "dev", "eth0"]).output().unwrap());
        let shown = String::from_utf8(shown.stdout).unwrap();
        let asked = shown.lines().find(|line| line.starts_with("192.0.2.1 "));
        asked.is_some_and(|line| line.contains("FAILED") || line.contains("lladdr"))
    });
    let known = loose.node.inside(|| Command::new("ip").args(["neighbour"]).output().unwrap());
    let known = String::from_utf8(known.stdout).unwrap();
    assert!(!known.contains("192.0.2.77"), "{known}");
    assert!(known.contains(&own.to_string()), "the pod itself is known: {known}");
}

#[test]
fn a_pod_sends_no_vxlan_packets() {
    if !can_make_namespaces() {
        return;
    }
    let loose = LooseNode::start();
    for (machine, address) in [(&loose.node, NODE), (&loose.b.0, loose.b.1)] {
        let bind = |port| machine.inside(move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let (tunnel, other) = (bind(4789), bind(7777));
        other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tunnel.set_nonblocking(true).unwrap();
        send(&loose.a.0, loose.a.1, (address, 4789));
        send(&loose.a.0, loose.a.1, (address, 7777));
        other.recv_from(&mut [0; 8]).unwrap();
        let held_back = tunnel.recv_from(&mut [0; 8]).unwrap_err();
        assert_eq!(held_back.kind(), std::io::ErrorKind::WouldBlock);
    }
}
