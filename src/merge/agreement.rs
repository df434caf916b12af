//! Tests that client and server agree: the server makes of each three-way patch what was applied, and keeps what others
//! have set.

use fairlead_control::{kinds::Kinds, patch};
use serde_json::{Value, json};

use super::{Schema, three_way};

/// What the server holds after `modified` was applied over `current`, and that applying it again changes nothing.
fn applied(plural: &str, original: &Value, modified: &Value, current: &Value) -> Value {
    let group = if plural == "services" || plural == "pods" { "" } else { "apps" };
    let kind = Kinds::built_in().by_path(group, "v1", plural).expect("a served kind");
    let schema = Schema::of(group, &kind.kind);
    let patch = three_way(schema, original, modified, current);
    let held = patch::strategic(&kind, current, &patch).unwrap_or_else(|status| panic!("{patch}: {}", status.message));
    assert_eq!(three_way(schema, modified, modified, &held), json!({}), "a second apply is no change: {held}");
    held
}

fn deployment(containers: Value, more: Value) -> Value {
    let mut spec = json!({"containers": containers});
    json_patch::merge(&mut spec, &more);
    json!({"spec": {"template": {"spec": spec}}})
}

#[test]
fn a_container_is_changed_removed_and_added_while_an_injected_one_stays() {
    let held = applied(
        "deployments",
        &deployment(json!([{"name": "web", "image": "a:1"}, {"name": "old", "image": "o"}]), json!({})),
        &deployment(json!([{"name": "new", "image": "n"}, {"name": "web", "image": "a:2"}]), json!({})),
        &deployment(
            json!([{"name": "web", "image": "a:1", "imagePullPolicy": "Always"}, {"name": "old", "image": "o"},
                {"name": "injected", "image": "i"}]),
            json!({"dnsPolicy": "ClusterFirst"}),
        ),
    );
    let spec = &held["spec"]["template"]["spec"];
    let by_name =
        |name: &str| spec["containers"].as_array().and_then(|list| list.iter().find(|c| c["name"] == name)).cloned();
    assert_eq!(by_name("web"), Some(json!({"name": "web", "image": "a:2", "imagePullPolicy": "Always"})));
    assert_eq!(by_name("new"), Some(json!({"name": "new", "image": "n"})));
    assert!(by_name("injected").is_some() && by_name("old").is_none(), "{spec}");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
}

#[test]
fn environment_variables_keep_the_applied_order() {
    let env = |names: &[&str]| {
        let env: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        deployment(json!([{"name": "web", "env": env}]), json!({}))
    };
    let held = applied("deployments", &env(&["A", "B"]), &env(&["B", "C", "A"]), &env(&["A", "B"]));
    assert_eq!(held, env(&["B", "C", "A"]));
}

#[test]
fn a_volume_changes_its_type() {
    let volumes = |volume: Value| deployment(json!([]), json!({"volumes": [volume]}));
    let held = applied(
        "deployments",
        &volumes(json!({"name": "data", "emptyDir": {}})),
        &volumes(json!({"name": "data", "hostPath": {"path": "/srv"}})),
        &volumes(json!({"name": "data", "emptyDir": {}})),
    );
    assert_eq!(held, volumes(json!({"name": "data", "hostPath": {"path": "/srv"}})));
}

#[test]
fn a_deployment_strategy_changes_its_type() {
    let strategy = |strategy: Value| json!({"spec": {"strategy": strategy}});
    let held = applied(
        "deployments",
        &strategy(json!({"type": "RollingUpdate"})),
        &strategy(json!({"type": "Recreate"})),
        &strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}})),
    );
    assert_eq!(held, strategy(json!({"type": "Recreate"})));
}

#[test]
fn service_ports_of_one_number_and_a_removed_port_come_out_right() {
    let ports = |ports: Value| json!({"spec": {"ports": ports}});
    let held = applied(
        "services",
        &ports(json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}])),
        &ports(json!([{"name": "a", "port": 80, "targetPort": 8080}])),
        &ports(json!([{"name": "a", "port": 80, "nodePort": 31000}, {"name": "b", "port": 81, "nodePort": 31001}])),
    );
    assert_eq!(held["spec"]["ports"], json!([{"name": "a", "port": 80, "nodePort": 31000, "targetPort": 8080}]));
    let both =
        ports(json!([{"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53, "protocol": "TCP"}]));
    let one = ports(json!([{"name": "udp", "port": 53, "protocol": "UDP"}]));
    assert_eq!(applied("services", &one, &both, &one), both);
}
