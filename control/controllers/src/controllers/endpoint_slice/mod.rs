//! EndpointSlices of Services with a selector, from the pods they select.
//!
//! [`endpoints`] decides which endpoints there are, [`slices`] how they are distributed over slices, [`slice_writer`]
//! reads and writes these.

pub mod endpoints;
pub mod ports;
pub mod slice_writer;
pub mod slices;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use self::{
    slice_writer::{SUPERSEDED_AFTER, SliceWriter},
    slices::Frame,
};
use super::Context;
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, Outcome, Startup, Tasks, WorkQueue},
    objects::{
        informer_index::{labelled, on_node, selecting},
        owners::controller_reference,
        pod_state::{counts_differently, node_name},
    },
};

const COMPONENT: &str = "endpointslice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const CONCURRENCY: usize = 16;

struct Controller {
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: SliceWriter,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        services: informers.services.clone(),
        pods: informers.pods.clone(),
        nodes: informers.nodes.clone(),
        slices: SliceWriter::new(MANAGER, context.client.clone(), informers.endpoint_slices.clone()),
    };
    Startup::new(COMPONENT, controller)
        .on_each(&informers.services)
        .on(&informers.pods, |this, change, queue| {
            services_of(&this.services, change).into_iter().for_each(|service| queue.add(service));
        })
        .on(&informers.nodes, Controller::node_changed)
        .on(&informers.endpoint_slices, |this, change, queue| this.slices.changed(change, queue))
        .start(tasks, CONCURRENCY, Controller::reconcile);
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
            self.slices.forget(&key);
            return Ok(Outcome::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let Some(standing) = self.slices.standing(&key) else { return Ok(Outcome::After(SUPERSEDED_AFTER)) };
        let plan = match endpoints::selector(&service) {
            Some(_) => {
                let pods = pods_of(&service, &self.pods);
                let zone_of = |node: &str| self.nodes.get(&Key::cluster(node)).and_then(|node| zone(&node).cloned());
                let desired = endpoints::desired(&service, pods.iter().map(|pod| &**pod), zone_of);
                slices::plan(&self.frame(&service, &key), desired, &standing)
            }
            None => slices::SlicePlan { delete: standing, ..Default::default() },
        };
        self.slices.carry_out(&key, plan).await?;
        Ok(Outcome::Done)
    }

    fn frame(&self, service: &Service, key: &Key) -> Frame {
        let mut labels = self.slices.labels(key, service.metadata.labels.clone());
        labels.remove(HEADLESS);
        if endpoints::is_headless(service) {
            labels.insert(HEADLESS.into(), String::new());
        }
        Frame {
            namespace: key.namespace.clone(),
            service: key.name.clone(),
            labels,
            annotations: BTreeMap::new(),
            owner: controller_reference(service),
            placeholders: endpoints::families(service),
        }
    }
}
