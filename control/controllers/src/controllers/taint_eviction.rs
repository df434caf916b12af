//! Deletes pods from nodes with NoExecute taints that they do not tolerate, or no longer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use parking_lot::Mutex;
use serde_json::json;

use super::Context;
use crate::{
    engine::{
        EventType, Failure, Informer, Key, Outcome, Recorder, Startup, Tasks, api_code, is_gone_or_taken, reference,
    },
    objects::{
        informer_index::on_node,
        pod_state::{condition, is_finished, is_terminating, node_name},
        taints::{NO_EXECUTE, covers},
    },
};

const COMPONENT: &str = "taint-eviction-controller";
/// Reason of the condition that tells why a pod is deleted. Source: `PodReasonDeletionByTaintManager`.
const REASON: &str = "DeletionByTaintManager";

struct Controller {
    client: Client,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
    first_seen: FirstSeen,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        nodes: informers.nodes.clone(),
        pods: informers.pods.clone(),
        recorder: context.recorder.clone(),
        first_seen: FirstSeen::default(),
    };
    Startup::new(COMPONENT, controller)
        .on(&informers.nodes, |this, change, queue| {
            let before = change.old.as_deref().map(no_execute).unwrap_or_default();
            let after = change.new.as_deref().map(no_execute).unwrap_or_default();
            this.first_seen.update(&change.key.name, &after, Timestamp::now());
            if after != before {
                this.pods.indexed(&on_node(&change.key.name)).iter().for_each(|pod| queue.add(Key::of(&**pod)));
            }
        })
        .on(&informers.pods, |this, change, queue| {
            let Some(new) = change.new.as_deref() else { return };
            let Some(node) = node_name(new) else { return };
            let same = |old: &Pod| node_name(old) == Some(node) && tolerations(old) == tolerations(new);
            if !change.old.as_deref().is_some_and(same)
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

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// When each NoExecute taint without `timeAdded` was first seen: tolerations count from then. `kubectl taint` writes no
/// time.
#[derive(Default)]
struct FirstSeen {
    nodes: Mutex<HashMap<String, Vec<Taint>>>,
}

impl FirstSeen {
    /// Takes over the taints of a node; those that are gone are forgotten.
    fn update(&self, node: &str, taints: &[Taint], now: Timestamp) {
        let mut nodes = self.nodes.lock();
        let known = nodes.remove(node).unwrap_or_default();
        let mut seen = Vec::new();
        for taint in taints.iter().filter(|taint| taint.time_added.is_none()) {
            let at = known.iter().find(|known| is_same(known, taint)).and_then(|known| known.time_added.clone());
            seen.push(Taint { time_added: at.or(Some(Time(now))), ..taint.clone() });
        }
        if !seen.is_empty() {
            nodes.insert(node.to_owned(), seen);
        }
    }

    /// The taints, each with its own time or when it was first seen.
    fn complete(&self, node: &str, mut taints: Vec<Taint>) -> Vec<Taint> {
        let nodes = self.nodes.lock();
        for taint in taints.iter_mut().filter(|taint| taint.time_added.is_none()) {
            let known = nodes.get(node).into_iter().flatten().find(|known| is_same(known, taint));
            taint.time_added = known.and_then(|known| known.time_added.clone());
        }
        taints
    }
}

fn is_same(a: &Taint, b: &Taint) -> bool {
    (&a.key, &a.value, &a.effect) == (&b.key, &b.value, &b.effect)
}

/// When a pod is evicted from its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EvictionTime {
    Never,
    After(Duration),
    Now,
}

/// When a pod with these tolerations is evicted because of these taints: when the shortest of the tolerations that are
/// used has passed, counted from when the taint was added. The first that covers a taint is used, and no other. Source:
/// Kubernetes' `GetMatchingTolerations` and `getMinTolerationTime`.
fn eviction_time(tolerations: &[Toleration], taints: &[Taint], now: Timestamp) -> EvictionTime {
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let Some(used) = tolerations.iter().find(|toleration| covers(toleration, taint)) else {
            return EvictionTime::Now;
        };
        let Some(seconds) = used.toleration_seconds else { continue };
        let tolerated = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        match tolerated.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => shortest = Some(shortest.map_or(left, |shortest| shortest.min(left))),
            _ => return EvictionTime::Now,
        }
    }
    shortest.map_or(EvictionTime::Never, EvictionTime::After)
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(pod) = self.pods.get(&key).filter(|pod| !is_terminating(pod) && !is_finished(pod)) else {
            return Ok(Outcome::Done);
        };
        let node = node_name(&pod).and_then(|node| self.nodes.get(&Key::cluster(node)));
        let Some(node) = node else { return Ok(Outcome::Done) };
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let taints = self.first_seen.complete(name, no_execute(&node));
        match eviction_time(tolerations(&pod), &taints, Timestamp::now()) {
            EvictionTime::Never => Ok(Outcome::Done),
            EvictionTime::After(left) => Ok(Outcome::After(left)),
            EvictionTime::Now => self.evict(&key, &pod).await,
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<Outcome, Failure> {
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.record(COMPONENT, reference(pod), EventType::Normal, "TaintManagerEviction", message);
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        // First the condition, for those who count how pods ended: Jobs, and PodDisruptionBudgets.
        if let Some(patch) = disruption_target(pod, Timestamp::now()) {
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {}
                Err(error) if api_code(&error) == Some(404) => return Ok(Outcome::Done),
                Err(error) => return Err(Failure::request("mark a pod that is evicted")(error)),
            }
        }
        match api.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("evict a pod")(error)),
        }
    }
}

/// The patch that tells why the pod is deleted; `None` where the pod tells it already.
fn disruption_target(pod: &Pod, now: Timestamp) -> Option<serde_json::Value> {
    let told = condition(pod, "DisruptionTarget");
    if told.is_some_and(|told| told.status == "True" && told.reason.as_deref() == Some(REASON)) {
        return None;
    }
    // The time is that of the last change of the status alone.
    let since = told.filter(|told| told.status == "True").and_then(|told| told.last_transition_time.clone());
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": REASON,
        "message": "Taint manager: deleting due to NoExecute taint", "observedGeneration": pod.metadata.generation,
        "lastTransitionTime": since.unwrap_or(Time(now))});
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::WorkQueue;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("valid")
    }

    fn taints() -> Vec<Taint> {
        read(json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute",
                "timeAdded": "2026-01-01T00:00:00Z"}]))
    }

    fn tolerating(seconds: Value) -> Vec<Toleration> {
        read(json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds}]))
    }

    #[test]
    fn a_pod_is_evicted_when_its_shortest_toleration_has_passed() {
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().expect("a valid time");
        let time = |seconds: Value| eviction_time(&tolerating(seconds), &taints(), now);
        assert_eq!(eviction_time(&[], &taints(), now), EvictionTime::Now);
        assert_eq!(time(json!(300)), EvictionTime::After(Duration::from_secs(200)));
        assert_eq!(time(json!(100)), EvictionTime::Now);
        assert_eq!(time(json!(-1)), EvictionTime::Now);
        assert_eq!(time(json!(null)), EvictionTime::Never);
        assert_eq!(eviction_time(&[], &[], now), EvictionTime::Never);
    }

    #[test]
    fn the_first_toleration_of_each_taint_counts_and_the_shortest_of_those() {
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().expect("a valid time");
        let both = |first: Value, second: Value| [tolerating(first), tolerating(second)].concat();
        let time = |tolerations: &[Toleration]| eviction_time(tolerations, &taints(), now);
        assert_eq!(time(&both(json!(null), json!(100))), EvictionTime::Never);
        assert_eq!(time(&both(json!(300), json!(100))), EvictionTime::After(Duration::from_secs(200)));
        assert_eq!(time(&both(json!(100), json!(300))), EvictionTime::Now);
        let everything: Vec<Toleration> = read(json!([{"operator": "Exists", "tolerationSeconds": 150}]));
        let two =
            [taints(), read(json!([{"key": "other", "effect": "NoExecute", "timeAdded": "2026-01-01T00:01:00Z"}]))];
        let tolerations = [tolerating(json!(300)), everything].concat();
        let other_first = EvictionTime::After(Duration::from_secs(110));
        assert_eq!(eviction_time(&tolerations, &two.concat(), now), other_first);
    }

    #[test]
    fn an_evicted_pod_tells_why_and_is_not_told_twice() {
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().expect("a valid time");
        let mut pod: Pod = read(json!({"metadata": {"name": "p", "uid": "u", "generation": 2}}));
        let patch = disruption_target(&pod, now).expect("a patch");
        let condition = &patch["status"]["conditions"][0];
        assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!(REASON), &json!(2)));
        assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:01:40Z");
        pod.status = read(json!({"conditions": [condition]}));
        assert_eq!(disruption_target(&pod, now), None);
    }

    #[test]
    fn a_toleration_of_any_length_makes_a_timer_and_no_panic() {
        let queue = WorkQueue::new("test");
        for seconds in [i64::MAX, i64::MAX / 2, 1 << 40] {
            match eviction_time(&tolerating(json!(seconds)), &taints(), Timestamp::now()) {
                EvictionTime::After(left) => queue.add_after(seconds, left),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_taint_without_a_time_counts_from_when_it_was_first_seen() {
        let seen = FirstSeen::default();
        let bare: Vec<Taint> = read(json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]));
        let at = |text: &str| -> Timestamp { text.parse().expect("a valid time") };
        seen.update("n", &bare, at("2026-01-01T00:00:00Z"));
        seen.update("n", &bare, at("2026-01-01T00:01:00Z"));
        let now = at("2026-01-01T00:01:40Z");
        let time = |seconds: i64| eviction_time(&tolerating(json!(seconds)), &seen.complete("n", bare.clone()), now);
        assert_eq!(time(101), EvictionTime::After(Duration::from_secs(1)));
        assert_eq!(time(100), EvictionTime::Now);
        seen.update("n", &[], now);
        assert!(seen.nodes.lock().is_empty());
    }
}
