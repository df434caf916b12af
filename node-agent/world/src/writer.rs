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
    /// Applies one watch event.
    pub fn apply(&mut self, change: WorldChange) {
        match change {
            WorldChange::Service(event) => {
                self.draft.note_revision(&event);
                self.services.follow(*event, &mut self.draft);
            }
            WorldChange::Slice(event) => {
                self.draft.note_revision(&event);
                self.slices.follow(*event, &mut self.draft);
            }
            WorldChange::Node(event) => {
                self.draft.note_revision(&event);
                self.nodes.follow(*event, &mut self.draft);
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
    fn put(&mut self, object: &core::Service) {
        let name = ObjectName::of(&object.metadata);
        match Service::try_from(object) {
            Ok(service) => {
                self.world.services.insert(name, Arc::new(service));
            }
            Err(error) => {
                tracing::warn!(service = %name, %error, "cannot use this Service");
                self.world.services.remove(&name);
            }
        }
    }

    fn remove(&mut self, name: &ObjectName) {
        self.world.services.remove(name);
    }

    fn names(&self) -> Vec<ObjectName> {
        self.world.services.keys().cloned().collect()
    }
}

impl Keep<discovery::EndpointSlice> for Draft {
    fn put(&mut self, object: &discovery::EndpointSlice) {
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
        self.service_of_slice.insert(name, slice.service.clone());
        self.world.slices.entry(slice.service.clone()).or_default().insert(slice.name.clone(), Arc::new(slice));
    }

    fn remove(&mut self, name: &ObjectName) {
        let Some(service) = self.service_of_slice.remove(name) else { return };
        let Some(slices) = self.world.slices.get_mut(&service) else { return };
        slices.remove(&name.name);
        if slices.is_empty() {
            self.world.slices.remove(&service);
        }
    }

    fn names(&self) -> Vec<ObjectName> {
        self.service_of_slice.keys().cloned().collect()
    }
}

impl Keep<core::Node> for Draft {
    /// A Node is replaced only where a field that the World keeps changed: heartbeats must not wake every reader.
    fn put(&mut self, object: &core::Node) {
        let node = Node::from(object);
        let same = self.world.nodes.get(&node.name).is_some_and(|old| old.same_but_for_revision(&node));
        if !same {
            self.world.nodes.insert(node.name.clone(), Arc::new(node));
        }
    }

    fn remove(&mut self, name: &ObjectName) {
        self.world.nodes.remove(&name.name);
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

    #[test]
    fn a_slice_that_changes_its_service_leaves_the_old_one() {
        let mut writer = Writer::default();
        sync(&mut writer, vec![], vec![slice("s", "a", "10.244.0.2")]);
        writer.apply(WorldChange::Slice(Box::new(Event::Apply(slice("s", "b", "10.244.0.2")))));
        let names: Vec<_> = writer.world().slices.keys().map(|name| name.to_string()).collect();
        assert_eq!(names, ["default/b"]);
    }
}
