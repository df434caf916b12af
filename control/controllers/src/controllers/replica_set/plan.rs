//! Which pods a ReplicaSet claims, how many it creates, and which it deletes.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::Timestamp,
};
use kube::core::Selector;

use super::delete_order;
use crate::{
    controllers::{pod_owners::selects, pod_requests::BURST, pod_template},
    objects::{
        owners::{Claim, claim},
        pod_state::{is_active, node_name},
    },
};

/// What one pass does.
#[derive(Debug, Default)]
pub struct ReplicaSetPlan {
    /// Orphans that the selector matches: they get the set as their controller.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods of the set that the selector matches no more: they lose it.
    pub release: Vec<Arc<Pod>>,
    /// How many pods to make now.
    pub create: usize,
    /// Pods beyond the wanted number that are deleted now, in the order of their deletion.
    pub delete: Vec<Arc<Pod>>,
    /// The set's active pods as the view shows them, adopted ones included.
    pub active: Vec<Arc<Pod>>,
    /// Pods of the set that are terminating.
    pub terminating: usize,
}

/// Decides for `set` over the pods that might be its own.
///
/// `caught_up` is whether the view shows all that was asked for before: only then are pods created or deleted.
/// `crowd` counts the pods of the set's family on a node.
pub fn plan(
    set: &ReplicaSet,
    selector: &Selector,
    candidates: &[Arc<Pod>],
    caught_up: bool,
    now: Timestamp,
    crowd: impl Fn(&str) -> usize,
) -> ReplicaSetPlan {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let terminating = set.metadata.deletion_timestamp.is_some();
    let mut plan = ReplicaSetPlan::default();
    for pod in candidates {
        let active = is_active(pod);
        match claim(&pod.metadata, uid, selects(selector, &pod.metadata), terminating) {
            Claim::Keep if active => plan.active.push(pod.clone()),
            Claim::Keep if pod.metadata.deletion_timestamp.is_some() => plan.terminating += 1,
            Claim::Adopt if active => {
                plan.adopt.push(pod.clone());
                plan.active.push(pod.clone());
            }
            Claim::Release => plan.release.push(pod.clone()),
            Claim::Keep | Claim::Adopt | Claim::Ignore => {}
        }
    }
    if caught_up && !terminating {
        scale(&mut plan, replicas(set), now, crowd);
    }
    plan
}

fn scale(plan: &mut ReplicaSetPlan, wanted: usize, now: Timestamp, crowd: impl Fn(&str) -> usize) {
    let have = plan.active.len();
    if have <= wanted {
        plan.create = (wanted - have).min(BURST);
        return;
    }
    let surplus = (have - wanted).min(BURST);
    if surplus == have {
        plan.delete = plan.active.clone();
        return;
    }
    let mut crowds: HashMap<&str, usize> = HashMap::new();
    for pod in &plan.active {
        if let Some(node) = node_name(pod) {
            crowds.entry(node).or_insert_with(|| crowd(node));
        }
    }
    let mut ranked: Vec<delete_order::Ranked> = plan
        .active
        .iter()
        .map(|pod| delete_order::Ranked::new(pod, node_name(pod).map_or(0, |node| crowds[node]), now))
        .collect();
    ranked.sort();
    plan.delete = ranked.into_iter().take(surplus).map(|ranked| ranked.pod.clone()).collect();
}

/// How many pods the set asks for.
pub fn replicas(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// The pod that the set's template makes, with the set as its `owner`; its name is left to the server.
pub fn desired(set: &ReplicaSet, owner: OwnerReference) -> Pod {
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    pod_template::pod(template, &set.metadata, owner)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::owners::controller_reference;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "set"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}
        }))
        .expect("a valid set")
    }

    fn pod(name: &str, owner: Option<&str>, app: &str, extra: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": app}}});
        if let Some(owner) = owner {
            pod["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": owner, "controller": true}]);
        }
        for (key, value) in extra.as_object().into_iter().flatten() {
            match pod.get_mut(key).and_then(Value::as_object_mut) {
                Some(part) => part.extend(value.as_object().cloned().unwrap_or_default()),
                None => pod[key] = value.clone(),
            }
        }
        Arc::new(serde_json::from_value(pod).expect("a valid pod"))
    }

    fn decide(replicas: i32, pods: &[Arc<Pod>], caught_up: bool) -> ReplicaSetPlan {
        let set = set(replicas);
        let selector: Selector =
            set.spec.as_ref().expect("has a spec").selector.clone().try_into().expect("a valid selector");
        plan(&set, &selector, pods, caught_up, Timestamp::now(), |_| 1)
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|p| p.metadata.name.as_deref()).collect()
    }

    #[test]
    fn missing_pods_are_created_and_finished_or_terminating_ones_do_not_count() {
        let pods = [
            pod("a", Some("set"), "web", json!({"status": {"phase": "Running"}})),
            pod("b", Some("set"), "web", json!({"status": {"phase": "Failed"}})),
            pod("c", Some("set"), "web", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        ];
        let plan = decide(3, &pods, true);
        assert_eq!((plan.create, plan.active.len(), plan.terminating), (2, 1, 1));
    }

    #[test]
    fn nothing_is_created_or_deleted_until_the_view_is_caught_up() {
        assert_eq!(decide(3, &[], false).create, 0);
        assert!(decide(0, &[pod("a", Some("set"), "web", json!({}))], false).delete.is_empty());
    }

    #[test]
    fn a_pass_creates_or_deletes_no_more_than_a_burst_and_the_next_goes_on() {
        assert_eq!(decide(2000, &[], true).create, BURST);
        let pods: Vec<_> = (0..BURST + 100).map(|at| pod(&format!("p{at}"), Some("set"), "web", json!({}))).collect();
        assert_eq!(decide(2000, &pods, true).create, BURST);
        for wanted in [0, 1] {
            assert_eq!(decide(wanted, &pods, true).delete.len(), BURST, "of {} pods", pods.len());
        }
        assert_eq!(decide(0, &pods[BURST..], true).delete.len(), 100);
    }

    #[test]
    fn orphans_are_adopted_and_counted_and_strays_released() {
        let pods = [
            pod("orphan", None, "web", json!({})),
            pod("stray", Some("set"), "other", json!({})),
            pod("foreign", Some("other"), "web", json!({})),
        ];
        let plan = decide(2, &pods, true);
        assert_eq!(names(&plan.adopt), ["orphan"]);
        assert_eq!(names(&plan.release), ["stray"]);
        assert_eq!(plan.create, 1);
    }

    #[test]
    fn unassigned_pods_go_before_running_ones() {
        let running = |name| {
            pod(
                name,
                Some("set"),
                "web",
                json!({"spec": {"nodeName": "n", "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
            )
        };
        let pods = [running("a"), pod("unassigned", Some("set"), "web", json!({})), running("b")];
        assert_eq!(names(&decide(2, &pods, true).delete), ["unassigned"]);
    }

    #[test]
    fn a_pod_of_the_template_carries_its_labels_and_its_owner() {
        let pod = desired(&set(1), controller_reference(&set(1)));
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(pod.metadata.owner_references.map(|o| o[0].uid.clone()).as_deref(), Some("set"));
        assert!(pod.metadata.labels.is_some_and(|l| l["app"] == "web"));
    }
}
