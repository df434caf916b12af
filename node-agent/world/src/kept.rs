//! The [`World`] as it is kept on disk: what a node needs to serve names and Services after a reboot while the API is
//! away.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{EndpointSlice, Node, Origin, Service, World};

/// What is kept of a [`World`]; its maps are keyed by names that the objects themselves hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptWorld {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    nodes: Vec<Arc<Node>>,
    revision: u64,
}

impl KeptWorld {
    /// Raise it with every change of the JSON form of the kept types.
    pub const VERSION: u32 = 2;
    /// Version 1 knew no labels and taints of nodes, and is read as one where they have none.
    pub const OLDEST: u32 = 1;

    /// `None` for a snapshot that is incomplete, or that came from disk itself.
    pub fn of(world: &World) -> Option<Self> {
        world.allows_removal().then(|| Self {
            services: world.services.values().cloned().collect(),
            slices: world.slices.values().flat_map(|slices| slices.values().cloned()).collect(),
            nodes: world.nodes.values().cloned().collect(),
            revision: world.revision,
        })
    }
}

impl From<KeptWorld> for World {
    fn from(kept: KeptWorld) -> Self {
        let mut world = Self { revision: kept.revision, synced: true, origin: Origin::Disk, ..Self::default() };
        world.services = kept.services.into_iter().map(|service| (service.name.clone(), service)).collect();
        for slice in kept.slices {
            world.slices.entry(slice.service.clone()).or_default().insert(slice.name.clone(), slice);
        }
        world.nodes = kept.nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        world
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use k8s_openapi::api::core::v1::Taint;

    use super::*;
    use crate::{Endpoint, ObjectName, Protocol, ServiceKind, ServicePort, SlicePort, TrafficDistribution};

    fn world() -> World {
        let name = ObjectName::new("default", "web");
        let port = ServicePort { name: "http".into(), protocol: Protocol::Udp, port: 80, node_port: Some(30080) };
        let kind = ServiceKind::ClusterIp(vec![Ipv4Addr::new(10, 96, 0, 9)]);
        let mut service = Service::new(name.clone(), kind, vec![port]);
        service.session_affinity = Some(Duration::from_secs(10800));
        service.traffic_distribution = Some(TrafficDistribution::PreferSameZone);
        let endpoint = Endpoint {
            addresses: vec![Ipv4Addr::new(10, 244, 0, 2)],
            ready: true,
            serving: true,
            terminating: false,
            hostname: Some("web-0".into()),
            node_name: Some("a".into()),
            zone: None,
            for_zones: vec!["z".into()],
            pod: Some(ObjectName::new("default", "web-0")),
        };
        let slice = EndpointSlice {
            name: "web-1".into(),
            service: name.clone(),
            ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Udp, port: 8080 }],
            endpoints: vec![endpoint],
            triggered_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            revision: 6,
        };
        let node = Node {
            name: "a".into(),
            agent_port: None,
            internal_ip: Some(Ipv4Addr::new(192, 0, 2, 1)),
            external_ips: vec![],
            pod_cidr: Some("10.244.0.0/24".parse().unwrap()),
            zone: Some("z".into()),
            labels: [("disk".to_owned(), "fast".to_owned())].into(),
            no_execute_taints: vec![Taint { key: "k".into(), effect: "NoExecute".into(), ..Taint::default() }],
            revision: 5,
        };
        let mut world = World { revision: 7, synced: true, ..World::default() };
        world.services.insert(name.clone(), Arc::new(service));
        world.slices.entry(name).or_default().insert("web-1".into(), Arc::new(slice));
        world.nodes.insert("a".into(), Arc::new(node));
        world
    }

    #[test]
    fn a_world_from_disk_is_the_one_that_was_kept_but_allows_no_removal() {
        let known = world();
        let text = serde_json::to_vec(&KeptWorld::of(&known).expect("complete")).unwrap();
        let loaded = World::from(serde_json::from_slice::<KeptWorld>(&text).unwrap());
        assert_eq!(loaded.services, known.services);
        assert_eq!(loaded.slices, known.slices);
        assert_eq!(loaded.nodes, known.nodes);
        assert_eq!((loaded.revision, loaded.synced), (7, true));
        assert!(known.allows_removal() && !loaded.allows_removal());
    }

    #[test]
    fn a_world_that_an_earlier_agent_kept_has_nodes_without_labels_and_taints() {
        let mut text = serde_json::to_value(KeptWorld::of(&world()).expect("complete")).unwrap();
        for field in ["labels", "no_execute_taints"] {
            text["nodes"][0].as_object_mut().expect("a node").remove(field).expect("the field");
        }
        let loaded = World::from(serde_json::from_value::<KeptWorld>(text).unwrap());
        let node = loaded.nodes.get("a").expect("the node");
        assert!(node.labels.is_empty() && node.no_execute_taints.is_empty());
        assert_eq!(node.pod_cidr, Some("10.244.0.0/24".parse().unwrap()));
    }

    #[test]
    fn only_a_complete_world_of_the_api_is_kept() {
        assert!(KeptWorld::of(&World { synced: false, ..world() }).is_none());
        assert!(KeptWorld::of(&World { origin: Origin::Disk, ..world() }).is_none());
    }
}
