//! EndpointSlices of Services with a selector, from the pods they select.
//!
//! [`endpoints`] decides which endpoints there are, [`slices`] how they are distributed over slices; this file reads
//! and writes.

pub mod endpoints;
pub mod ports;
pub mod slices;
pub mod writes;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::Client;

use self::{
    slices::{Frame, MANAGED_BY, SERVICE_NAME},
    writes::Writes,
};
use super::Context;
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Startup, Tasks, WorkQueue},
    objects::{
        informers::{labelled, of_service, on_node, selecting},
        owners::controller_reference,
        pod_state::{counts_differently, node_name},
    },
};

const COMPONENT: &str = "endpointslice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const CONCURRENCY: usize = 16;

struct Controller {
    client: Client,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    writes: Writes,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        services: informers.services.clone(),
        pods: informers.pods.clone(),
        nodes: informers.nodes.clone(),
        slices: informers.endpoint_slices.clone(),
        writes: Writes::default(),
    };
    Startup::new(COMPONENT, controller)
        .on_each(&informers.services)
        .on(&informers.pods, |this, change, queue| {
            services_of(&this.services, change).into_iter().for_each(|service| queue.add(service));
        })
        .on(&informers.nodes, Controller::node_changed)
        .on(&informers.endpoint_slices, |this, change, queue| {
            this.writes.changed(MANAGER, change).into_iter().for_each(|service| queue.add(service));
        })
        .start(tasks, CONCURRENCY, Controller::reconcile);
}

/// Who writes a slice.
pub fn manager(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(MANAGED_BY).map(String::as_str)
}

/// The Service a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name))
}

/// Services whose endpoints a change of a pod may change.
pub fn services_of(services: &Informer<Service>, change: &ObjectChange<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !differs(old, new)
    {
        return Vec::new();
    }
    let mut keys = Vec::new();
    for pod in [&change.old, &change.new].into_iter().flatten() {
        for (key, value) in pod.metadata.labels.iter().flatten() {
            for service in services.indexed(&selecting(&change.key.namespace, key, value)) {
                if endpoints::selector(&service).is_some_and(|selector| selects(selector, pod)) {
                    keys.push(Key::of(&*service));
                }
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

fn differs(old: &Pod, new: &Pod) -> bool {
    let addresses = |pod: &Pod| pod.status.as_ref().map(|s| (s.pod_ip.clone(), s.pod_ips.clone()));
    counts_differently(old, new) || addresses(old) != addresses(new) || node_name(old) != node_name(new)
}

fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let Some(labels) = &pod.metadata.labels else { return false };
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The pods that a Service selects, ordered by name.
pub fn pods_of(service: &Service, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = endpoints::selector(service) else { return Vec::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    // The rarest label leaves the fewest pods to look at.
    let names = selector.iter().map(|(key, value)| labelled(namespace, key, value));
    let Some(rarest) = names.min_by_key(|name| pods.count(name)) else { return Vec::new() };
    let mut selected = pods.indexed(&rarest);
    selected.retain(|pod| selects(selector, pod));
    selected
}

/// The node's zone.
pub fn zone(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone")
}

impl Controller {
    fn node_changed(&self, change: &ObjectChange<Node>, queue: &WorkQueue<Key>) {
        if change.old.as_deref().and_then(zone) == change.new.as_deref().and_then(zone) {
            return;
        }
        for pod in self.pods.indexed(&on_node(&change.key.name)) {
            let appeared = ObjectChange { key: Key::of(&*pod), old: None, new: Some(pod) };
            services_of(&self.services, &appeared).into_iter().for_each(|service| queue.add(service));
        }
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(service) = self.services.get(&key) else {
            // The garbage collector deletes the slices: the Service owned them.
            self.writes.forget(&key);
            return Ok(Outcome::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if !self.writes.seen(&key, &self.slices) {
            return Ok(Outcome::After(writes::SUPERSEDED_AFTER));
        }
        let mut standing = self.slices.indexed(&of_service(&key.namespace, &key.name));
        standing.retain(|slice| manager(slice) == Some(MANAGER) && slice.metadata.deletion_timestamp.is_none());
        let Some(_) = endpoints::selector(&service) else {
            let plan = slices::SlicePlan { delete: standing, ..Default::default() };
            self.writes.carry_out(&self.client, &key, plan).await?;
            return Ok(Outcome::Done);
        };
        let pods = pods_of(&service, &self.pods);
        let zone_of = |node: &str| self.nodes.get(&Key::cluster(node)).and_then(|node| zone(&node).cloned());
        let desired = endpoints::desired(&service, pods.iter().map(|pod| &**pod), zone_of);
        let plan = slices::plan(&frame(&service, &key), desired, &standing);
        self.writes.carry_out(&self.client, &key, plan).await?;
        Ok(Outcome::Done)
    }
}

fn frame(service: &Service, key: &Key) -> Frame {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if endpoints::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), key.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    Frame {
        namespace: key.namespace.clone(),
        service: key.name.clone(),
        labels,
        annotations: BTreeMap::new(),
        owner: controller_reference(service),
        placeholders: endpoints::families(service),
    }
}
