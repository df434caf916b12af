//! How long it takes to place pods; run by hand:
//! `cargo test -p fairlead-controllers --lib speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use kube::core::Selector;

use super::*;

/// Places 1,000 pods on 500 nodes of three zones, after 5,000 others of the namespace.
fn measure(what: &str, spec: Value, siblings: Option<&Selector>) {
    let mut cluster = cluster(&[]);
    for n in 0..500 {
        let labels = json!({"kubernetes.io/hostname": n.to_string(),
            "topology.kubernetes.io/zone": (n % 3).to_string()});
        add_node(&mut cluster, &n.to_string(), labels, json!({}));
    }
    let other = pod(json!({"app": "other"}), json!({}));
    for n in 0..5_000 {
        cluster.place(&format!("other-{n}"), &(n % 500).to_string(), other.clone());
    }
    let needs = pod(json!({"app": "web"}), spec);
    let mut longest = Duration::ZERO;
    let begin = Instant::now();
    for n in 0..1_000 {
        let attempt = Instant::now();
        let node = cluster.choose(seeker(&needs, siblings)).expect("a node");
        cluster.place(&format!("web-{n}"), &node, needs.clone());
        longest = longest.max(attempt.elapsed());
    }
    println!("{what}: {:?} for 1,000 pods, the longest {longest:?}", begin.elapsed());
}

#[test]
#[ignore = "a measurement"]
fn a_thousand_pods_on_five_hundred_nodes() {
    let labels = json!({"matchLabels": {"app": "web"}});
    let constraint = |key: &str, action: &str| {
        let selector = labels.clone();
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": action, "labelSelector": selector})
    };
    let term = json!({"labelSelector": labels, "topologyKey": "kubernetes.io/hostname"});
    let siblings: Selector = [("app".to_owned(), "web".to_owned())].into_iter().collect();
    measure("no rule", json!({}), None);
    measure("default constraints", json!({}), Some(&siblings));
    let zone = "topology.kubernetes.io/zone";
    measure("hard spread", json!({"topologySpreadConstraints": [constraint(zone, "DoNotSchedule")]}), None);
    measure(
        "soft spread",
        json!({"topologySpreadConstraints": [constraint(zone, "ScheduleAnyway"),
        constraint("kubernetes.io/hostname", "ScheduleAnyway")]}),
        None,
    );
    measure(
        "preferred anti-affinity",
        json!({"affinity": {"podAntiAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}}}),
        None,
    );
}
