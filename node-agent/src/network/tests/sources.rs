//! What a pod may send, and from which address.

use std::{net::UdpSocket, process::Command, time::Duration};

use super::*;
use crate::network::{
    nft::{self as nft_program, NftError},
    pod_link,
    source_filter::{RunScript, SourceFilter},
    start_filtering,
};

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
    outside: TestMachine,
    world: watch::Sender<Arc<World>>,
    _data: tempfile::TempDir,
}

impl LooseNode {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, outside) = node();
        node.inside(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap());
        let (network, world) = start_following(&node, config(dir.path()));
        let (a, b) = (TestMachine::new(), TestMachine::new());
        let (address_a, address_b) = (attach(&node, &network, "a", &a), attach(&node, &network, "b", &b));
        Self { node, network, a: (a, address_a), b: (b, address_b), outside, world, _data: dir }
    }

    /// Whether UDP packets of pod `a` to port 4789 come to this end's machine by that address. Others do.
    fn gets_vxlan(&self, end: &TunnelEnd, address: Ipv4Addr) -> bool {
        send(&self.a.0, self.a.1, (address, 4789));
        send(&self.a.0, self.a.1, (address, 7777));
        end.other.recv_from(&mut [0; 8]).unwrap();
        match end.tunnel.recv_from(&mut [0; 8]) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                false
            }
        }
    }
}

/// Sockets of a machine at the port of VXLAN and at another. They stay open: a program that another test starts in this
/// moment has its copies of them until it runs, so that the port is not free at once.
struct TunnelEnd {
    tunnel: UdpSocket,
    other: UdpSocket,
}

impl TunnelEnd {
    fn of(machine: &TestMachine) -> Self {
        let bind = |port| machine.inside(move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let (tunnel, other) = (bind(4789), bind(7777));
        other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tunnel.set_nonblocking(true).unwrap();
        Self { tunnel, other }
    }
}

/// What `nft list` says.
fn listed(machine: &TestMachine, what: &'static [&'static str]) -> String {
    let listed = machine.inside(move || Command::new("nft").arg("list").args(what).output());
    String::from_utf8(listed.unwrap().stdout).unwrap()
}

#[test]
fn a_pod_sends_from_its_own_address_alone_whatever_the_host_says_of_reverse_paths() {
    if !can_make_namespaces() {
        return;
    }
    let loose = LooseNode::start();
    assert_only_own_source_passes((&loose.a.0, loose.a.1), (&loose.b.0, loose.b.1));
    assert_only_own_source_passes((&loose.b.0, loose.b.1), (&loose.node, NODE));

    let drops = |table| listed(&loose.node, table).matches(" drop").count();
    let (packets, neighbours) = (&["table", "inet", "fairlead"], &["table", "arp", "fairlead"]);
    for change in ["delete table inet fairlead", "delete table arp fairlead", "flush chain inet fairlead pods"] {
        nft(&loose.node, change);
        wait_until("the rules to be back", || drops(packets) == 4 && drops(neighbours) == 1);
    }
    let link = pod_link::host_end("a");
    let set = || listed(&loose.node, &["table", "inet", "fairlead"]);
    wait_until("the pods to be in them", || set().contains(&link));
    let detaching = loose.network.clone();
    loose.node.wait(async move { detaching.detach("a").await.unwrap() });
    attach(&loose.node, &loose.network, "c", &TestMachine::new());
    assert!(!set().contains(&link), "{}", set());
}

/// A datagram from `from` to `to`; without waiting.
fn send(machine: &TestMachine, from: Ipv4Addr, to: (Ipv4Addr, u16)) {
    machine.inside(move || {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"text", to).unwrap()
    });
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
fn a_pod_sends_no_vxlan_packets_to_nodes_and_its_own_to_pods_and_other_hosts() {
    if !can_make_namespaces() {
        return;
    }
    let loose = LooseNode::start();
    loose.outside.inside(|| {
        let back = Command::new("ip").args(["route", "add", "10.244.0.0/16", "via", "192.0.2.1"]).status();
        assert!(back.unwrap().success());
    });
    let [node, b, outside] = [&loose.node, &loose.b.0, &loose.outside].map(TunnelEnd::of);
    for address in [NODE, loose.network.gateway()] {
        assert!(!loose.gets_vxlan(&node, address), "{address}");
    }
    assert!(loose.gets_vxlan(&b, loose.b.1), "an overlay among pods");
    assert!(loose.gets_vxlan(&outside, OUTSIDE), "an overlay with a host that is no node");

    let two = Node {
        name: "two".into(),
        internal_ip: Some(OUTSIDE),
        pod_cidr: Some("10.244.2.0/24".parse().unwrap()),
        ..Node::default()
    };
    let mut world = World { synced: true, revision: 1, ..World::default() };
    world.nodes.insert("two".into(), Arc::new(two));
    loose.world.send_replace(Arc::new(world));
    let ends = || listed(&loose.node, &["set", "inet", "fairlead", "nodes"]);
    wait_until("the node to be known", || ends().contains("192.0.2.9") && ends().contains("10.244.2.1"));
    assert!(!loose.gets_vxlan(&outside, OUTSIDE));
}

#[test]
fn a_pod_sends_no_vxlan_packets_to_broadcast_and_multicast_addresses() {
    if !can_make_namespaces() {
        return;
    }
    let loose = LooseNode::start();
    let node = TunnelEnd::of(&loose.node);
    let dropped = || {
        let rules = listed(&loose.node, &["chain", "inet", "fairlead", "pods"]);
        let rule = rules.lines().find(|rule| rule.contains("fib daddr type != unicast")).expect("the rule");
        let packets = rule.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        packets.and_then(|packets| packets.parse::<u64>().ok()).expect("its counter")
    };
    let all_hosts = Ipv4Addr::new(224, 0, 0, 1);
    let broadcast_of_uplink = Ipv4Addr::new(192, 0, 2, 255);
    for (count, address) in (1..).zip([Ipv4Addr::BROADCAST, all_hosts, broadcast_of_uplink]) {
        assert!(!loose.gets_vxlan(&node, address), "{address}");
        assert_eq!(dropped(), count, "{address}");
    }
}

/// Tells all of the link that it leads to other networks (RFC 4861, section 4.2).
fn advertise_router(pod: &TestMachine) {
    pod.inside(|| {
        let add = Command::new("ip").args(["-6", "address", "add", "fe80::bad/64", "dev", "eth0", "nodad"]).status();
        assert!(add.unwrap().success());
        let link = nix::net::if_::if_nametoindex("eth0").unwrap();
        let icmp = socket2::Protocol::ICMPV6;
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::RAW, Some(icmp)).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(link).unwrap();
        // Type 134; the kernel fills in the checksum. Hop limit 64, no flags, for 1800 s.
        let advertisement = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        let all_nodes = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, link);
        assert_eq!(socket.send_to(&advertisement, &all_nodes.into()).unwrap(), advertisement.len());
    });
}

#[test]
fn a_pod_is_no_router_of_the_node_by_ipv6() {
    if !can_make_namespaces() {
        return;
    }
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return crate::skipped::skipped("this kernel has no IPv6");
    }
    let loose = LooseNode::start();
    let arrived = loose.node.inside(|| UdpSocket::bind(("0.0.0.0", 7777)).unwrap());
    arrived.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    advertise_router(&loose.a.0);
    send(&loose.a.0, loose.a.1, (NODE, 7777));
    arrived.recv_from(&mut [0; 8]).unwrap();
    let told = |what: &'static str| {
        let told = loose.node.inside(move || Command::new("ip").args(["-6", what]).output().unwrap());
        String::from_utf8(told.stdout).unwrap()
    };
    assert!(!told("route").contains("default"), "{}", told("route"));
    assert!(!told("neighbour").contains("fe80::bad"), "{}", told("neighbour"));
    let rules = listed(&loose.node, &["chain", "inet", "fairlead", "pods"]);
    let counted = rules.lines().find(|rule| rule.contains("ipv6")).unwrap();
    assert!(!counted.contains("packets 0 "), "{counted}");
}

/// nft of a kernel without the family `arp`.
struct WithoutArp;

#[async_trait::async_trait]
impl RunScript for WithoutArp {
    async fn apply(&self, script: &str) -> Result<(), NftError> {
        if script.contains("table arp") {
            return Err(NftError::Refused("Operation not supported".into()));
        }
        nft_program::apply(script).await
    }
}

#[test]
fn a_node_whose_kernel_refuses_a_part_of_the_filter_says_so_and_runs() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, outside) = node();
    let (_world, seen) = watch::channel(Arc::new(World::default()));
    let (config, filter) = (config(dir.path()), SourceFilter::new(Arc::new(WithoutArp)));
    let network = Arc::new(node.wait(async move { start_filtering(config, seen, filter).await.unwrap() }));
    assert_eq!(network.problem(), None, "pods come and go");
    assert!(network.warning().is_some_and(|warning| warning.contains("keep pods to their own addresses")));
    let (a, b) = (TestMachine::new(), TestMachine::new());
    let (address_a, address_b) = (attach(&node, &network, "a", &a), attach(&node, &network, "b", &b));
    outside.serve_who_am_i(80);
    assert_eq!(a.ask_who_am_i(OUTSIDE, 80).unwrap(), NODE.to_string(), "masqueraded");
    assert_only_own_source_passes((&a, address_a), (&b, address_b));
    shutdown(&node, &network, Teardown::Remove);
}
