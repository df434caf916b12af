//! The largest bodies that are taken cost no more than their size, and their refusals are no larger.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kinds::{FieldError, Kinds, error_budget, names, pod};

/// Far more than the linear work takes on a slow machine, and far less than anything quadratic.
const LONG: Duration = Duration::from_secs(60);

fn repeated(count: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..count).map(item).collect()
}

/// The reasons against an object, which are made in time and are few bytes.
fn refusal(what: &str, checks: impl FnOnce() -> Vec<FieldError>) -> Vec<FieldError> {
    let began = Instant::now();
    let errors = error_budget::within(checks);
    assert!(began.elapsed() < LONG, "{what}: {:?}", began.elapsed());
    let bytes: usize = errors.iter().map(|error| error.path.capacity() + error.message.capacity()).sum();
    assert!(bytes < 4 * error_budget::MOST, "{what}: {bytes} bytes");
    errors
}

#[test]
fn metadata_of_very_many_parts_is_refused_briefly() {
    let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
    let owner =
        |n: usize| json!({"apiVersion": "v1", "kind": "A", "name": n.to_string(), "uid": "u", "controller": true});
    let object = json!({"metadata": {"name": "a", "ownerReferences": repeated(40_000, owner)}});
    let errors = refusal("owners", || names::metadata(&kind, &object, false));
    assert_eq!(errors.len(), 39_999);
    let object = json!({"metadata": {"name": "a", "finalizers": repeated(700_000, |_| json!("!"))}});
    assert!(refusal("finalizers", || names::metadata(&kind, &object, false)).len() >= 700_000);
}

fn pod_with(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"restartPolicy": "Always",
        "containers": [{"name": "c", "image": "x"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[test]
fn pods_of_very_many_parts_are_refused_in_time() {
    const MANY: usize = 30_000;
    let text = |prefix: &'static str| move |n: usize| json!(format!("{prefix}{n}"));
    let term = json!({"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector":
        {"matchExpressions": repeated(MANY, |n| json!({"key": format!("b{n}"), "operator": "Exists"}))},
        "matchLabelKeys": repeated(MANY, text("a")), "mismatchLabelKeys": repeated(MANY, text("c"))});
    let container = |parts: Value| {
        let mut container = json!({"name": "c", "image": "x"});
        container.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        json!({"containers": [container]})
    };
    for (what, spec) in [
        ("label keys", json!({"topologySpreadConstraints": [term]})),
        (
            "constraints",
            json!({"topologySpreadConstraints": repeated(MANY, |n| json!({"topologyKey": n.to_string()}))}),
        ),
        ("claims", {
            let mut spec =
                container(json!({"resources": {"claims": repeated(MANY, |n| json!({"name": format!("x{n}")}))}}));
            spec["resourceClaims"] = repeated(MANY, |n| json!({"name": format!("a{n}"), "resourceClaimName": "b"}));
            spec
        }),
        (
            "mounts",
            container(json!({"volumeMounts": repeated(MANY, |n| json!({"name": "v", "mountPath": format!("/a{n}")})),
            "volumeDevices": repeated(MANY, |n| json!({"name": "w", "devicePath": format!("/b{n}")}))})),
        ),
        ("tolerations", json!({"tolerations": repeated(MANY, |n| json!({"key": n.to_string(), "operator": "No"}))})),
        ("volumes", json!({"volumes": repeated(MANY, |n| json!({"name": n.to_string(), "emptyDir": {}}))})),
        ("containers", json!({"containers": repeated(MANY, |n| json!({"name": n.to_string()}))})),
        ("ports", container(json!({"ports": repeated(MANY, |n| json!({"name": n.to_string(), "containerPort": n}))}))),
        ("environment", container(json!({"env": repeated(MANY, |n| json!({"name": "a", "value": n.to_string()}))}))),
        ("amounts of many containers", {
            let container = |n: usize| {
                json!({"name": n.to_string(), "image": "x", "restartPolicy": "Always",
                "resources": {"requests": {format!("a.b/{n}"): "1"}}})
            };
            json!({"initContainers": repeated(MANY, container), "resources": {"limits": {"cpu": "1"}}})
        }),
        ("amounts", {
            let amounts: Value = (0..MANY).map(|n| (format!("a/{n}"), json!("1"))).collect();
            let mut spec = container(json!({"resources": {"limits": amounts, "requests": amounts}}));
            spec["resources"] = json!({"limits": {"cpu": "1"}});
            spec
        }),
    ] {
        let mut pod = pod_with(spec);
        let began = Instant::now();
        (pod::KIND.default)(&mut pod);
        refusal(what, || (pod::KIND.validate)(&pod, None));
        assert!(began.elapsed() < LONG, "{what}: {:?}", began.elapsed());
    }
}

#[test]
fn fields_that_are_there_very_often_are_read_in_time() {
    let schema = Kinds::built_in().by_path("", "v1", "pods").unwrap().schema.clone();
    let fields = r#""hostname":"","nodeName":null,"hostname":"a","subdomain":"","#.repeat(40_000);
    let began = Instant::now();
    let decoded = schema.decode(format!(r#"{{"spec":{{{fields}"priority":1}}}}"#).as_bytes()).unwrap();
    assert_eq!(decoded.value["spec"], json!({"hostname": "a", "priority": 1}));
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
}

#[test]
fn what_is_wrong_below_a_very_long_key_is_told_once_and_in_time() {
    const MANY: usize = 200_000;
    let kinds = Kinds::built_in();
    let decode = |(group, plural): (&str, &str), text: String| {
        let began = Instant::now();
        let decoded = kinds.by_path(group, "v1", plural).unwrap().schema.decode(text.as_bytes());
        assert!(began.elapsed() < LONG, "{plural}: {:?}", began.elapsed());
        decoded
    };
    let key = "k".repeat(1_500_000);
    let items = |item: &str| vec![item; MANY].join(",");
    for item in ["\"\"", "256"] {
        let text = format!(r#"{{"binaryData":{{"{key}":[{}]}}}}"#, items(item));
        assert!(decode(("", "configmaps"), text).unwrap_err().path.ends_with("[0]"), "the first is told");
    }
    let definition = |below: String| {
        let schema = format!(r#"{{"openAPIV3Schema":{{"properties":{{"{key}":{{{below}}}}}}}}}"#);
        let text = format!(r#"{{"spec":{{"versions":[{{"schema":{schema}}}]}}}}"#);
        decode(("apiextensions.k8s.io", "customresourcedefinitions"), text)
    };
    let error = definition(format!(r#""required":[{}]"#, items("1"))).unwrap_err();
    assert!(error.path.ends_with(".required[0]"));
    assert_eq!(definition(items("\"x\":1")).unwrap().warnings.len(), 1, "unknown as often as it is there");
}
