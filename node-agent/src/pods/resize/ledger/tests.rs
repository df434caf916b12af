//! Who gets what, pod by pod.

use serde_json::json;

use super::*;
use crate::world::Node;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A node of one core and 1000 bytes, for four pods.
fn node() -> Ledger {
    node_after(BTreeMap::new())
}

fn node_after(earlier: BTreeMap<String, Allocation>) -> Ledger {
    Ledger::new(Capacity { resources: Requests { cpu: 1000, memory: 1000 }, pods: 4 }, earlier)
}

impl Ledger {
    /// [`Ledger::put`] on a node without labels and taints.
    fn take_in(&mut self, uid: &str, pod: &Arc<Pod>, now: Timestamp) -> Result<BTreeSet<String>, Rejection> {
        self.put(uid, pod, AdmittingNode { name: "n1", node: None }, now)
    }
}

/// Reason and message.
fn told(result: Result<BTreeSet<String>, Rejection>) -> Option<(&'static str, String)> {
    result.err().map(|rejection| (rejection.reason(), rejection.to_string()))
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
    ledger.grant(uid)?.pending.as_ref().map(|pending| (pending.reason, pending.message.clone()))
}

#[test]
fn a_resize_that_fits_is_granted_and_one_that_does_not_is_deferred_until_another_pod_leaves() {
    let mut ledger = node();
    ledger.take_in("a", &pod("300m", 1, 0), NOW).unwrap();
    ledger.take_in("b", &pod("300m", 1, 0), NOW).unwrap();
    assert!(ledger.take_in("a", &pod("700m", 2, 0), NOW).unwrap().is_empty());
    assert_eq!((cpu(&ledger, "a"), ledger.grant("a").unwrap().generation), (700, Some(2)));
    ledger.take_in("a", &pod("800m", 3, 0), NOW).unwrap();
    let words = "Node didn't have enough resource: cpu, requested: 800, used: 300, capacity: 1000";
    assert_eq!(pending(&ledger, "a"), Some(("Deferred", words.to_owned())));
    let grant = ledger.grant("a").unwrap();
    let allocated = grant.allocated.applied_to(&pod("800m", 3, 0));
    assert_eq!((cpu(&ledger, "a"), Requests::of(&allocated).cpu), (700, 700), "it keeps what it has");
    assert_eq!(ledger.remove("b", NOW), BTreeSet::from(["a".to_owned()]));
    assert_eq!((cpu(&ledger, "a"), pending(&ledger, "a")), (800, None));
    assert_eq!(ledger.grant("a").unwrap().generation, Some(3));
}

#[test]
fn what_the_node_could_never_give_is_infeasible() {
    let mut ledger = node();
    ledger.take_in("a", &pod("300m", 1, 0), NOW).unwrap();
    ledger.take_in("a", &pod("1001m", 2, 0), NOW).unwrap();
    let words = "Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000";
    assert_eq!(pending(&ledger, "a"), Some(("Infeasible", words.to_owned())));
    ledger.take_in("a", &pod("0.3", 3, 0), NOW).unwrap();
    assert_eq!(pending(&ledger, "a"), None, "it asks for what it has");
    assert_eq!(ledger.grant("a").unwrap().generation, None, "no resize was granted");
}

#[test]
fn a_pod_that_shrinks_makes_room_for_the_most_important_that_waits() {
    let mut ledger = node();
    for (uid, asked, priority) in [("a", "400m", 0), ("low", "300m", 1), ("high", "300m", 2)] {
        ledger.take_in(uid, &pod(asked, 1, priority), NOW).unwrap();
    }
    for (uid, priority) in [("low", 1), ("high", 2)] {
        ledger.take_in(uid, &pod("500m", 2, priority), NOW).unwrap();
        assert_eq!(pending(&ledger, uid).unwrap().0, "Deferred");
    }
    let later = Timestamp::from_second(5).unwrap();
    let changed = ledger.take_in("a", &pod("200m", 2, 0), later).unwrap();
    assert_eq!((cpu(&ledger, "high"), cpu(&ledger, "low")), (500, 300));
    assert_eq!(changed, BTreeSet::from(["high".to_owned()]));
    assert_eq!(ledger.grant("low").unwrap().pending.as_ref().unwrap().since, NOW, "it waits since it asked");
}

#[test]
fn what_shrinks_fits_on_a_node_that_is_too_full() {
    let mut ledger = node();
    let pods = ["a", "b"].map(|uid| running(uid, &pod("700m", 1, 0)));
    ledger.adopt(&pods, |_, _| None, NOW);
    ledger.take_in("a", &pod("600m", 2, 0), NOW).unwrap();
    assert_eq!((cpu(&ledger, "a"), pending(&ledger, "a")), (600, None));
    ledger.take_in("a", &pod("700m", 3, 0), NOW).unwrap();
    assert_eq!(pending(&ledger, "a").map(|(reason, _)| reason), Some("Deferred"));
}

#[test]
fn what_an_earlier_agent_granted_is_held_and_a_change_meanwhile_is_a_resize() {
    let mut before = node();
    before.take_in("a", &pod("300m", 1, 0), NOW).unwrap();
    let mut ledger = node_after(before.allocations());
    assert_eq!(ledger.allocations(), before.allocations(), "kept before the pod is seen again");
    ledger.take_in("a", &pod("2", 2, 0), NOW).unwrap();
    assert_eq!((pending(&ledger, "a").unwrap().0, cpu(&ledger, "a")), ("Infeasible", 300));
}

#[test]
fn after_a_restart_nothing_is_granted_before_all_pods_are_in() {
    let mut before = node();
    before.take_in("a", &pod("300m", 1, 0), NOW).unwrap();
    before.take_in("b", &pod("600m", 1, 0), NOW).unwrap();
    before.take_in("a", &pod("700m", 2, 0), NOW).unwrap();
    assert_eq!(pending(&before, "a").unwrap().0, "Deferred");
    // The one that waits is listed first.
    let [a, b] = [running("a", &pod("700m", 2, 0)), running("b", &pod("600m", 1, 0))];
    let mut ledger = node_after(before.allocations());
    assert!(ledger.adopt(&[a.clone(), b.clone()], |_, _| None, NOW).is_empty());
    assert_eq!((cpu(&ledger, "a"), pending(&ledger, "a").unwrap().0), (300, "Deferred"));
    assert_eq!(cpu(&ledger, "b"), 600);
    assert!(ledger.take_in("a", &a, NOW).unwrap().is_empty());
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
        ledger.take_in(uid, &pod(asked, 1, 0), NOW).unwrap();
    }
    ledger.take_in("a", &pod("900m", 2, 0), NOW).unwrap();
    assert!(ledger.remove("b", NOW).is_empty(), "it still does not fit");
    assert_eq!(ledger.remove("c", NOW), BTreeSet::from(["a".to_owned()]));
}

#[test]
fn a_new_pod_that_does_not_fit_is_rejected_and_holds_nothing() {
    let mut ledger = node();
    ledger.take_in("a", &pod("700m", 1, 0), NOW).unwrap();
    let message = "Node didn't have enough resource: cpu, requested: 301, used: 700, capacity: 1000".to_owned();
    assert_eq!(told(ledger.take_in("b", &pod("301m", 1, 0), NOW)), Some(("OutOfcpu", message)));
    assert!(ledger.grant("b").is_none());
    let mut large = Pod::clone(&pod("0", 1, 0));
    let requests = json!({ "requests": { "memory": "901" } });
    large.spec.as_mut().unwrap().containers[0].resources = serde_json::from_value(requests).unwrap();
    let message = "Node didn't have enough resource: memory, requested: 901, used: 100, capacity: 1000".to_owned();
    assert_eq!(told(ledger.take_in("b", &Arc::new(large), NOW)), Some(("OutOfmemory", message)));
    assert_eq!(ledger.take_in("critical", &pod("2", 1, 2_000_000_000), NOW), Ok(BTreeSet::new()));
    for uid in ["b", "c"] {
        ledger.take_in(uid, &pod("0", 1, 0), NOW).unwrap();
    }
    let message = "Node didn't have enough resource: pods, requested: 1, used: 4, capacity: 4".to_owned();
    assert_eq!(told(ledger.take_in("d", &pod("0", 1, 0), NOW)), Some(("OutOfpods", message)));
}

/// `pod` with a port of the node.
fn on_port(pod: &Arc<Pod>, port: i32) -> Arc<Pod> {
    let mut pod = Pod::clone(pod);
    let ports = json!([{ "containerPort": 80, "hostPort": port }]);
    pod.spec.as_mut().unwrap().containers[0].ports = serde_json::from_value(ports).unwrap();
    Arc::new(pod)
}

#[test]
fn a_host_port_is_held_until_its_pod_ends_also_while_it_terminates() {
    let mut ledger = node();
    let taken = on_port(&pod("100m", 1, 0), 8080);
    ledger.take_in("a", &taken, NOW).unwrap();
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned();
    assert_eq!(told(ledger.take_in("b", &taken, NOW)), Some(("NodePorts", message.clone())));
    assert!(ledger.grant("b").is_none());
    ledger.take_in("c", &on_port(&taken, 8081), NOW).unwrap();
    let mut terminating = Pod::clone(&taken);
    terminating.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    ledger.take_in("a", &Arc::new(terminating), NOW).unwrap();
    let critical = on_port(&pod("2", 1, 2_000_000_000), 8080);
    assert_eq!(told(ledger.take_in("critical", &critical, NOW)), Some(("NodePorts", message)));
    ledger.remove("a", NOW);
    ledger.take_in("b", &taken, NOW).unwrap();
}

#[test]
fn what_runs_already_is_not_asked_about_the_node_again() {
    let away = |uid: &str| {
        let mut away = Pod::clone(&on_port(&pod("100m", 1, 0), 8080));
        away.metadata.uid = Some(uid.to_owned());
        away.spec.as_mut().unwrap().node_selector = Some([("disk".to_owned(), "fast".to_owned())].into());
        Arc::new(away)
    };
    let mut before = node();
    let labelled = Node { labels: [("disk".to_owned(), "fast".to_owned())].into(), ..Node::default() };
    before.put("kept", &away("kept"), AdmittingNode { name: "n1", node: Some(&labelled) }, NOW).unwrap();
    // Since then the node has lost its label. An agent that knew no host ports admitted two pods with one.
    let mut ledger = node_after(before.allocations());
    let pods = [away("kept"), running("upgraded", &away("upgraded")), away("created"), away("new")];
    let created = |uid: &str, _: &str| (uid == "created").then(Amounts::default);
    ledger.adopt(&pods, created, NOW);
    for pod in &pods[..3] {
        let uid = pod.metadata.uid.as_deref().unwrap();
        assert_eq!(told(ledger.take_in(uid, pod, NOW)), None, "{uid}");
    }
    assert_eq!(told(ledger.take_in("new", &pods[3], NOW)).unwrap().0, "NodeAffinity");
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
    ledger.take_in("static", &Arc::new(fixed.clone()), NOW).unwrap();
    fixed.spec = pod("400m", 1, 0).spec.clone();
    ledger.take_in("static", &Arc::new(fixed), NOW).unwrap();
    let words = "In-place resize of static-pods is not supported";
    assert_eq!(pending(&ledger, "static"), Some(("Infeasible", words.to_owned())));
    let mut ending = Pod::clone(&pod("300m", 1, 0));
    ledger.take_in("ending", &Arc::new(ending.clone()), NOW).unwrap();
    ending.spec = pod("400m", 1, 0).spec.clone();
    ending.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    ledger.take_in("ending", &Arc::new(ending), NOW).unwrap();
    assert_eq!((cpu(&ledger, "ending"), pending(&ledger, "ending")), (300, None));
}
