//! What other nodes say of themselves.

use super::*;

fn other(name: &str, ip: Ipv4Addr, pods: &str) -> Node {
    Node { name: name.into(), internal_ip: Some(ip), pod_cidr: Some(pods.parse().unwrap()), ..Node::default() }
}

fn world_of(nodes: impl IntoIterator<Item = Node>) -> World {
    let nodes = nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect();
    World { nodes, synced: true, revision: 1, ..World::default() }
}

#[test]
fn a_node_with_an_unusable_address_keeps_no_other_from_its_routes() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    // As the bridge of a container runtime, which every host has by the same address.
    let bridge = Ipv4Addr::new(172, 17, 0, 1);
    node.wait(async move {
        let netlink = Netlink::open().unwrap();
        let uplink = netlink.link(UPLINK).await.unwrap().unwrap();
        netlink.add_address(uplink.index, bridge, 16).await.unwrap();
    });
    let nodes = [other("bad", bridge, "10.244.2.0/24"), other("two", OUTSIDE, "10.244.3.0/24")];
    let (_publish, seen) = watch::channel(Arc::new(world_of(nodes)));
    let config = config(dir.path());
    let network = node.wait(async move { start(config, seen).await.unwrap() });
    assert_eq!(network.problem(), None);
    let inventory = node.inventory();
    assert!(inventory.contains("10.244.3.0") && !inventory.contains("10.244.2.0"), "{inventory}");
    assert!(node.wait(async { super::super::nft::is_there("ip").await.unwrap() }), "pods are masqueraded");
}

/// What `ip` says.
fn ip(machine: &TestMachine, arguments: &'static str) -> String {
    machine.inside(move || {
        let ran = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    })
}

#[test]
fn a_pod_subnet_that_this_host_reaches_otherwise_takes_the_place_of_no_route() {
    if !can_make_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node();
    ip(&node, "address add 198.51.100.7/24 dev uplink");
    ip(&node, "route add 203.0.113.0/24 via 192.0.2.9");
    ip(&node, "route add blackhole 198.18.0.0/24");
    let before = ip(&node, "route show");
    // Its LAN, a part of that, a network of the administrator's, one that nobody may reach; and a good one.
    let pods = ["198.51.100.0/24", "198.51.100.64/26", "203.0.113.0/24", "198.18.0.0/24", "10.244.3.0/24"];
    let nodes = (11..).zip(pods).map(|(host, pods)| other(&format!("n{host}"), Ipv4Addr::new(192, 0, 2, host), pods));
    let world = world_of(nodes);
    let (_publish, seen) = watch::channel(Arc::new(world.clone()));
    let config = config(dir.path());
    let network = Arc::new(node.wait(async move { start(config, seen).await.unwrap() }));
    assert_eq!(network.problem(), None);
    let is_ours = |line: &&str| line.contains("proto 250");
    let ours = || ip(&node, "route show").lines().filter(is_ours).map(str::to_owned).collect::<Vec<_>>();
    let others =
        || ip(&node, "route show").lines().filter(|line| !is_ours(line)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(others(), before.lines().collect::<Vec<_>>());
    assert!(ours().len() == 1 && ours()[0].starts_with("10.244.3.0/24 "), "{:?}", ours());

    // One that somebody puts in the place of ours is theirs.
    let reconciler = reconciler_without_events(&node, &network);
    ip(&node, "route replace 10.244.3.0/24 via 192.0.2.9");
    let reconciler = sync(&node, reconciler, world.clone());
    assert_eq!((ours().len(), others().len()), (0, before.lines().count() + 1));
    ip(&node, "route delete 10.244.3.0/24");
    sync(&node, reconciler, world);
    assert_eq!((ours().len(), others().len()), (1, before.lines().count()));
}
