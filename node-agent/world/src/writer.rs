//! The one writer of the [`World`]: what each kind's objects become in it. Decides nothing about traffic.

use std::sync::Arc;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::runtime::watcher::Event;

use super::{
    EndpointSlice, Node, ObjectName, Service, World,
    listing::{Keep, Listing},
    revision_of,
};

/// One watch event with its kind.
pub(super) enum WorldChange {
    Service(Box<Event<core::Service>>),
    Slice(Box<Event<discovery::EndpointSlice>>),
    Node(Box<Event<core::Node>>),
}

impl WorldChange {
    /// The kind as the API spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "Service",
            Self::Slice(_) => "EndpointSlice",
            Self::Node(_) => "Node",
        }
    }
}

/// Applies changes to the snapshot under construction.
#[derive(Default)]
pub(super) struct Writer {
    draft: Draft,
    services: Listing,
    slices: Listing,
    nodes: Listing,
}

impl Writer {
    /// Applies one watch event. Whether the snapshot differs now in more than its revision.
    pub fn apply(&mut self, change: WorldChange) -> bool {
        match change {
            WorldChange::Service(event) => {
                self.draft.note_revision(&event);
                self.services.follow(*event, &mut self.draft)
            }
            WorldChange::Slice(event) => {
                self.draft.note_revision(&event);
                self.slices.follow(*event, &mut self.draft)
            }
            WorldChange::Node(event) => {
                self.draft.note_revision(&event);
                self.nodes.follow(*event, &mut self.draft)
            }
        }
    }

    /// The snapshot as it is now.
    pub fn world(&self) -> World {
        let synced = [&self.services, &self.slices, &self.nodes].into_iter().all(Listing::is_complete);
        World { synced, ..self.draft.world.clone() }
    }
}

#[derive(Default)]
struct Draft {
    world: World,
    /// Service of each slice, since a slice's label may change.
    service_of_slice: imbl::HashMap<ObjectName, ObjectName>,
}

impl Draft {
    /// Raises the snapshot's revision to that of the event; deletions carry one too.
    fn note_revision<K: kube::Resource<DynamicType = ()>>(&mut self, event: &Event<K>) {
        if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = event {
            self.world.revision = self.world.revision.max(revision_of(object.meta()));
        }
    }
}

impl Keep<core::Service> for Draft {
    fn put(&mut self, object: &core::Service) -> bool {
        let name = ObjectName::of(&object.metadata);
        let service = match Service::try_from(object) {
            Ok(service) => service,
            Err(error) => {
                tracing::warn!(service = %name, %error, "cannot use this Service");
                return Keep::<core::Service>::remove(self, &name);
            }
        };
        if self.world.services.get(&name).is_some_and(|held| **held == service) {
            return false;
        }
        self.world.services.insert(name, Arc::new(service));
        true
    }

    fn remove(&mut self, name: &ObjectName) -> bool {
        self.world.services.remove(name).is_some()
    }

    fn names(&self) -> Vec<ObjectName> {
        self.world.services.keys().cloned().collect()
    }
}

impl Keep<discovery::EndpointSlice> for Draft {
    fn put(&mut self, object: &discovery::EndpointSlice) -> bool {
        let name = ObjectName::of(&object.metadata);
        let slice = match EndpointSlice::try_from(object) {
            Ok(slice) => slice,
            Err(error) => {
                if !error.is_foreign() {
                    tracing::warn!(slice = %name, %error, "cannot use this EndpointSlice");
                }
                return Keep::<discovery::EndpointSlice>::remove(self, &name);
            }
        };
        if self.service_of_slice.get(&name).is_some_and(|service| *service != slice.service) {
            Keep::<discovery::EndpointSlice>::remove(self, &name);
        }
        let held = self.world.slices.get(&slice.service).and_then(|slices| slices.get(&slice.name));
        if held.is_some_and(|held| **held == slice) {
            return false;
        }
        self.service_of_slice.insert(name, slice.service.clone());
        self.world.slices.entry(slice.service.clone()).or_default().insert(slice.name.clone(), Arc::new(slice));
        true
    }

    fn remove(&mut self, name: &ObjectName) -> bool {
        let Some(service) = self.service_of_slice.remove(name) else { return false };
        let Some(slices) = self.world.slices.get_mut(&service) else { return false };
        slices.remove(&name.name);
        if slices.is_empty() {
            self.world.slices.remove(&service);
        }
        true
    }

    fn names(&self) -> Vec<ObjectName> {
        self.service_of_slice.keys().cloned().collect()
    }
}

impl Keep<core::Node> for Draft {
    /// A Node is replaced only where a field that the World keeps changed: heartbeats must not wake every reader.
    fn put(&mut self, object: &core::Node) -> bool {
        let node = Node::from(object);
        let same = self.world.nodes.get(&node.name).is_some_and(|old| old.same_but_for_revision(&node));
        if !same {
            self.world.nodes.insert(node.name.clone(), Arc::new(node));
        }
        !same
    }

    fn remove(&mut self, name: &ObjectName) -> bool {
        self.world.nodes.remove(&name.name).is_some()
    }

    fn names(&self) -> Vec<ObjectName> {
        self.world.nodes.keys().map(|name| ObjectName::new("", name.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, cluster_ip: &str, revision: u64) -> core::Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "default", "name": name, "resourceVersion": revision.to_string()},
            "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{"port": 80}]}
        }))
        .expect("a Service")
    }

    fn slice(name: &str, service: &str, address: &str) -> discovery::EndpointSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]
        }))
        .expect("an EndpointSlice")
    }

    fn sync(writer: &mut Writer, services: Vec<core::Service>, slices: Vec<discovery::EndpointSlice>) {
        writer.apply(WorldChange::Service(Box::new(Event::Init)));
        for object in services {
            writer.apply(WorldChange::Service(Box::new(Event::InitApply(object))));
        }
        writer.apply(WorldChange::Service(Box::new(Event::InitDone)));
        writer.apply(WorldChange::Slice(Box::new(Event::Init)));
        for object in slices {
            writer.apply(WorldChange::Slice(Box::new(Event::InitApply(object))));
        }
        writer.apply(WorldChange::Slice(Box::new(Event::InitDone)));
        writer.apply(WorldChange::Node(Box::new(Event::Init)));
        writer.apply(WorldChange::Node(Box::new(Event::InitDone)));
    }

    #[test]
    fn a_snapshot_is_synced_only_after_the_first_list_of_every_kind() {
        let mut writer = Writer::default();
        writer.apply(WorldChange::Service(Box::new(Event::Init)));
        writer.apply(WorldChange::Service(Box::new(Event::InitDone)));
        assert!(!writer.world().synced);
        sync(&mut writer, vec![], vec![]);
        assert!(writer.world().synced);
    }

    #[test]
    fn a_second_list_removes_what_it_no_longer_names() {
        let mut writer = Writer::default();
        sync(
            &mut writer,
            vec![service("a", "10.96.0.1", 1), service("b", "10.96.0.2", 2)],
            vec![slice("a-1", "a", "10.244.0.2"), slice("b-1", "b", "10.244.0.3")],
        );
        assert_eq!(writer.world().services.len(), 2);
        assert_eq!(writer.world().revision, 2);
        sync(&mut writer, vec![service("b", "10.96.0.2", 2)], vec![slice("b-1", "b", "10.244.0.3")]);
        let left: Vec<_> = writer.world().services.keys().map(ToString::to_string).collect();
        assert_eq!(left, ["default/b"]);
        assert_eq!(writer.world().slices.len(), 1);
    }

    fn node(revision: u64, pod_cidr: &str) -> WorldChange {
        let node: core::Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "resourceVersion": revision.to_string()},
            "spec": {"podCIDR": pod_cidr},
            "status": {"conditions": [{"type": "Ready", "status": "True", "message": revision.to_string()}]}
        }))
        .expect("a Node");
        WorldChange::Node(Box::new(Event::Apply(node)))
    }

    #[test]
    fn a_heartbeat_of_a_node_is_no_change_and_leaves_the_nodes_as_they_are() {
        let mut writer = Writer::default();
        assert!(writer.apply(node(1, "10.244.1.0/24")));
        let before = writer.world();
        assert!(!writer.apply(node(2, "10.244.1.0/24")));
        assert!(writer.world().nodes.ptr_eq(&before.nodes));
        assert_eq!(writer.world().revision, 2, "the next snapshot contains it");
        assert!(writer.apply(node(3, "10.244.2.0/24")));
        assert!(!writer.world().nodes.ptr_eq(&before.nodes));
    }

    #[test]
    fn a_list_of_what_is_known_is_no_change_and_a_new_version_is_one() {
        let mut writer = Writer::default();
        let objects = || (service("a", "10.96.0.1", 1), slice("a-1", "a", "10.244.0.2"));
        let list = |writer: &mut Writer| {
            let (service, slice) = objects();
            [
                WorldChange::Service(Box::new(Event::Init)),
                WorldChange::Service(Box::new(Event::InitApply(service))),
                WorldChange::Service(Box::new(Event::InitDone)),
                WorldChange::Slice(Box::new(Event::Init)),
                WorldChange::Slice(Box::new(Event::InitApply(slice))),
                WorldChange::Slice(Box::new(Event::InitDone)),
            ]
            .map(|change| writer.apply(change))
        };
        assert_eq!(list(&mut writer), [false, true, true, false, true, true]);
        assert_eq!(list(&mut writer), [false; 6]);
        assert!(writer.apply(WorldChange::Service(Box::new(Event::Apply(service("a", "10.96.0.1", 2))))));
        assert!(writer.apply(WorldChange::Slice(Box::new(Event::Delete(slice("a-1", "a", "10.244.0.2"))))));
        assert!(!writer.apply(WorldChange::Slice(Box::new(Event::Delete(slice("a-1", "a", "10.244.0.2"))))));
    }

    #[test]
    fn a_slice_that_changes_its_service_leaves_the_old_one() {
        let mut writer = Writer::default();
        sync(&mut writer, vec![], vec![slice("s", "a", "10.244.0.2")]);
        writer.apply(WorldChange::Slice(Box::new(Event::Apply(slice("s", "b", "10.244.0.2")))));
        let names: Vec<_> = writer.world().slices.keys().map(|name| name.to_string()).collect();
        assert_eq!(names, ["default/b"]);
    }
}
