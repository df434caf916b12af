//! The cluster's zone: all names of one [`World`], kept as prepared records, and what a name in it means.
//!
//! Pure. One Service's change prepares that Service's records anew and touches nothing else.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use imbl::{HashMap, OrdMap, OrdSet, ordmap::DiffItem};

use super::{
    name::Name,
    service_records::{ServiceRecords, SrvPort},
};
use fairlead_world::{ObjectName, ServiceKind, World};

/// The zone as of one [`World`]. Cloning is cheap.
#[derive(Clone)]
pub struct Zone {
    names: Arc<ZoneNames>,
    world: Arc<World>,
    /// By the Service's and the namespace's labels in wire form, as they stand in a queried name.
    services: HashMap<Box<[u8]>, Arc<Entry>>,
    /// Count of Services by namespace label in wire form.
    namespaces: HashMap<Box<[u8]>, usize>,
    reverse: OrdMap<Ipv4Addr, OrdSet<(ObjectName, Name)>>,
}

/// The zone's fixed names.
struct ZoneNames {
    /// `cluster.local`
    origin: Name,
    origin_labels: usize,
    /// `svc.cluster.local`
    services: Name,
    /// `ns.dns.cluster.local`
    primary: Name,
    /// `hostmaster.cluster.local`
    contact: Name,
    server: Ipv4Addr,
}

struct Entry {
    headless: bool,
    records: ServiceRecords,
}

/// What a queried name means. The lifetime is the zone's.
#[derive(Debug, PartialEq, Eq)]
pub enum NameLookup<'z> {
    /// The zone's own name.
    Apex,
    /// `ns.dns.ORIGIN`, and a Pod's dashed address.
    Address(Ipv4Addr),
    /// A records, prepared.
    Addresses(&'z [u8]),
    /// SRV records of a named port.
    Srv(&'z SrvPort),
    /// CNAME of an ExternalName Service.
    Alias(&'z Name),
    /// `dns-version.ORIGIN`.
    Version,
    /// The names of an address, for PTR records.
    Reverse(Vec<&'z Name>),
    /// The name has no records, but there are names below it.
    Nothing,
    /// Neither the name nor one below it exists.
    NoSuchName,
    /// Not in this zone: for other resolvers.
    Elsewhere,
}

impl Zone {
    /// An empty zone. `None` where `cluster_domain` is no domain name. `server` is the address this server is asked at.
    pub fn new(cluster_domain: &str, server: Ipv4Addr) -> Option<Self> {
        let origin = Name::parse(cluster_domain).filter(|origin| origin.wire() != [0])?;
        let names = ZoneNames {
            origin_labels: cluster_domain.trim_matches('.').split('.').count(),
            services: origin.under("svc")?,
            primary: origin.under("dns")?.under("ns")?,
            contact: origin.under("hostmaster")?,
            origin,
            server,
        };
        Some(Self {
            names: Arc::new(names),
            world: Arc::default(),
            services: HashMap::new(),
            namespaces: HashMap::new(),
            reverse: OrdMap::new(),
        })
    }

    /// Whether answers about the cluster can be given: not before the first whole [`World`].
    pub fn is_synced(&self) -> bool {
        self.world.synced
    }

    /// The zone's own name: `cluster.local`.
    pub fn origin(&self) -> &Name {
        &self.names.origin
    }

    /// `ns.dns.ORIGIN`, the SOA's primary server.
    pub fn primary(&self) -> &Name {
        &self.names.primary
    }

    /// `hostmaster.ORIGIN`, the SOA's contact.
    pub fn contact(&self) -> &Name {
        &self.names.contact
    }

    /// The address this server is asked at.
    pub fn server(&self) -> Ipv4Addr {
        self.names.server
    }

    /// Highest resourceVersion in the zone.
    pub fn revision(&self) -> u64 {
        self.world.revision
    }

    /// Highest resourceVersion in the zone, as far as 32 bits hold it: the SOA's serial.
    pub fn serial(&self) -> u32 {
        self.world.revision as u32
    }

    /// What the zone was made from.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The records of one Service; `None` where it is not there, or its name is none.
    pub fn records_of(&self, service: &ObjectName) -> Option<&ServiceRecords> {
        self.services.get(&self.key(service)?).map(|entry| &entry.records)
    }

    /// Whether `address` is a ClusterIP of some Service, or a headless Service's endpoint.
    pub fn knows_address(&self, address: Ipv4Addr) -> bool {
        self.reverse.contains_key(&address)
    }

    /// Brings the zone up to `world`. Cost: the diff of both Worlds, plus the Services that differ.
    pub fn update(&mut self, world: Arc<World>) {
        let before = std::mem::replace(&mut self.world, world.clone());
        let mut changed = BTreeSet::new();
        for item in before.services.diff(&world.services) {
            let (DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. }) = item;
            changed.insert(name.clone());
        }
        for item in before.slices.diff(&world.slices) {
            let (DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. }) = item;
            changed.insert(name.clone());
        }
        for name in changed {
            self.remove(&name);
            self.insert(&name, &world);
        }
    }

    fn insert(&mut self, name: &ObjectName, world: &World) {
        let (Some(service), Some(key)) = (world.services.get(name), self.key(name)) else { return };
        let Some(records) = ServiceRecords::of(service, world.slices.get(name), &self.names.services) else { return };
        for (address, host) in &records.reverse {
            self.reverse.entry(*address).or_default().insert((name.clone(), host.clone()));
        }
        *self.namespaces.entry(namespace_label(&key)).or_default() += 1;
        let headless = service.kind == ServiceKind::Headless;
        self.services.insert(key, Arc::new(Entry { headless, records }));
    }

    fn remove(&mut self, name: &ObjectName) {
        let Some(key) = self.key(name) else { return };
        let Some(entry) = self.services.remove(&key) else { return };
        for (address, host) in &entry.records.reverse {
            if let Some(names) = self.reverse.get_mut(address) {
                names.remove(&(name.clone(), host.clone()));
                if names.is_empty() {
                    self.reverse.remove(address);
                }
            }
        }
        let namespace = namespace_label(&key);
        if let Some(count) = self.namespaces.get_mut(&namespace) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(&namespace);
            }
        }
    }

    fn key(&self, service: &ObjectName) -> Option<Box<[u8]>> {
        let service_label = super::name::label(&service.name)?;
        let namespace = super::name::label(&service.namespace)?;
        Some([service_label, namespace].concat().into())
    }

    /// What `name` means; wire form, lower case.
    pub fn meaning(&self, name: &[u8]) -> NameLookup<'_> {
        let mut starts = [0u8; MAX_LABELS];
        let Some(count) = label_starts(name, &mut starts) else { return NameLookup::NoSuchName };
        let starts = &starts[..count];
        let Some(depth) = count.checked_sub(self.names.origin_labels) else { return self.outside(name, starts) };
        let origin_start = starts.get(depth).map_or(name.len() - 1, |start| usize::from(*start));
        if name[origin_start..] != *self.names.origin.wire() {
            return self.outside(name, starts);
        }
        let at = |index: usize| {
            &name[usize::from(starts[index])..starts.get(index + 1).map_or(origin_start, |s| usize::from(*s))]
        };
        if depth == 0 {
            return NameLookup::Apex;
        }
        match (at(depth - 1), depth) {
            (b"\x03svc", 1) | (b"\x03pod", 1) | (b"\x03dns", 1) => NameLookup::Nothing,
            (b"\x03svc", 2) if self.namespaces.contains_key(at(0)) => NameLookup::Nothing,
            (b"\x03svc", 3..) => {
                let key = &name[usize::from(starts[depth - 3])..usize::from(starts[depth - 1])];
                let Some(entry) = self.services.get(key) else { return NameLookup::NoSuchName };
                entry.meaning(depth - 3, at)
            }
            (b"\x03pod", 2) if self.namespaces.contains_key(at(0)) => NameLookup::Nothing,
            (b"\x03pod", 3) => self.pod(at(0)),
            (b"\x03dns", 2) if at(0) == b"\x02ns" => NameLookup::Address(self.names.server),
            (b"\x0bdns-version", 1) => NameLookup::Version,
            _ => NameLookup::NoSuchName,
        }
    }

    /// `10-244-1-2.NAMESPACE.pod.ORIGIN`. Only for addresses that pods of this cluster can have: a name for any address
    /// whatever would let a page of the web speak to hosts behind it.
    fn pod(&self, host: &[u8]) -> NameLookup<'_> {
        let address =
            std::str::from_utf8(&host[1..]).ok().and_then(|text| text.replace('-', ".").parse::<Ipv4Addr>().ok());
        let known = |address: &Ipv4Addr| {
            self.world.nodes.values().any(|node| {
                node.internal_ip == Some(*address) || node.pod_cidr.is_some_and(|cidr| cidr.contains(*address))
            })
        };
        address.filter(known).map_or(NameLookup::NoSuchName, NameLookup::Address)
    }

    fn outside(&self, name: &[u8], starts: &[u8]) -> NameLookup<'_> {
        let Some(address) = reverse_address(name, starts) else { return NameLookup::Elsewhere };
        if let Some(names) = self.reverse.get(&address) {
            return NameLookup::Reverse(names.iter().map(|(_, name)| name).collect());
        }
        let in_cluster = |cidr: ipnetwork::Ipv4Network| cidr.contains(address);
        let ours = self.world.nodes.values().any(|node| node.pod_cidr.is_some_and(in_cluster));
        if ours { NameLookup::NoSuchName } else { NameLookup::Elsewhere }
    }
}

impl Entry {
    /// Meaning of a name `below` labels under the Service's own; `at` gives them in wire form.
    fn meaning<'z, 'q>(&'z self, below: usize, at: impl Fn(usize) -> &'q [u8]) -> NameLookup<'z> {
        let records = &self.records;
        match below {
            0 => match &records.external_name {
                Some(target) => NameLookup::Alias(target),
                None if self.headless && records.addresses.is_empty() => NameLookup::NoSuchName,
                None => NameLookup::Addresses(&records.addresses),
            },
            1 => match records.hosts.get(at(0)) {
                Some(addresses) => NameLookup::Addresses(addresses),
                None if records.srv.iter().any(|srv| *srv.protocol == *at(0)) => NameLookup::Nothing,
                None => NameLookup::NoSuchName,
            },
            2 => {
                let srv = records.srv.iter().find(|srv| *srv.port == *at(0) && *srv.protocol == *at(1));
                srv.map_or(NameLookup::NoSuchName, NameLookup::Srv)
            }
            _ => NameLookup::NoSuchName,
        }
    }
}

/// Where each label starts; `None` for more than a name can hold.
fn label_starts(name: &[u8], starts: &mut [u8; MAX_LABELS]) -> Option<usize> {
    let (mut at, mut count) = (0, 0);
    while let Some(length @ 1..) = name.get(at).copied() {
        *starts.get_mut(count)? = at as u8;
        count += 1;
        at += 1 + usize::from(length);
    }
    Some(count)
}

/// The address of `4.3.2.1.in-addr.arpa`.
fn reverse_address(name: &[u8], starts: &[u8]) -> Option<Ipv4Addr> {
    let [d, c, b, a, zone, _] = starts else { return None };
    if name[usize::from(*zone)..] != *b"\x07in-addr\x04arpa\0" {
        return None;
    }
    let octet = |start: u8| {
        let length = usize::from(*name.get(usize::from(start))?);
        let digits = name.get(usize::from(start) + 1..usize::from(start) + 1 + length)?;
        std::str::from_utf8(digits).ok()?.parse::<u8>().ok()
    };
    Some(Ipv4Addr::new(octet(*a)?, octet(*b)?, octet(*c)?, octet(*d)?))
}

fn namespace_label(key: &[u8]) -> Box<[u8]> {
    let service_len = key.first().map_or(0, |length| 1 + usize::from(*length));
    key.get(service_len..).unwrap_or_default().into()
}

/// 255 bytes hold at most 127 labels.
const MAX_LABELS: usize = 128;
