//! Who gets what, pod by pod.

use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A node of one core and 1000 bytes.
fn node() -> Ledger {
    Ledger::new(Requests { cpu: 1000, memory: 1000 }, BTreeMap::new())
}

fn pod(cpu: &str, generation: i64, priority: i32) -> Arc<Pod> {
    let pod = json!({ "metadata": { "name": "p", "generation": generation },
        "spec": { "priority": priority,
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": "100" } } }] } });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn cpu(ledger: &Ledger, uid: &str) -> i64 {
    ledger.pods[uid].requests.cpu
}

fn pending(ledger: &Ledger, uid: &str) -> Option<(&'static str, String)> {
    ledger.held(uid)?.pending.as_ref().map(|pending| (pending.reason, pending.message.clone()))
}

#[test]
fn a_resize_that_fits_is_granted_and_one_that_does_not_is_deferred_until_another_pod_leaves() {
    let mut ledger = node();
    ledger.put("a", &pod("300m", 1, 0), NOW);
    ledger.put("b", &pod("300m", 1, 0), NOW);
    assert!(ledger.put("a", &pod("700m", 2, 0), NOW).is_empty());
    assert_eq!((cpu(&ledger, "a"), ledger.held("a").unwrap().generation), (700, Some(2)));
    ledger.put("a", &pod("800m", 3, 0), NOW);
    let words = "Node didn't have enough resource: cpu, requested: 800, used: 300, capacity: 1000";
    assert_eq!(pending(&ledger, "a"), Some(("Deferred", words.to_owned())));
    let held = ledger.held("a").unwrap();
    let allocated = held.allocated.applied_to(&pod("800m", 3, 0));
    assert_eq!((cpu(&ledger, "a"), Requests::of(&allocated).cpu), (700, 700), "it keeps what it has");
    assert_eq!(ledger.remove("b", NOW), BTreeSet::from(["a".to_owned()]));
    assert_eq!((cpu(&ledger, "a"), pending(&ledger, "a")), (800, None));
    assert_eq!(ledger.held("a").unwrap().generation, Some(3));
}

#[test]
fn what_the_node_could_never_give_is_infeasible() {
    let mut ledger = node();
    ledger.put("a", &pod("300m", 1, 0), NOW);
    ledger.put("a", &pod("1001m", 2, 0), NOW);
    let words = "Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000";
    assert_eq!(pending(&ledger, "a"), Some(("Infeasible", words.to_owned())));
    ledger.put("a", &pod("0.3", 3, 0), NOW);
    assert_eq!(pending(&ledger, "a"), None, "it asks for what it has");
    assert_eq!(ledger.held("a").unwrap().generation, None, "no resize was granted");
}

#[test]
fn a_pod_that_shrinks_makes_room_for_the_most_important_that_waits() {
    let mut ledger = node();
    for (uid, asked, priority) in [("a", "400m", 0), ("low", "300m", 1), ("high", "300m", 2)] {
        ledger.put(uid, &pod(asked, 1, priority), NOW);
    }
    for (uid, priority) in [("low", 1), ("high", 2)] {
        ledger.put(uid, &pod("500m", 2, priority), NOW);
        assert_eq!(pending(&ledger, uid).unwrap().0, "Deferred");
    }
    let later = Timestamp::from_second(5).unwrap();
    let changed = ledger.put("a", &pod("200m", 2, 0), later);
    assert_eq!((cpu(&ledger, "high"), cpu(&ledger, "low")), (500, 300));
    assert_eq!(changed, BTreeSet::from(["high".to_owned()]));
    assert_eq!(ledger.held("low").unwrap().pending.as_ref().unwrap().since, NOW, "it waits since it asked");
}

#[test]
fn what_shrinks_fits_on_a_node_that_is_too_full() {
    let mut ledger = node();
    ledger.put("a", &pod("700m", 1, 0), NOW);
    ledger.put("b", &pod("700m", 1, 0), NOW);
    ledger.put("a", &pod("600m", 2, 0), NOW);
    assert_eq!((cpu(&ledger, "a"), pending(&ledger, "a")), (600, None));
    ledger.put("a", &pod("700m", 3, 0), NOW);
    assert_eq!(pending(&ledger, "a").map(|(reason, _)| reason), Some("Deferred"));
}

#[test]
fn what_an_earlier_agent_granted_is_held_and_a_change_meanwhile_is_a_resize() {
    let mut before = node();
    before.put("a", &pod("300m", 1, 0), NOW);
    let mut ledger = Ledger::new(Requests { cpu: 1000, memory: 1000 }, before.allocations());
    assert_eq!(ledger.allocations(), before.allocations(), "kept before the pod is seen again");
    ledger.put("a", &pod("2", 2, 0), NOW);
    assert_eq!((pending(&ledger, "a").unwrap().0, cpu(&ledger, "a")), ("Infeasible", 300));
    ledger.retain(&[]);
    assert_eq!(ledger.allocations().len(), 1);
}

#[test]
fn a_static_pod_and_one_that_ends_keep_what_they_have() {
    let mut ledger = node();
    let mut fixed = Pod::clone(&pod("300m", 1, 0));
    fixed.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    ledger.put("static", &Arc::new(fixed.clone()), NOW);
    fixed.spec = pod("400m", 1, 0).spec.clone();
    ledger.put("static", &Arc::new(fixed), NOW);
    let words = "In-place resize of static-pods is not supported";
    assert_eq!(pending(&ledger, "static"), Some(("Infeasible", words.to_owned())));
    let mut ending = Pod::clone(&pod("300m", 1, 0));
    ledger.put("ending", &Arc::new(ending.clone()), NOW);
    ending.spec = pod("400m", 1, 0).spec.clone();
    ending.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    ledger.put("ending", &Arc::new(ending), NOW);
    assert_eq!((cpu(&ledger, "ending"), pending(&ledger, "ending")), (300, None));
}
