//! Mutating policies as the API meets them: a request, the policies and bindings of the store, and the object.

use serde_json::{Value, json};

use super::{
    MUTATING, MUTATING_BINDINGS, Policies,
    tests::{attributes, authorizer, store},
};
use crate::{
    admission::{attributes::Operation, reinvocation::Reinvocation, versions::Versioned},
    admission_plugins::AdmissionPlugins,
    identity::Identity,
    kinds::Kinds,
    metrics::AdmissionMetrics,
    status::Status,
    store::Snapshot,
};

type Stored = (&'static str, &'static str, Value);

/// A policy about ConfigMaps and Pods, with these mutations and changes of its `spec`.
fn policy(name: &'static str, mutations: Value, changes: Value) -> Stored {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"reinvocationPolicy": "Never", "mutations": mutations,
        "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [{"apiGroups": ["*"],
            "apiVersions": ["*"], "operations": ["*"], "resources": ["configmaps", "pods"]}]}}});
    for (field, value) in changes.as_object().unwrap() {
        policy["spec"][field] = value.clone();
    }
    (MUTATING, name, policy)
}

/// A binding of the same name.
fn bound(name: &'static str, changes: Value) -> Stored {
    let mut binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    for (field, value) in changes.as_object().unwrap() {
        binding["spec"][field] = value.clone();
    }
    (MUTATING_BINDINGS, name, binding)
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// Policy and binding of one mutation.
fn one(mutation: Value, changes: Value) -> [Stored; 2] {
    [policy("p", json!([mutation]), changes), bound("p", json!({}))]
}

/// The object as the policies leave it in one round.
async fn round(
    policies: &Policies,
    snapshot: &Snapshot,
    object: Value,
    state: &mut Reinvocation,
) -> Result<Value, Status> {
    let plural = if object["kind"] == "Pod" { "pods" } else { "configmaps" };
    let kind = Kinds::built_in().by_path("", "v1", plural).unwrap();
    let identity = Identity::authenticated("jane".into(), vec![]);
    let (_dir, authorizer) = authorizer();
    let attributes = attributes(&kind, (&identity, &authorizer), snapshot);
    let mut objects = Versioned::new(&attributes, object, &Value::Null, None);
    policies.mutate(&attributes, &mut objects, state, &AdmissionMetrics::default()).await?;
    objects.into_stored().await
}

async fn mutated(stored: &[Stored], object: Value) -> Result<Value, Status> {
    let policies = Policies::new(&AdmissionPlugins::default());
    policies.evaluate_mutating();
    round(&policies, &store(stored), object, &mut Reinvocation::default()).await
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}, "data": data})
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn an_apply_configuration_adds_a_sidecar() {
    let sidecar = apply(
        "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'mesh', image: 'mesh:1', \
         restartPolicy: 'Always'}], containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, \
         imagePullPolicy: 'Always'})}}",
    );
    let made = mutated(&one(sidecar, json!({})), pod()).await.unwrap();
    let (init, container) = (&made["spec"]["initContainers"][0], &made["spec"]["containers"][0]);
    assert_eq!((&init["name"], &init["restartPolicy"]), (&json!("mesh"), &json!("Always")));
    assert_eq!(init["terminationMessagePolicy"], "File", "it is defaulted");
    assert_eq!((&container["image"], &container["imagePullPolicy"]), (&json!("i"), &json!("Always")));
    assert_eq!(
        (&made["apiVersion"], &made["kind"], &made["metadata"]["name"]),
        (&json!("v1"), &json!("Pod"), &json!("p"))
    );
}

#[tokio::test]
async fn a_json_patch_makes_objects_and_escapes_keys() {
    let labels = patch(
        "[JSONPatch{op: 'test', path: '/metadata/name', value: 'c'},
        JSONPatch{op: 'add', path: '/metadata/labels', value: Object.metadata.labels{}},
        JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/a~b'), value: 'x'},
        JSONPatch{op: 'copy', from: '/data/k', path: '/data/copy'}]",
    );
    let made = mutated(&one(labels, json!({})), config_map(json!({"k": "v"}))).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"example.com/a~b": "x"}));
    assert_eq!(made["data"], json!({"k": "v", "copy": "v"}));
    let tested = patch("[JSONPatch{op: 'remove', path: '/data'}, JSONPatch{op: 'test', path: '/kind', value: 'Pod'}]");
    let map = config_map(json!({"k": "v"}));
    assert_eq!(mutated(&one(tested, json!({})), map.clone()).await.unwrap(), map, "a test that fails changes nothing");
}

#[tokio::test]
async fn mutations_see_what_those_before_them_made() {
    let [first, second] = ["'1'", "object.data.first + '2'"].map(|value| {
        patch(&format!(
            "[JSONPatch{{op: 'add', path: '/data/' + (has(object.data.first) ? 'second' : 'first'), value: {value}}}]"
        ))
    });
    let stored = [policy("p", json!([first, second]), json!({})), bound("p", json!({}))];
    let made = mutated(&stored, config_map(json!({"k": "v"}))).await.unwrap();
    assert_eq!(made["data"], json!({"k": "v", "first": "1", "second": "12"}));
}

#[tokio::test]
async fn conditions_variables_parameters_and_bindings_decide() {
    let add = patch("[JSONPatch{op: 'add', path: '/data/v', value: variables.v}]");
    let changes = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "v", "expression": "params.data.v + namespaceObject.metadata.labels.env"},
            {"name": "unused", "expression": "params.data.none"}],
        "matchConditions": [{"name": "c", "expression": "request.userInfo.username == 'jane' && !has(object.data.no)"}]});
    let reference = json!({"paramRef": {"selector": {}, "parameterNotFoundAction": "Deny"},
        "matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}});
    let param =
        ("configmaps", "default/x", json!({"metadata": {"name": "x", "namespace": "default"}, "data": {"v": "1-"}}));
    let with = [policy("p", json!([add]), changes.clone()), bound("p", reference.clone()), param];
    let made = |stored: &[Stored], data: Value| {
        let stored = stored.to_vec();
        async move { mutated(&stored, config_map(data)).await }
    };
    assert_eq!(made(&with, json!({"k": "v"})).await.unwrap()["data"], json!({"k": "v", "v": "1-prod"}));
    assert_eq!(made(&with, json!({"no": "v"})).await.unwrap()["data"], json!({"no": "v"}), "the condition");
    let denied = made(&with[..2], json!({"k": "v"})).await.unwrap_err();
    assert_eq!(
        denied.message,
        "policy 'p' with binding 'p' denied request: failed to configure binding: no params found for policy binding \
         with `Deny` parameterNotFoundAction"
    );
    assert_eq!((denied.code, denied.reason), (403, "Forbidden"));
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": "dev"}}}});
    let elsewhere = [with[0].clone(), bound("p", elsewhere)];
    assert_eq!(made(&elsewhere, json!({"k": "v"})).await.unwrap()["data"], json!({"k": "v"}));
    assert_eq!(made(&with[..1], json!({"k": "v"})).await.unwrap()["data"], json!({"k": "v"}), "not bound");
}

#[tokio::test]
async fn a_failure_refuses_the_request_unless_it_is_to_be_ignored() {
    let long = format!("[{}]", vec!["1"; 100].join(","));
    let costly = format!("{long}.all(a, {long}.all(b, {long}.all(c, {long}.all(d, true)))) ? [] : [JSONPatch{{}}]");
    for (mutation, why) in [
        (patch("[JSONPatch{op: 'remove', path: '/data/none'}]"), "JSON Patch: operation '/0' failed"),
        (patch("[JSONPatch{op: 'none', path: '/data'}]"), "JSON Patch: "),
        (patch("[JSONPatch{op: object.data.none}]"), "resulted in error: no such key: none"),
        (patch("1 +"), "compilation failed: ERROR: <input>:1:"),
        (apply("Object{metadata: Object.spec{}}"), "type mismatch: unexpected type name \"Object.spec\""),
        (
            apply("Object{none: 1}"),
            "error applying patch: failed to convert patch object to typed object: .none: field \
            not declared in schema",
        ),
        (apply("Object{data: Object.data{k: 1}}"), ".data.k: expected string, got"),
        (patch(&costly), "actual cost limit exceeded"),
    ] {
        let refused = mutated(&one(mutation.clone(), json!({})), config_map(json!({"k": "v"}))).await.unwrap_err();
        assert!(refused.message.starts_with("policy 'p' with binding 'p' denied request: "), "{}", refused.message);
        assert!(refused.message.contains(why), "{why}: {}", refused.message);
        assert_eq!((refused.code, refused.reason), (403, "Invalid"));
        assert_eq!(refused.details.as_ref().unwrap()["causes"][0]["message"], refused.message);
        let ignored = one(mutation, json!({"failurePolicy": "Ignore"}));
        let map = config_map(json!({"k": "v"}));
        assert_eq!(mutated(&ignored, map.clone()).await.unwrap(), map, "{why}");
    }
}

#[tokio::test]
async fn what_a_patch_breaks_is_an_internal_error() {
    for operation in [
        "JSONPatch{op: 'add', path: '/none', value: 1}",
        "JSONPatch{op: 'replace', path: '/data', value: 3}",
        "JSONPatch{op: 'replace', path: '/kind', value: 'Pod'}",
    ] {
        let stored = one(patch(&format!("[{operation}]")), json!({"failurePolicy": "Ignore"}));
        let refused = mutated(&stored, config_map(json!({"k": "v"}))).await.unwrap_err();
        assert_eq!((refused.code, refused.reason), (500, "InternalError"), "{operation}");
    }
}

#[tokio::test]
async fn what_is_replaced_as_a_whole_may_not_be_applied() {
    let args = apply("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}");
    let refused = mutated(&one(args, json!({})), pod()).await.unwrap_err();
    assert!(
        refused.message.ends_with(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.containers[0].args"
        ),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn policies_are_asked_again_where_anything_changed_the_object_and_they_want_it() {
    let count = |key: &str| {
        patch(&format!(
            "[JSONPatch{{op: 'add', path: '/data/{key}', value: (has(object.data.{key}) ? object.data.{key} : '') + 'x'}}]"
        ))
    };
    let stored = store(&[
        policy("a", json!([count("a")]), json!({"reinvocationPolicy": "IfNeeded"})),
        bound("a", json!({})),
        policy("b", json!([count("b")]), json!({})),
        bound("b", json!({})),
    ]);
    let policies = Policies::new(&AdmissionPlugins::default());
    policies.evaluate_mutating();
    let mut state = Reinvocation::default();
    let first = round(&policies, &stored, config_map(json!({"k": "v"})), &mut state).await.unwrap();
    assert_eq!(first["data"], json!({"k": "v", "a": "x", "b": "x"}));
    assert!(state.begin_second());
    let second = round(&policies, &stored, first, &mut state).await.unwrap();
    assert_eq!(second["data"], json!({"k": "v", "a": "xx", "b": "x"}));
    assert!(!state.begin_second());
}

#[tokio::test]
async fn nothing_is_evaluated_unless_it_is_switched_on_or_on_deletion() {
    let stored = store(&one(patch("[JSONPatch{op: 'remove', path: '/data'}]"), json!({})));
    let map = config_map(json!({"k": "v"}));
    let off = Policies::new(&AdmissionPlugins::default());
    assert!(off.is_empty(&stored));
    let left = round(&off, &stored, map.clone(), &mut Reinvocation::default()).await.unwrap();
    assert_eq!(left, map);
    let on = Policies::new(&AdmissionPlugins::default());
    on.evaluate_mutating();
    assert!(!on.is_empty(&stored));
    let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
    let identity = Identity::authenticated("jane".into(), vec![]);
    let (_dir, authorizer) = authorizer();
    let created = attributes(&kind, (&identity, &authorizer), &stored);
    assert!(on.concern(&created) && !off.concern(&created));
    let mut attributes = created;
    attributes.operation = Operation::Delete;
    let mut objects = Versioned::new(&attributes, Value::Null, &map, None);
    let state = &mut Reinvocation::default();
    on.mutate(&attributes, &mut objects, state, &AdmissionMetrics::default()).await.unwrap();
    assert!(objects.object().is_null());
}

#[tokio::test]
async fn expressions_ask_what_the_user_may() {
    let add = patch(
        "[JSONPatch{op: 'add', path: '/data/may', value: \
        string(authorizer.group('').resource('secrets').check('get').allowed())}]",
    );
    let made = mutated(&one(add, json!({})), config_map(json!({"k": "v"}))).await.unwrap();
    assert_eq!(made["data"]["may"], "false");
}

#[tokio::test]
async fn a_patch_is_no_larger_than_a_request_whatever_its_operations_share() {
    let many =
        patch("object.data.many.split(',').map(k, JSONPatch{op: 'add', path: '/data/' + k, value: object.data.big})");
    let with = |count: usize| config_map(json!({"big": "x".repeat(100_000), "many": vec!["k"; count].join(",")}));
    assert!(mutated(&one(many.clone(), json!({})), with(20)).await.is_ok());
    let refused = mutated(&one(many, json!({})), with(64)).await.unwrap_err();
    assert!(refused.message.contains("larger than a request may be"), "{}", refused.message);
}
