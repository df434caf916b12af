//! Placement on whole clusters: spreading, room, what is seen before its node.

use serde_json::json;

use super::*;
use crate::scheduler::pod::PodInfo;

fn cluster(nodes: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, zone) in nodes {
        let node = serde_json::from_value(json!({"metadata": {"name": name,
                "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}]}}))
        .expect("a valid node");
        cluster.set_node(NodeProperties::read(&node));
    }
    cluster
}

fn needs(cpu: &str) -> Arc<Needs> {
    let pod = serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
    .expect("a valid pod");
    Arc::new(PodInfo::read(&pod).needs)
}

/// A pod with these needs that is nowhere yet.
fn seeker(needs: &Needs) -> Candidate<'_> {
    Candidate { uid: "seeker", needs, siblings: None }
}

fn fill(
    cluster: &mut Cluster,
    count: usize,
    needs: &Arc<Needs>,
    siblings: Option<&Selector>,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for n in 0..count {
        let node = cluster.choose(Candidate { siblings, ..seeker(needs) }).expect("a node fits");
        cluster.place(&format!("web-{n}"), &node, needs.clone());
        *counts.entry(node).or_insert(0) += 1;
    }
    counts
}

#[test]
fn pods_that_one_selector_selects_are_spread_over_nodes_and_zones() {
    let mut cluster = cluster(&[("a", "east"), ("b", "east"), ("c", "west"), ("d", "west")]);
    let siblings: Selector = [("app".to_owned(), "web".to_owned())].into_iter().collect();
    let counts = fill(&mut cluster, 8, &needs("10m"), Some(&siblings));
    assert!(counts.values().all(|count| *count == 2), "{counts:?}");
}

#[test]
fn pods_that_nothing_selects_go_where_most_is_free() {
    let mut cluster = cluster(&[("a", "z"), ("b", "z")]);
    cluster.place("big", "a", needs("3"));
    assert_eq!(fill(&mut cluster, 2, &needs("500m"), None), [("b".to_owned(), 2)].into());
}

#[test]
fn a_full_cluster_says_why_and_takes_pods_again_when_one_goes() {
    let mut cluster = cluster(&[("a", "z"), ("b", "z")]);
    let big = needs("3");
    fill(&mut cluster, 2, &big, None);
    let refused = cluster.choose(seeker(&big)).expect_err("nothing fits");
    assert_eq!(refused.message(), "0/2 nodes are available: 2 Insufficient cpu.");
    let (node, _) = cluster.remove_pod("web-0").expect("was placed");
    assert!(cluster.can_take(&node, &big));
    assert_eq!(cluster.choose(seeker(&big)).expect("fits again"), node);
}

#[test]
fn pods_seen_before_their_node_count_once_it_appears() {
    let mut cluster = cluster(&[]);
    assert_eq!(
        cluster.choose(seeker(&needs("1"))).expect_err("no node").message(),
        "no nodes available to schedule pods"
    );
    cluster.place("early", "late", needs("4"));
    let node = serde_json::from_value(json!({"metadata": {"name": "late"}, "status": {"allocatable": {"cpu": "4"},
        "conditions": [{"type": "Ready", "status": "True"}]}}))
    .expect("a valid node");
    cluster.set_node(NodeProperties::read(&node));
    assert!(!cluster.can_take("late", &needs("1")));
    cluster.remove_node("late");
    cluster.set_node(NodeProperties::read(&node));
    assert!(!cluster.can_take("late", &needs("1")));
    cluster.remove_pod("early");
    assert!(cluster.can_take("late", &needs("1")));
}

#[test]
fn a_pod_that_changes_its_labels_is_counted_as_it_is_now() {
    let mut cluster = cluster(&[("a", "east"), ("b", "west")]);
    let pod = |labels: serde_json::Value, spec: serde_json::Value| {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default", "labels": labels},
            "spec": spec}))
        .expect("a valid pod");
        Arc::new(PodInfo::read(&pod).needs)
    };
    let follower = pod(
        json!({}),
        json!({"containers": [], "affinity": {"podAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": {"matchLabels": {"app": "db"}}}]}}}),
    );
    cluster.place("db", "b", pod(json!({"app": "other"}), json!({"containers": []})));
    assert!(cluster.choose(seeker(&follower)).is_err());
    cluster.place("db", "b", pod(json!({"app": "db"}), json!({"containers": []})));
    assert_eq!(cluster.choose(seeker(&follower)).as_deref(), Ok("b"));
    cluster.remove_pod("db");
    assert!(cluster.choose(seeker(&follower)).is_err() && cluster.by_namespace.is_empty());
}

#[test]
fn large_clusters_are_sampled() {
    assert_eq!((enough(50), enough(1000), enough(10_000)), (50, 420, 500));
}
