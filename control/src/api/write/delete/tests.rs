//! What a deletion does to an object.

use super::*;
use crate::kinds::Kinds;

fn kind(group: &str, plural: &str) -> Arc<Kind> {
    Kinds::built_in().by_path(group, "v1", plural).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn pod(node: &str) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 20}})
}

#[test]
fn a_grace_without_end_is_no_accident() {
    let options = DeleteOptions { grace_period_seconds: Some(i64::MAX), ..DeleteOptions::default() };
    let now = at("2024-01-01T00:00:00Z");
    let DeletionStep::Mark(marked) = step(&kind("", "pods"), &pod("n"), &options, now) else {
        panic!("its node ends it")
    };
    assert_eq!(marked["metadata"]["deletionTimestamp"], "9999-12-30T22:00:00Z");
    let hasty = DeleteOptions { grace_period_seconds: Some(-5), ..DeleteOptions::default() };
    let DeletionStep::Mark(marked) = step(&kind("", "pods"), &pod("n"), &hasty, now) else {
        panic!("its node ends it")
    };
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 1);
    let DeletionStep::Mark(_) = step(&kind("", "pods"), &marked, &options, Timestamp::MIN) else { return };
}

#[test]
fn the_last_generation_stays_the_last() {
    let mut old = pod("n");
    old["metadata"]["generation"] = json!(i64::MAX);
    let now = at("2024-01-01T00:00:00Z");
    let DeletionStep::Mark(marked) = step(&kind("", "pods"), &old, &DeleteOptions::default(), now) else {
        panic!("it has grace")
    };
    assert_eq!(marked["metadata"]["generation"], json!(i64::MAX));
}

#[test]
fn a_pod_on_a_node_gets_its_grace_and_goes_with_a_deletion_without() {
    let pods = kind("", "pods");
    let DeletionStep::Mark(marked) = step(&pods, &pod("n"), &DeleteOptions::default(), at("2024-01-01T00:00:00Z"))
    else {
        panic!("a running pod is marked");
    };
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2024-01-01T00:00:20Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 20);
    let later = at("2024-01-01T00:00:05Z");
    assert_eq!(step(&pods, &marked, &DeleteOptions::default(), later), DeletionStep::Keep);
    let shorter = DeleteOptions { grace_period_seconds: Some(5), ..DeleteOptions::default() };
    let DeletionStep::Mark(shortened) = step(&pods, &marked, &shorter, later) else { panic!("the wait is shortened") };
    assert_eq!(shortened["metadata"]["deletionTimestamp"], "2024-01-01T00:00:05Z");
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    assert_eq!(step(&pods, &marked, &now, later), DeletionStep::Remove);
}

#[test]
fn a_pod_that_is_gone_says_that_it_was_told_to_end() {
    let pods = kind("", "pods");
    let mut stored = pod("");
    stored["metadata"]["generation"] = json!(1);
    let object = Object::new(encode::draft(&pods, &stored), 7, EventType::Modified);
    let shown = ended(&pods, &object).unwrap().value().unwrap();
    let metadata = &shown["metadata"];
    assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["generation"]), (&json!(0), &json!(2)));
    assert!(metadata["deletionTimestamp"].is_string());
}

#[test]
fn a_pod_that_no_node_runs_goes_at_once() {
    let pods = kind("", "pods");
    let now = at("2024-01-01T00:00:00Z");
    assert_eq!(step(&pods, &pod(""), &DeleteOptions::default(), now), DeletionStep::Remove);
    let mut over = pod("n");
    over["status"] = json!({"phase": "Succeeded"});
    assert_eq!(step(&pods, &over, &DeleteOptions::default(), now), DeletionStep::Remove);
}

#[test]
fn finalizers_hold_an_object_and_policies_are_finalizers() {
    let maps = kind("", "configmaps");
    let now = at("2024-01-01T00:00:00Z");
    let held = json!({"metadata": {"name": "c", "finalizers": ["a/b"]}});
    let DeletionStep::Mark(marked) = step(&maps, &held, &DeleteOptions::default(), now) else { panic!("it is held") };
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let free = json!({"metadata": {"name": "c"}});
    for (propagation, finalizer) in [(Propagation::Orphan, ORPHAN), (Propagation::Foreground, FOREGROUND)] {
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let DeletionStep::Mark(marked) = step(&maps, &free, &options, now) else { panic!("it is held by its policy") };
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    let orphaned = json!({"metadata": {"name": "c", "finalizers": [ORPHAN]}});
    assert_eq!(step(&maps, &orphaned, &options, now), DeletionStep::Remove);
}

#[test]
fn pods_of_a_job_stay_unless_they_are_named() {
    let jobs = Kinds::built_in().by_path("batch", "v1", "jobs").unwrap();
    let now = at("2024-01-01T00:00:00Z");
    let job = json!({"metadata": {"name": "j"}});
    let DeletionStep::Mark(marked) = step(&jobs, &job, &DeleteOptions::default(), now) else {
        panic!("its pods are orphaned")
    };
    assert_eq!(marked["metadata"]["finalizers"], json!([ORPHAN]));
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    assert_eq!(step(&jobs, &job, &options, now), DeletionStep::Remove);
    let foreground = json!({"metadata": {"name": "j", "finalizers": [FOREGROUND]}});
    let DeletionStep::Mark(marked) = step(&jobs, &foreground, &DeleteOptions::default(), now) else {
        panic!("it is held")
    };
    assert_eq!(marked["metadata"]["finalizers"], json!([FOREGROUND]), "it says so itself");
}

#[test]
fn a_namespace_is_terminating_until_it_is_finalized() {
    let namespace =
        json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let step = step(&kind("", "namespaces"), &namespace, &DeleteOptions::default(), at("2024-01-01T00:00:00Z"));
    let DeletionStep::Mark(marked) = step else { panic!("its content goes first") };
    assert_eq!(marked["status"]["phase"], "Terminating");
}

#[test]
fn a_definition_and_a_namespace_are_told_the_time_of_their_deletion_alone() {
    let definitions = kind("apiextensions.k8s.io", "customresourcedefinitions");
    let object = json!({"metadata": {"name": "d", "generation": 1}, "status": {}});
    let options = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    let DeletionStep::Mark(marked) = step(&definitions, &object, &options, at("2024-01-01T00:00:00Z")) else {
        panic!("its objects go first");
    };
    let metadata = &marked["metadata"];
    assert_eq!(metadata["deletionTimestamp"], "2024-01-01T00:00:00Z");
    assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["generation"]), (&Value::Null, &json!(1)));
    assert_eq!(metadata["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
}

#[test]
fn contradicting_options_are_refused() {
    assert!(DeleteOptions::read(&json!({"propagationPolicy": "Sideways"}), None, None, None).is_err());
    assert!(
        DeleteOptions::read(&json!({"propagationPolicy": "Orphan", "orphanDependents": true}), None, None, None)
            .is_err()
    );
}
