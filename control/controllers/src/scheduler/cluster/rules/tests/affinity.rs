//! Affinity and anti-affinity. The expected scores are those of kube-scheduler's own tests.

use super::*;
use crate::scheduler::neighbours::Labels;

const APART: &str = "node(s) didn't match pod anti-affinity rules";
const UNWELCOME: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";

/// Two zones of one node, and two namespaces of different teams.
fn zones() -> Cluster {
    let mut cluster = cluster(&[("a", json!({"zone": "a"})), ("b", json!({"zone": "b"}))]);
    for (namespace, team) in [("default", "a"), ("other", "b")] {
        cluster.set_namespace(namespace.into(), Some(Labels::from([("team".to_owned(), team.to_owned())])));
    }
    cluster
}

fn app(name: &str, spec: Value) -> Arc<Needs> {
    pod(json!({"app": name}), spec)
}

fn plain(name: &str) -> Arc<Needs> {
    app(name, json!({}))
}

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn required(kind: &str, terms: Value) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
}

/// Why `needs` is refused in zones a and b, given where other pods are placed.
fn refused(needs: &Arc<Needs>, placed: &[(&Arc<Needs>, &str)]) -> Vec<Option<&'static str>> {
    let mut cluster = zones();
    for (needs, zone) in placed {
        place(&mut cluster, zone, 1, needs);
    }
    refusals(&mut cluster, needs)
}

#[test]
fn anti_affinity_keeps_both_apart_whoever_came_first() {
    let loner = app("web", required("podAntiAffinity", json!([term("web", "zone")])));
    assert_eq!(refused(&loner, &[(&plain("web"), "a")]), [Some(APART), None]);
    assert_eq!(refused(&plain("web"), &[(&loner, "a")]), [Some(UNWELCOME), None]);
    assert_eq!(refused(&plain("other"), &[(&loner, "a")]), [None, None]);
}

#[test]
fn affinity_follows_and_the_first_of_a_group_starts_anywhere() {
    let follower = app("web", required("podAffinity", json!([term("db", "zone")])));
    assert_eq!(refused(&follower, &[]), [Some(NOT_NEAR); 2]);
    assert_eq!(refused(&follower, &[(&plain("db"), "b")]), [Some(NOT_NEAR), None]);
    let herd = app("web", required("podAffinity", json!([term("web", "zone")])));
    assert_eq!(refused(&herd, &[]), [None, None]);
    assert_eq!(refused(&herd, &[(&herd, "a")]), [None, Some(NOT_NEAR)]);
}

#[test]
fn a_pod_must_meet_all_terms_of_affinity_to_be_one_that_is_wanted() {
    let both = json!([term("db", "zone"),
        {"labelSelector": {"matchLabels": {"tier": "fast"}}, "topologyKey": "zone"}]);
    let follower = app("web", required("podAffinity", both));
    let fast = pod(json!({"app": "db", "tier": "fast"}), json!({}));
    let other = pod(json!({"app": "cache", "tier": "fast"}), json!({}));
    assert_eq!(refused(&follower, &[(&plain("db"), "a"), (&other, "a"), (&fast, "b")]), [Some(NOT_NEAR), None]);
}

#[test]
fn namespaces_are_named_or_selected_by_their_labels() {
    let placed = pod_in("other", json!({"app": "db"}), json!({}));
    for (more, is_found) in [
        (json!({}), false),
        (json!({ "namespaces": ["other"] }), true),
        (json!({ "namespaceSelector": {} }), true),
        (json!({ "namespaceSelector": { "matchLabels": { "team": "b" } } }), true),
        (json!({ "namespaceSelector": { "matchLabels": { "team": "a" } } }), false),
        (json!({ "namespaceSelector": { "matchLabels": { "team": "a" } }, "namespaces": ["other"] }), true),
    ] {
        let mut wanted = term("db", "zone");
        wanted.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let follower = app("web", required("podAffinity", json!([wanted])));
        assert_eq!(refused(&follower, &[(&placed, "a")])[0].is_none(), is_found, "{more}");
    }
}

#[test]
fn kept_counts_follow_the_labels_of_namespaces() {
    let mut cluster = zones();
    place(&mut cluster, "a", 1, &pod_in("other", json!({"app": "db"}), json!({})));
    let mut wanted = term("db", "zone");
    wanted["namespaceSelector"] = json!({ "matchLabels": { "team": "a" } });
    let follower = app("web", required("podAffinity", json!([wanted])));
    assert_eq!(refusals(&mut cluster, &follower), [Some(NOT_NEAR); 2]);
    cluster.set_namespace("other".into(), Some(Labels::from([("team".to_owned(), "a".to_owned())])));
    assert_eq!(refusals(&mut cluster, &follower), [None, Some(NOT_NEAR)]);
}

#[test]
fn labels_that_must_match_or_differ_are_the_pods_own() {
    let spread_by = |keys: &str| {
        let mut apart = term("web", "zone");
        apart["labelSelector"] = json!({});
        apart[keys] = json!(["app"]);
        app("web", required("podAntiAffinity", json!([apart])))
    };
    let placed = [(&plain("web"), "a"), (&plain("db"), "b")];
    assert_eq!(refused(&spread_by("matchLabelKeys"), &placed), [Some(APART), None]);
    assert_eq!(refused(&spread_by("mismatchLabelKeys"), &placed), [None, Some(APART)]);
}

/// Three nodes: two in regions, one in a zone alone.
fn regions() -> Cluster {
    cluster(&[("1", json!({"region": "China"})), ("2", json!({"region": "India"})), ("3", json!({"az": "az1"}))])
}

fn security(level: &str, spec: Value) -> Arc<Needs> {
    pod(json!({"security": level}), spec)
}

fn weighted(weight: i32, expressions: Value, key: &str) -> Value {
    json!({"weight": weight, "podAffinityTerm": {"labelSelector": {"matchExpressions": expressions},
        "topologyKey": key}})
}

fn level(level: &str) -> Value {
    json!([{"key": "security", "operator": "In", "values": [level]}])
}

fn preferred(near: Value, apart: Value) -> Value {
    json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": near},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": apart}}})
}

const ALL: [&str; 3] = ["1", "2", "3"];

#[test]
fn preferences_add_up_by_weight_and_are_scaled_to_the_best_and_the_worst() {
    let mut cluster = regions();
    for (node, level) in [("1", "S1"), ("2", "S2"), ("3", "S1")] {
        place(&mut cluster, node, 1, &security(level, json!({})));
    }
    let strong = json!([{"key": "security", "operator": "NotIn", "values": ["S1"]},
        {"key": "security", "operator": "In", "values": ["S2"]}]);
    let weak = json!([{"key": "security", "operator": "Exists"}, {"key": "wrongkey", "operator": "DoesNotExist"}]);
    let near = json!([weighted(8, strong, "region"), weighted(2, weak, "region")]);
    let needs = security("S1", preferred(near, json!([])));
    assert_eq!(scores(&mut cluster, &needs, None, &ALL), [20, 100, 0]);
    let apart = preferred(json!([]), json!([weighted(5, level("S1"), "region")]));
    assert_eq!(scores(&mut cluster, &security("S1", apart), None, &ALL), [0, 100, 100]);
    assert_eq!(scores(&mut cluster, &security("S1", json!({})), None, &ALL), [0, 0, 0], "nobody prefers anything");
}

#[test]
fn placed_pods_draw_others_near_and_push_them_away() {
    let mut cluster = regions();
    let stays_with = |wanted: &str| preferred(json!([weighted(5, level(wanted), "region")]), json!([]));
    place(&mut cluster, "1", 1, &security("S1", stays_with("S1")));
    place(&mut cluster, "2", 1, &security("S2", stays_with("S2")));
    assert_eq!(scores(&mut cluster, &security("S2", json!({})), None, &ALL), [0, 100, 0]);
    let mut cluster = regions();
    let away = preferred(json!([]), json!([weighted(5, level("S1"), "region")]));
    place(&mut cluster, "1", 1, &security("S2", away));
    assert_eq!(scores(&mut cluster, &security("S1", json!({})), None, &ALL), [0, 100, 100]);
    cluster.remove_pod("1-0");
    assert_eq!(scores(&mut cluster, &security("S1", json!({})), None, &ALL), [0, 0, 0], "it is gone");
}

#[test]
fn what_a_placed_pod_requires_draws_others_near_a_little() {
    let mut cluster = regions();
    let hard = json!([{"labelSelector": {"matchExpressions":
            [{"key": "security", "operator": "In", "values": ["S1", "value2"]}]}, "topologyKey": "region"},
        {"labelSelector": {"matchExpressions": [{"key": "security", "operator": "Exists"},
            {"key": "wrongkey", "operator": "DoesNotExist"}]}, "topologyKey": "region"}]);
    place(&mut cluster, "1", 1, &security("S1", required("podAffinity", hard.clone())));
    place(&mut cluster, "2", 1, &security("S2", required("podAffinity", hard)));
    assert_eq!(scores(&mut cluster, &security("S1", json!({})), None, &ALL), [100, 100, 0]);
}

#[test]
fn both_directions_and_both_signs_are_one_sum() {
    let mut cluster = cluster(&[
        ("1", json!({"region": "China"})),
        ("2", json!({"az": "az1"})),
        ("3", json!({"region": "India"})),
        ("4", json!({"az": "az2"})),
    ]);
    let near_and_apart =
        || preferred(json!([weighted(8, level("S1"), "region")]), json!([weighted(5, level("S2"), "az")]));
    place(&mut cluster, "1", 1, &security("S1", json!({})));
    place(&mut cluster, "2", 1, &security("S2", json!({})));
    place(&mut cluster, "3", 1, &pod(json!({}), near_and_apart()));
    place(&mut cluster, "4", 1, &pod(json!({}), preferred(json!([]), json!([weighted(5, level("S1"), "az")]))));
    let needs = security("S1", near_and_apart());
    assert_eq!(scores(&mut cluster, &needs, None, &["1", "2", "3", "4"]), [100, 0, 100, 0]);
}
