//! The rules of kube-proxy and the KEPs, one by one.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use super::{world_kit::*, *};
use crate::world::{
    Endpoint, ExternalTrafficPolicy, HostPort, InternalTrafficPolicy, Node, PodHostPorts, Service, TrafficDistribution,
};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

fn this_node() -> ThisNode {
    ThisNode { name: "here".into(), addresses: BTreeSet::new(), dns: None, reserved: BTreeSet::new() }
}

fn web() -> Service {
    service("web", CLUSTER_IP)
}

fn not_ready(endpoint: Endpoint) -> Endpoint {
    Endpoint { ready: false, serving: false, ..endpoint }
}

fn draining(endpoint: Endpoint) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..endpoint }
}

fn in_zone(endpoint: Endpoint, zone: &str) -> Endpoint {
    Endpoint { zone: Some(zone.into()), ..endpoint }
}

/// Each frontend as `ADDRESS SCOPE -> hosts picked; hosts left out with the reason`.
fn rendered(service: Service, endpoints: Vec<Endpoint>) -> Vec<String> {
    let mut world = World::default();
    let own = Node { name: "here".into(), zone: Some("z1".into()), revision: 1, ..Node::default() };
    world.nodes.insert("here".into(), Arc::new(own));
    put(&mut world, service, endpoints);
    let table = ServiceTable::new(&world, &this_node());
    let entry = table.service(&name("web")).unwrap().clone();
    entry.frontends.iter().map(render).collect()
}

fn render(frontend: &Frontend) -> String {
    let kind = match frontend.address {
        FrontendAddress::ClusterIp(_) => "cluster",
        FrontendAddress::EveryNode => "node",
        FrontendAddress::External(_) => "external",
        FrontendAddress::ThisNode | FrontendAddress::HostIp(_) => "host port",
    };
    let host = |address: Ipv4Addr| address.octets()[3].to_string();
    let picked: Vec<String> = frontend.selection.backends.iter().map(|backend| host(backend.address)).collect();
    let excluded: Vec<String> = frontend
        .selection
        .excluded
        .iter()
        .map(|excluded| format!("{} {:?}", host(excluded.address), excluded.reason))
        .collect();
    format!("{kind} {:?} -> {}; {}", frontend.scope, picked.join(" "), excluded.join(", "))
}

#[test]
fn ready_endpoints_are_picked_and_the_others_are_told_with_their_reason() {
    let endpoints = vec![endpoint(1, "here"), not_ready(endpoint(2, "here")), draining(endpoint(3, "there"))];
    assert_eq!(rendered(web(), endpoints), ["cluster Internal -> 1; 2 NotReady, 3 TerminatingWhileOthersAreReady"]);
}

#[test]
fn terminating_endpoints_that_serve_are_picked_when_none_is_ready() {
    let gone = Endpoint { serving: false, ..draining(endpoint(2, "here")) };
    assert_eq!(rendered(web(), vec![draining(endpoint(1, "here")), gone]), ["cluster Internal -> 1; 2 Terminating"]);
}

#[test]
fn internal_policy_local_picks_this_nodes_endpoints_terminating_ones_too() {
    let local = Service { internal_traffic_policy: InternalTrafficPolicy::Local, ..web() };
    let both = vec![endpoint(1, "here"), endpoint(2, "there")];
    assert_eq!(rendered(local.clone(), both), ["cluster Internal -> 1; 2 OtherNode"]);
    let draining_here = vec![draining(endpoint(1, "here")), endpoint(2, "there")];
    assert_eq!(rendered(local.clone(), draining_here), ["cluster Internal -> 1; 2 OtherNode"]);
    assert_eq!(rendered(local, vec![endpoint(2, "there")]), ["cluster Internal -> ; 2 OtherNode"]);
}

#[test]
fn external_policy_local_is_for_clients_outside_only() {
    let mut service = Service {
        external_traffic_policy: ExternalTrafficPolicy::Local,
        external_ips: vec![Ipv4Addr::new(203, 0, 113, 1)],
        ..web()
    };
    service.ports[0].node_port = Some(30080);
    assert_eq!(
        rendered(service, vec![endpoint(1, "here"), endpoint(2, "there")]),
        [
            "cluster Internal -> 1 2; ",
            "node Internal -> 1 2; ",
            "node External -> 1; 2 OtherNode",
            "external Internal -> 1 2; ",
            "external External -> 1; 2 OtherNode",
        ]
    );
}

#[test]
fn zone_hints_count_when_all_ready_endpoints_have_one_and_one_is_for_this_zone() {
    let hinted = |host, zone: &str| Endpoint { for_zones: vec![zone.into()], ..endpoint(host, "there") };
    assert_eq!(rendered(web(), vec![hinted(1, "z1"), hinted(2, "z2")]), ["cluster Internal -> 1; 2 OtherZone"]);
    assert_eq!(rendered(web(), vec![hinted(1, "z1"), endpoint(2, "there")]), ["cluster Internal -> 1 2; "]);
    assert_eq!(rendered(web(), vec![hinted(1, "z3"), hinted(2, "z2")]), ["cluster Internal -> 1 2; "]);
}

#[test]
fn traffic_distribution_prefers_the_same_zone_or_node_and_leaves_it_when_nobody_is_there() {
    let zone = Service { traffic_distribution: Some(TrafficDistribution::PreferSameZone), ..web() };
    let near = in_zone(endpoint(1, "there"), "z1");
    let far = in_zone(endpoint(2, "there"), "z2");
    assert_eq!(rendered(zone.clone(), vec![near.clone(), far.clone()]), ["cluster Internal -> 1; 2 OtherZone"]);
    assert_eq!(rendered(zone, vec![far.clone()]), ["cluster Internal -> 2; "]);
    let node = Service { traffic_distribution: Some(TrafficDistribution::PreferSameNode), ..web() };
    let own = in_zone(endpoint(3, "here"), "z1");
    assert_eq!(
        rendered(node.clone(), vec![near.clone(), far.clone(), own]),
        ["cluster Internal -> 3; 1 NotTheSameNode, 2 NotTheSameNode"]
    );
    assert_eq!(rendered(node, vec![near, far]), ["cluster Internal -> 1; 2 OtherZone"]);
}

#[test]
fn not_ready_addresses_are_picked_where_the_service_publishes_them() {
    let service = Service { publish_not_ready_addresses: true, ..web() };
    assert_eq!(rendered(service, vec![not_ready(endpoint(1, "here"))]), ["cluster Internal -> 1; "]);
}

#[test]
fn an_address_in_two_slices_is_one_endpoint_and_ready_if_either_says_so() {
    let mut world = World::default();
    put(&mut world, web(), vec![not_ready(endpoint(1, "here"))]);
    let first = world.slices.get(&name("web")).unwrap().values().next().unwrap().clone();
    let second = EndpointSliceWith { endpoints: vec![endpoint(1, "here")] }.of(&first);
    let slices = world.slices.get(&name("web")).unwrap().update("slice-2".into(), Arc::new(second));
    world.slices.insert(name("web"), slices);
    let table = ServiceTable::new(&world, &this_node());
    let frontend = &table.service(&name("web")).unwrap().frontends[0];
    assert_eq!(render(frontend), "cluster Internal -> 1; ");
}

struct EndpointSliceWith {
    endpoints: Vec<Endpoint>,
}

impl EndpointSliceWith {
    fn of(self, slice: &crate::world::EndpointSlice) -> crate::world::EndpointSlice {
        crate::world::EndpointSlice { name: "slice-2".into(), endpoints: self.endpoints, ..slice.clone() }
    }
}

#[test]
fn the_dns_service_is_answered_by_this_node_even_before_it_exists() {
    let address = Ipv4Addr::new(10, 96, 0, 10);
    let server = "10.244.0.1:53".parse().unwrap();
    let node = ThisNode { dns: Some((address, server)), ..this_node() };
    let table = ServiceTable::new(&World { synced: true, ..World::default() }, &node);
    let entry = table.service(&ObjectName::new("kube-system", "kube-dns")).unwrap();
    assert_eq!(entry.frontends.len(), 2);
    for frontend in &entry.frontends {
        assert_eq!((frontend.address, frontend.port), (FrontendAddress::ClusterIp(address), 53));
        assert_eq!(frontend.selection.backends[0].address, *server.ip());
    }
}

#[test]
fn a_table_advanced_step_by_step_equals_one_made_from_nothing() {
    let mut world = World::default();
    let mut table = ServiceTable::default();
    for step in 0..20u8 {
        let mut next = world.clone();
        next.revision += 1;
        let service_name = format!("s{}", step % 3);
        if step % 7 == 6 {
            remove(&mut next, &service_name);
        } else {
            let service = service(&service_name, Ipv4Addr::new(10, 96, 0, step % 3 + 1));
            put(&mut next, service, (1..=step % 4).map(|host| endpoint(host, "here")).collect());
        }
        let (advanced, changed) = table.advance(&world, &next, &this_node());
        assert!(changed.len() <= 1, "one Service changed: {changed:?}");
        assert_eq!(advanced.services, ServiceTable::new(&next, &this_node()).services);
        (world, table) = (next, advanced);
    }
}

fn host_port(host_ip: Option<[u8; 4]>, host_port: u16, protocol: Protocol) -> HostPort {
    let host_ip = host_ip.map(Ipv4Addr::from);
    HostPort { name: "".into(), host_ip, host_port, container_port: 80, protocol }
}

fn pods(ports: Vec<HostPort>) -> HostPorts {
    let pod = PodHostPorts { pod: name("web"), address: Ipv4Addr::new(10, 244, 0, 7), ports };
    HostPorts { pods: OrdMap::unit("uid".into(), Arc::new(pod)), synced: true }
}

#[test]
fn a_host_port_answers_on_this_node_alone_and_leads_to_its_pod() {
    let node = ThisNode { addresses: [Ipv4Addr::new(192, 0, 2, 1)].into(), ..this_node() };
    let table = ServiceTable::new(&World::default(), &node);
    let ports = vec![
        host_port(None, 8080, Protocol::Tcp),
        host_port(Some([127, 0, 0, 1]), 8081, Protocol::Udp),
        host_port(Some([192, 0, 2, 1]), 8082, Protocol::Tcp),
        host_port(Some([192, 0, 2, 9]), 8083, Protocol::Tcp),
        host_port(None, 8084, Protocol::Sctp),
    ];
    let (table, changed) = table.with_host_ports(&pods(ports), &node);
    assert_eq!(changed.len(), 1);
    let entry = table.pod(&name("web")).unwrap();
    let at = |frontend: &Frontend| (frontend.address, frontend.port, frontend.scope);
    let (loopback, own) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(
        entry.frontends.iter().map(at).collect::<Vec<_>>(),
        [
            (FrontendAddress::ThisNode, 8080, Scope::Internal),
            (FrontendAddress::ThisNode, 8080, Scope::External),
            (FrontendAddress::HostIp(loopback), 8081, Scope::Internal),
            (FrontendAddress::HostIp(own), 8082, Scope::Internal),
            (FrontendAddress::HostIp(own), 8082, Scope::External),
        ]
    );
    for frontend in &entry.frontends {
        let backend = &frontend.selection.backends[0];
        assert_eq!((backend.address.octets()[3], backend.port, backend.local), (7, 80, true));
    }
    let reasons: Vec<_> = entry.unserved.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, [Unserved::HostIpElsewhere, Unserved::Sctp]);
    let selections: BTreeSet<_> = entry.frontends.iter().map(|frontend| frontend.selection.name.clone()).collect();
    assert_eq!(selections.len(), 3, "ports without a name are told apart");
}

#[test]
fn host_ports_go_with_their_pod_and_services_stay() {
    let mut world = World::default();
    put(&mut world, web(), vec![endpoint(1, "here")]);
    let table = ServiceTable::new(&world, &this_node());
    let (with, _) = table.with_host_ports(&pods(vec![host_port(None, 8080, Protocol::Tcp)]), &this_node());
    let (again, changed) = with.with_host_ports(&pods(vec![host_port(None, 8080, Protocol::Tcp)]), &this_node());
    assert!(changed.is_empty());
    world.revision += 1;
    let (advanced, changed) = again.advance(&world, &world.clone(), &this_node());
    assert!(changed.is_empty() && advanced.pod(&name("web")).is_some(), "a change of the World keeps them");
    let (without, changed) = advanced.with_host_ports(&HostPorts::default(), &this_node());
    assert_eq!(changed.into_iter().collect::<Vec<_>>(), [FrontendOwner::pod(name("web"), "uid".into())]);
    assert_eq!(without.services, table.services);
}

/// The Service `kubernetes`, whose endpoints are the control service's own addresses.
fn control(world: &mut World, address: [u8; 4]) {
    put(world, service("kubernetes", Ipv4Addr::new(10, 96, 0, 1)), vec![endpoint_at(address.into(), "")]);
}

#[test]
fn no_service_takes_the_address_of_the_control_service_from_it() {
    let external = [Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(203, 0, 113, 1)];
    let mut taking = Service { external_ips: external.into(), ..service("taking", Ipv4Addr::new(10, 96, 0, 7)) };
    taking.ports[0].port = 8080;
    let mut world = World::default();
    put(&mut world, taking, vec![endpoint(1, "here")]);
    control(&mut world, [192, 0, 2, 9]);
    let table = ServiceTable::new(&world, &this_node());
    let shown = |table: &ServiceTable| {
        let entry = table.service(&name("taking")).unwrap().clone();
        let external = entry.frontends.iter().filter_map(|frontend| match frontend.address {
            FrontendAddress::External(ip) => Some(ip.octets()[3]),
            _ => None,
        });
        (external.collect::<Vec<_>>(), entry.unserved.iter().map(|(_, reason)| *reason).collect::<Vec<_>>())
    };
    assert_eq!(shown(&table), (vec![1, 1], vec![Unserved::Reserved]));

    // It moves: what it leaves is free, and what it comes to is not.
    let mut moved = world.clone();
    control(&mut moved, [203, 0, 113, 1]);
    let (table, _) = table.advance(&world, &moved, &this_node());
    assert_eq!(shown(&table), (vec![9, 9], vec![Unserved::Reserved]));
    assert_eq!(table.services, ServiceTable::new(&moved, &this_node()).services);

    // The agent was told another address of it, such as a load balancer's.
    let told = ThisNode { reserved: ["192.0.2.9:8080".parse().unwrap()].into(), ..this_node() };
    assert_eq!(shown(&ServiceTable::new(&moved, &told)), (vec![], vec![Unserved::Reserved]));
}

#[test]
fn no_host_port_takes_the_port_of_the_agent_or_the_control_service() {
    let node = ThisNode {
        addresses: [Ipv4Addr::new(192, 0, 2, 1)].into(),
        reserved: ["192.0.2.1:10250", "127.0.0.1:6443", "192.0.2.9:7443"].map(|one| one.parse().unwrap()).into(),
        ..this_node()
    };
    let ports = vec![
        host_port(None, 10250, Protocol::Tcp),
        host_port(Some([192, 0, 2, 1]), 10250, Protocol::Tcp),
        host_port(None, 6443, Protocol::Tcp),
        host_port(Some([127, 0, 0, 1]), 6443, Protocol::Tcp),
        host_port(None, 10250, Protocol::Udp),
        host_port(Some([127, 0, 0, 1]), 10250, Protocol::Tcp),
        host_port(None, 7443, Protocol::Tcp),
    ];
    let (table, _) = ServiceTable::new(&World::default(), &node).with_host_ports(&pods(ports), &node);
    let entry = table.pod(&name("web")).unwrap();
    assert_eq!(entry.unserved.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [Unserved::Reserved; 4]);
    let served: BTreeSet<_> = entry.frontends.iter().map(|frontend| (frontend.port, frontend.protocol)).collect();
    assert_eq!(served, [(10250, Protocol::Udp), (10250, Protocol::Tcp), (7443, Protocol::Tcp)].into());
}

/// A node, and where its agent says that it listens.
fn put_node(world: &mut World, name: &str, ip: [u8; 4], agent_port: u16) {
    let node =
        Node { name: name.into(), internal_ip: Some(ip.into()), agent_port: Some(agent_port), ..Node::default() };
    world.nodes.insert(name.into(), Arc::new(node));
}

#[test]
fn no_service_takes_the_address_of_any_nodes_agent() {
    let external = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(203, 0, 113, 1)];
    let mut taking = Service { external_ips: external.into(), ..service("taking", Ipv4Addr::new(10, 96, 0, 7)) };
    taking.ports[0].port = 10250;
    taking.ports[0].node_port = Some(30080);
    let mut world = World::default();
    put(&mut world, taking, vec![endpoint(1, "here")]);
    put_node(&mut world, "here", [192, 0, 2, 1], 10250);
    let table = ServiceTable::new(&world, &this_node());
    let shown = |table: &ServiceTable| {
        let entry = table.service(&name("taking")).unwrap().clone();
        let beside_cluster_ip = entry.frontends.iter().filter_map(|frontend| match frontend.address {
            FrontendAddress::External(ip) => Some(ip.octets()[3]),
            FrontendAddress::EveryNode => Some(0),
            _ => None,
        });
        (beside_cluster_ip.collect::<Vec<_>>(), entry.unserved.len())
    };
    assert_eq!(shown(&table), (vec![0, 0, 2, 2, 1, 1], 0));

    let mut joined = world.clone();
    put_node(&mut joined, "there", [192, 0, 2, 2], 10250);
    let (table, _) = table.advance(&world, &joined, &this_node());
    assert_eq!(shown(&table), (vec![0, 0, 1, 1], 1));
    let mut moved = joined.clone();
    put_node(&mut moved, "there", [192, 0, 2, 3], 10250);
    let (table, _) = table.advance(&joined, &moved, &this_node());
    assert_eq!(shown(&table), (vec![0, 0, 2, 2, 1, 1], 0));
    assert_eq!(table.services, ServiceTable::new(&moved, &this_node()).services);
}

#[test]
fn what_another_node_says_of_its_agent_takes_no_node_port_and_no_host_port() {
    let mut taking = service("taking", Ipv4Addr::new(10, 96, 0, 7));
    taking.ports[0].node_port = Some(30080);
    taking.external_ips = vec![Ipv4Addr::new(169, 254, 1, 1)];
    let node = ThisNode { addresses: [Ipv4Addr::new(192, 0, 2, 1)].into(), ..this_node() };
    for (ip, port) in [
        ([127, 0, 0, 1], 443),
        ([127, 0, 0, 1], 30080),
        ([192, 0, 2, 2], 30080),
        ([192, 0, 2, 1], 30080),
        ([192, 0, 2, 1], 443),
        ([0, 0, 0, 0], 443),
        ([169, 254, 1, 1], 80),
    ] {
        let mut world = World::default();
        put(&mut world, taking.clone(), vec![endpoint(1, "here")]);
        put_node(&mut world, "here", [192, 0, 2, 1], 10250);
        put_node(&mut world, "false", ip, port);
        let ports = [None, Some([192, 0, 2, 1]), Some([127, 0, 0, 1])].map(|ip| host_port(ip, 443, Protocol::Tcp));
        let (table, _) = ServiceTable::new(&world, &node).with_host_ports(&pods(ports.into()), &node);
        assert!(table.service(&name("taking")).unwrap().unserved.is_empty(), "{ip:?}:{port}");
        assert!(table.pod(&name("web")).unwrap().unserved.is_empty(), "{ip:?}:{port}");
    }
}

#[test]
fn a_node_that_comes_has_those_services_looked_at_that_have_its_address() {
    let mut world = World::default();
    for (number, external) in [(1, [203, 0, 113, 1]), (2, [192, 0, 2, 2])] {
        let mut service = service(&format!("s{number}"), Ipv4Addr::new(10, 96, 0, number));
        service.external_ips = vec![external.into()];
        (service.ports[0].port, service.ports[0].node_port) = (10250, Some(30080));
        put(&mut world, service, vec![endpoint(1, "here")]);
    }
    let concerned = |old: &World, new: &World, node: &ThisNode| {
        let reserved = |world: &World| Reserved::new(world, node, &node_addresses(world, node));
        super::concerned(new, &reserved(old).difference(&reserved(new))).collect::<Vec<_>>()
    };
    let mut joined = world.clone();
    put_node(&mut joined, "there", [192, 0, 2, 9], 10250);
    assert!(concerned(&world, &joined, &this_node()).is_empty());
    put_node(&mut joined, "there", [192, 0, 2, 2], 10250);
    assert_eq!(concerned(&world, &joined, &this_node()), [name("s2")]);
    let told = ThisNode { reserved: ["192.0.2.9:30080".parse().unwrap()].into(), ..this_node() };
    put_node(&mut joined, "there", [192, 0, 2, 9], 10250);
    assert_eq!(concerned(&world, &joined, &told), [name("s1"), name("s2")], "the control service is on that node");
}

#[test]
fn no_node_port_takes_the_port_of_the_control_service_on_a_node() {
    let mut taking = service("taking", Ipv4Addr::new(10, 96, 0, 7));
    taking.ports[0].node_port = Some(6443);
    let mut world = World::default();
    put(&mut world, taking, vec![endpoint(1, "here")]);
    put_node(&mut world, "here", [192, 0, 2, 1], 10250);
    let table = |at: &str| {
        let told = ThisNode { reserved: [at.parse().unwrap()].into(), ..this_node() };
        ServiceTable::new(&world, &told).service(&name("taking")).unwrap().frontends.len()
    };
    assert_eq!((table("192.0.2.1:6443"), table("127.0.0.1:6443"), table("192.0.2.9:6443")), (1, 1, 3));
}
