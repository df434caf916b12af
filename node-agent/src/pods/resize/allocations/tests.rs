//! What is kept for the next agent, and when others are told.

use serde_json::json;

use super::*;
use crate::pods::resize::Requests;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const HERE: AdmittingNode<'_> = AdmittingNode { name: "n1", node: None };

fn file(directory: &tempfile::TempDir) -> LastKnown<KeptAllocations> {
    LastKnown::new(directory.path(), "allocations", KeptAllocations::VERSION).reading_from(KeptAllocations::OLDEST)
}

fn load(directory: &tempfile::TempDir) -> Allocations {
    Allocations::load(Capacity { resources: Requests { cpu: 1000, memory: 1000 }, pods: 9 }, file(directory))
}

fn pod(uid: &str, cpu: &str) -> Arc<Pod> {
    let container = json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } });
    let pod = json!({ "metadata": { "name": uid, "uid": uid }, "spec": { "containers": [container] } });
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[tokio::test]
async fn what_is_stored_is_what_the_next_agent_starts_from() {
    let directory = tempfile::tempdir().unwrap();
    let before = load(&directory);
    before.put("a", &pod("a", "300m"), HERE, NOW).unwrap();
    before.record_actuated("a", "id", Amounts { cpu_request: Some(300), ..Amounts::default() });
    before.record_restart("a", "stopped");
    before.store().await.unwrap();
    let after = load(&directory);
    after.adopt(&[pod("a", "2")], &HashMap::new(), NOW);
    assert_eq!(after.grant("a").unwrap().allocated, Allocation::of(&pod("a", "300m")));
    assert_eq!(after.actuated("a", "id").unwrap().cpu_request, Some(300));
    assert!(after.is_restarting("a", "stopped") && !after.is_restarting("a", "id"));
}

#[test]
fn a_file_of_the_version_before_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let older = LastKnown::<serde_json::Value>::new(directory.path(), "allocations", 1);
    let allocated = json!({ "a": { "c": { "requests": { "cpu": "300m" } } } });
    older.store(&json!({ "allocated": allocated, "actuated": {} })).unwrap();
    let after = load(&directory);
    after.adopt(&[pod("a", "2")], &HashMap::new(), NOW);
    assert_eq!(after.grant("a").unwrap().allocated, Allocation::of(&pod("a", "300m")));
}

#[test]
fn nothing_is_kept_of_containers_and_pods_that_are_no_more() {
    let allocations = load(&tempfile::tempdir().unwrap());
    allocations.put("a", &pod("a", "300m"), HERE, NOW).unwrap();
    for id in ["old", "new"] {
        allocations.record_actuated("a", id, Amounts::default());
    }
    allocations.record_restart("a", "old");
    allocations.forget_containers("a", &["old".to_owned()]);
    assert_eq!((allocations.actuated("a", "old"), allocations.is_restarting("a", "old")), (None, false));
    assert!(allocations.actuated("a", "new").is_some());
    allocations.release("a", NOW);
    assert_eq!((allocations.grant("a"), allocations.actuated("a", "new")), (None, None));
}

#[test]
fn a_pod_that_was_released_does_not_come_back_by_an_update() {
    let allocations = load(&tempfile::tempdir().unwrap());
    allocations.put("a", &pod("a", "300m"), HERE, NOW).unwrap();
    assert!(allocations.update("a", &pod("a", "200m"), NOW).is_some());
    allocations.release("a", NOW);
    assert_eq!(allocations.update("a", &pod("a", "200m"), NOW), None);
    assert_eq!(allocations.grant("a"), None);
}

#[test]
fn others_are_told_only_when_one_of_them_gets_more() {
    let allocations = load(&tempfile::tempdir().unwrap());
    for (uid, cpu) in [("a", "400m"), ("b", "300m"), ("c", "300m")] {
        allocations.put(uid, &pod(uid, cpu), HERE, NOW).unwrap();
    }
    allocations.put("a", &pod("a", "900m"), HERE, NOW).unwrap();
    let changes = allocations.changes();
    allocations.release("b", NOW);
    assert!(!changes.has_changed().unwrap());
    allocations.release("c", NOW);
    assert!(changes.has_changed().unwrap());
}
