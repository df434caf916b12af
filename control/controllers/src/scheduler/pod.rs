//! What the scheduler knows of a pod: read once from the API's object, so that placing it reads no JSON.

use fairlead_client::placement::{HostPort, NodeAffinity};
use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::{neighbours::Neighbours, resources::Resources, spread::TopologySpread};
use crate::{
    engine::Key,
    objects::{owners::controller_of, pod_state},
};

/// Name under which pods ask for this scheduler.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// One version of a pod.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: Key,
    /// Tells the pod from a later one of the same name.
    pub uid: String,
    /// Of this version; 0 where it cannot be read.
    pub revision: u64,
    /// `spec.nodeName`; `None` until it is bound.
    pub node: Option<String>,
    /// Holds no resources any more.
    pub finished: bool,
    /// Waits for a node, from this scheduler.
    pub pending: bool,
    /// `status.nominatedNodeName`: others were preempted there for it.
    pub nominated: Option<String>,
    /// The reason that was last written to the pod why it has no node.
    pub reported: Option<String>,
    /// What controls it: with its like it is spread where it asks for nothing else.
    pub owner: Option<PodController>,
    /// What decides where it can run.
    pub needs: Needs,
}

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodController {
    /// `apps/v1`…
    pub api_version: String,
    /// `ReplicaSet`…
    pub kind: String,
    /// In the pod's namespace.
    pub name: String,
}

/// What decides where a pod can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Of the pod; `neighbours` has its namespace.
    pub name: String,
    /// `spec.priority`: pods of a higher one are tried first.
    pub priority: i32,
    /// Pods of a lower priority may be deleted for it: `preemptionPolicy` is not `Never`.
    pub preempts: bool,
    /// What a node must have left for it.
    pub requests: Resources,
    /// Ports that must be free on the node.
    pub host_ports: Vec<HostPort>,
    /// Taints that do not keep it away.
    pub tolerations: Vec<Toleration>,
    /// `nodeSelector` and node affinity.
    pub affinity: NodeAffinity,
    /// Affinity to pods.
    pub neighbours: Neighbours,
    /// Topology spread constraints.
    pub spread: TopologySpread,
    /// Its deletion is under way: it is not spread any more.
    pub terminating: bool,
}

impl PodInfo {
    /// Reads one version of a pod.
    pub fn read(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let node = pod_state::node_name(pod).map(str::to_owned);
        let finished = pod_state::is_finished(pod);
        let ours = spec.and_then(|s| s.scheduler_name.as_deref()).is_none_or(|name| name == SCHEDULER_NAME);
        let gated = spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        let reported = pod_state::condition(pod, "PodScheduled").filter(|c| c.status == "False");
        Self {
            key: Key::of(pod),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            revision: revision_of(pod),
            pending: node.is_none() && !finished && !pod_state::is_terminating(pod) && ours && !gated,
            node,
            finished,
            nominated: pod.status.as_ref().and_then(|s| s.nominated_node_name.clone()).filter(|name| !name.is_empty()),
            reported: reported.and_then(|c| c.message.clone()),
            owner: controller_of(&pod.metadata).map(|owner| PodController {
                api_version: owner.api_version.clone(),
                kind: owner.kind.clone(),
                name: owner.name.clone(),
            }),
            needs: Needs::read(pod),
        }
    }
}

/// `metadata.resourceVersion`, which grows; 0 where it cannot be read.
pub fn revision_of(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

impl Needs {
    fn read(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            requests: Resources::of_pod(spec, pod.status.as_ref()),
            host_ports: HostPort::all_of(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            affinity: NodeAffinity::of(spec),
            neighbours: Neighbours::of(pod),
            spread: TopologySpread::of(pod),
            terminating: pod_state::is_terminating(pod),
        }
    }
}
