//! Who makes room for whom, as tables.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::scheduler::{node::NodeProperties, pod::PodInfo};

const NODES: [&str; 2] = ["a", "b"];

/// Two nodes of four cores.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for name in NODES {
        let node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" },
                "conditions": [{ "type": "Ready", "status": "True" }] } });
        cluster.set_node(NodeProperties::read(&serde_json::from_value(node).expect("a valid node")));
    }
    cluster
}

fn pod(name: &str, priority: i32, cpu: &str, more: Value) -> Arc<Needs> {
    let mut pod = json!({ "metadata": { "name": name, "namespace": "default", "labels": { "app": name } }, "spec": {
        "priority": priority, "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] } });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    Arc::new(PodInfo::read(&serde_json::from_value(pod).expect("a valid pod")).needs)
}

/// Places pods, each with its node, name, priority and cores.
fn place(cluster: &mut Cluster, pods: &[(&str, &str, i32, &str)]) {
    for (node, name, priority, cpu) in pods {
        cluster.place(name, node, pod(name, *priority, cpu, json!({})));
    }
}

fn budget(app: &str, allowed: i32) -> Budget {
    let budget = json!({ "metadata": { "name": app, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": app } } }, "status": { "disruptionsAllowed": allowed,
            "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 } });
    Budget::read(&serde_json::from_value(budget).expect("a valid budget")).expect("it selects pods")
}

fn started(second: i64) -> RunningState {
    RunningState { started_at: Timestamp::from_second(second).ok(), ..RunningState::default() }
}

/// Node and victims, or why nobody makes room.
fn decided(
    cluster: &Cluster,
    needs: &Needs,
    budgets: Vec<Budget>,
    state_of: &dyn Fn(&Needs) -> RunningState,
) -> Result<(String, Vec<String>), String> {
    let facts = Facts { budgets: &Box::new(budgets), state_of };
    let preemption = decide(cluster, Candidate { uid: "preemptor", needs, siblings: None }, &facts);
    let preemption = preemption.map_err(|refusal| refusal.reason().to_owned())?;
    Ok((preemption.node, preemption.victims.into_iter().map(|victim| victim.key.name).collect()))
}

fn victims(node: &str, names: &[&str]) -> Result<(String, Vec<String>), String> {
    Ok((node.to_owned(), names.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn as_few_as_possible_go_and_the_least_important_ones() {
    let mut cluster = cluster();
    place(&mut cluster, &[("a", "low", 1, "1"), ("a", "lower", 0, "1"), ("a", "equal", 10, "2")]);
    place(&mut cluster, &[("b", "high", 11, "4")]);
    let at = |_: &Needs| started(0);
    assert_eq!(decided(&cluster, &pod("p", 10, "1", json!({})), vec![], &at), victims("a", &["lower"]));
    assert_eq!(decided(&cluster, &pod("p", 10, "2", json!({})), vec![], &at), victims("a", &["low", "lower"]));
    assert_eq!(
        decided(&cluster, &pod("p", 10, "3", json!({})), vec![], &at).expect_err("equals stay"),
        "0/2 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod."
    );
    let younger_goes = |pod: &Needs| started(if pod.name == "low" { 100 } else { 50 });
    place(&mut cluster, &[("a", "lower", 1, "1")]);
    assert_eq!(decided(&cluster, &pod("p", 10, "1", json!({})), vec![], &younger_goes), victims("a", &["low"]));
}

#[test]
fn the_node_is_taken_whose_victims_matter_least() {
    let at = |_: &Needs| started(0);
    let wants = pod("p", 10, "4", json!({}));
    for (a, b, taken) in [
        (vec![("a", "a1", 5, "4")], vec![("b", "b1", 4, "4")], victims("b", &["b1"])),
        (vec![("a", "a1", 4, "4")], vec![("b", "b1", 4, "2"), ("b", "b2", 4, "2")], victims("a", &["a1"])),
        (
            vec![("a", "a1", 4, "2"), ("a", "a2", 3, "2")],
            vec![("b", "b1", 4, "2"), ("b", "b2", 2, "2")],
            victims("b", &["b1", "b2"]),
        ),
    ] {
        let mut cluster = cluster();
        place(&mut cluster, &a);
        place(&mut cluster, &b);
        assert_eq!(decided(&cluster, &wants, vec![], &at), taken);
    }
    let mut cluster = cluster();
    place(&mut cluster, &[("a", "a1", 4, "4"), ("b", "b1", 4, "4")]);
    let a_is_younger = |pod: &Needs| started(if pod.name == "a1" { 9 } else { 3 });
    assert_eq!(decided(&cluster, &wants, vec![], &a_is_younger), victims("a", &["a1"]));
}

#[test]
fn a_budget_protects_its_pods_as_long_as_others_can_go() {
    let at = |_: &Needs| started(0);
    let mut cluster = cluster();
    place(&mut cluster, &[("a", "guarded", 1, "2"), ("a", "free", 2, "2"), ("b", "high", 11, "4")]);
    let wants = pod("p", 10, "2", json!({}));
    assert_eq!(decided(&cluster, &wants, vec![], &at), victims("a", &["guarded"]));
    assert_eq!(decided(&cluster, &wants, vec![budget("guarded", 1)], &at), victims("a", &["guarded"]));
    assert_eq!(decided(&cluster, &wants, vec![budget("guarded", 0)], &at), victims("a", &["free"]));
    let both = pod("p", 10, "4", json!({}));
    let broken = decided(&cluster, &both, vec![budget("guarded", 0)], &at);
    assert_eq!(broken, victims("a", &["free", "guarded"]), "a budget is broken where nothing else helps");
    place(&mut cluster, &[("b", "high", 9, "4")]);
    let unbroken = decided(&cluster, &both, vec![budget("guarded", 0)], &at);
    assert_eq!(unbroken, victims("b", &["high"]), "rather one of a higher priority");
}

#[test]
fn nobody_goes_where_that_does_not_help() {
    let at = |_: &Needs| started(0);
    let mut cluster = cluster();
    place(&mut cluster, &[("a", "low", 1, "4"), ("b", "other", 1, "4")]);
    let only_b = json!({ "nodeSelector": { "kubernetes.io/hostname": "b" } });
    assert_eq!(decided(&cluster, &pod("p", 10, "1", only_b), vec![], &at), victims("b", &["other"]));
    let never = pod("p", 10, "1", json!({ "preemptionPolicy": "Never" }));
    assert_eq!(decided(&cluster, &never, vec![], &at).unwrap_err(), "not eligible due to preemptionPolicy=Never.");
    assert_eq!(
        decided(&cluster, &pod("p", 10, "5", json!({})), vec![], &at).unwrap_err(),
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn anti_affinity_is_made_room_for_too() {
    let at = |_: &Needs| started(0);
    let mut cluster = cluster();
    place(&mut cluster, &[("a", "db", 1, "100m"), ("a", "web", 1, "100m"), ("b", "high", 11, "4")]);
    let term =
        json!([{ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "db" } } }]);
    let apart =
        json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } } });
    assert_eq!(decided(&cluster, &pod("p", 10, "1", apart), vec![], &at), victims("a", &["db"]));
}

#[test]
fn room_that_was_made_is_kept_until_the_victims_are_gone() {
    let mut cluster = cluster();
    place(&mut cluster, &[("a", "victim", 1, "4"), ("b", "high", 11, "4")]);
    let wants = pod("preemptor", 10, "4", json!({}));
    cluster.nominated_mut().insert("preemptor", Key::new("default", "preemptor"), "a", wants.clone());
    let leaving = |pod: &Needs| RunningState { terminating: true, preempted: pod.name == "victim", started_at: None };
    assert_eq!(
        decided(&cluster, &wants, vec![], &leaving).unwrap_err(),
        "not eligible due to a terminating pod on the nominated node."
    );
    cluster.remove_pod("victim");
    let late = |priority| pod("late", priority, "1", json!({}));
    let refused = cluster.choose(Candidate { uid: "late", needs: &late(10), siblings: None }).unwrap_err();
    assert_eq!(refused.message(), "0/2 nodes are available: 2 Insufficient cpu.");
    assert_eq!(cluster.choose(Candidate { uid: "late", needs: &late(11), siblings: None }).as_deref(), Ok("a"));
    assert_eq!(cluster.nominated().outranked("a", 11), [("preemptor".to_owned(), Key::new("default", "preemptor"))]);
    assert_eq!(cluster.choose(Candidate { uid: "preemptor", needs: &wants, siblings: None }).as_deref(), Ok("a"));
    cluster.nominated_mut().remove("preemptor");
    assert_eq!(cluster.choose(Candidate { uid: "late", needs: &late(0), siblings: None }).as_deref(), Ok("a"));
}
