//! Gives every Node its pod subnet, cut from the cluster's.
//!
//! The Node objects are the record of what is assigned: no other state is kept. Subnets are given one at a time.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use fairlead_client::Api;
use ipnetwork::Ipv4Network;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;

use super::Context;
use crate::engine::{EventType, Failure, Informer, Key, Outcome, Recorder, Startup, Tasks, api_code, reference};

const COMPONENT: &str = "node-ipam-controller";
/// How often a Node without a subnet is reported again: before its Event, which lives for an hour, is gone.
const REPORT_AGAIN: Duration = Duration::from_secs(30 * 60);

struct Controller {
    client: Client,
    nodes: Arc<Informer<Node>>,
    recorder: Recorder,
    cluster: Ipv4Network,
    node_prefix: u8,
    /// Subnets given that the view of Nodes does not show yet.
    given: Mutex<std::collections::BTreeMap<Key, Ipv4Network>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let controller = Controller {
        client: context.client.clone(),
        nodes: context.informers.nodes.clone(),
        recorder: context.recorder.clone(),
        cluster: context.config.cluster_cidr,
        node_prefix: context.config.node_cidr_mask_size,
        given: Mutex::default(),
    };
    Startup::new(COMPONENT, controller)
        .on(&context.informers.nodes, |this, change, queue| match &change.new {
            Some(node) if subnet_of(node).is_none() => queue.add(change.key.clone()),
            Some(_) => {
                this.given.lock().remove(&change.key);
            }
            // A freed subnet may be what another Node waits for.
            None => {
                this.given.lock().remove(&change.key);
                let waiting = this.nodes.all().into_iter().filter(|node| subnet_of(node).is_none());
                waiting.for_each(|node| queue.add(Key::of(&*node)));
            }
        })
        .start(tasks, 16, Controller::reconcile);
}

fn subnet_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|cidr| !cidr.is_empty())
}

/// The first subnet of `cluster` that none of `taken` overlaps.
fn first_free(cluster: Ipv4Network, node_prefix: u8, taken: &BTreeSet<Ipv4Network>) -> Option<Ipv4Network> {
    let size = 1u64.checked_shl(u32::from(32u8.checked_sub(node_prefix)?))?;
    let first = u64::from(u32::from(cluster.network()));
    let last = u64::from(u32::from(cluster.broadcast()));
    let mut start = first;
    for subnet in taken {
        let (from, to) = (u64::from(u32::from(subnet.network())), u64::from(u32::from(subnet.broadcast())));
        if from > start + size - 1 {
            break;
        }
        if to >= start {
            // The next start beyond the taken one, on this size's grid.
            start = first + ((to + 1 - first).div_ceil(size)) * size;
        }
    }
    if start + size - 1 > last {
        return None;
    }
    Ipv4Network::new(Ipv4Addr::from(u32::try_from(start).ok()?), node_prefix).ok()
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(node) = self.nodes.get(&key) else { return Ok(Outcome::Done) };
        if subnet_of(&node).is_some() || node.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let Some(subnet) = self.reserve(&key) else {
            tracing::warn!(
                node = %key, cluster_cidr = %self.cluster, node_cidr_mask_size = self.node_prefix,
                "no pod subnet is left for this node: it stays NotReady until another node is deleted"
            );
            let message = format!("Node {key} status is now: CIDRNotAvailable");
            self.recorder.record(COMPONENT, reference(&*node), EventType::Warning, "CIDRNotAvailable", message);
            return Ok(Outcome::After(REPORT_AGAIN));
        };
        let cidr = subnet.to_string();
        let patch = json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        let api: Api<Node> = Api::all(self.client.clone());
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) => {
                self.given.lock().remove(&key);
                if api_code(&error) == Some(404) {
                    return Ok(Outcome::Done);
                }
                Err(Failure::request("give a Node its pod subnet")(error))
            }
        }
    }

    fn reserve(&self, key: &Key) -> Option<Ipv4Network> {
        let mut given = self.given.lock();
        if let Some(subnet) = given.get(key) {
            return Some(*subnet);
        }
        let nodes = self.nodes.all();
        let shown = nodes.iter().filter_map(|node| subnet_of(node)?.parse::<Ipv4Network>().ok());
        let taken: BTreeSet<Ipv4Network> = shown.chain(given.values().copied()).collect();
        let subnet = first_free(self.cluster, self.node_prefix, &taken)?;
        given.insert(key.clone(), subnet);
        Some(subnet)
    }
}

#[cfg(test)]
mod tests {
    use kube::{client::Body, runtime::watcher::Event};
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A controller of Nodes whose cluster has room for one, and the requests that it sends.
    async fn controller(
        nodes: &[serde_json::Value],
        tasks: &Tasks,
    ) -> (Arc<Controller>, tokio::sync::mpsc::UnboundedReceiver<http::Method>) {
        let (sent, requests) = tokio::sync::mpsc::unbounded_channel();
        let api = tower::service_fn(move |request: http::Request<Body>| {
            sent.send(request.method().clone()).expect("the test listens");
            let event = json!({"metadata": {"name": "e"}, "involvedObject": {}});
            std::future::ready(http::Response::builder().body(Body::from(event.to_string().into_bytes())))
        });
        let client = Client::new(api, "default");
        let informer = Informer::new(None);
        let nodes = nodes.iter().map(|node| Event::InitApply(serde_json::from_value(node.clone()).expect("a node")));
        let events = [Event::Init].into_iter().chain(nodes).chain([Event::InitDone]);
        informer.clone().run(futures::stream::iter(events.map(Ok)), CancellationToken::new()).await;
        let controller = Controller {
            recorder: crate::engine::start_recorder(client.clone(), tasks),
            client,
            nodes: informer,
            cluster: "10.244.0.0/24".parse().expect("a network"),
            node_prefix: 24,
            given: Mutex::default(),
        };
        (Arc::new(controller), requests)
    }

    #[tokio::test]
    async fn a_node_without_a_subnet_is_reported_until_it_has_one() {
        let tasks = Tasks::default();
        let nodes = [
            json!({"metadata": {"name": "a", "uid": "a"}, "spec": {"podCIDR": "10.244.0.0/24"}}),
            json!({"metadata": {"name": "b", "uid": "b"}}),
        ];
        let (controller, mut requests) = controller(&nodes, &tasks).await;
        for method in [http::Method::POST, http::Method::PATCH] {
            let outcome = controller.clone().reconcile(Key::cluster("b")).await.expect("no failure");
            let Outcome::After(again) = outcome else { panic!("it is reported once only") };
            assert!(again < Duration::from_secs(3600), "the Event of the last report would be gone");
            assert_eq!(requests.recv().await, Some(method), "the Event is created, then counted");
        }
        tasks.shutdown().await;
    }

    fn free(cluster: &str, prefix: u8, taken: &[&str]) -> Option<String> {
        let taken = taken.iter().map(|cidr| cidr.parse().expect("a valid network")).collect();
        first_free(cluster.parse().expect("a valid network"), prefix, &taken).map(|n| n.to_string())
    }

    #[test]
    fn the_first_gap_is_given() {
        assert_eq!(free("10.244.0.0/16", 24, &[]).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(free("10.244.0.0/16", 24, &["10.244.0.0/24", "10.244.2.0/24"]).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(free("10.244.0.0/16", 24, &["10.244.0.0/25", "192.168.0.0/24"]).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(free("10.244.0.0/16", 24, &["10.0.0.0/24", "10.244.0.0/22"]).as_deref(), Some("10.244.4.0/24"));
    }

    #[test]
    fn a_full_cluster_gives_nothing() {
        assert_eq!(free("10.244.0.0/23", 24, &["10.244.0.0/24", "10.244.1.0/24"]), None);
        assert_eq!(free("10.244.0.0/24", 24, &["10.244.0.128/25"]), None);
    }
}
