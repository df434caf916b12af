//! Deletes pods from nodes with NoExecute taints that they do not tolerate, or no longer.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};

use super::{
    Context,
    engine::{EventType, Failure, Informer, Key, Outcome, Recorder, Startup, Tasks, is_gone_or_taken, reference},
    informers::on_node,
    pod_state::{is_finished, is_terminating, node_name},
};
use crate::scheduler::taints::{NO_EXECUTE, covers};

const COMPONENT: &str = "taint-eviction-controller";

struct Controller {
    client: Client,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        nodes: informers.nodes.clone(),
        pods: informers.pods.clone(),
        recorder: context.recorder.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.nodes, |this, change, queue| {
            let before = change.old.as_deref().map(no_execute).unwrap_or_default();
            if change.new.as_deref().is_some_and(|node| no_execute(node) != before) {
                this.pods.indexed(&on_node(&change.key.name)).iter().for_each(|pod| queue.add(Key::of(&**pod)));
            }
        })
        .on(&informers.pods, |this, change, queue| {
            let Some(node) = change.new.as_deref().and_then(node_name) else { return };
            if change.old.as_deref().and_then(node_name) != Some(node)
                && this.nodes.get(&Key::cluster(node)).is_some_and(|node| !no_execute(&node).is_empty())
            {
                queue.add(change.key.clone());
            }
        })
        .start(tasks, 16, Controller::reconcile);
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

/// How long a pod may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Forever,
    For(Duration),
    Over,
}

/// How long a pod with these tolerations bears these taints. The shortest of its tolerations counts, from when the taint came.
fn stay(tolerations: &[Toleration], taints: &[Taint], now: Timestamp) -> Stay {
    let mut stay = Stay::Forever;
    for taint in taints {
        let covering: Vec<&Toleration> = tolerations.iter().filter(|toleration| covers(toleration, taint)).collect();
        if covering.is_empty() {
            return Stay::Over;
        }
        let Some(seconds) = covering.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let borne = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let left = match borne.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => left,
            _ => return Stay::Over,
        };
        stay = match stay {
            Stay::For(sooner) => Stay::For(sooner.min(left)),
            _ => Stay::For(left),
        };
    }
    stay
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(pod) = self.pods.get(&key).filter(|pod| !is_terminating(pod) && !is_finished(pod)) else {
            return Ok(Outcome::Done);
        };
        let node = node_name(&pod).and_then(|node| self.nodes.get(&Key::cluster(node)));
        let Some(node) = node else { return Ok(Outcome::Done) };
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        match stay(tolerations, &no_execute(&node), Timestamp::now()) {
            Stay::Forever => Ok(Outcome::Done),
            Stay::For(left) => Ok(Outcome::After(left)),
            Stay::Over => self.evict(&key, &pod).await,
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<Outcome, Failure> {
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.record(COMPONENT, reference(pod), EventType::Normal, "TaintManagerEviction", message);
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("evict a pod")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("valid")
    }

    #[test]
    fn a_pod_stays_as_long_as_its_shortest_toleration_lasts() {
        let taints: Vec<Taint> = read(json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute",
            "timeAdded": "2026-01-01T00:00:00Z"}]));
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().expect("a valid time");
        let for_seconds = |seconds: Value| -> Vec<Toleration> {
            read(json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds}]))
        };
        assert_eq!(stay(&[], &taints, now), Stay::Over);
        assert_eq!(stay(&for_seconds(json!(300)), &taints, now), Stay::For(Duration::from_secs(200)));
        assert_eq!(stay(&for_seconds(json!(100)), &taints, now), Stay::Over);
        assert_eq!(stay(&for_seconds(json!(null)), &taints, now), Stay::Forever);
        assert_eq!(stay(&[], &[], now), Stay::Forever);
    }
}
