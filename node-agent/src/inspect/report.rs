//! The JSON of an inspection: pure functions of the table and of what the datapath holds.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use serde::Serialize;

use super::names::{NamesReport, no_frontends_because};
use crate::{
    dns::ServiceNames,
    proxy::{
        Datapath, HeldBackend, HeldFrontend, MapUsage, Proxy,
        image::address_from_be,
        table::{
            Candidate, Excluded, Frontend, FrontendAddress, Scope, SelectionPolicy, ServiceTable, TableService,
            Unserved,
        },
    },
    world::{ObjectName, Protocol},
};

/// What is said with every report.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `ebpf` or `userspace`.
    datapath: &'static str,
    /// Why it is not eBPF.
    #[serde(skip_serializing_if = "Option::is_none")]
    datapath_reason: Option<String>,
    /// The resourceVersion that the kernel serves.
    applied_revision: u64,
    /// That of the table; greater while a change is on its way.
    table_revision: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    problems: Arc<[String]>,
}

/// One Service, or one pod's host ports.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport<'a> {
    node: &'a str,
    namespace: &'a str,
    name: &'a str,
    #[serde(flatten)]
    status: &'a Status,
    /// Absent for a pod, and where the node's DNS server does not know the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<NamesReport<'a>>,
    /// Why no address of the Service is served; absent where one is, or should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_frontends_because: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_affinity_seconds: Option<u64>,
    frontends: Vec<FrontendReport<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unserved_ports: Vec<UnservedPort<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FrontendReport<'a> {
    kind: &'static str,
    /// Absent for a NodePort, which every node's addresses have, and a host port that all of this node's have.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Ipv4Addr>,
    port: u16,
    port_name: &'a str,
    protocol: &'static str,
    /// `internal`: clients on this node; `external`: clients behind its uplinks.
    scope: &'static str,
    policy: &'static str,
    /// Whether the datapath has this frontend.
    held: bool,
    backends: Vec<BackendReport<'a>>,
    excluded: Vec<ExcludedReport<'a>>,
    /// Connections and datagrams that got no backend.
    unserved: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackendReport<'a> {
    address: Ipv4Addr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    /// Picked although it terminates, since no endpoint is ready.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    terminating: bool,
    /// The datapath may pick it now.
    held: bool,
    /// The table wants it picked. Not so: the datapath has drifted, or a change is on its way.
    wanted: bool,
    picks: u64,
    affine_picks: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExcludedReport<'a> {
    address: Ipv4Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnservedPort<'a> {
    port_name: &'a str,
    reason: String,
}

/// The datapath as a whole.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatapathReport<'a> {
    node: &'a str,
    #[serde(flatten)]
    status: &'a Status,
    services: usize,
    pods_with_host_ports: usize,
    node_addresses: Vec<Ipv4Addr>,
    maps: Vec<MapReport>,
}

#[derive(Serialize)]
struct MapReport {
    name: &'static str,
    entries: usize,
    limit: usize,
}

/// What is said with every report, as of `table`.
pub fn status(proxy: &Proxy, table: &ServiceTable) -> Status {
    let (datapath, datapath_reason) = match proxy.datapath() {
        Datapath::Ebpf => ("ebpf", None),
        Datapath::Userspace { reason } => ("userspace", Some(reason)),
    };
    Status {
        datapath,
        datapath_reason,
        applied_revision: *proxy.applied().borrow(),
        table_revision: table.revision,
        problems: proxy.problems(),
    }
}

/// A Service or the host ports of a pod. `held` has one item for each frontend of it.
pub fn entry<'a>(
    node: &'a str,
    entry: &'a TableService,
    held: &[Option<HeldFrontend>],
    names: Option<&'a ServiceNames>,
    status: &'a Status,
) -> ServiceReport<'a> {
    ServiceReport {
        node,
        namespace: &entry.owner.name().namespace,
        name: &entry.owner.name().name,
        status,
        dns: names.map(NamesReport::of),
        no_frontends_because: names.and_then(no_frontends_because),
        session_affinity_seconds: entry.affinity.map(|timeout| timeout.as_secs()),
        frontends: entry
            .frontends
            .iter()
            .zip(held)
            .map(|(frontend, held)| report_frontend(frontend, held.as_ref()))
            .collect(),
        unserved_ports: entry.unserved.iter().map(unserved_port).collect(),
    }
}

fn unserved_port((port_name, reason): &(Arc<str>, Unserved)) -> UnservedPort<'_> {
    UnservedPort { port_name, reason: reason.to_string() }
}

/// Reports the datapath as a whole.
pub fn datapath<'a>(node: &'a str, table: &ServiceTable, usage: &[MapUsage], status: &'a Status) -> DatapathReport<'a> {
    DatapathReport {
        node,
        status,
        services: table.services.keys().filter(|owner| !owner.is_pod()).count(),
        pods_with_host_ports: table.services.keys().filter(|owner| owner.is_pod()).count(),
        node_addresses: table.node_addresses.keys().copied().collect(),
        maps: usage.iter().map(|map| MapReport { name: map.map, entries: map.entries, limit: map.limit }).collect(),
    }
}

fn report_frontend<'a>(frontend: &'a Frontend, held: Option<&HeldFrontend>) -> FrontendReport<'a> {
    let (kind, address) = match frontend.address {
        FrontendAddress::ClusterIp(address) => ("ClusterIP", Some(address)),
        FrontendAddress::EveryNode => ("NodePort", None),
        FrontendAddress::External(address) => ("ExternalIP", Some(address)),
        FrontendAddress::ThisNode => ("HostPort", None),
        FrontendAddress::HostIp(address) => ("HostPort", Some(address)),
    };
    FrontendReport {
        kind,
        address,
        port: frontend.port,
        port_name: &frontend.port_name,
        protocol: match frontend.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        },
        scope: match frontend.scope {
            Scope::Internal => "internal",
            Scope::External => "external",
        },
        policy: match frontend.selection.name.policy {
            SelectionPolicy::EveryNode => "Cluster",
            SelectionPolicy::ThisNode => "Local",
            SelectionPolicy::LocalDns => "this node's DNS server",
            SelectionPolicy::HostPort { .. } => "the pod itself",
        },
        held: held.is_some(),
        backends: report_backends(&frontend.selection.backends, held.map_or(&[], |held| &held.backends)),
        excluded: frontend.selection.excluded.iter().map(report_excluded).collect(),
        unserved: held.map_or(0, |held| held.unserved.picks),
    }
}

/// Those that the table wants, held or not; then those that are held though the table does not want them.
fn report_backends<'a>(wanted: &'a [Candidate], held: &[HeldBackend]) -> Vec<BackendReport<'a>> {
    let place = |held: &HeldBackend| (address_from_be(held.backend.address_be), u16::from_be(held.backend.port_be));
    let mut reports: Vec<BackendReport> = Vec::new();
    for candidate in wanted {
        let held = held.iter().find(|held| place(held) == (candidate.address, candidate.port));
        reports.push(BackendReport {
            address: candidate.address,
            port: candidate.port,
            pod: candidate.pod.as_ref().map(ObjectName::to_string),
            node: candidate.node.as_deref(),
            zone: candidate.zone.as_deref(),
            terminating: candidate.terminating,
            held: held.is_some(),
            wanted: true,
            picks: held.map_or(0, |held| held.counters.picks),
            affine_picks: held.map_or(0, |held| held.counters.affine),
        });
    }
    let known: BTreeSet<_> = wanted.iter().map(|candidate| (candidate.address, candidate.port)).collect();
    for unwanted in held.iter().filter(|held| !known.contains(&place(held))) {
        let (address, port) = place(unwanted);
        reports.push(BackendReport {
            address,
            port,
            pod: None,
            node: None,
            zone: None,
            terminating: false,
            held: true,
            wanted: false,
            picks: unwanted.counters.picks,
            affine_picks: unwanted.counters.affine,
        });
    }
    reports
}

fn report_excluded(excluded: &Excluded) -> ExcludedReport<'_> {
    ExcludedReport {
        address: excluded.address,
        port: excluded.port,
        pod: excluded.pod.as_ref().map(ObjectName::to_string),
        node: excluded.node.as_deref(),
        reason: excluded.reason.to_string(),
    }
}
