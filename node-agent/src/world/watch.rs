//! The one writer of the [`World`]: turns watch events of the API into snapshots. Decides nothing about traffic.

use std::{collections::BTreeSet, sync::Arc};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

use super::{EndpointSlice, Node, ObjectName, Service, World};

/// Watches Services, EndpointSlices and Nodes until `stop`, publishing a snapshot after every burst of events.
///
/// Nothing is published before the first list of every kind is complete. A failing watch is retried with back-off for as long as
/// it takes; meanwhile the last snapshot stands.
pub async fn run(client: Client, publish: watch::Sender<Arc<World>>, stop: tokio_util::sync::CancellationToken) {
    let mut events = futures::stream::select_all([
        events::<core::Service>(client.clone(), watcher::Config::default(), Change::Service),
        events::<discovery::EndpointSlice>(client.clone(), watcher::Config::default(), Change::Slice),
        events::<core::Node>(client, watcher::Config::default(), Change::Node),
    ]);
    let mut writer = Writer::default();
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        let Some(first) = first else { return };
        writer.apply(first);
        for _ in 1..MAX_BURST {
            match events.next().now_or_never() {
                Some(Some(event)) => writer.apply(event),
                _ => break,
            }
        }
        if writer.world.synced {
            publish.send_replace(Arc::new(writer.world.clone()));
        }
    }
}

/// Events taken into one snapshot at the most, so that readers never wait for an endless burst.
const MAX_BURST: usize = 4096;

/// One watch event with its kind.
enum Change {
    Service(watcher::Event<core::Service>),
    Slice(watcher::Event<discovery::EndpointSlice>),
    Node(watcher::Event<core::Node>),
}

fn events<K>(
    client: Client,
    config: watcher::Config,
    wrap: fn(watcher::Event<K>) -> Change,
) -> BoxStream<'static, Change>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Send
        + 'static,
{
    watcher(Api::<K>::all(client), config)
        .default_backoff()
        .filter_map(move |event| {
            futures::future::ready(match event {
                Ok(event) => Some(wrap(event)),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "watch failed, trying again");
                    None
                }
            })
        })
        .boxed()
}

/// Applies changes to the snapshot under construction.
#[derive(Default)]
struct Writer {
    world: World,
    /// Service of each slice, since a slice's label may change.
    service_of_slice: imbl::HashMap<ObjectName, ObjectName>,
    services: FirstList,
    slices: FirstList,
    nodes: FirstList,
}

/// What a list in progress has seen, to remove what it did not when it is complete.
#[derive(Default)]
struct FirstList {
    seen: BTreeSet<ObjectName>,
    complete_once: bool,
}

impl Writer {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Service(event) => self.service(event),
            Change::Slice(event) => self.slice(event),
            Change::Node(event) => self.node(event),
        }
        self.world.synced = self.services.complete_once && self.slices.complete_once && self.nodes.complete_once;
    }

    fn service(&mut self, event: watcher::Event<core::Service>) {
        match event {
            watcher::Event::Apply(object) => self.put_service(&object),
            watcher::Event::InitApply(object) => {
                self.services.seen.insert(name_of(&object.metadata));
                self.put_service(&object);
            }
            watcher::Event::Delete(object) => {
                self.saw_revision(&object.metadata);
                self.world.services.remove(&name_of(&object.metadata));
            }
            watcher::Event::Init => self.services.seen.clear(),
            watcher::Event::InitDone => {
                let seen = std::mem::take(&mut self.services.seen);
                let gone: Vec<_> = self.world.services.keys().filter(|name| !seen.contains(name)).cloned().collect();
                for name in gone {
                    self.world.services.remove(&name);
                }
                self.services.complete_once = true;
            }
        }
    }

    fn put_service(&mut self, object: &core::Service) {
        self.saw_revision(&object.metadata);
        let name = name_of(&object.metadata);
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

    fn slice(&mut self, event: watcher::Event<discovery::EndpointSlice>) {
        match event {
            watcher::Event::Apply(object) => self.put_slice(&object),
            watcher::Event::InitApply(object) => {
                self.slices.seen.insert(name_of(&object.metadata));
                self.put_slice(&object);
            }
            watcher::Event::Delete(object) => {
                self.saw_revision(&object.metadata);
                self.remove_slice(&name_of(&object.metadata));
            }
            watcher::Event::Init => self.slices.seen.clear(),
            watcher::Event::InitDone => {
                let seen = std::mem::take(&mut self.slices.seen);
                let gone: Vec<_> = self.service_of_slice.keys().filter(|name| !seen.contains(name)).cloned().collect();
                for name in gone {
                    self.remove_slice(&name);
                }
                self.slices.complete_once = true;
            }
        }
    }

    fn put_slice(&mut self, object: &discovery::EndpointSlice) {
        self.saw_revision(&object.metadata);
        let name = name_of(&object.metadata);
        let slice = match EndpointSlice::try_from(object) {
            Ok(slice) => slice,
            Err(error) => {
                if !error.is_foreign() {
                    tracing::warn!(slice = %name, %error, "cannot use this EndpointSlice");
                }
                return self.remove_slice(&name);
            }
        };
        if self.service_of_slice.get(&name).is_some_and(|service| *service != slice.service) {
            self.remove_slice(&name);
        }
        self.service_of_slice.insert(name, slice.service.clone());
        self.world.slices.entry(slice.service.clone()).or_default().insert(slice.name.clone(), Arc::new(slice));
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        let Some(service) = self.service_of_slice.remove(name) else { return };
        let Some(slices) = self.world.slices.get_mut(&service) else { return };
        slices.remove(&name.name);
        if slices.is_empty() {
            self.world.slices.remove(&service);
        }
    }

    fn node(&mut self, event: watcher::Event<core::Node>) {
        match event {
            watcher::Event::Apply(object) => self.put_node(&object),
            watcher::Event::InitApply(object) => {
                self.nodes.seen.insert(name_of(&object.metadata));
                self.put_node(&object);
            }
            watcher::Event::Delete(object) => {
                self.saw_revision(&object.metadata);
                self.world.nodes.remove(&name_of(&object.metadata).name);
            }
            watcher::Event::Init => self.nodes.seen.clear(),
            watcher::Event::InitDone => {
                let seen: BTreeSet<Arc<str>> =
                    std::mem::take(&mut self.nodes.seen).into_iter().map(|name| name.name).collect();
                let gone: Vec<_> = self.world.nodes.keys().filter(|name| !seen.contains(*name)).cloned().collect();
                for name in gone {
                    self.world.nodes.remove(&name);
                }
                self.nodes.complete_once = true;
            }
        }
    }

    /// Only a node whose *meaning* changed is replaced: its heartbeats must not wake every reader with a difference.
    fn put_node(&mut self, object: &core::Node) {
        self.saw_revision(&object.metadata);
        let node = Node::from(object);
        let same = self.world.nodes.get(&node.name).is_some_and(|old| old.same_but_for_revision(&node));
        if !same {
            self.world.nodes.insert(node.name.clone(), Arc::new(node));
        }
    }

    fn saw_revision(&mut self, metadata: &kube::core::ObjectMeta) {
        self.world.revision = self.world.revision.max(revision_of(metadata));
    }
}

fn name_of(metadata: &kube::core::ObjectMeta) -> ObjectName {
    ObjectName::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// The resourceVersion as a number; 0 where the server's is not one (then only readers of `applied` lose).
pub(super) fn revision_of(metadata: &kube::core::ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
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
        writer.apply(Change::Service(watcher::Event::Init));
        for object in services {
            writer.apply(Change::Service(watcher::Event::InitApply(object)));
        }
        writer.apply(Change::Service(watcher::Event::InitDone));
        writer.apply(Change::Slice(watcher::Event::Init));
        for object in slices {
            writer.apply(Change::Slice(watcher::Event::InitApply(object)));
        }
        writer.apply(Change::Slice(watcher::Event::InitDone));
        writer.apply(Change::Node(watcher::Event::Init));
        writer.apply(Change::Node(watcher::Event::InitDone));
    }

    #[test]
    fn a_snapshot_is_synced_only_after_the_first_list_of_every_kind() {
        let mut writer = Writer::default();
        writer.apply(Change::Service(watcher::Event::Init));
        writer.apply(Change::Service(watcher::Event::InitDone));
        assert!(!writer.world.synced);
        sync(&mut writer, vec![], vec![]);
        assert!(writer.world.synced);
    }

    #[test]
    fn a_second_list_removes_what_it_no_longer_names() {
        let mut writer = Writer::default();
        sync(
            &mut writer,
            vec![service("a", "10.96.0.1", 1), service("b", "10.96.0.2", 2)],
            vec![slice("a-1", "a", "10.244.0.2"), slice("b-1", "b", "10.244.0.3")],
        );
        assert_eq!(writer.world.services.len(), 2);
        assert_eq!(writer.world.revision, 2);
        sync(&mut writer, vec![service("b", "10.96.0.2", 2)], vec![slice("b-1", "b", "10.244.0.3")]);
        let left: Vec<_> = writer.world.services.keys().map(|name| name.to_string()).collect();
        assert_eq!(left, ["default/b"]);
        assert_eq!(writer.world.slices.len(), 1);
    }

    #[test]
    fn a_slice_that_changes_its_service_leaves_the_old_one() {
        let mut writer = Writer::default();
        sync(&mut writer, vec![], vec![slice("s", "a", "10.244.0.2")]);
        writer.apply(Change::Slice(watcher::Event::Apply(slice("s", "b", "10.244.0.2"))));
        let names: Vec<_> = writer.world.slices.keys().map(|name| name.to_string()).collect();
        assert_eq!(names, ["default/b"]);
    }
}
