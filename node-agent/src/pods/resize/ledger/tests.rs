//! Who gets what, pod by pod.

use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A node of one core and 1000 bytes, for four pods.
fn node() -> Ledger {
    node_after(BTreeMap::new())
}

fn node_after(earlier: BTreeMap<String, Allocation>) -> Ledger {
    Ledger::new(Capacity { resources: Requests { cpu: 1000, memory: 1000 }, pods: 4 }, earlier)
}

/// The same pod, with a uid and known to an earlier agent.
fn running(uid: &str, pod: &Arc<Pod>) -> Arc<Pod> {
    let mut pod = Pod::clone(pod);
    pod.metadata.uid = Some(uid.to_owned());
    pod.status = serde_json::from_value(json!({ "phase": "Running", "startTime": "1970-01-01T00:00:00Z" })).unwrap();
    Arc::new(pod)
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
    ledger.put("a", &pod("300m", 1, 0), NOW).unwrap();
    ledger.put("b", &pod("300m", 1, 0), NOW).unwrap();
    assert!(ledger.put("a", &pod("700m", 2, 0), NOW).unwrap().is_empty());
    assert_eq!((cpu(&ledger, "a"), ledger.held("a").unwrap().generation), (700, Some(2)));
    ledger.put("a", &pod("800m", 3, 0), NOW).unwrap();
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
    ledger.put("a", &pod("300m", 1, 0), NOW).unwrap();
    ledger.put("a", &pod("1001m", 2, 0), NOW).unwrap();
    let words = "Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000";
    assert_eq!(pending(&ledger, "a"), Some(("Infeasible", words.to_owned())));
    ledger.put("a", &pod("0.3", 3, 0), NOW).unwrap();
    assert_eq!(pending(&ledger, "a"), None, "it asks for what it has");
    assert_eq!(ledger.held("a").unwrap().generation, None, "no resize was granted");
}

#[test]
fn a_pod_that_shrinks_makes_room_for_the_most_important_that_waits() {
    let mut ledger = node();
    for (uid, asked, priority) in [("a", "400m", 0), ("low", "300m", 1), ("high", "300m", 2)] {
        ledger.put(uid, &pod(asked, 1, priority), NOW).unwrap();
    }
    for (uid, priority) in [("low", 1), ("high", 2)] {
        ledger.put(uid, &pod("500m", 2, priority), NOW).unwrap();
        assert_eq!(pending(&ledger, uid).unwrap().0, "Deferred");
    }
    let later = Timestamp::from_second(5).unwrap();
    let changed = ledger.put("a", &pod("200m", 2, 0), later).unwrap();
    assert_eq!((cpu(&ledger, "high"), cpu(&ledger, "low")), (500, 300));
    assert_eq!(changed, BTreeSet::from(["high".to_owned()]));
    assert_eq!(ledger.held("low").unwrap().pending.as_ref().unwrap().since, NOW, "it waits since it asked");
}

#[test]
fn what_shrinks_fits_on_a_node_that_is_too_full() {
    let mut ledger = node();
    let pods = ["a", "b"].map(|uid| running(uid, &pod("700m", 1, 0)));
    ledger.adopt(&pods, |_, _| None, NOW);
    ledger.put("a", &pod("600m", 2, 0), NOW).unwrap();
    assert_eq!((cpu(&ledger, "a"), pending(&ledger, "a")), (600, None));
    ledger.put("a", &pod("700m", 3, 0), NOW).unwrap();
    assert_eq!(pending(&ledger, "a").map(|(reason, _)| reason), Some("Deferred"));
}

#[test]
fn what_an_earlier_agent_granted_is_held_and_a_change_meanwhile_is_a_resize() {
    let mut before = node();
    before.put("a", &pod("300m", 1, 0), NOW).unwrap();
    let mut ledger = node_after(before.allocations());
    assert_eq!(ledger.allocations(), before.allocations(), "kept before the pod is seen again");
    ledger.put("a", &pod("2", 2, 0), NOW).unwrap();
    assert_eq!((pending(&ledger, "a").unwrap().0, cpu(&ledger, "a")), ("Infeasible", 300));
}

#[test]
fn after_a_restart_nothing_is_granted_before_all_pods_are_in() {
    let mut before = node();
    before.put("a", &pod("300m", 1, 0), NOW).unwrap();
    before.put("b", &pod("600m", 1, 0), NOW).unwrap();
    before.put("a", &pod("700m", 2, 0), NOW).unwrap();
    assert_eq!(pending(&before, "a").unwrap().0, "Deferred");
    // The one that waits is listed first.
    let [a, b] = [running("a", &pod("700m", 2, 0)), running("b", &pod("600m", 1, 0))];
    let mut ledger = node_after(before.allocations());
    assert!(ledger.adopt(&[a.clone(), b.clone()], |_, _| None, NOW).is_empty());
    assert_eq!((cpu(&ledger, "a"), pending(&ledger, "a").unwrap().0), (300, "Deferred"));
    assert_eq!(cpu(&ledger, "b"), 600);
    assert!(ledger.put("a", &a, NOW).unwrap().is_empty());
    assert_eq!(cpu(&ledger, "a"), 300);
    // What a pod held that is no more is free.
    let mut ledger = node_after(before.allocations());
    assert_eq!(ledger.adopt(std::slice::from_ref(&a), |_, _| None, NOW), BTreeSet::from(["a".to_owned()]));
    assert_eq!((cpu(&ledger, "a"), ledger.allocations().len()), (700, 1));
}

#[test]
fn a_deferred_pod_whose_message_alone_changes_is_not_told() {
    let mut ledger = node();
    for (uid, asked) in [("a", "400m"), ("b", "300m"), ("c", "300m")] {
        ledger.put(uid, &pod(asked, 1, 0), NOW).unwrap();
    }
    ledger.put("a", &pod("900m", 2, 0), NOW).unwrap();
    assert!(ledger.remove("b", NOW).is_empty(), "it still does not fit");
    assert_eq!(ledger.remove("c", NOW), BTreeSet::from(["a".to_owned()]));
}

#[test]
fn a_new_pod_that_does_not_fit_is_rejected_and_holds_nothing() {
    let mut ledger = node();
    ledger.put("a", &pod("700m", 1, 0), NOW).unwrap();
    let message = "Node didn't have enough resource: cpu, requested: 301, used: 700, capacity: 1000".to_owned();
    assert_eq!(ledger.put("b", &pod("301m", 1, 0), NOW), Err(Rejection { reason: "OutOfcpu", message }));
    assert!(ledger.held("b").is_none());
    let mut large = Pod::clone(&pod("0", 1, 0));
    let requests = json!({ "requests": { "memory": "901" } });
    large.spec.as_mut().unwrap().containers[0].resources = serde_json::from_value(requests).unwrap();
    let message = "Node didn't have enough resource: memory, requested: 901, used: 100, capacity: 1000".to_owned();
    assert_eq!(ledger.put("b", &Arc::new(large), NOW), Err(Rejection { reason: "OutOfmemory", message }));
    assert_eq!(ledger.put("critical", &pod("2", 1, 2_000_000_000), NOW), Ok(BTreeSet::new()));
    for uid in ["b", "c"] {
        ledger.put(uid, &pod("0", 1, 0), NOW).unwrap();
    }
    let message = "Node didn't have enough resource: pods, requested: 1, used: 4, capacity: 4".to_owned();
    assert_eq!(ledger.put("d", &pod("0", 1, 0), NOW), Err(Rejection { reason: "OutOfpods", message }));
}

#[test]
fn pods_that_run_already_are_never_rejected_and_hold_what_they_were_created_with() {
    let mut ledger = node();
    let mut reported = Pod::clone(&running("reported", &pod("900m", 2, 0)));
    reported.status.as_mut().unwrap().container_statuses = serde_json::from_value(json!([{ "name": "c", "image": "i",
        "imageID": "", "ready": true, "restartCount": 0, "allocatedResources": { "cpu": "600m", "memory": "100" } }]))
    .unwrap();
    let pods = [running("labelled", &pod("900m", 2, 0)), Arc::new(reported), running("unknown", &pod("300m", 1, 0))];
    let created = Amounts { cpu_request: Some(400), memory_request: Some(100), ..Amounts::default() };
    ledger.adopt(&pods, |uid, _| (uid == "labelled").then_some(created), NOW);
    assert_eq!(["labelled", "reported", "unknown"].map(|uid| cpu(&ledger, uid)), [400, 600, 300]);
    assert_eq!(pending(&ledger, "labelled").unwrap().0, "Deferred");
}

#[test]
fn a_static_pod_and_one_that_ends_keep_what_they_have() {
    let mut ledger = node();
    let mut fixed = Pod::clone(&pod("300m", 1, 0));
    fixed.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    ledger.put("static", &Arc::new(fixed.clone()), NOW).unwrap();
    fixed.spec = pod("400m", 1, 0).spec.clone();
    ledger.put("static", &Arc::new(fixed), NOW).unwrap();
    let words = "In-place resize of static-pods is not supported";
    assert_eq!(pending(&ledger, "static"), Some(("Infeasible", words.to_owned())));
    let mut ending = Pod::clone(&pod("300m", 1, 0));
    ledger.put("ending", &Arc::new(ending.clone()), NOW).unwrap();
    ending.spec = pod("400m", 1, 0).spec.clone();
    ending.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    ledger.put("ending", &Arc::new(ending), NOW).unwrap();
    assert_eq!((cpu(&ledger, "ending"), pending(&ledger, "ending")), (300, None));
}
