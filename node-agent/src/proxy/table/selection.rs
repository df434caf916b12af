//! Which endpoints a policy picks, and why it leaves the others out.
//!
//! Sources: kube-proxy's `CategorizeEndpoints`, KEP 1669 (terminating endpoints), KEP 2086 (internalTrafficPolicy),
//! KEPs 2433 and 4444 (topology hints and traffic distribution).

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, sync::Arc};

use imbl::OrdMap;

use crate::world::{Endpoint, EndpointSlice, ObjectName, Protocol, ServicePort, TrafficDistribution};

/// Backends for one port and policy; shared by the frontends that use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Unique within its Service.
    pub name: SelectionName,
    /// Ordered by address and port, so that every node numbers them alike.
    pub backends: Vec<Candidate>,
    /// Endpoints of the port that are not picked, each with the reason.
    pub excluded: Vec<Excluded>,
    /// Without backends here, other nodes have some: packets are dropped and not refused.
    pub elsewhere: bool,
}

/// What tells two selections of one Service apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectionName {
    /// Of the Service's port.
    pub port_name: Arc<str>,
    /// Of the Service's port: names need be unique per protocol only.
    pub protocol: Protocol,
    /// Which of the port's endpoints are in it.
    pub policy: SelectionPolicy,
}

/// Which endpoints may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SelectionPolicy {
    /// Endpoints of all nodes.
    EveryNode,
    /// Endpoints of this node (policy `Local`).
    ThisNode,
    /// The DNS server of this node.
    LocalDns,
    /// The pod whose host port it is.
    HostPort {
        /// `hostIP` of the port; `None` for all addresses of the node.
        host_ip: Option<Ipv4Addr>,
        /// The host port.
        port: u16,
    },
}

/// An endpoint that may be picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// IPv4.
    pub address: Ipv4Addr,
    /// The endpoint's own, from its slice.
    pub port: u16,
    /// Where it runs, where its slice says so.
    pub node: Option<Arc<str>>,
    /// Of its node, where its slice says so.
    pub zone: Option<Arc<str>>,
    /// The Pod behind it, where its slice says so.
    pub pod: Option<ObjectName>,
    /// On this node.
    pub local: bool,
    /// Picked only because no endpoint is ready.
    pub terminating: bool,
}

/// An endpoint that is not picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// IPv4.
    pub address: Ipv4Addr,
    /// `None` where its slice has no such port.
    pub port: Option<u16>,
    /// Where it runs, where its slice says so.
    pub node: Option<Arc<str>>,
    /// The Pod behind it, where its slice says so.
    pub pod: Option<ObjectName>,
    /// The rule that leaves it out.
    pub reason: Exclusion,
}

/// Why an endpoint is not picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// Its readiness probe fails, or it has not started.
    NotReady,
    /// Terminating and no longer serving.
    Terminating,
    /// Terminating and still serving, but others are ready (KEP 1669).
    TerminatingWhileOthersAreReady,
    /// The policy is `Local`, and it runs elsewhere.
    OtherNode,
    /// Traffic stays in the zone, and it runs in another.
    OtherZone,
    /// The node has an endpoint of its own (`PreferSameNode`).
    NotTheSameNode,
    /// Its slice names no such port.
    NoSuchPort,
}

impl Exclusion {
    /// Whether connections that the endpoint has may go on: it is left out for what it is, and not for where it is.
    pub fn keeps_connections(&self) -> bool {
        matches!(self, Self::NotReady | Self::Terminating | Self::TerminatingWhileOthersAreReady)
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "not ready",
            Self::Terminating => "terminating, no longer serving",
            Self::TerminatingWhileOthersAreReady => "terminating, and others are ready",
            Self::OtherNode => "on another node, and the traffic policy is Local",
            Self::OtherZone => "in another zone, and traffic stays in its zone",
            Self::NotTheSameNode => "on another node, and traffic prefers the same node",
            Self::NoSuchPort => "its EndpointSlice has no port of that name",
        })
    }
}

/// Where this node is, and whether traffic should stay near.
pub(super) struct Topology<'a> {
    /// Name of this node.
    pub node: &'a str,
    /// Of this node; `None` where its Node has no zone label.
    pub zone: Option<&'a str>,
    /// The Service's preference.
    pub distribution: Option<TrafficDistribution>,
}

/// All endpoints of one Service port, each once.
pub(super) struct PortEndpoints {
    port: ServicePort,
    endpoints: Vec<PortEndpoint>,
    without_port: Vec<Excluded>,
}

struct PortEndpoint {
    candidate: Candidate,
    ready: bool,
    serving: bool,
    terminating: bool,
    for_zones: Vec<Arc<str>>,
}

impl PortEndpoints {
    /// Of several entries for one address and port (slices overlap while one moves to another) a ready one counts.
    pub(super) fn gather(
        port: &ServicePort,
        slices: Option<&OrdMap<Arc<str>, Arc<EndpointSlice>>>,
        publish_not_ready: bool,
        this_node: &Arc<str>,
    ) -> Self {
        let mut by_address: BTreeMap<(Ipv4Addr, u16), PortEndpoint> = BTreeMap::new();
        let mut without_port = Vec::new();
        for slice in slices.into_iter().flat_map(|slices| slices.values()) {
            let slice_port =
                slice.ports.iter().find(|candidate| candidate.name == port.name && candidate.protocol == port.protocol);
            for endpoint in &slice.endpoints {
                // All addresses of one endpoint are one pod's: the first stands for it (as in kube-proxy).
                let Some(address) = endpoint.addresses.first().copied() else { continue };
                let Some(slice_port) = slice_port else {
                    without_port.push(excluded(address, None, endpoint, Exclusion::NoSuchPort));
                    continue;
                };
                let new = port_endpoint(address, slice_port.port, endpoint, publish_not_ready, this_node);
                let held = by_address.get(&(address, slice_port.port));
                if held.is_none_or(|held| (held.ready, held.serving) < (new.ready, new.serving)) {
                    by_address.insert((address, slice_port.port), new);
                }
            }
        }
        Self { port: port.clone(), endpoints: by_address.into_values().collect(), without_port }
    }
}

/// The endpoints on every node: the ready ones, near ones if topology says so; else those that terminate but still
/// serve.
pub(super) fn every_node(endpoints: &PortEndpoints, topology: &Topology) -> Selection {
    let near = Nearness::of(&endpoints.endpoints, topology);
    select(endpoints, SelectionPolicy::EveryNode, |endpoint| near.excludes(endpoint))
}

/// The endpoints on this node only.
pub(super) fn this_node(endpoints: &PortEndpoints, _node: &str) -> Selection {
    let mut selection = select(endpoints, SelectionPolicy::ThisNode, |endpoint| {
        (!endpoint.candidate.local).then_some(Exclusion::OtherNode)
    });
    // A terminating endpoint of another node is no reason to leave this one's.
    selection.elsewhere =
        selection.backends.is_empty() && endpoints.endpoints.iter().any(|endpoint| endpoint.ready || endpoint.serving);
    selection
}

fn select(
    endpoints: &PortEndpoints,
    policy: SelectionPolicy,
    away: impl Fn(&PortEndpoint) -> Option<Exclusion>,
) -> Selection {
    let mut backends = Vec::new();
    let mut excluded = endpoints.without_port.clone();
    let any_ready = endpoints.endpoints.iter().any(|endpoint| endpoint.ready && away(endpoint).is_none());
    for endpoint in &endpoints.endpoints {
        let reason = if endpoint.ready {
            away(endpoint)
        } else if endpoint.terminating && endpoint.serving {
            let local_only = policy == SelectionPolicy::ThisNode && !endpoint.candidate.local;
            match (local_only, any_ready) {
                (true, _) => Some(Exclusion::OtherNode),
                (false, true) => Some(Exclusion::TerminatingWhileOthersAreReady),
                (false, false) => None,
            }
        } else if endpoint.terminating {
            Some(Exclusion::Terminating)
        } else {
            Some(Exclusion::NotReady)
        };
        match reason {
            None => backends.push(Candidate { terminating: !endpoint.ready, ..endpoint.candidate.clone() }),
            Some(reason) => excluded.push(Excluded {
                address: endpoint.candidate.address,
                port: Some(endpoint.candidate.port),
                node: endpoint.candidate.node.clone(),
                pod: endpoint.candidate.pod.clone(),
                reason,
            }),
        }
    }
    let name = SelectionName { port_name: endpoints.port.name.clone(), protocol: endpoints.port.protocol, policy };
    Selection { name, backends, excluded, elsewhere: false }
}

fn port_endpoint(
    address: Ipv4Addr,
    port: u16,
    endpoint: &Endpoint,
    publish_not_ready: bool,
    this_node: &Arc<str>,
) -> PortEndpoint {
    PortEndpoint {
        candidate: Candidate {
            address,
            port,
            node: endpoint.node_name.clone(),
            zone: endpoint.zone.clone(),
            pod: endpoint.pod.clone(),
            local: endpoint.node_name.as_ref() == Some(this_node),
            terminating: false,
        },
        ready: endpoint.ready || publish_not_ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
        for_zones: endpoint.for_zones.clone(),
    }
}

fn excluded(address: Ipv4Addr, port: Option<u16>, endpoint: &Endpoint, reason: Exclusion) -> Excluded {
    Excluded { address, port, node: endpoint.node_name.clone(), pod: endpoint.pod.clone(), reason }
}

/// Which ready endpoints are near enough.
enum Nearness<'a> {
    Any,
    Node,
    Zone { zone: &'a str, hints_from_endpoints: bool },
}

impl<'a> Nearness<'a> {
    fn of(endpoints: &[PortEndpoint], topology: &Topology<'a>) -> Self {
        let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
        let same_node = topology.distribution == Some(TrafficDistribution::PreferSameNode);
        if same_node && ready().any(|endpoint| endpoint.candidate.node.as_deref() == Some(topology.node)) {
            return Self::Node;
        }
        let Some(zone) = topology.zone else { return Self::Any };
        // Hints count only when every ready endpoint has one, and one is for this zone (KEP 2433). A Service that asks
        // to stay near and has no hints yet is served as its hints will say.
        let hinted = ready().all(|endpoint| !endpoint.for_zones.is_empty());
        let by_own_zone =
            !hinted && topology.distribution.is_some() && ready().all(|endpoint| endpoint.candidate.zone.is_some());
        let near = Self::Zone { zone, hints_from_endpoints: by_own_zone };
        if (hinted || by_own_zone) && ready().any(|endpoint| near.excludes(endpoint).is_none()) {
            near
        } else {
            Self::Any
        }
    }

    fn excludes(&self, endpoint: &PortEndpoint) -> Option<Exclusion> {
        match self {
            Self::Any => None,
            Self::Node => (!endpoint.candidate.local).then_some(Exclusion::NotTheSameNode),
            Self::Zone { zone, hints_from_endpoints: true } => {
                (endpoint.candidate.zone.as_deref() != Some(zone)).then_some(Exclusion::OtherZone)
            }
            Self::Zone { zone, hints_from_endpoints: false } => {
                (!endpoint.for_zones.iter().any(|hint| &**hint == *zone)).then_some(Exclusion::OtherZone)
            }
        }
    }
}
