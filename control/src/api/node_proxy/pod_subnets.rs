//! Which node has the pod subnet that an address is in: an index of all Nodes' subnets, which follows their changes.
//!
//! The changes are read when somebody asks, not by a task: nothing runs while nobody connects to pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnetwork::IpNetwork;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::{
    reflector::{Reflector, StoreUpdate},
    store::{EventType, Object, Store},
};

const NODES: &str = "nodes";

/// The pod subnets of all Nodes in a store.
pub struct PodSubnets {
    current: Mutex<FollowedIndex>,
}

/// The index, and the changes that it does not know yet.
struct FollowedIndex {
    index: Index,
    changes: Reflector,
}

/// The family of subnets (whether it is IPv6), and their prefix length, the longest first.
type Length = (bool, std::cmp::Reverse<u8>);

/// Nodes by pod subnet. A look-up costs one hash look-up for each prefix length in use: one or two in a cluster.
#[derive(Debug, Default)]
struct Index {
    /// By family and prefix length, longest first within a family, and by the subnet's first address. Nodes that claim
    /// the same subnet are in the order of their names.
    by_length: BTreeMap<Length, HashMap<IpAddr, BTreeSet<Arc<str>>>>,
    by_node: HashMap<Arc<str>, Vec<IpNetwork>>,
}

/// What says which pods a node has; all else of a Node is passed over unread.
#[derive(Default, Deserialize)]
struct NodeSubnets {
    #[serde(default)]
    spec: SubnetsSpec,
}

#[derive(Default, Deserialize)]
struct SubnetsSpec {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: String,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

impl PodSubnets {
    /// Of the Nodes in `store`, which is first read when somebody asks.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let current = FollowedIndex { index: Index::default(), changes: Reflector::new(store, [NODES]) };
        Self { current: Mutex::new(current) }
    }

    /// The name of the node whose pod subnet has the address.
    pub fn node_of(&self, address: IpAddr) -> Option<Arc<str>> {
        let mut current = self.current.lock();
        current.catch_up();
        current.index.node_of(address)
    }
}

impl FollowedIndex {
    /// Takes the changes since the last call.
    fn catch_up(&mut self) {
        match self.changes.ready() {
            None => {}
            Some(StoreUpdate::Listed(snapshot)) => {
                self.index = Index::default();
                for (name, node) in snapshot.list(NODES, "", None) {
                    self.index.put(name, node);
                }
            }
            Some(StoreUpdate::Changed(events)) => {
                for event in events {
                    match event.event_type {
                        EventType::Deleted => self.index.remove(&event.key.name),
                        EventType::Added | EventType::Modified => self.index.put(&event.key.name, &event.object),
                    }
                }
            }
        }
    }
}

impl Index {
    fn put(&mut self, name: &Arc<str>, node: &Object) {
        // A Node whose subnets cannot be read has none.
        let NodeSubnets { spec } = serde_json::from_slice(&node.json()).unwrap_or_default();
        let texts = std::iter::once(&spec.pod_cidr).chain(&spec.pod_cidrs);
        let subnets: Vec<IpNetwork> = texts.filter_map(|text| text.parse().ok()).collect();
        if self.by_node.get(name) == Some(&subnets) {
            return;
        }
        self.remove(name);
        for subnet in &subnets {
            let of_length = self.by_length.entry(length(*subnet)).or_default();
            of_length.entry(subnet.network()).or_default().insert(name.clone());
        }
        self.by_node.insert(name.clone(), subnets);
    }

    fn remove(&mut self, name: &str) {
        for subnet in self.by_node.remove(name).unwrap_or_default() {
            let Some(of_length) = self.by_length.get_mut(&length(subnet)) else { continue };
            if let Some(nodes) = of_length.get_mut(&subnet.network()) {
                nodes.remove(name);
                if nodes.is_empty() {
                    of_length.remove(&subnet.network());
                }
            }
            if of_length.is_empty() {
                self.by_length.remove(&length(subnet));
            }
        }
    }

    fn node_of(&self, address: IpAddr) -> Option<Arc<str>> {
        let address = address.to_canonical();
        let of_family = self.by_length.iter().filter(|((is_ipv6, _), _)| *is_ipv6 == address.is_ipv6());
        of_family
            .filter_map(|((_, length), nodes)| nodes.get(&IpNetwork::new(address, length.0).ok()?.network())?.first())
            .next()
            .cloned()
    }
}

fn length(subnet: IpNetwork) -> Length {
    (subnet.is_ipv6(), std::cmp::Reverse(subnet.prefix()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api, encode,
        kinds::Registry,
        store::{Change, Expect, Key, Write},
    };

    async fn write(store: &dyn Store, name: &str, expect: Expect, spec: Option<Value>) -> u64 {
        let key = Key { resource: NODES.into(), name: name.into() };
        let change = match spec {
            Some(spec) => {
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec});
                Change::Put(encode::unserved(&node))
            }
            None => Change::Delete,
        };
        store.write_one(Write { key, expect, change }).await.unwrap().revision
    }

    #[tokio::test]
    async fn an_address_is_on_the_node_whose_subnet_has_it_and_changes_are_seen_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(api::open_store(&dir.path().join("store"), &Registry::default()).unwrap());
        let both = json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:0:0:1::/64"]});
        write(&*store, "a", Expect::Absent, Some(both)).await;
        let b = write(&*store, "b", Expect::Absent, Some(json!({"podCIDR": "10.244.1.0/24"}))).await;
        write(&*store, "c", Expect::Absent, Some(json!({"podCIDRs": ["10.245.0.0/16", "garbage"]}))).await;
        write(&*store, "d", Expect::Absent, Some(json!({}))).await;
        let subnets = PodSubnets::new(store.clone());
        let of = |address: &str| subnets.node_of(address.parse().unwrap()).map(|name| name.to_string());
        assert_eq!(of("::ffff:10.244.0.9").as_deref(), Some("a"));
        assert_eq!(of("fd00:0:0:1::7").as_deref(), Some("a"));
        assert_eq!(of("10.244.1.9").as_deref(), Some("b"));
        assert_eq!(of("10.245.77.1").as_deref(), Some("c"));
        assert_eq!((of("10.244.3.1"), of("192.0.2.10"), of("fd00:0:0:2::7")), (None, None, None));

        // A narrower subnet wins, and of two Nodes with the same one the first by name.
        write(&*store, "z", Expect::Absent, Some(json!({"podCIDR": "10.245.77.0/24"}))).await;
        write(&*store, "y", Expect::Absent, Some(json!({"podCIDR": "10.245.77.0/24"}))).await;
        assert_eq!(of("10.245.77.1").as_deref(), Some("y"));
        let b = write(&*store, "b", Expect::At(b), Some(json!({"podCIDR": "10.244.3.0/24"}))).await;
        assert_eq!((of("10.244.1.9"), of("10.244.3.1").as_deref()), (None, Some("b")));
        write(&*store, "b", Expect::At(b), None).await;
        assert_eq!(of("10.244.3.1"), None);
    }

    #[tokio::test]
    async fn an_index_that_fell_behind_the_history_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(api::open_store(&dir.path().join("store"), &Registry::default()).unwrap());
        let subnets = PodSubnets::new(store.clone());
        let address: IpAddr = "10.244.1.9".parse().unwrap();
        assert_eq!(subnets.node_of(address), None);
        let revision = write(&*store, "b", Expect::Absent, Some(json!({"podCIDR": "10.244.1.0/24"}))).await;
        store.compact(revision);
        assert_eq!(subnets.node_of(address).as_deref(), Some("b"));
    }
}
