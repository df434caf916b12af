//! The one write path: what commits together, what outlives its client, how lenient decoding is.

use std::time::Duration;

use http::{Method, Request};
use serde_json::{Value, json};

use super::{Server, config_map, pod};
use crate::identity::Identity;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test]
async fn a_binding_keeps_its_condition_and_stores_nothing_untyped() {
    let server = Server::start().await;
    assert_eq!(server.post(PODS, pod("p")).await.code, 201);
    let binding = |annotations| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "annotations": annotations},
            "target": {"kind": "Node", "name": "n"}})
    };
    let path = format!("{PODS}/p/binding");
    let refused = server.post(&path, binding(json!({"a": 5}))).await;
    assert_eq!(refused.code, 400, "{}", refused.json);
    assert_eq!(server.post(&path, binding(json!({"a": "b"}))).await.code, 201);
    let bound = server.get(&format!("{PODS}/p")).await.json;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["a"]), (&json!("n"), &json!("b")));
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True"), "{bound}");
}

#[tokio::test]
async fn an_object_does_not_grow_beyond_its_bound_by_patches_status_or_apply() {
    let server = Server::start().await;
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 201);
    assert_eq!(server.post(PODS, pod("p")).await.code, 201);
    let path = format!("{MAPS}/a");
    let half = "x".repeat(900 << 10);
    assert_eq!(server.merge(&path, json!({"binaryData": {"b": half}})).await.code, 200);
    let status = |name: &str| json!({"status": {"message": half, "reason": name.repeat(1200 << 10)}});
    assert_eq!(server.merge(&format!("{PODS}/p/status"), status("")).await.code, 200);
    let refused = server.merge(&format!("{PODS}/p/status"), status("r")).await;
    assert_eq!(refused.reason(), (413, "RequestEntityTooLarge"), "{}", refused.message());
    for n in 0..8 {
        let notes = json!({"metadata": {"annotations": {"n": n.to_string()}}, "data": {"k": "y".repeat(n)}});
        assert_eq!(server.merge(&path, notes).await.code, 200, "{n}");
    }
    let apply = |bytes: usize| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "status": {"reason": "z".repeat(bytes)}})
    };
    let path = format!("{PODS}/p/status?fieldManager=m&force=true");
    let as_apply = [("content-type", "application/apply-patch+yaml")];
    assert_eq!(server.call(Method::PATCH, &path, &as_apply, apply(10).to_string()).await.code, 200);
    let refused = server.call(Method::PATCH, &path, &as_apply, apply(1300 << 10).to_string()).await;
    assert_eq!(refused.reason(), (413, "RequestEntityTooLarge"), "{}", refused.message());
    assert_eq!(server.delete(&format!("{PODS}/p"), json!({})).await.code, 200);
}

#[tokio::test]
async fn a_service_and_the_records_of_what_it_has_are_stored_and_removed_together() {
    let server = Server::start().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let created = server.post(SERVICES, service).await;
    assert_eq!(created.code, 201, "{}", created.json);
    let ip = created.json["spec"]["clusterIP"].as_str().unwrap();
    let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}");
    let address = server.get(&path).await.json;
    let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "web"});
    assert_eq!(address["spec"]["parentRef"], parent, "{address}");
    assert_eq!(server.delete(&format!("{SERVICES}/web"), json!({})).await.code, 200);
    assert_eq!(server.get(&path).await.reason(), (404, "NotFound"));
}

#[tokio::test]
async fn a_port_is_a_services_or_that_of_nodes_agents() {
    const NODES: &str = "/api/v1/nodes";
    let server = Server::start().await;
    let service = |name: &str, port: u16| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    let status = |port: u16| json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    assert_eq!(server.post(SERVICES, service("web", 30080)).await.code, 201);
    assert_eq!(server.post(NODES, json!({"metadata": {"name": "n"}})).await.code, 201);
    // A Service keeps no node away.
    assert_eq!(server.merge("/api/v1/nodes/n/status", status(30080)).await.code, 200);
    let mut born = status(30080);
    born["metadata"] = json!({"name": "born"});
    assert_eq!(server.post(NODES, born).await.code, 201);
    assert_eq!(server.get(&format!("{SERVICES}/web")).await.json["spec"]["ports"][0]["nodePort"], 30080);

    assert_eq!(server.merge("/api/v1/nodes/n/status", status(30250)).await.code, 200);
    let refused = server.post(SERVICES, service("late", 30250)).await;
    assert!(refused.message().contains("the agent of a node listens"), "{}", refused.message());
    assert_eq!(server.merge("/api/v1/nodes/n", json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
    assert_eq!(server.delete("/api/v1/nodes/n", json!({})).await.code, 200);
    assert_eq!(server.post(SERVICES, service("late", 30250)).await.code, 201);
}

#[tokio::test]
async fn deletecollection_gives_back_what_services_had() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        assert_eq!(server.post(SERVICES, service).await.code, 201);
    }
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    assert_eq!(server.get(addresses).await.json["items"].as_array().unwrap().len(), 2);
    assert_eq!(server.delete(SERVICES, json!({})).await.code, 200);
    assert_eq!(server.get(addresses).await.json["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_going_or_gone() {
    let server = Server::start().await;
    let namespace = json!({"metadata": {"name": "going"}});
    assert_eq!(server.post("/api/v1/namespaces", namespace).await.code, 201);
    assert_eq!(server.delete("/api/v1/namespaces/going", json!({})).await.code, 200);
    for (path, object) in [
        ("configmaps", config_map("a", json!({}))),
        ("events", json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "going"}})),
    ] {
        let refused = server.post(&format!("/api/v1/namespaces/going/{path}"), object).await;
        assert_eq!(refused.reason(), (403, "Forbidden"), "{}", refused.json);
        assert_eq!(refused.json["details"]["causes"][0]["reason"], "NamespaceTerminating");
    }
    let absent = server.post("/api/v1/namespaces/none/configmaps", config_map("a", json!({}))).await;
    assert_eq!((absent.code, absent.message()), (404, "namespaces \"none\" not found"));
}

#[tokio::test]
async fn a_write_is_finished_when_its_client_has_gone() {
    let server = Server::start().await;
    let text = config_map("a", json!({})).to_string();
    let request = Request::post(MAPS).body(axum::body::Body::from(text)).unwrap();
    // Polled once, so that the handler has begun, and dropped.
    let mut answer = Box::pin(server.api.answer_as(Identity::control("test"), request));
    let polled = futures::poll!(answer.as_mut());
    assert!(polled.is_pending());
    drop(answer);
    server.api.drain().await;
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 200);
}

#[tokio::test]
async fn what_a_body_leaves_out_is_taken_from_the_path_or_zero() {
    let server = Server::start().await;
    let created = server.post(MAPS, json!({"metadata": {"name": "a"}})).await;
    assert_eq!((created.code, &created.json["kind"]), (201, &json!("ConfigMap")), "{}", created.json);
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(server.post(SERVICES, service).await.code, 201);
    // In Go `lastTransitionTime` is held by value: absent, it is the zero time, and no error.
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "A", "message": ""}]}});
    let patched = server.merge(&format!("{SERVICES}/web/status"), status).await;
    assert_eq!(patched.code, 200, "{}", patched.json);
}

#[tokio::test]
async fn two_writers_of_one_address_at_once_both_end_and_one_has_it() {
    let server = Server::start().await;
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    let both = async { tokio::join!(server.post(SERVICES, service("a")), server.post(SERVICES, service("b"))) };
    let (a, b) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    let mut codes = [a.code, b.code];
    codes.sort_unstable();
    assert_eq!(codes, [201, 422], "{} {}", a.json, b.json);
}

#[tokio::test]
async fn a_node_cannot_delete_the_pod_of_another_that_took_the_name_meanwhile() {
    let server = Server::start().await;
    let mut theirs = pod("p");
    theirs["spec"]["nodeName"] = "n2".into();
    assert_eq!(server.post(PODS, theirs).await.code, 201);
    let node = |name: &str| Identity::authenticated(format!("system:node:{name}"), vec!["system:nodes".to_owned()]);
    // The gate asked before the body came; these requests have passed it.
    let delete = |name| {
        let request = Request::delete(format!("{PODS}/p")).body(r#"{"gracePeriodSeconds":0}"#.into()).unwrap();
        server.api.answer_as(node(name), request)
    };
    assert_eq!(delete("n1").await.status(), 403);
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 200);
    assert_eq!(delete("n2").await.status(), 200);
}

#[tokio::test]
async fn malformed_delete_options_delete_nothing() {
    let server = Server::start().await;
    assert_eq!(server.post(MAPS, config_map("m", json!({}))).await.code, 201);
    let path = format!("{MAPS}/m");
    for options in [
        json!({"preconditions": {"uid": 5}}),
        json!({"preconditions": "00000000-0000-0000-0000-000000000000"}),
        json!({"dryRun": "All"}),
        json!({"dryRun": ["Some"]}),
        json!({"gracePeriodSeconds": "30"}),
        json!({"propagationPolicy": true}),
        json!({"orphanDependents": "true"}),
        json!({"apiVersion": "v1", "kind": "ConfigMap"}),
    ] {
        for path in [path.as_str(), MAPS] {
            let refused = server.delete(path, options.clone()).await;
            // Read, and then refused for what it says.
            let code = if options["dryRun"].is_array() { 422 } else { 400 };
            assert_eq!(refused.code, code, "{path} {options}: {}", refused.text);
        }
    }
    assert_eq!(server.get(&path).await.code, 200);
    for dry in [json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]}), json!({"dryRun": ["All"]})] {
        assert_eq!(server.delete(&path, dry).await.code, 200);
    }
    assert_eq!(server.get(&path).await.code, 200);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0});
    assert_eq!(server.delete(&path, options).await.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn deletions_and_dry_runs_are_answered_as_kubernetes_answers_them() {
    let server = Server::start().await;
    let dry = server.post(&format!("{MAPS}?dryRun=All"), config_map("m", json!({}))).await;
    assert_eq!((dry.code, &dry.json["metadata"]["resourceVersion"]), (201, &Value::Null), "{}", dry.text);
    assert_eq!(server.post(MAPS, config_map("m", json!({}))).await.code, 201);
    let path = format!("{MAPS}/m");
    let uid = "5f0e1d2c-0000-4000-8000-000000000000";
    let other = server.delete(&path, json!({"preconditions": {"uid": uid}})).await;
    assert_eq!((other.code, &other.json["details"]), (409, &json!({"name": "m", "kind": "ConfigMap"})));
    let patched = server.merge(&path, json!({"metadata": {"uid": uid}})).await;
    assert_eq!(patched.reason(), (422, "Invalid"), "{}", patched.text);
    let patched = server.merge(&path, json!({"data": 5})).await;
    assert_eq!(patched.reason(), (422, "Invalid"), "{}", patched.text);
    assert!(patched.json["message"].as_str().unwrap().starts_with(" \"\" is invalid: patch: Invalid value: "));
    let mut of_any_version = config_map("m", json!({"a": "b"}));
    of_any_version["metadata"]["resourceVersion"] = json!("0");
    assert_eq!(server.put(&path, of_any_version).await.code, 200);
    let gone = server.delete(MAPS, json!({})).await;
    assert_eq!(
        (&gone.json["kind"], &gone.json["items"][0]["metadata"]["name"]),
        (&json!("ConfigMapList"), &json!("m"))
    );
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    assert_eq!(server.post(accounts, account).await.code, 201);
    assert_eq!(server.delete(&format!("{accounts}/a"), json!({})).await.json["kind"], "ServiceAccount");
}

#[tokio::test]
async fn a_patch_changes_no_type_and_what_is_said_of_the_server_s_own_is_left_out() {
    let server = Server::start().await;
    let mut map = config_map("a", json!({}));
    map["metadata"]["selfLink"] = json!("/x");
    let created = server.post(MAPS, map).await;
    assert_eq!((created.code, &created.json["metadata"]["selfLink"]), (201, &json!(null)));
    let path = format!("{MAPS}/a");
    let other = server.merge(&path, json!({"kind": "Other"})).await;
    assert_eq!(other.code, 422, "{}", other.json);
    assert!(other.message().ends_with("no kind \"Other\" is registered for version \"v1\""), "{}", other.message());
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let typed = server.call(Method::PATCH, &path, &strategic, r#"{"kind":"Other","data":{"k":"v"}}"#).await;
    assert_eq!((typed.code, &typed.json["kind"], &typed.json["data"]["k"]), (200, &json!("ConfigMap"), &json!("v")));
    let uid = server.merge(&path, json!({"metadata": {"uid": "x", "labels": {"-": ""}}})).await;
    let fields: Vec<&str> =
        uid.json["details"]["causes"].as_array().unwrap().iter().filter_map(|cause| cause["field"].as_str()).collect();
    assert_eq!((uid.code, fields), (422, vec!["metadata.uid", "metadata.labels"]), "both are told");
}

#[tokio::test]
async fn a_refusal_warns_of_what_its_object_has() {
    let server = Server::start().await;
    let path = format!("{MAPS}?fieldValidation=Warn");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A"}, "dat": {}}).to_string();
    let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    let response = server.send(request).await;
    assert_eq!(response.status(), 422);
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"dat\\\"\"");
}

#[tokio::test]
async fn a_limit_range_without_a_name_gets_one_and_an_address_keeps_what_it_means() {
    let server = Server::start().await;
    let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": []}});
    let created = server.post("/api/v1/namespaces/default/limitranges", limits).await;
    assert_eq!((created.code, created.json["metadata"]["name"].as_str().map(str::len)), (201, Some(36)));
    let address = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"generateName": "10.0.0.9"}, "spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}}});
    let created = server.post("/apis/networking.k8s.io/v1/ipaddresses", address).await;
    assert_eq!((created.code, &created.json["metadata"]["name"]), (201, &json!("10.0.0.9")), "{}", created.json);
}

#[tokio::test]
async fn devices_of_others_are_reached_where_the_namespace_allows_it() {
    let server = Server::start().await;
    let list = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let exactly = json!({"deviceClassName": "gpu", "adminAccess": true});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}});
    let refused = server.post(list, claim.clone()).await;
    assert_eq!(refused.reason(), (422, "Invalid"), "{}", refused.json);
    assert!(refused.message().contains("spec.devices.requests[0].adminAccess: Forbidden: admin access to devices"));
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    assert_eq!(server.merge("/api/v1/namespaces/default", label).await.code, 200);
    assert_eq!(server.post(list, claim).await.code, 201);
}
