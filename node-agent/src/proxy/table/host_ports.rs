//! A pod's host ports as frontends of this node, each with that pod as its only backend.

use std::sync::Arc;

use super::{
    Candidate, Frontend, FrontendAddress, FrontendOwner, Scope, Selection, SelectionName, SelectionPolicy,
    ServiceTable, TableService, ThisNode, Unserved,
};
use crate::world::{HostPort, PodHostPorts, Protocol};

/// The entry of a pod. As with kube's port mapping, it answers from when the pod has an address, ready or not.
pub(super) fn table_entry(
    owner: FrontendOwner,
    pod: &PodHostPorts,
    node: &ThisNode,
    table: &ServiceTable,
) -> TableService {
    let mut frontends = Vec::new();
    let mut unserved = Vec::new();
    for port in &pod.ports {
        match addresses(port, table) {
            Ok((address, scopes)) => {
                let selection = Arc::new(selection(port, pod, node));
                frontends.extend(scopes.iter().map(|scope| Frontend {
                    address,
                    port: port.host_port,
                    protocol: port.protocol,
                    scope: *scope,
                    port_name: port.name.clone(),
                    selection: selection.clone(),
                }));
            }
            Err(reason) => unserved.push((port.name.clone(), reason)),
        }
    }
    TableService { owner, affinity: None, frontends, unserved }
}

/// Where a host port answers, and whom.
fn addresses(port: &HostPort, table: &ServiceTable) -> Result<(FrontendAddress, &'static [Scope]), Unserved> {
    let ServiceTable { node_addresses, reserved, .. } = table;
    match port.host_ip {
        _ if port.protocol == Protocol::Sctp => Err(Unserved::Sctp),
        host_ip
            if port.protocol == Protocol::Tcp && reserved.has_host_port(host_ip, port.host_port, node_addresses) =>
        {
            Err(Unserved::Reserved)
        }
        None => Ok((FrontendAddress::ThisNode, &[Scope::Internal, Scope::External])),
        Some(address) if address.is_loopback() => Ok((FrontendAddress::HostIp(address), &[Scope::Internal])),
        Some(address) if node_addresses.get(&address) == Some(&true) => {
            Ok((FrontendAddress::HostIp(address), &[Scope::Internal, Scope::External]))
        }
        Some(_) => Err(Unserved::HostIpElsewhere),
    }
}

fn selection(port: &HostPort, pod: &PodHostPorts, node: &ThisNode) -> Selection {
    let policy = SelectionPolicy::HostPort { host_ip: port.host_ip, port: port.host_port };
    Selection {
        name: SelectionName { port_name: port.name.clone(), protocol: port.protocol, policy },
        backends: vec![Candidate {
            address: pod.address,
            port: port.container_port,
            node: Some(node.name.clone()),
            zone: None,
            pod: Some(pod.pod.clone()),
            local: true,
            terminating: false,
        }],
        excluded: Vec::new(),
        elsewhere: false,
    }
}
