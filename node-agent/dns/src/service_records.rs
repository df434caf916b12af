//! The DNS records of one Service, prepared for answering: what the Kubernetes DNS specification 1.1.0, sections 2.3 to
//! 2.5, says of it.
//!
//! Pure: the same Service and EndpointSlices give the same records.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    sync::Arc,
};

use imbl::OrdMap;

use super::{
    name::{Name, label},
    record,
};
use fairlead_world::{Endpoint, EndpointSlice, Protocol, Service, ServiceKind};

/// A target of an SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvTarget {
    /// Where the target listens: the Service's port, or for a headless Service the endpoint's.
    pub port: u16,
    /// The target's name.
    pub host: Name,
    /// For the additional section, so that clients need not ask again.
    pub addresses: Vec<Ipv4Addr>,
}

/// SRV records of one named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvPort {
    /// `_http` in wire form.
    pub port: Box<[u8]>,
    /// `_tcp` in wire form.
    pub protocol: Box<[u8]>,
    /// The Service's own name, or the endpoints of a headless Service.
    pub targets: Vec<SrvTarget>,
}

/// All records of one Service, prepared for copying into responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRecords {
    /// `SERVICE.NAMESPACE.svc.ZONE` in wire form.
    pub name: Name,
    /// A records of the Service's own name, each complete behind the question (see [`record::a_behind_question`]).
    pub addresses: Box<[u8]>,
    /// The CNAME of an ExternalName Service.
    pub external_name: Option<Name>,
    /// By port, in the Service's order.
    pub srv: Vec<SrvPort>,
    /// A records of a headless Service's endpoints, by hostname or dashed address in wire form.
    pub hosts: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// PTR records: address and the name it has.
    pub reverse: BTreeSet<(Ipv4Addr, Name)>,
}

impl ServiceRecords {
    /// `None` where the Service's name does not fit into a domain name.
    pub fn of(
        service: &Service,
        slices: Option<&OrdMap<Arc<str>, Arc<EndpointSlice>>>,
        services: &Name,
    ) -> Option<Self> {
        let name = services.under(&service.name.namespace)?.under(&service.name.name)?;
        let mut records = Self {
            name,
            addresses: Box::default(),
            external_name: None,
            srv: Vec::new(),
            hosts: BTreeMap::new(),
            reverse: BTreeSet::new(),
        };
        match &service.kind {
            ServiceKind::ClusterIp(addresses) => records.cluster_ip(service, addresses),
            ServiceKind::ExternalName(target) => records.external_name = Name::parse(target),
            ServiceKind::Headless => records.headless(service, slices),
        }
        Some(records)
    }

    fn cluster_ip(&mut self, service: &Service, addresses: &[Ipv4Addr]) {
        self.addresses = record::a_behind_question(addresses);
        self.reverse = addresses.iter().map(|address| (*address, self.name.clone())).collect();
        for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
            let target = SrvTarget { port: port.port, host: self.name.clone(), addresses: addresses.to_vec() };
            self.add_srv(&port.name, port.protocol, target);
        }
    }

    fn headless(&mut self, service: &Service, slices: Option<&OrdMap<Arc<str>, Arc<EndpointSlice>>>) {
        let mut all = BTreeSet::new();
        let mut by_host: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        let mut ports: BTreeSet<(Arc<str>, Protocol, u16, String)> = BTreeSet::new();
        for slice in slices.into_iter().flat_map(OrdMap::values) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| left_out(service, endpoint).is_none()) {
                for address in &endpoint.addresses {
                    let host = endpoint.hostname.as_deref().map_or_else(|| dashed(*address), str::to_lowercase);
                    let named = slice.ports.iter().filter(|port| !port.name.is_empty());
                    ports.extend(named.map(|p| (p.name.clone(), p.protocol, p.port, host.clone())));
                    by_host.entry(host).or_default().insert(*address);
                    all.insert(*address);
                }
            }
        }
        self.addresses = record::a_behind_question(&all.into_iter().collect::<Vec<_>>());
        for (host, addresses) in &by_host {
            if let (Some(key), Some(host)) = (label(host), self.name.under(host)) {
                let addresses: Vec<_> = addresses.iter().copied().collect();
                self.reverse.extend(addresses.iter().map(|address| (*address, host.clone())));
                self.hosts.insert(key, record::a_behind_question(&addresses));
            }
        }
        for (name, protocol, port, host) in ports {
            let addresses = by_host[&host].iter().copied().collect();
            if let Some(host) = self.name.under(&host) {
                self.add_srv(&name, protocol, SrvTarget { port, host, addresses });
            }
        }
    }

    fn add_srv(&mut self, port_name: &str, protocol: Protocol, target: SrvTarget) {
        let protocol = match protocol {
            Protocol::Tcp => "_tcp",
            Protocol::Udp => "_udp",
            Protocol::Sctp => "_sctp",
        };
        let (Some(port), Some(protocol)) = (label(&format!("_{port_name}")), label(protocol)) else { return };
        match self.srv.iter_mut().find(|srv| srv.port == port && srv.protocol == protocol) {
            Some(srv) => srv.targets.push(target),
            None => self.srv.push(SrvPort { port, protocol, targets: vec![target] }),
        }
    }
}

/// Why a headless Service's names do not lead to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It is not ready, and the Service does not publish such addresses.
    NotReady,
    /// Its pod is terminating.
    Terminating,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "not ready",
            Self::Terminating => "terminating",
        })
    }
}

/// Whether, and why, the names of the headless `service` do not lead to `endpoint`.
pub fn left_out(service: &Service, endpoint: &Endpoint) -> Option<LeftOut> {
    if endpoint.ready || service.publish_not_ready_addresses {
        return None;
    }
    Some(if endpoint.terminating { LeftOut::Terminating } else { LeftOut::NotReady })
}

/// `10-244-1-2`: the host label of an endpoint without a hostname.
pub fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

/// What tests of this module and its neighbours make Services of.
#[cfg(test)]
pub mod tests {
    use super::*;
    use fairlead_world::{ObjectName, ServicePort, SlicePort};

    /// A Service with the ports `http` (TCP 80) and `dns` (UDP 53).
    pub fn service(namespace: &str, name: &str, kind: ServiceKind) -> Service {
        let port = |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: None };
        Service {
            revision: 1,
            ..Service::new(
                ObjectName::new(namespace, name),
                kind,
                vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
            )
        }
    }

    /// With this address, ready or not, on no node.
    pub fn endpoint(address: [u8; 4], hostname: Option<&str>, ready: bool) -> Endpoint {
        Endpoint {
            addresses: vec![address.into()],
            ready,
            serving: ready,
            terminating: false,
            hostname: hostname.map(Into::into),
            node_name: None,
            zone: None,
            for_zones: vec![],
            pod: None,
        }
    }

    /// One slice with the port `http`, TCP 8080.
    pub fn slices(service: &Service, endpoints: Vec<Endpoint>) -> OrdMap<Arc<str>, Arc<EndpointSlice>> {
        let port = |name: &str, protocol, port| SlicePort { name: name.into(), protocol, port };
        let slice = EndpointSlice {
            name: "slice".into(),
            service: service.name.clone(),
            ports: vec![port("http", Protocol::Tcp, 8080)],
            endpoints,
            triggered_at: None,
            revision: 1,
        };
        OrdMap::unit("slice".into(), Arc::new(slice))
    }

    fn zone() -> Name {
        Name::parse("svc.cluster.local").unwrap()
    }

    #[test]
    fn a_headless_service_has_its_ready_endpoints_by_hostname_and_dashed_address() {
        let service = service("db", "mysql", ServiceKind::Headless);
        let endpoints = vec![
            endpoint([10, 0, 0, 1], Some("mysql-0"), true),
            endpoint([10, 0, 0, 2], None, true),
            endpoint([10, 0, 0, 3], Some("mysql-2"), false),
        ];
        let records = ServiceRecords::of(&service, Some(&slices(&service, endpoints)), &zone()).unwrap();
        let hosts: Vec<_> = records.hosts.keys().map(|host| String::from_utf8_lossy(&host[1..])).collect();
        assert_eq!(hosts, ["mysql-0", "10-0-0-2"]);
        assert_eq!(record::addresses(&records.addresses).count(), 2);
        assert_eq!(records.reverse.len(), 2);
        assert_eq!(records.srv[0].targets.iter().map(|t| t.port).collect::<Vec<_>>(), [8080, 8080]);
    }

    #[test]
    fn unready_endpoints_are_published_where_the_service_asks_for_it() {
        let mut service = service("db", "mysql", ServiceKind::Headless);
        let slices = slices(&service, vec![endpoint([10, 0, 0, 3], Some("mysql-2"), false)]);
        assert!(ServiceRecords::of(&service, Some(&slices), &zone()).unwrap().hosts.is_empty());
        service.publish_not_ready_addresses = true;
        assert_eq!(ServiceRecords::of(&service, Some(&slices), &zone()).unwrap().hosts.len(), 1);
    }
}
