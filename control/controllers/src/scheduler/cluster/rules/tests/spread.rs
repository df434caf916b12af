//! Topology spread. The expected scores are those of kube-scheduler's own tests.

use kube::core::Selector;

use super::*;

const SKEWED: &str = "node(s) didn't match pod topology spread constraints";
const NO_DOMAIN: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

fn constraint(max_skew: i32, key: &str, action: &str, more: Value) -> Value {
    let mut constraint = json!({"maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": action,
        "labelSelector": {"matchLabels": {"app": "web"}}});
    constraint.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    constraint
}

fn spread(constraints: Value) -> Arc<Needs> {
    pod(json!({"app": "web"}), json!({"topologySpreadConstraints": constraints}))
}

fn hard(more: Value) -> Arc<Needs> {
    spread(json!([constraint(1, "zone", "DoNotSchedule", more)]))
}

fn web() -> Arc<Needs> {
    pod(json!({"app": "web"}), json!({}))
}

/// Zones a and b of one node, with so many pods each.
fn zones(counts: [usize; 2]) -> Cluster {
    let mut cluster = cluster(&[("a", json!({"zone": "a"})), ("b", json!({"zone": "b"}))]);
    place(&mut cluster, "a", counts[0], &web());
    place(&mut cluster, "b", counts[1], &web());
    cluster
}

#[test]
fn a_hard_constraint_allows_no_more_than_its_skew() {
    let needs = hard(json!({}));
    assert_eq!(refusals(&mut zones([0, 0]), &needs), [None, None]);
    assert_eq!(refusals(&mut zones([1, 0]), &needs), [Some(SKEWED), None]);
    assert_eq!(refusals(&mut zones([1, 1]), &needs), [None, None]);
    let mut cluster = zones([1, 1]);
    add_node(&mut cluster, "nowhere", json!({}), json!({}));
    assert_eq!(refusals(&mut cluster, &needs), [None, None, Some(NO_DOMAIN)]);
}

#[test]
fn with_fewer_domains_than_asked_for_the_fewest_pods_count_as_none() {
    let (two, three) = (hard(json!({"minDomains": 2})), hard(json!({"minDomains": 3})));
    assert_eq!(refusals(&mut zones([1, 1]), &two), [None, None]);
    assert_eq!(refusals(&mut zones([1, 1]), &three), [Some(SKEWED); 2]);
    assert_eq!(refusals(&mut zones([1, 0]), &three), [Some(SKEWED), None]);
    let mut cluster = zones([1, 1]);
    add_node(&mut cluster, "c", json!({"zone": "c"}), json!({}));
    place(&mut cluster, "c", 1, &web());
    assert_eq!(refusals(&mut cluster, &three), [None, None, None]);
}

#[test]
fn tainted_nodes_count_unless_the_constraint_says_otherwise() {
    let tainted = || {
        let mut cluster = cluster(&[("a", json!({"zone": "a"}))]);
        let taints = json!({"taints": [{"key": "maintenance", "effect": "NoSchedule"}]});
        add_node(&mut cluster, "b", json!({"zone": "b"}), taints);
        place(&mut cluster, "a", 1, &web());
        cluster
    };
    for ignoring in [json!({}), json!({"nodeTaintsPolicy": "Ignore"})] {
        assert_eq!(refusals(&mut tainted(), &hard(ignoring))[0], Some(SKEWED), "zone b is empty");
    }
    assert_eq!(refusals(&mut tainted(), &hard(json!({"nodeTaintsPolicy": "Honor"})))[0], None);
}

#[test]
fn nodes_that_the_pod_does_not_select_do_not_count_unless_the_constraint_says_otherwise() {
    let selecting = |more: Value| {
        let constraints = json!([constraint(1, "zone", "DoNotSchedule", more)]);
        let spec = json!({"nodeSelector": {"zone": "a"}, "topologySpreadConstraints": constraints});
        pod(json!({"app": "web"}), spec)
    };
    for honoring in [json!({}), json!({"nodeAffinityPolicy": "Honor"})] {
        assert_eq!(refusals(&mut zones([1, 0]), &selecting(honoring))[0], None);
    }
    assert_eq!(refusals(&mut zones([1, 0]), &selecting(json!({"nodeAffinityPolicy": "Ignore"})))[0], Some(SKEWED));
}

#[test]
fn nodes_must_be_in_a_domain_of_every_constraint_to_count() {
    let both = spread(json!([
        constraint(1, "zone", "DoNotSchedule", json!({})),
        constraint(1, "rack", "DoNotSchedule", json!({})),
    ]));
    let mut cluster = cluster(&[
        ("a", json!({"zone": "a", "rack": "1"})),
        ("b", json!({"zone": "b", "rack": "2"})),
        ("c", json!({"zone": "c"})),
    ]);
    place(&mut cluster, "a", 1, &web());
    place(&mut cluster, "b", 1, &web());
    assert_eq!(refusals(&mut cluster, &both), [None, None, Some(NO_DOMAIN)], "the empty zone c does not count");
}

#[test]
fn terminating_pods_and_those_of_other_namespaces_are_not_spread() {
    let mut cluster = zones([0, 0]);
    let mut ending = Needs::clone(&web());
    ending.terminating = true;
    place(&mut cluster, "a", 2, &Arc::new(ending));
    place(&mut cluster, "a", 2, &pod_in("other", json!({"app": "web"}), json!({})));
    assert_eq!(refusals(&mut cluster, &hard(json!({}))), [None, None]);
}

#[test]
fn a_selector_of_all_pods_counts_none_as_in_kubernetes() {
    let needs = hard(json!({"labelSelector": {}}));
    assert_eq!(refusals(&mut zones([5, 0]), &needs), [None, None]);
}

const HOST: &str = "kubernetes.io/hostname";

/// Nodes named by their first letters, each with so many pods.
fn hosts(counts: &[(&str, usize)]) -> Cluster {
    let mut cluster = cluster(&[]);
    for (name, count) in counts {
        add_node(&mut cluster, name, json!({HOST: name}), json!({}));
        place(&mut cluster, name, *count, &web());
    }
    cluster
}

fn soft(max_skew: i32, key: &str) -> Value {
    constraint(max_skew, key, "ScheduleAnyway", json!({}))
}

#[test]
fn the_fewer_pods_a_node_has_the_better_it_is() {
    let all = ["a", "b", "c", "d"];
    let score = |max_skew: i32, counts: [usize; 4]| {
        let nodes: Vec<(&str, usize)> = all.into_iter().zip(counts).collect();
        scores(&mut hosts(&nodes), &spread(json!([soft(max_skew, HOST)])), None, &all)
    };
    assert_eq!(score(1, [0, 0, 0, 0]), [100, 100, 100, 100]);
    assert_eq!(score(1, [1, 1, 1, 1]), [100, 100, 100, 100]);
    assert_eq!(score(1, [2, 1, 0, 3]), [20, 60, 100, 0]);
    assert_eq!(score(2, [2, 1, 0, 3]), [33, 66, 100, 16]);
    assert_eq!(score(3, [4, 3, 2, 1]), [44, 66, 77, 100]);
}

#[test]
fn only_candidates_set_the_scale_and_those_in_no_domain_are_worst() {
    let needs = spread(json!([soft(1, HOST)]));
    let mut cluster = hosts(&[("a", 4), ("b", 2), ("x", 1), ("y", 3)]);
    assert_eq!(scores(&mut cluster, &needs, None, &["a", "b", "x"]), [33, 83, 100]);
    let mut cluster = hosts(&[("a", 4), ("x", 1), ("y", 3)]);
    add_node(&mut cluster, "b", json!({"n": "b"}), json!({}));
    place(&mut cluster, "b", 2, &web());
    assert_eq!(scores(&mut cluster, &needs, None, &["a", "b", "x"]), [16, 0, 100]);
}

/// Nodes a and b in zone 1, x and y in zone 2.
fn zoned(counts: [usize; 4]) -> Cluster {
    let mut cluster = cluster(&[]);
    for ((name, zone), count) in [("a", "1"), ("b", "1"), ("x", "2"), ("y", "2")].into_iter().zip(counts) {
        add_node(&mut cluster, name, json!({HOST: name, "zone": zone}), json!({}));
        place(&mut cluster, name, count, &web());
    }
    cluster
}

#[test]
fn pods_of_a_domain_count_wherever_they_are_in_it() {
    let zone = spread(json!([soft(1, "zone")]));
    assert_eq!(scores(&mut zoned([4, 2, 1, 3]), &zone, None, &["a", "b", "x"]), [75, 75, 100]);
    let both = spread(json!([soft(1, "zone"), soft(1, HOST)]));
    assert_eq!(scores(&mut zoned([2, 1, 2, 4]), &both, None, &["a", "x"]), [100, 63]);
}

#[test]
fn the_policies_of_a_constraint_hold_for_scores_too() {
    let mut cluster = zoned([1, 0, 0, 0]);
    let taints = json!({"taints": [{"key": "maintenance", "effect": "NoSchedule"}]});
    add_node(&mut cluster, "z", json!({HOST: "z", "zone": "2"}), taints);
    place(&mut cluster, "z", 3, &web());
    let zone = |more: Value| spread(json!([constraint(1, "zone", "ScheduleAnyway", more)]));
    let score = |cluster: &mut Cluster, more: Value| scores(cluster, &zone(more), None, &["a", "x"]);
    assert_eq!(score(&mut cluster, json!({})), [100, 25]);
    assert_eq!(score(&mut cluster, json!({"nodeTaintsPolicy": "Honor"})), [0, 100]);
}

#[test]
fn pods_without_constraints_are_spread_with_those_that_the_same_selects() {
    let all = ["a", "b", "c", "d"];
    let mut cluster = hosts(&[("a", 4), ("b", 3), ("c", 2), ("d", 1)]);
    let selector: Selector = [("app".to_owned(), "web".to_owned())].into_iter().collect();
    assert_eq!(scores(&mut cluster, &web(), Some(&selector), &all), [44, 66, 77, 100], "without zones, by node");
    assert_eq!(scores(&mut cluster, &web(), None, &all), [0; 4], "nothing selects it");
    let declares = spread(json!([constraint(5, "zone", "DoNotSchedule", json!({}))]));
    assert_eq!(scores(&mut cluster, &declares, Some(&selector), &all), [0; 4], "it says itself how");
}
