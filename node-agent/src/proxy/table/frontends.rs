//! One Service of the World as frontends: which addresses it answers on, and by which policy each picks.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use super::{
    Candidate, Frontend, FrontendAddress, FrontendOwner, Scope, Selection, SelectionName, SelectionPolicy,
    TableService, ThisNode, Unserved,
    reserved::Reserved,
    selection::{PortEndpoints, Topology, every_node, this_node},
};
use crate::world::{
    ExternalTrafficPolicy, InternalTrafficPolicy, ObjectName, Protocol, Service, ServiceKind, ServicePort, World,
};

/// The cluster's DNS Service, as Kubernetes names it.
pub(super) fn dns_service() -> ObjectName {
    ObjectName::new("kube-system", "kube-dns")
}

/// The entry of Service `name`, or `None` where there is none. A headless Service has one without frontends.
pub(super) fn table_service(
    name: &ObjectName,
    world: &World,
    node: &ThisNode,
    reserved: &Reserved,
) -> Option<TableService> {
    let service = world.services.get(name);
    let overridden = node.dns.filter(|_| *name == dns_service());
    let mut frontends = Vec::new();
    let mut unserved = Vec::new();
    for port in service.into_iter().flat_map(|service| &service.ports) {
        if port.protocol == Protocol::Sctp {
            unserved.push((port.name.clone(), Unserved::Sctp));
        } else if let Some(service) = service {
            let wanted = port_frontends(service, port, world, node);
            if wanted.iter().any(|frontend| reserved.has_frontend(frontend)) {
                unserved.push((port.name.clone(), Unserved::Reserved));
            }
            frontends.extend(wanted.into_iter().filter(|frontend| !reserved.has_frontend(frontend)));
        }
    }
    if let Some((address, server)) = overridden {
        answer_locally(&mut frontends, address, server, node);
    }
    if service.is_none() && overridden.is_none() {
        return None;
    }
    let affinity = service.and_then(|service| service.session_affinity);
    Some(TableService { owner: FrontendOwner::Service(name.clone()), affinity, frontends, unserved })
}

fn port_frontends(service: &Service, port: &ServicePort, world: &World, node: &ThisNode) -> Vec<Frontend> {
    let ServiceKind::ClusterIp(cluster_ips) = &service.kind else { return Vec::new() };
    let own_node = world.nodes.get(&node.name);
    let topology = Topology {
        node: &node.name,
        zone: own_node.and_then(|own| own.zone.as_deref()),
        distribution: service.traffic_distribution,
    };
    let slices = world.slices.get(&service.name);
    let endpoints = PortEndpoints::gather(port, slices, service.publish_not_ready_addresses, &node.name);
    let all = Arc::new(every_node(&endpoints, &topology));
    let internal_local = service.internal_traffic_policy == InternalTrafficPolicy::Local;
    let external_local = service.external_traffic_policy == ExternalTrafficPolicy::Local;
    let local =
        if internal_local || external_local { Arc::new(this_node(&endpoints, &node.name)) } else { all.clone() };
    let internal = if internal_local { &local } else { &all };
    let external = if external_local { &local } else { &all };

    let frontend = |address, port_number, scope, selection: &Arc<Selection>| Frontend {
        address,
        port: port_number,
        protocol: port.protocol,
        scope,
        port_name: port.name.clone(),
        selection: selection.clone(),
    };
    let mut frontends = Vec::new();
    for ip in cluster_ips {
        frontends.push(frontend(FrontendAddress::ClusterIp(*ip), port.port, Scope::Internal, internal));
    }
    if let Some(node_port) = port.node_port {
        // Clients inside the cluster take the short way to any endpoint, whatever the external policy (as kube-proxy).
        frontends.push(frontend(FrontendAddress::EveryNode, node_port, Scope::Internal, &all));
        frontends.push(frontend(FrontendAddress::EveryNode, node_port, Scope::External, external));
    }
    for ip in &service.external_ips {
        frontends.push(frontend(FrontendAddress::External(*ip), port.port, Scope::Internal, &all));
        frontends.push(frontend(FrontendAddress::External(*ip), port.port, Scope::External, external));
    }
    frontends
}

/// Names are answered by this node's own server: a query never leaves the node, and is answered even before the first
/// list.
fn answer_locally(frontends: &mut Vec<Frontend>, address: Ipv4Addr, server: SocketAddrV4, node: &ThisNode) {
    const DNS: u16 = 53;
    for (protocol, port_name) in [(Protocol::Udp, "dns"), (Protocol::Tcp, "dns-tcp")] {
        let selection = Arc::new(Selection {
            name: SelectionName { port_name: port_name.into(), protocol, policy: SelectionPolicy::LocalDns },
            backends: vec![Candidate {
                address: *server.ip(),
                port: server.port(),
                node: Some(node.name.clone()),
                zone: None,
                pod: None,
                local: true,
                terminating: false,
            }],
            excluded: Vec::new(),
            elsewhere: false,
        });
        let own = |frontend: &Frontend| {
            frontend.address == FrontendAddress::ClusterIp(address)
                && frontend.port == DNS
                && frontend.protocol == protocol
        };
        match frontends.iter_mut().find(|frontend| own(frontend)) {
            Some(frontend) => frontend.selection = selection,
            None => frontends.push(Frontend {
                address: FrontendAddress::ClusterIp(address),
                port: DNS,
                protocol,
                scope: Scope::Internal,
                port_name: port_name.into(),
                selection,
            }),
        }
    }
}
