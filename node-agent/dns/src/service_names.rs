//! What the server says of one Service, for people: its names and where they lead, and the endpoints they leave out.
//!
//! Read from the zone that answers are made from, and so what clients are told.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::Ipv4Addr,
    sync::Arc,
};

use super::{
    name::Name,
    record,
    service_records::{LeftOut, ServiceRecords, left_out},
    zone::Zone,
};
use fairlead_world::{ObjectName, Service, ServiceKind};

/// The names of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// Highest revision of the World that they reflect.
    pub revision: u64,
    /// Decides which names there are.
    pub kind: ServiceKind,
    /// The Service's own first; then hosts, then ports.
    pub records: Vec<RecordSet>,
    /// Of a headless Service, ordered by address; others have none, their names lead to no endpoint.
    pub endpoints: Vec<NamedEndpoint>,
}

/// All records of one name and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSet {
    /// Absolute, without the last dot.
    pub name: String,
    /// `A`, `CNAME` or `SRV`.
    pub kind: &'static str,
    /// Addresses, a name, or `HOST:PORT`. Empty: the name does not exist.
    pub data: Vec<String>,
}

/// An endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// IPv4; part of the host's label where the endpoint has no hostname.
    pub address: Ipv4Addr,
    /// The Pod behind it, where its slice says so.
    pub pod: Option<ObjectName>,
    /// Where it runs, where its slice says so.
    pub node: Option<Arc<str>>,
    /// `None` where names lead to it.
    pub left_out: Option<LeftOut>,
}

impl ServiceNames {
    /// `None` where there is no such Service.
    pub(super) fn of(zone: &Zone, name: &ObjectName) -> Option<Self> {
        let service = zone.world().services.get(name)?;
        Some(Self {
            revision: zone.revision(),
            kind: service.kind.clone(),
            records: record_sets(zone.records_of(name)?),
            endpoints: if service.kind == ServiceKind::Headless { endpoints(zone, service) } else { Vec::new() },
        })
    }
}

fn record_sets(records: &ServiceRecords) -> Vec<RecordSet> {
    let set = |name: String, kind, data| RecordSet { name, kind, data };
    let addresses = |prepared: &[u8]| record::addresses(prepared).map(|address| address.to_string()).collect();
    let below = |labels: &[&[u8]]| {
        let name = Name::from_wire(&[&labels.concat(), records.name.wire()].concat());
        // Only what fits into a name became a record.
        name.map(|name| name.to_string()).unwrap_or_default()
    };
    let own = match &records.external_name {
        Some(target) => set(records.name.to_string(), "CNAME", vec![target.to_string()]),
        None => set(records.name.to_string(), "A", addresses(&records.addresses)),
    };
    let hosts = records.hosts.iter().map(|(host, prepared)| set(below(&[host]), "A", addresses(prepared)));
    let ports = records.srv.iter().map(|srv| {
        let targets = srv.targets.iter().map(|target| format!("{}:{}", target.host, target.port));
        set(below(&[&srv.port, &srv.protocol]), "SRV", targets.collect())
    });
    std::iter::once(own).chain(hosts).chain(ports).collect()
}

/// Each address once: while an endpoint moves from one slice to another, the entry that names lead to counts.
fn endpoints(zone: &Zone, service: &Service) -> Vec<NamedEndpoint> {
    let mut by_address = BTreeMap::new();
    let slices = zone.world().slices.get(&service.name);
    for endpoint in slices.into_iter().flat_map(|slices| slices.values()).flat_map(|slice| &slice.endpoints) {
        for address in &endpoint.addresses {
            let named = NamedEndpoint {
                address: *address,
                pod: endpoint.pod.clone(),
                node: endpoint.node_name.clone(),
                left_out: left_out(service, endpoint),
            };
            match by_address.entry(*address) {
                Entry::Vacant(place) => drop(place.insert(named)),
                Entry::Occupied(mut place) if named.left_out.is_none() => drop(place.insert(named)),
                Entry::Occupied(_) => {}
            }
        }
    }
    by_address.into_values().collect()
}

#[cfg(test)]
mod tests {
    use imbl::OrdMap;

    use super::{
        super::service_records::tests::{endpoint, service, slices},
        *,
    };
    use fairlead_world::{Endpoint, World};

    fn names(service: Service, endpoints: Vec<Endpoint>) -> ServiceNames {
        let mut zone = Zone::new("cluster.local", Ipv4Addr::new(10, 244, 1, 1)).expect("a domain");
        let name = service.name.clone();
        zone.update(Arc::new(World {
            slices: OrdMap::unit(name.clone(), slices(&service, endpoints)),
            services: OrdMap::unit(name.clone(), Arc::new(service)),
            revision: 7,
            synced: true,
            ..World::default()
        }));
        ServiceNames::of(&zone, &name).expect("it is there")
    }

    fn text(names: &ServiceNames) -> Vec<String> {
        names.records.iter().map(|set| format!("{} {} {}", set.name, set.kind, set.data.join(" "))).collect()
    }

    #[test]
    fn a_headless_service_says_where_each_name_leads_and_whom_it_leaves_out() {
        let leaving = Endpoint { serving: true, terminating: true, ..endpoint([10, 0, 0, 4], None, false) };
        let endpoints = vec![
            endpoint([10, 0, 0, 1], Some("mysql-0"), true),
            endpoint([10, 0, 0, 2], None, true),
            endpoint([10, 0, 0, 3], Some("mysql-2"), false),
            leaving,
        ];
        let names = names(service("db", "mysql", ServiceKind::Headless), endpoints);
        assert_eq!(
            text(&names),
            [
                "mysql.db.svc.cluster.local A 10.0.0.1 10.0.0.2",
                "mysql-0.mysql.db.svc.cluster.local A 10.0.0.1",
                "10-0-0-2.mysql.db.svc.cluster.local A 10.0.0.2",
                "_http._tcp.mysql.db.svc.cluster.local SRV 10-0-0-2.mysql.db.svc.cluster.local:8080 \
                 mysql-0.mysql.db.svc.cluster.local:8080",
            ]
        );
        let left_out: Vec<_> = names.endpoints.iter().map(|endpoint| endpoint.left_out).collect();
        assert_eq!(left_out, [None, None, Some(LeftOut::NotReady), Some(LeftOut::Terminating)]);
        assert_eq!(names.revision, 7);
    }

    #[test]
    fn an_external_name_is_an_alias_and_a_cluster_ip_an_address() {
        let external = names(service("default", "search", ServiceKind::ExternalName("www.example.org".into())), vec![]);
        assert_eq!(text(&external), ["search.default.svc.cluster.local CNAME www.example.org"]);
        let addresses = vec![Ipv4Addr::new(10, 96, 0, 7)];
        let cluster_ip = names(service("default", "web", ServiceKind::ClusterIp(addresses)), vec![]);
        assert_eq!(text(&cluster_ip)[0], "web.default.svc.cluster.local A 10.96.0.7");
        assert!(cluster_ip.endpoints.is_empty());
    }

    #[test]
    fn a_service_that_is_not_there_has_no_names() {
        let zone = Zone::new("cluster.local", Ipv4Addr::LOCALHOST).expect("a domain");
        assert_eq!(ServiceNames::of(&zone, &ObjectName::new("default", "web")), None);
    }
}
