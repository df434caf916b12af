//! How packets get to the other nodes' pods: which node directly, which through a tunnel. Pure.
//!
//! A node on one of our links is reached directly, so its pods are too: by a route through its address. To all others
//! the routers between know nothing of pods, so packets travel inside VXLAN.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnetwork::Ipv4Network;

use super::host_links::HostLinks;
use crate::world::World;

/// What this node knows of itself.
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// Left out of the routes: its pods are here.
    pub node_name: String,
    /// A Node with the same address is this machine under another name, and gets no route.
    pub node_ip: Ipv4Addr,
    /// Peers that claim part of it get no route.
    pub pod_cidr: Ipv4Network,
}

/// The way to one other node's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    /// The peer's name.
    pub node: Arc<str>,
    /// Where the peer takes packets for its pods.
    pub node_ip: Ipv4Addr,
    /// Directly, or in the tunnel.
    pub path: Path,
}

/// How packets reach another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The node is on this link (interface index).
    Direct { link: u32 },
    /// Inside VXLAN, to the node's address.
    Vxlan,
}

/// Routes by the pod subnet they lead to.
pub type Routes = BTreeMap<Ipv4Network, NodeRoute>;

/// A route for every other node that has an address and a pod subnet. A subnet that overlaps ours, or that a node
/// earlier in the order of names has, gets no route: packets to our own pods must never leave.
pub fn desired(world: &World, me: &LocalNode, host: &HostLinks) -> Routes {
    let mut routes = Routes::new();
    for node in world.nodes.values().filter(|node| *node.name != *me.node_name) {
        let (Some(node_ip), Some(pod_cidr)) = (node.internal_ip, node.pod_cidr) else { continue };
        if node_ip == me.node_ip || pod_cidr.overlaps(me.pod_cidr) {
            continue;
        }
        let path = link_with(host, node_ip).map_or(Path::Vxlan, |link| Path::Direct { link });
        routes.entry(pod_cidr).or_insert_with(|| NodeRoute { node: node.name.clone(), node_ip, path });
    }
    routes
}

/// Nodes that see our pods' own addresses: their answers find the way back.
pub fn direct_nodes(routes: &Routes) -> BTreeSet<Ipv4Addr> {
    let direct = routes.values().filter(|route| matches!(route.path, Path::Direct { .. }));
    direct.map(|route| route.node_ip).collect()
}

/// The link on whose subnet `address` is; that of the longest prefix where there are several.
fn link_with(host: &HostLinks, address: Ipv4Addr) -> Option<u32> {
    let usable =
        |index| host.links.iter().any(|link| link.index == index && link.up && !link.loopback && !link.is_ours());
    let subnets = host.addresses.iter().filter(|held| usable(held.link)).filter_map(|held| {
        let subnet = Ipv4Network::new(held.address, held.prefix).ok()?;
        (held.prefix < 32 && subnet.contains(address)).then_some((held.prefix, held.link))
    });
    subnets.max_by_key(|(prefix, _)| *prefix).map(|(_, link)| link)
}

#[cfg(test)]
mod tests {
    use imbl::OrdMap;

    use super::{
        super::{host_links::LinkAddress, netlink::Link},
        *,
    };
    use crate::world::Node;

    fn node(name: &str, ip: [u8; 4], cidr: &str) -> (Arc<str>, Arc<Node>) {
        let node = Node {
            name: name.into(),
            internal_ip: Some(ip.into()),
            pod_cidr: Some(cidr.parse().unwrap()),
            revision: 1,
            ..Node::default()
        };
        (name.into(), Arc::new(node))
    }

    fn host() -> HostLinks {
        let link = |index, name: &str| Link {
            index,
            name: name.into(),
            mtu: 1500,
            up: true,
            loopback: name == "lo",
            peer: None,
            mac: None,
        };
        let address = |link, address: [u8; 4], prefix| LinkAddress { link, address: address.into(), prefix };
        HostLinks {
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")],
            addresses: vec![
                address(1, [10, 244, 1, 1], 32),
                address(2, [192, 168, 0, 1], 16),
                address(3, [192, 168, 7, 1], 24),
            ],
            default_routes: vec![],
        }
    }

    fn me() -> LocalNode {
        LocalNode {
            node_name: "a".into(),
            node_ip: [192, 168, 0, 1].into(),
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
        }
    }

    fn routes(nodes: &[(Arc<str>, Arc<Node>)]) -> Vec<(String, String, Path)> {
        let world = World { nodes: nodes.iter().cloned().collect::<OrdMap<_, _>>(), ..World::default() };
        let routes = desired(&world, &me(), &host());
        routes.into_iter().map(|(cidr, route)| (route.node.to_string(), cidr.to_string(), route.path)).collect()
    }

    #[test]
    fn nodes_on_a_link_are_direct_by_the_longest_prefix_and_others_tunnelled() {
        let nodes = [
            node("a", [192, 168, 0, 1], "10.244.1.0/24"),
            node("b", [192, 168, 3, 2], "10.244.2.0/24"),
            node("c", [192, 168, 7, 2], "10.244.3.0/24"),
            node("d", [172, 16, 0, 2], "10.244.4.0/24"),
        ];
        let expected = [
            ("b".to_owned(), "10.244.2.0/24".to_owned(), Path::Direct { link: 2 }),
            ("c".to_owned(), "10.244.3.0/24".to_owned(), Path::Direct { link: 3 }),
            ("d".to_owned(), "10.244.4.0/24".to_owned(), Path::Vxlan),
        ];
        assert_eq!(routes(&nodes), expected);
    }

    #[test]
    fn a_subnet_that_overlaps_ours_or_an_earlier_nodes_leads_nowhere_else() {
        let nodes = [
            node("b", [192, 168, 3, 2], "10.244.0.0/16"),
            node("c", [192, 168, 7, 2], "10.244.3.0/24"),
            node("d", [172, 16, 0, 2], "10.244.3.0/24"),
        ];
        assert_eq!(routes(&nodes), [("c".to_owned(), "10.244.3.0/24".to_owned(), Path::Direct { link: 3 })]);
    }
}
