//! What other nodes say of themselves.

use super::*;

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
    let other = |name: &str, ip, pods: &str| {
        let (internal_ip, pod_cidr) = (Some(ip), Some(pods.parse().unwrap()));
        (Arc::<str>::from(name), Arc::new(Node { name: name.into(), internal_ip, pod_cidr, ..Node::default() }))
    };
    let nodes = [other("bad", bridge, "10.244.2.0/24"), other("two", OUTSIDE, "10.244.3.0/24")];
    let world = World { nodes: nodes.into_iter().collect(), synced: true, revision: 1, ..World::default() };
    let (_publish, seen) = watch::channel(Arc::new(world));
    let config = config(dir.path());
    let network = node.wait(async move { start(config, seen).await.unwrap() });
    assert_eq!(network.problem(), None);
    let inventory = node.inventory();
    assert!(inventory.contains("10.244.3.0") && !inventory.contains("10.244.2.0"), "{inventory}");
    assert!(node.wait(async { super::super::nft::is_there("ip").await.unwrap() }), "pods are masqueraded");
}
