//! `managedFields` and server-side apply as clients meet them.

use futures::StreamExt;
use http::{Method, header};
use serde_json::{Value, json};

use super::{Answer, Server, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

const APPLY: &str = "application/apply-patch+yaml";

impl Server {
    async fn apply(&self, path: &str, config: Value) -> Answer {
        self.patch(APPLY, path, config).await
    }

    async fn patch(&self, content_type: &str, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, &[(header::CONTENT_TYPE.as_str(), content_type)], body.to_string()).await
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// `manager operation[/subresource] fields`, one line each.
fn owners(object: &Value) -> Vec<String> {
    let line = |entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let subresource = if text("subresource").is_empty() { "".into() } else { format!("/{}", text("subresource")) };
        format!("{} {}{subresource} {}", text("manager"), text("operation"), entry["fieldsV1"])
    };
    object["metadata"]["managedFields"].as_array().into_iter().flatten().map(line).collect()
}

/// The line of a manager. The order of lines depends on the time.
fn line_of<'a>(owners: &'a [String], manager: &str) -> &'a str {
    owners.iter().find(|line| line.split(' ').next() == Some(manager)).map_or("", String::as_str)
}

#[tokio::test]
async fn a_null_in_what_is_owned_as_a_whole_conflicts() {
    let server = Server::start().await;
    let events = "/api/v1/namespaces/default/events";
    let mut event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "source": {"component": "test"}});
    assert_eq!(server.post(&format!("{events}?fieldManager=one"), event.clone()).await.code, 201);
    let path = format!("{events}/e?fieldManager=two");
    assert_eq!(server.apply(&path, event.clone()).await.code, 200);
    event["involvedObject"]["uid"] = Value::Null;
    let refused = server.apply(&path, event.clone()).await;
    assert_eq!(refused.reason(), (409, "Conflict"), "{}", refused.json);
    assert!(refused.message().ends_with("conflict with \"one\" using v1: .involvedObject"), "{}", refused.message());
    let forced = server.apply(&format!("{path}&force=true"), event).await.json;
    assert!(!line_of(&owners(&forced), "one").contains("f:involvedObject"), "{forced}");
    assert_eq!(forced["involvedObject"].get("uid"), None);
}

#[tokio::test]
async fn every_write_says_who_owns_what() {
    let server = Server::start().await;
    let agent = [("user-agent", "kubectl/v1.35.4 (linux/amd64) kubernetes/abc")];
    let created = server.call(Method::POST, MAPS, &agent, map(json!({"a": "1"})).to_string()).await.json;
    assert_eq!(owners(&created), [r#"kubectl Update {"f:data":{".":{},"f:a":{}}}"#]);
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("v1"), &json!("FieldsV1")));
    assert_eq!(entry["time"], created["metadata"]["creationTimestamp"]);
    let path = format!("{MAPS}/m");
    let put = |manager: &str| format!("{path}?fieldManager={manager}");
    let updated = server.put(&put("putter"), map(json!({"a": "1", "b": "1"}))).await.json;
    assert_eq!(line_of(&owners(&updated), "putter"), r#"putter Update {"f:data":{"f:b":{}}}"#);
    for (content_type, body) in [
        ("application/merge-patch+json", json!({"data": {"x0": "1"}})),
        ("application/strategic-merge-patch+json", json!({"data": {"x1": "1"}})),
        ("application/json-patch+json", json!([{"op": "add", "path": "/data/x2", "value": "1"}])),
    ] {
        assert_eq!(server.patch(content_type, &put("patcher"), body).await.code, 200);
    }
    let read = server.get(&path).await.json;
    let expected = r#"patcher Update {"f:data":{"f:x0":{},"f:x1":{},"f:x2":{}}}"#;
    assert!(owners(&read).iter().any(|line| line == expected), "{:?}", owners(&read));
    let listed = server.get(MAPS).await.json;
    assert_eq!(listed["items"][0]["metadata"]["managedFields"], read["metadata"]["managedFields"]);
    // What is the same already is nobody's work.
    let same = server.patch("application/merge-patch+json", &put("nobody"), json!({"data": {"x0": "1"}})).await.json;
    assert_eq!(same["metadata"], read["metadata"]);
}

#[tokio::test]
async fn defaults_are_the_writers_and_what_the_cluster_adds_is_nobodys() {
    let server = Server::start().await;
    let created = server.post(&format!("{PODS}?fieldManager=me"), pod("p")).await.json;
    let owned = owners(&created);
    assert_eq!(owned.len(), 1, "{owned:?}");
    assert!(owned[0].contains("f:restartPolicy") && owned[0].contains("f:terminationMessagePath"), "{owned:?}");
    assert!(!owned[0].contains("f:tolerations") && !owned[0].contains("f:status"), "{owned:?}");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(server.post(&format!("{PODS}/p/binding"), binding).await.code, 201);
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let path = format!("{PODS}/p/status?fieldManager=kubelet");
    let patched = server.patch("application/strategic-merge-patch+json", &path, status).await.json;
    let owned = owners(&patched);
    assert_eq!(
        line_of(&owned, "kubelet"),
        concat!(
            r#"kubelet Update/status {"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"#,
            r#""f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:phase":{}}}"#
        )
    );
    assert!(!line_of(&owned, "me").contains("nodeName"));
}

#[tokio::test]
async fn an_apply_creates_changes_and_removes() {
    let server = Server::start().await;
    let path = format!("{MAPS}/m?fieldManager=me");
    let created = server.apply(&path, map(json!({"a": "1", "b": "1"}))).await;
    assert_eq!(created.code, 201, "{}", created.json);
    assert_eq!(owners(&created.json), [r#"me Apply {"f:data":{"f:a":{},"f:b":{}}}"#]);
    let again = server.apply(&path, map(json!({"a": "1", "b": "1"}))).await;
    assert_eq!((again.code, &again.json), (200, &created.json), "nothing has changed");
    let changed = server.apply(&path, map(json!({"a": "2"}))).await.json;
    assert_eq!(
        (&changed["data"], owners(&changed)),
        (&json!({"a": "2"}), vec![r#"me Apply {"f:data":{"f:a":{}}}"#.into()])
    );
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\n  labels: {x: some}\ndata: {a: '2'}\n";
    let labelled = server.call(Method::PATCH, &path, &[(header::CONTENT_TYPE.as_str(), APPLY)], yaml).await.json;
    assert_eq!(labelled["metadata"]["labels"], json!({"x": "some"}));
    let dry = server.apply(&format!("{path}&dryRun=All"), map(json!({}))).await.json;
    assert_eq!((dry["data"].is_null(), server.get(&format!("{MAPS}/m")).await.json), (true, labelled));
}

#[tokio::test]
async fn a_conflict_is_told_with_its_causes_and_can_be_forced() {
    let server = Server::start().await;
    let created = server.post(&format!("{DEPLOYMENTS}?fieldManager=me"), deployment()).await;
    assert_eq!(created.code, 201, "{}", created.json);
    let config =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 5}});
    let path = format!("{DEPLOYMENTS}/d?fieldManager=other");
    let refused = server.apply(&path, config.clone()).await;
    assert_eq!(refused.reason(), (409, "Conflict"));
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"me\" using apps/v1: .spec.replicas");
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"me\" using apps/v1",
        "field": ".spec.replicas"});
    assert_eq!(refused.json["details"]["causes"], json!([cause]));
    let forced = server.apply(&format!("{path}&force=true"), config).await.json;
    assert_eq!(forced["spec"]["replicas"], 5);
    let owned = owners(&forced);
    assert_eq!(line_of(&owned, "other"), r#"other Apply {"f:spec":{"f:replicas":{}}}"#);
    assert!(!line_of(&owned, "me").contains("f:replicas"));
}

#[tokio::test]
async fn options_are_checked_as_kubernetes_does() {
    let server = Server::start().await;
    let path = format!("{MAPS}/m");
    let refused = server.apply(&path, map(json!({}))).await;
    assert_eq!(refused.reason(), (422, "Invalid"));
    let expected =
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    assert_eq!(refused.message(), expected);
    let merge = "application/merge-patch+json";
    let refused = server.patch(merge, &format!("{path}?force=true"), json!({})).await;
    assert!(
        refused.message().ends_with("force: Forbidden: may not be specified for non-apply patch"),
        "{}",
        refused.json
    );
    let long = format!("{MAPS}?fieldManager={}", "a".repeat(129));
    let refused = server.post(&long, map(json!({}))).await;
    let expected = "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes";
    assert_eq!(refused.message(), expected);
    let refused = server.put(&format!("{path}?dryRun=some"), map(json!({}))).await;
    let expected =
        "UpdateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"some\"]: supported values: \"All\"";
    assert_eq!(refused.message(), expected);
    let refused = server.call(Method::DELETE, &format!("{path}?dryRun=some"), &[], "").await;
    assert!(refused.message().starts_with("DeleteOptions.meta.k8s.io \"\" is invalid: dryRun"), "{}", refused.json);
    let refused = server.post(&format!("{MAPS}?fieldValidation=x"), map(json!({}))).await;
    assert_eq!(refused.code, 422, "{}", refused.json);
    let refused = server.patch("application/apply-patch+cbor", &format!("{path}?fieldManager=a"), json!({})).await;
    assert_eq!(refused.reason(), (415, "UnsupportedMediaType"));
}

#[tokio::test]
async fn an_apply_means_the_version_and_the_object_that_it_names() {
    let server = Server::start().await;
    let path = format!("{MAPS}/m?fieldManager=me");
    let with = |field: &str, value: &str| {
        let mut config = map(json!({"a": "1"}));
        config["metadata"][field] = value.into();
        config
    };
    let refused = server.apply(&path, with("uid", "u")).await;
    assert_eq!(refused.reason(), (409, "Conflict"));
    assert!(
        refused
            .message()
            .ends_with("uid mismatch: the provided object specified uid u, and no existing object was found")
    );
    let refused = server.apply(&path, json!({"apiVersion": "v1", "kind": "ConfigMap"})).await;
    let expected = "the name of the object (m based on URL) was undeterminable: name must be provided";
    assert_eq!((refused.code, refused.message()), (400, expected));
    assert_eq!(server.apply(&path, map(json!({"a": "1"}))).await.code, 201);
    let refused = server.apply(&path, with("resourceVersion", "1")).await;
    assert!(refused.message().contains("the object has been modified"), "{}", refused.json);
    let refused = server.apply(&path, with("name", "other")).await;
    assert_eq!(refused.code, 400, "{}", refused.json);
    let refused = server.apply(&path, json!({"apiVersion": "v1", "kind": "Secret"})).await;
    assert_eq!((refused.code, refused.message()), (400, "invalid object type: /v1, Kind=Secret"));
    let mut unknown = map(json!({}));
    unknown["nope"] = json!(1);
    let refused = server.apply(&path, unknown).await;
    assert_eq!((refused.code, refused.message().ends_with(".nope: field not declared in schema")), (500, true));
}

#[tokio::test]
async fn subresources_have_entries_of_their_own() {
    let server = Server::start().await;
    assert_eq!(server.post(&format!("{DEPLOYMENTS}?fieldManager=me"), deployment()).await.code, 201);
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 9}, "status": {"replicas": 2}});
    let missing = server.apply(&format!("{DEPLOYMENTS}/none/status?fieldManager=c"), status.clone()).await;
    assert_eq!(missing.code, 404, "{}", missing.json);
    let applied = server.apply(&format!("{DEPLOYMENTS}/d/status?fieldManager=c&force=true"), status).await;
    assert_eq!(applied.code, 200, "{}", applied.json);
    assert_eq!((&applied.json["spec"]["replicas"], &applied.json["status"]["replicas"]), (&json!(2), &json!(2)));
    let owned = owners(&applied.json);
    assert_eq!(owned[0], r#"c Apply/status {"f:status":{"f:replicas":{}}}"#, "{owned:?}");
    let scale = json!({"spec": {"replicas": 3}});
    let merge = "application/merge-patch+json";
    let scaled = server.patch(merge, &format!("{DEPLOYMENTS}/d/scale?fieldManager=scaler"), scale).await;
    assert_eq!(scaled.code, 200, "{}", scaled.json);
    let read = server.get(&format!("{DEPLOYMENTS}/d")).await.json;
    let owned = owners(&read);
    assert!(owned.contains(&r#"scaler Update/scale {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{owned:?}");
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 4}});
    let path = format!("{DEPLOYMENTS}/d/scale?fieldManager=applier");
    let refused = server.apply(&path, scale.clone()).await;
    let expected = "conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert!(refused.message().ends_with(expected), "{}", refused.json);
    let applied = server.apply(&format!("{path}&force=true"), scale).await;
    assert_eq!((applied.code, &applied.json["spec"]["replicas"]), (200, &json!(4)), "{}", applied.json);
}

#[tokio::test]
async fn the_account_can_be_reset_and_survives_a_deletion_that_waits() {
    let server = Server::start().await;
    let mut object = config_map("m", json!({}));
    object["metadata"]["finalizers"] = json!(["a/b"]);
    assert_eq!(server.post(&format!("{MAPS}?fieldManager=me"), object).await.code, 201);
    let path = format!("{MAPS}/m");
    let before = owners(&server.get(&path).await.json);
    let deleting = server.delete(&path, json!({})).await.json;
    assert_eq!(owners(&deleting), before);
    let operations = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let reset = server.patch("application/json-patch+json", &path, operations).await;
    assert_eq!((reset.code, owners(&reset.json).len()), (200, 0), "{}", reset.json);
    let put = server.patch("application/merge-patch+json", &path, json!({"data": {"z": "1"}})).await.json;
    assert_eq!(owners(&put), [""; 0], "an object without an account gets none by an update");
    let applied = server.apply(&format!("{path}?fieldManager=a"), map(json!({"z": "1"}))).await;
    let owned = owners(&applied.json);
    assert!(owned.len() == 2 && owned[1].starts_with("before-first-apply Update"), "{owned:?}");
}

#[tokio::test]
async fn a_patch_of_the_account_itself_changes_it() {
    let server = Server::start().await;
    assert_eq!(server.post(&format!("{MAPS}?fieldManager=me"), map(json!({"a": "1"}))).await.code, 201);
    let operations = json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "renamed"}]);
    let path = format!("{MAPS}/m");
    let patched = server.patch("application/json-patch+json", &path, operations).await.json;
    assert_eq!(owners(&patched), [r#"renamed Update {"f:data":{".":{},"f:a":{}}}"#]);
}

#[tokio::test]
async fn older_versions_apply_to_the_same_object() {
    let server = Server::start().await;
    let mut config = deployment();
    config["apiVersion"] = json!("apps/v1beta2");
    let path = "/apis/apps/v1beta2/namespaces/default/deployments/d?fieldManager=old";
    let created = server.apply(path, config).await;
    assert_eq!(created.code, 201, "{}", created.json);
    let read = server.get(&format!("{DEPLOYMENTS}/d")).await.json;
    assert_eq!(read["metadata"]["managedFields"][0]["apiVersion"], "apps/v1beta2");
    let scale = json!({"spec": {"replicas": 7}});
    let merge = "application/merge-patch+json";
    let patched = server.patch(merge, &format!("{DEPLOYMENTS}/d?fieldManager=new"), scale).await.json;
    let owned = owners(&patched);
    assert_eq!(line_of(&owned, "new"), r#"new Update {"f:spec":{"f:replicas":{}}}"#);
    assert!(!line_of(&owned, "old").contains("f:replicas"), "{owned:?}");
}

#[tokio::test]
async fn reviews_say_whose_they_are_and_clients_in_process_have_a_name() {
    let server = Server::start().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews?fieldManager=me";
    let answered = server.post(path, review).await.json;
    let expected = r#"me Update {"f:spec":{"f:resourceAttributes":{".":{},"f:resource":{},"f:verb":{}}}}"#;
    assert_eq!(owners(&answered), [expected]);
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(server.client(), "default");
    let object = serde_json::from_value(map(json!({"a": "1"}))).unwrap();
    maps.create(&kube::api::PostParams::default(), &object).await.unwrap();
    let read = server.get(&format!("{MAPS}/m")).await.json;
    assert_eq!(owners(&read), [r#"fairlead Update {"f:data":{".":{},"f:a":{}}}"#]);
}

#[tokio::test]
async fn clients_in_process_get_objects_without_their_account_and_with_all_else() {
    use k8s_openapi::api::apps::v1::ControllerRevision;
    const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let server = Server::start().await;
    let metadata = json!({"name": "n", "managedFields": [{"manager": "m"}], "resourceVersion": "1"});
    let data = json!({"spec": {"template": {"metadata": metadata}}});
    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"},
        "revision": 1, "data": data});
    let created = server.post(REVISIONS, revision).await.json;
    assert!(created["metadata"]["managedFields"].is_array(), "{created}");
    let revisions: kube::Api<ControllerRevision> = kube::Api::namespaced(server.client(), "default");
    let read = revisions.get("r").await.unwrap();
    let listed = revisions.list(&kube::api::ListParams::default()).await.unwrap().items.remove(0);
    let mut events = revisions.watch(&kube::api::WatchParams::default(), "0").await.unwrap().boxed();
    let Some(Ok(kube::api::WatchEvent::Added(watched))) = events.next().await else { panic!("the revision is there") };
    for seen in [read, listed, watched] {
        assert_eq!(seen.metadata.managed_fields, None);
        assert_eq!(seen.data.map(|data| data.0), Some(data.clone()));
    }
    let of = |partial: kube::core::PartialObjectMeta<ControllerRevision>| partial.metadata.managed_fields;
    assert_eq!(of(revisions.get_metadata("r").await.unwrap()), None);
    assert!(server.get(&format!("{REVISIONS}/r")).await.json["metadata"]["managedFields"].is_array());
}

/// What the account costs: processor time of creates and status updates with it, and how much of that is its own. Run
/// by hand: `cargo test -p fairlead-control --lib cost_of_the_account -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_the_account() {
    const COUNT: u32 = 2_000;
    let server = Server::start().await;
    let mut pods = Vec::new();
    let created = {
        let begun = processor_seconds();
        for n in 0..COUNT {
            let answer = server.post(&format!("{PODS}?fieldManager=me"), pod(&format!("p{n}"))).await;
            pods.push(answer.json);
        }
        processor_seconds() - begun
    };
    let updated = {
        let begun = processor_seconds();
        for n in 0..COUNT {
            let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            let path = format!("{PODS}/p{n}/status?fieldManager=kubelet");
            server.patch("application/strategic-merge-patch+json", &path, status).await;
        }
        processor_seconds() - begun
    };
    let kinds = crate::kinds::Kinds::built_in();
    let kind = kinds.by_path("", "v1", "pods").unwrap();
    let tracker = |manager, subresource| crate::field_management::Tracker {
        kinds: &kinds,
        served: &kind,
        stored: &kind,
        manager,
        subresource,
        now: "2024-01-01T00:00:00Z",
    };
    let strip = |mut pod: Value| {
        pod["metadata"].as_object_mut().unwrap().shift_remove("managedFields");
        pod
    };
    let pods: Vec<Value> = pods.into_iter().map(strip).collect();
    let begun = processor_seconds();
    let accounts: Vec<String> = pods.iter().map(|pod| tracker("me", None).update(None, pod, "", None)).collect();
    let create_share = processor_seconds() - begun;
    let running: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let mut pod = pod.clone();
            pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
            pod
        })
        .collect();
    let begun = processor_seconds();
    for ((old, new), account) in pods.iter().zip(&running).zip(&accounts) {
        tracker("kubelet", Some("status")).update(Some(old), new, account, None);
    }
    let update_share = processor_seconds() - begun;
    let each = |seconds: f64| seconds / f64::from(COUNT) * 1e6;
    println!(
        "create {:.1} µs, of it the account {:.1} µs ({:.0} %); status update {:.1} µs, of it {:.1} µs ({:.0} %)",
        each(created),
        each(create_share),
        create_share / created * 100.0,
        each(updated),
        each(update_share),
        update_share / updated * 100.0
    );
}

/// What this process has used of processors.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call to write to.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[tokio::test]
async fn an_empty_list_in_an_item_changes_who_owns_the_list_and_nothing_else() {
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let server = Server::start().await;
    let role = |rule: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [rule]});
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let first = server.post(&format!("{ROLES}?fieldManager=first"), role(rule.clone())).await.json;
    assert_eq!(owners(&first), [r#"first Update {"f:rules":{}}"#]);
    let mut same = rule.clone();
    same["resourceNames"] = json!([]);
    let second = server.put(&format!("{ROLES}/r?fieldManager=second"), role(same)).await.json;
    assert_eq!(owners(&second), [r#"second Update {"f:rules":{}}"#]);
    assert_eq!(second["rules"], json!([rule]));

    let created = server.post(DEPLOYMENTS, deployment()).await.json;
    let mut new = created.clone();
    new["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([]);
    let updated = server.put(&format!("{DEPLOYMENTS}/d"), new).await.json;
    assert_eq!((&updated["spec"], &updated["metadata"]["generation"]), (&created["spec"], &json!(1)));
}
