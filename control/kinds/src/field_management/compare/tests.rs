//! What of an object is found to differ.

use serde_json::json;

use super::{super::fields_v1, *};
use crate::schema::Schema;

fn schema(kind: &str) -> Schema {
    Schema::builtin(kind).unwrap()
}

/// Texts of what changed and what was removed.
fn between(schema: &Schema, old: Option<&Value>, new: &Value) -> (String, String) {
    let of = TypeRef::root(schema.types(), schema.root());
    let difference = compare(of, old.map_or(State::Zero, State::Is), State::Is(new)).unwrap();
    (fields_v1::print(&difference.changed), fields_v1::print(&difference.removed))
}

#[test]
fn what_omitempty_leaves_out_is_nobodys() {
    let schema = schema("io.k8s.api.apps.v1.Deployment");
    let with = |metadata: Value| json!({"spec": {"template": {"metadata": metadata}}});
    let old = with(json!({"labels": {"a": "b"}}));
    let new = with(json!({"labels": {"a": "b"}, "ownerReferences": [], "finalizers": [], "namespace": ""}));
    assert_eq!(between(&schema, Some(&old), &new), ("{}".to_owned(), "{}".to_owned()));
}

#[test]
fn a_zero_that_is_applied_is_a_value() {
    let schema = schema("io.k8s.api.core.v1.Service");
    let of = TypeRef::root(schema.types(), schema.root()).as_written();
    let port = |name: &str| json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "name": name}]}});
    let (old, new) = (port("http"), port(""));
    let difference = compare(of, State::Is(&old), State::Is(&new)).unwrap();
    let name = r#"{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{"f:name":{}}}}}"#;
    assert_eq!(fields_v1::print(&difference.changed), name);
    assert_eq!(fields_v1::print(&difference.removed), "{}");
}

#[test]
fn a_null_in_what_is_owned_as_a_whole_is_a_value() {
    let schema = schema("io.k8s.api.core.v1.Event");
    let of = TypeRef::root(schema.types(), schema.root()).as_written();
    let about = |uid: Option<Value>| {
        let mut event = json!({"involvedObject": {"kind": "Pod", "name": "p"}});
        event["involvedObject"].as_object_mut().unwrap().extend(uid.map(|uid| ("uid".to_owned(), uid)));
        event
    };
    let (old, null, same) = (about(None), about(Some(Value::Null)), about(None));
    let changed = |new: &Value| {
        let difference = compare(of, State::Is(&old), State::Is(new)).unwrap();
        fields_v1::print(&difference.changed)
    };
    assert_eq!(changed(&null), r#"{"f:involvedObject":{}}"#);
    assert_eq!(changed(&same), "{}");
}

/// What a real cluster says of a Deployment that `kubectl create` made.
#[test]
fn a_new_object_is_owned_as_kubernetes_writes_it() {
    let deployment = json!({"metadata": {"labels": {"app": "w"}}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"app": "w"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "containers": [{"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80,
                "protocol": "TCP"}]}]}}}});
    let expected = concat!(
        r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:replicas":{},"f:selector":{},"#,
        r#""f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{}},"f:type":{}},"#,
        r#""f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"#,
        r#""k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{".":{},"#,
        r#""k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"#,
        r#""f:resources":{}}},"f:dnsPolicy":{},"f:securityContext":{}}}}}"#
    );
    let (changed, removed) = between(&schema("io.k8s.api.apps.v1.Deployment"), None, &deployment);
    assert_eq!(changed, expected);
    assert_eq!(removed, "{}");
}

#[test]
fn an_empty_list_is_something_where_none_was() {
    let limits = schema("io.k8s.api.core.v1.LimitRange");
    let object = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "a"}, "spec": {"limits": []}});
    assert!(between(&limits, None, &object).0.contains("f:limits"), "{:?}", between(&limits, None, &object));
}

#[test]
fn changes_and_removals_are_told_apart() {
    let pod = schema("io.k8s.api.core.v1.Pod");
    let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [
        {"name": "x", "image": "i"}, {"name": "y", "image": "i"}], "nodeSelector": {"a": "b"}}});
    let new = json!({"metadata": {"labels": {"a": "1", "c": "3"}}, "spec": {"containers": [
        {"name": "y", "image": "j"}, {"name": "z"}], "nodeSelector": {"a": "c"}}});
    let (changed, removed) = between(&pod, Some(&old), &new);
    assert_eq!(
        changed,
        concat!(
            r#"{"f:metadata":{"f:labels":{"f:c":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"y\"}":{"f:image":{}},"#,
            r#""k:{\"name\":\"z\"}":{".":{},"f:name":{},"f:resources":{}}},"f:nodeSelector":{}}}"#
        )
    );
    assert_eq!(
        removed,
        concat!(
            r#"{"f:metadata":{"f:labels":{"f:b":{}}},"f:spec":{"f:containers":{"#,
            r#""k:{\"name\":\"x\"}":{".":{},"f:image":{},"f:name":{},"f:resources":{}}}}}"#
        )
    );
    assert_eq!(between(&pod, Some(&old), &old), ("{}".into(), "{}".into()));
}

#[test]
fn the_first_status_is_a_change_and_conditions_have_their_null_times() {
    let pod = schema("io.k8s.api.core.v1.Pod");
    let old = json!({"spec": {}});
    let new = json!({"spec": {}, "status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}});
    let expected = concat!(
        r#"{"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"#,
        r#""f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:phase":{}}}"#
    );
    assert_eq!(between(&pod, Some(&old), &new).0, expected);
}

#[test]
fn items_that_stand_twice_are_compared_as_a_whole() {
    let pod = schema("io.k8s.api.core.v1.Pod");
    let env = |values: &[&str]| {
        let env: Vec<_> = values.iter().map(|value| json!({"name": "A", "value": value})).collect();
        json!({"spec": {"containers": [{"name": "c", "env": env}]}})
    };
    let within =
        |inner: &str| format!(r#"{{"f:spec":{{"f:containers":{{"k:{{\"name\":\"c\"}}":{{"f:env":{{{inner}}}}}}}}}}}"#);
    let key = r#""k:{\"name\":\"A\"}""#;
    let (one, two) = (env(&["1"]), env(&["1", "2"]));
    let (changed, removed) = between(&pod, Some(&one), &two);
    assert_eq!(changed, within(&format!("{key}:{{}}")));
    assert_eq!(removed, within(&format!(r#"{key}:{{".":{{}},"f:name":{{}},"f:value":{{}}}}"#)));
    let (changed, removed) = between(&pod, Some(&two), &env(&["2", "1"]));
    assert_eq!((changed, removed), (within(&format!("{key}:{{}}")), "{}".into()));
}

#[test]
fn without_a_schema_maps_are_compared_by_key_and_lists_as_a_whole() {
    let any = Schema::unstructured();
    let old = json!({"spec": {"a": {"b": 1}, "list": [1], "x": {"y": 1}}});
    let new = json!({"spec": {"a": {"b": 2, "c": 3}, "list": [1, 2], "x": 5}});
    let (changed, removed) = between(&any, Some(&old), &new);
    assert_eq!(changed, r#"{"f:spec":{"f:a":{"f:b":{},"f:c":{}},"f:list":{},"f:x":{}}}"#);
    assert_eq!(removed, r#"{"f:spec":{"f:x":{"f:y":{}}}}"#);
}
