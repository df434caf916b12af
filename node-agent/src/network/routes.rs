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

use super::{
    host_links::{ForeignRoute, HostLinks, LinkAddress},
    vxlan,
};
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
    /// Where the pods of all nodes are, as the administrator said.
    pub cluster_cidr: Ipv4Network,
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

/// Why a node gets no route, by what it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// Of this host itself, or of no single host: loopback, multicast, broadcast.
    #[error("its address {0} is not that of another host")]
    Address(Ipv4Addr),
    /// It has no room for a gateway, or its gateway would have such an address.
    #[error("nothing can be reached by its pod subnet {0}")]
    PodCidr(Ipv4Network),
    /// This host reaches others than pods there, such as those of its own LAN. Give the node another pod subnet, or
    /// take the other route away.
    #[error("its pod subnet {pod_cidr} is taken: this host has a route to {taken} that fairlead did not make")]
    Taken { pod_cidr: Ipv4Network, taken: Ipv4Network },
}

/// Nodes that get no route, by name.
pub type UnroutableNodes = BTreeMap<Arc<str>, Unroutable>;

/// A route for every other node that has an address and a pod subnet, but for those whose route the kernel would
/// refuse, or that would take the place of a route of others. A subnet that overlaps ours, or that a node earlier in
/// the order of names has, gets no route: packets to our own pods must never leave.
pub fn desired(world: &World, me: &LocalNode, host: &HostLinks) -> (Routes, UnroutableNodes) {
    let (mut routes, mut unroutable) = (Routes::new(), UnroutableNodes::new());
    for node in world.nodes.values().filter(|node| *node.name != *me.node_name) {
        let (Some(node_ip), Some(pod_cidr)) = (node.internal_ip, node.pod_cidr) else { continue };
        let pod_cidr = without_host_bits(pod_cidr);
        if node_ip == me.node_ip || pod_cidr.overlaps(me.pod_cidr) {
            continue;
        }
        if let Err(why) = check(host, me, (node_ip, pod_cidr)) {
            unroutable.insert(node.name.clone(), why);
            continue;
        }
        let path = link_with(host, node_ip).map_or(Path::Vxlan, |link| Path::Direct { link });
        routes.entry(pod_cidr).or_insert_with(|| NodeRoute { node: node.name.clone(), node_ip, path });
    }
    (routes, unroutable)
}

fn check(host: &HostLinks, me: &LocalNode, (node_ip, pod_cidr): (Ipv4Addr, Ipv4Network)) -> Result<(), Unroutable> {
    if !may_be_another_host(host, node_ip) {
        return Err(Unroutable::Address(node_ip));
    }
    // As of this node's own subnet: see [`super::subnet::Subnet`].
    if pod_cidr.prefix() > 30 || !may_be_another_host(host, vxlan::next_hop(pod_cidr)) {
        return Err(Unroutable::PodCidr(pod_cidr));
    }
    match host.foreign_routes.iter().find(|route| takes(route, me, pod_cidr)) {
        Some(route) => Err(Unroutable::Taken { pod_cidr, taken: route.destination }),
        None => Ok(()),
    }
}

/// Whether a route to `pod_cidr` would take the place of this one, or packets from hosts that are on a link. A larger
/// subnet behind a router may hold pods, as may one on a link where the administrator says so by the cluster's range.
fn takes(route: &ForeignRoute, me: &LocalNode, pod_cidr: Ipv4Network) -> bool {
    let taken = route.destination;
    if taken == pod_cidr {
        return true;
    }
    let is_set_aside = pod_cidr.is_subnet_of(taken) && pod_cidr.is_subnet_of(me.cluster_cidr);
    route.on_link && taken.prefix() > 0 && taken.overlaps(pod_cidr) && !is_set_aside
}

/// Written as the kernel writes it: 10.0.0.5/24 is 10.0.0.0/24.
fn without_host_bits(network: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(network.network(), network.prefix()).unwrap_or(network)
}

/// Whether the kernel would take a route through `address`: it refuses what is local to it, and what is no unicast.
fn may_be_another_host(host: &HostLinks, address: Ipv4Addr) -> bool {
    let is_unicast =
        address.octets()[0] != 0 && !address.is_loopback() && !address.is_multicast() && !address.is_broadcast();
    let is_edge =
        |subnet: Ipv4Network| subnet.prefix() < 31 && (subnet.network() == address || subnet.broadcast() == address);
    let is_refused =
        |held: &LinkAddress| held.address == address || Ipv4Network::new(held.address, held.prefix).is_ok_and(is_edge);
    is_unicast && !host.addresses.iter().any(is_refused)
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

    use super::{super::netlink::Link, *};
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
            foreign_routes: vec![
                foreign("0.0.0.0/0", true),
                foreign("192.168.0.0/16", true),
                foreign("192.168.7.0/24", true),
                foreign("10.96.0.0/12", false),
                foreign("10.250.0.0/16", false),
            ],
        }
    }

    fn foreign(destination: &str, on_link: bool) -> ForeignRoute {
        ForeignRoute { destination: destination.parse().unwrap(), on_link }
    }

    fn me() -> LocalNode {
        LocalNode {
            node_name: "a".into(),
            node_ip: [192, 168, 0, 1].into(),
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        }
    }

    fn routes(nodes: &[(Arc<str>, Arc<Node>)]) -> Vec<(String, String, Path)> {
        let world = World { nodes: nodes.iter().cloned().collect::<OrdMap<_, _>>(), ..World::default() };
        let (routes, _) = desired(&world, &me(), &host());
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

    #[test]
    fn a_node_that_no_route_can_lead_to_gets_none_and_is_named() {
        let subnet = "10.244.9.0/24";
        let addresses = [
            [192, 168, 7, 1],
            [192, 168, 7, 255],
            [192, 168, 0, 0],
            [10, 244, 1, 1],
            [127, 0, 0, 9],
            [0, 0, 0, 0],
            [224, 0, 0, 5],
            [255, 255, 255, 255],
        ];
        let mut nodes: Vec<_> = (0..).zip(addresses).map(|(n, ip)| node(&format!("n{n}"), ip, subnet)).collect();
        let subnets = ["255.255.255.255/32", "10.244.9.0/31", "127.1.0.0/16", "192.168.7.0/24", "0.0.0.0/0"];
        nodes.extend((0..).zip(subnets).map(|(n, cidr)| node(&format!("s{n}"), [192, 168, 7, 9], cidr)));
        nodes.push(node("z", [192, 168, 7, 2], "10.244.3.0/24"));
        let world = World { nodes: nodes.iter().cloned().collect::<OrdMap<_, _>>(), ..World::default() };
        let (routes, unroutable) = desired(&world, &me(), &host());
        assert_eq!(routes.into_values().map(|route| route.node.to_string()).collect::<Vec<_>>(), ["z"]);
        // A subnet that overlaps ours is not named.
        assert_eq!(unroutable.len(), addresses.len() + subnets.len() - 1, "{unroutable:?}");
        assert_eq!(unroutable["n0"], Unroutable::Address(addresses[0].into()));
        assert_eq!(unroutable["s0"], Unroutable::PodCidr(subnets[0].parse().unwrap()));
    }

    #[test]
    fn no_route_to_pods_takes_the_place_of_anothers() {
        let address = |link, address: [u8; 4], prefix| LinkAddress { link, address: address.into(), prefix };
        let addresses = vec![address(2, [192, 168, 0, 9], 16), address(3, [192, 168, 7, 9], 24)];
        let host = HostLinks { addresses, ..host() };
        let taken = |pods: &str, me: &LocalNode| {
            let nodes = [node("b", [192, 168, 7, 2], pods)].into_iter().collect::<OrdMap<_, _>>();
            let (routes, mut unroutable) = desired(&World { nodes, ..World::default() }, me, &host);
            assert_eq!(routes.is_empty(), !unroutable.is_empty(), "{pods}");
            match unroutable.remove("b") {
                Some(Unroutable::Taken { taken, .. }) => Some(taken.to_string()),
                other => {
                    assert_eq!(other, None, "{pods}");
                    None
                }
            }
        };
        let cases = [
            ("192.168.0.0/16", Some("192.168.0.0/16")),
            // A part of the LAN, in which other hosts are; and more than it.
            ("192.168.9.64/26", Some("192.168.0.0/16")),
            ("192.160.0.0/12", Some("192.168.0.0/16")),
            ("10.96.0.0/12", Some("10.96.0.0/12")),
            ("10.250.0.9/16", Some("10.250.0.0/16")),
            // Behind a router there may be pods, in a part of what it leads to.
            ("10.250.3.0/24", None),
            ("10.0.0.0/9", None),
            ("10.244.3.0/24", None),
        ];
        for (pods, expected) in cases {
            assert_eq!(taken(pods, &me()).as_deref(), expected, "{pods}");
        }
        // The administrator has set a part of the LAN aside for pods.
        let inside = LocalNode { cluster_cidr: "192.168.128.0/17".parse().unwrap(), ..me() };
        assert_eq!(taken("192.168.130.0/24", &inside), None);
        assert_eq!(taken("192.168.9.0/24", &inside).as_deref(), Some("192.168.0.0/16"));
        let whole = LocalNode { cluster_cidr: "192.168.0.0/16".parse().unwrap(), ..me() };
        assert_eq!(taken("192.168.0.0/16", &whole).as_deref(), Some("192.168.0.0/16"), "the LAN itself");
    }

    #[test]
    fn a_subnet_with_host_bits_is_written_as_the_kernel_writes_it() {
        let routes = routes(&[node("b", [192, 168, 7, 2], "10.244.3.5/24")]);
        assert_eq!(routes, [("b".to_owned(), "10.244.3.0/24".to_owned(), Path::Direct { link: 3 })]);
    }
}
