//! The stored objects that say which address or port is taken, and by whom.

use std::{convert::Infallible, net::Ipv4Addr, sync::Arc};

use serde_json::{Value, json};

use crate::{
    encode,
    kinds::{Kind, ip_address},
    rfc3339,
    store::{Amendment, Change, Expect, Key, Object, Snapshot, Write},
};

/// Where IPAddress objects are stored.
pub const IPS: &str = "ipaddresses.networking.k8s.io";
/// Where records of NodePorts are stored. They are not served: Kubernetes' API has no kind for them.
pub const PORTS: &str = "nodeports.allocation.fairlead.dev";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// The Service that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordOwner<'a> {
    /// Of the Service.
    pub namespace: &'a str,
    /// Of the Service.
    pub name: &'a str,
}

/// Reads and makes records.
pub struct Records {
    ip_address: Kind,
}

/// A record under its key.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// [`IPS`] or [`PORTS`].
    pub resource: &'static str,
    /// The address or the port, as text.
    pub key: &'a Arc<str>,
    /// As it is stored, with its revision.
    pub object: &'a Arc<Object>,
}

impl Records {
    /// With the declaration of IPAddress, by which its objects are encoded.
    pub fn new() -> Self {
        Self { ip_address: Kind::from(&ip_address::KIND) }
    }

    /// The record of an address.
    pub fn of_ip<'a>(&self, snapshot: &'a Snapshot, ip: Ipv4Addr) -> Option<Record<'a>> {
        let (key, object) = snapshot.entry(IPS, &ip.to_string())?;
        Some(Record { resource: IPS, key, object })
    }

    /// The record of a port.
    pub fn of_port<'a>(&self, snapshot: &'a Snapshot, port: u16) -> Option<Record<'a>> {
        let (key, object) = snapshot.entry(PORTS, &port.to_string())?;
        Some(Record { resource: PORTS, key, object })
    }

    /// All records that this program made: not the IPAddress objects that others manage.
    pub fn own<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let all =
            |resource| snapshot.list(resource, "", None).map(move |(key, object)| Record { resource, key, object });
        all(IPS).chain(all(PORTS)).filter(|record| is_own(record.resource, record.object))
    }

    /// The write that takes an address nobody has.
    pub fn take_ip(&self, ip: Ipv4Addr, owner: RecordOwner<'_>) -> Write {
        let RecordOwner { namespace, name } = owner;
        let object = json!({
            "metadata": {
                "name": ip, "uid": uuid::Uuid::new_v4(), "creationTimestamp": rfc3339::now(), "generation": 1,
                "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", MANAGED_BY: ALLOCATOR},
            },
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
        });
        let draft = encode::draft(&self.ip_address, &object);
        let key = Key { resource: IPS.into(), name: ip.to_string().into() };
        Write { key, expect: Expect::Absent, change: Change::Put(draft) }
    }

    /// The write that takes a port nobody has.
    pub fn take_port(&self, port: u16, owner: RecordOwner<'_>) -> Write {
        let RecordOwner { namespace, name } = owner;
        put_port(port, json!({"group": "", "resource": "services", "namespace": namespace, "name": name}))
    }

    /// The write that takes a port nobody has for the agents of nodes.
    pub fn take_agent_port(&self, port: u16) -> Write {
        put_port(port, json!({"group": "", "resource": "nodes"}))
    }

    /// The write that gives a record up, if it is this owner's.
    pub fn release(&self, record: Record<'_>, owner: RecordOwner<'_>) -> Option<Write> {
        let is_own = parent(record.object)
            .is_some_and(|(namespace, name)| RecordOwner { namespace: &namespace, name: &name } == owner);
        is_own.then(|| remove(record))
    }
}

fn put_port(port: u16, parent: Value) -> Write {
    let object = json!({
        "apiVersion": "allocation.fairlead.dev/v1", "kind": "NodePort",
        "metadata": {"name": port.to_string(), "creationTimestamp": rfc3339::now()},
        "spec": {"parentRef": parent},
    });
    let key = Key { resource: PORTS.into(), name: port.to_string().into() };
    Write { key, expect: Expect::Absent, change: Change::Put(encode::unserved(&object)) }
}

/// The write that leaves a record as it is, at a new revision: whoever removes it in this moment, because they saw
/// nobody with its port, has to look again. Those who write this at once do not hinder one another.
pub fn renew(record: Record<'_>) -> Write {
    let key = Key { resource: record.resource.into(), name: record.key.clone() };
    let same = Amendment::new(|record| Ok::<_, Infallible>(record.draft()));
    Write { key, expect: Expect::Present, change: Change::Amend(same) }
}

/// The write that removes a record as it is now.
pub fn remove(record: Record<'_>) -> Write {
    let key = Key { resource: record.resource.into(), name: record.key.clone() };
    Write { key, expect: Expect::At(record.object.revision), change: Change::Delete }
}

/// Namespace and name of the Service that a record names; nothing if it names something else.
pub fn parent(record: &Object) -> Option<(String, String)> {
    let parent = parent_of_core(record, "services")?;
    let text = |field: &str| parent[field].as_str().unwrap_or_default().to_owned();
    Some((text("namespace"), text("name")))
}

/// Whether a record says that agents of nodes have its port.
pub fn is_agents(record: &Object) -> bool {
    parent_of_core(record, "nodes").is_some()
}

/// What a record names, if that is of this resource of the core group.
fn parent_of_core(record: &Object, resource: &str) -> Option<Value> {
    let mut object: Value = serde_json::from_slice(&record.json()).ok()?;
    let parent = object.pointer_mut("/spec/parentRef")?.take();
    let is_core = parent["group"].as_str().is_none_or(str::is_empty);
    (is_core && parent["resource"] == resource).then_some(parent)
}

/// Whether this program made the record: users may reserve addresses with IPAddress objects of their own.
pub fn is_own(resource: &str, record: &Object) -> bool {
    resource == PORTS || record.header().label(MANAGED_BY) == Some(ALLOCATOR)
}
