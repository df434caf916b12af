//! Create, get, list, update, patch, delete.

use http::Method;
use serde_json::json;

use super::{Server, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let created = server.post(MAPS, config_map("a", json!({"x": "1"}))).await;
    assert_eq!(created.code, 201, "{}", created.json);
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(created.json["metadata"][field].is_string(), "{field}");
    }
    let path = format!("{MAPS}/a");
    assert_eq!(server.get(&path).await.json, created.json);
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.reason(), (409, "AlreadyExists"));

    let mut changed = created.json.clone();
    changed["data"]["k"] = json!("w");
    let updated = server.put(&path, changed.clone()).await;
    assert_eq!((updated.code, &updated.json["data"]["k"]), (200, &json!("w")));
    assert_ne!(updated.json["metadata"]["resourceVersion"], created.json["metadata"]["resourceVersion"]);
    let stale = server.put(&path, changed).await;
    assert_eq!(stale.reason(), (409, "Conflict"));
    assert!(stale.message().contains("the object has been modified"), "{}", stale.message());

    let patched = server.merge(&path, json!({"data": {"k": null, "l": "m"}})).await;
    assert_eq!((patched.code, &patched.json["data"]), (200, &json!({"l": "m"})));
    let deleted = server.delete(&path, json!({})).await;
    assert_eq!((deleted.code, deleted.json["status"].as_str()), (200, Some("Success")));
    assert_eq!(server.get(&path).await.reason(), (404, "NotFound"));
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_resource_version() {
    let server = Server::start().await;
    let created = server.post(MAPS, config_map("a", json!({}))).await;
    let patched = server.merge(&format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await;
    assert_eq!(patched.json["metadata"]["resourceVersion"], created.json["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn lists_select_by_labels_and_fields_and_come_in_pages_of_one_revision() {
    let server = Server::start().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        assert_eq!(server.post(MAPS, config_map(name, json!({"tier": tier}))).await.code, 201);
    }
    let names = |answer: &super::Answer| -> Vec<String> {
        let items = answer.json["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&server.get(&format!("{MAPS}?labelSelector=tier%3Dx")).await), ["a", "c"]);
    assert_eq!(names(&server.get(&format!("{MAPS}?labelSelector=tier+notin+(x)")).await), ["b"]);
    assert_eq!(names(&server.get("/api/v1/configmaps?fieldSelector=metadata.name%3Db").await), ["b"]);
    let unknown = server.get(&format!("{MAPS}?fieldSelector=spec.nope%3Db")).await;
    assert_eq!(unknown.reason(), (400, "BadRequest"));

    let first = server.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first.json["metadata"]["remainingItemCount"], 1);
    server.post(MAPS, config_map("d", json!({}))).await;
    let token = first.json["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c"], "written after the first page");
    assert_eq!(second.json["metadata"]["resourceVersion"], first.json["metadata"]["resourceVersion"]);
    assert_eq!(server.get(&format!("{MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn what_follows_a_page_is_counted_once_a_list() {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let server = Server::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(server.post(MAPS, config_map(name, json!({}))).await.code, 201);
    }
    for path in [MAPS, "/api/v1/configmaps"] {
        let (mut counts, mut token) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("{path}?limit=2{token}")).await;
            counts.push(page.json["metadata"]["remainingItemCount"].as_u64());
            let Some(next) = page.json["metadata"]["continue"].as_str() else { break };
            let known: serde_json::Value =
                serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(next).unwrap()).unwrap();
            assert_eq!(known["left"].as_u64(), counts.last().copied().flatten(), "the next page need not count");
            token = format!("&continue={next}");
        }
        assert_eq!(counts, [Some(3), Some(1), None], "{path}");
    }
    let selected = server.get(&format!("{MAPS}?limit=1&labelSelector=!x")).await;
    assert!(selected.json["metadata"]["continue"].is_string());
    assert_eq!(selected.json["metadata"].get("remainingItemCount"), None);
}

#[tokio::test]
async fn a_table_has_cells_and_partial_metadata_has_no_more_than_that() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let table = server.get_as(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!(table.json["kind"], "Table");
    assert_eq!(table.json["columnDefinitions"][0]["name"], "Name");
    let row = &table.json["rows"][0];
    assert_eq!((&row["cells"][0], &row["cells"][1]), (&json!("a"), &json!(1)));
    assert!(row["cells"][2].as_str().unwrap().ends_with('s'), "{row}");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    let partial =
        server.get_as(&format!("{MAPS}/a"), "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    assert_eq!((&partial.json["metadata"]["name"], partial.json.get("data")), (&json!("a"), None));
}

#[tokio::test]
async fn names_are_generated() {
    let server = Server::start().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "web-"}});
    let created = server.post(MAPS, map).await;
    assert!(created.name().starts_with("web-") && created.name().len() == 9, "{}", created.json);
}

#[tokio::test]
async fn bad_objects_are_refused_and_nothing_is_stored() {
    let server = Server::start().await;
    let before = server.api.store().snapshot().revision;
    for (path, body, reason, words) in [
        (MAPS, config_map("Not_A_Name", json!({})), (422, "Invalid"), "RFC 1123 subdomain"),
        (MAPS, config_map("a", json!({"a b": "c"})), (422, "Invalid"), "metadata.labels"),
        (MAPS, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}), (400, "BadRequest"), "kind"),
        (
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": 1}),
            (400, "BadRequest"),
            "data",
        ),
        (
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
            (422, "Invalid"),
            "name or generateName",
        ),
        (
            "/api/v1/namespaces/nowhere/configmaps",
            config_map("a", json!({})),
            (404, "NotFound"),
            "namespaces \"nowhere\" not found",
        ),
    ] {
        let answer = server.post(path, body).await;
        assert_eq!(answer.reason(), reason, "{}", answer.json);
        assert!(answer.message().contains(words), "{}", answer.message());
    }
    assert_eq!(server.api.store().snapshot().revision, before);
}

#[tokio::test]
async fn unknown_fields_are_an_error_a_warning_or_nothing() {
    let server = Server::start().await;
    let mut map = config_map("a", json!({}));
    map["nope"] = json!(1);
    let strict = server.post(&format!("{MAPS}?fieldValidation=Strict"), map.clone()).await;
    assert_eq!(strict.reason(), (400, "BadRequest"));
    assert!(strict.message().contains("strict decoding error: unknown field \"nope\""), "{}", strict.message());
    let warned = server.post(&format!("{MAPS}?fieldValidation=Warn"), map.clone()).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"nope\\\"\"");
    assert_eq!(warned.json.get("nope"), None);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = Server::start().await;
    let created = server.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await;
    assert_eq!(created.code, 201);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
}

#[tokio::test]
async fn what_is_not_served_is_a_status() {
    let server = Server::start().await;
    assert_eq!(server.get("/api/v1/frobs").await.reason(), (404, "NotFound"));
    assert_eq!(server.get("/nope").await.code, 404);
    assert_eq!(server.call(Method::PUT, MAPS, &[], "").await.reason(), (405, "MethodNotAllowed"));
    let body = config_map("a", json!({})).to_string();
    let other = server.call(Method::POST, MAPS, &[("content-type", "text/csv")], body.clone()).await;
    assert_eq!(other.reason(), (415, "UnsupportedMediaType"));
    let (path, apply) = (format!("{MAPS}/a"), ("content-type", "application/apply-patch+cbor"));
    let refused = server.call(Method::PATCH, &path, &[apply], body).await;
    assert_eq!(refused.reason(), (415, "UnsupportedMediaType"));
    assert_eq!(server.get_as(MAPS, "text/html").await.reason(), (406, "NotAcceptable"));
    assert_eq!(server.call(Method::POST, MAPS, &[], "{").await.reason(), (400, "BadRequest"));
    assert_eq!(
        server.call(Method::POST, MAPS, &[], vec![b' '; 4 << 20]).await.reason(),
        (413, "RequestEntityTooLarge")
    );
}

#[tokio::test]
async fn a_pod_is_bound_once_and_leaves_its_node_with_grace() {
    let server = Server::start().await;
    assert_eq!(server.post(PODS, pod("p")).await.code, 201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let bound = server.post(&format!("{PODS}/p/binding"), binding.clone()).await;
    assert_eq!(bound.code, 201, "{}", bound.json);
    assert_eq!(server.post(&format!("{PODS}/p/binding"), binding).await.reason(), (409, "Conflict"));
    let marked = server.delete(&format!("{PODS}/p"), json!({})).await;
    assert_eq!(marked.json["metadata"]["deletionGracePeriodSeconds"], 30, "{}", marked.json);
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 200);
    server.delete(&format!("{PODS}/p"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test]
async fn a_binding_below_its_pod_binds_the_pod_of_its_uid_alone() {
    const BINDINGS: &str = "/api/v1/namespaces/default/bindings";
    let server = Server::start().await;
    let binding = |name: &str, field: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, field: value},
            "target": {"kind": "Node", "name": "n"}})
    };
    for (name, collection) in [("p", format!("{PODS}/p/binding")), ("q", BINDINGS.to_owned())] {
        let made = server.post(PODS, pod(name)).await;
        let uid = made.json["metadata"]["uid"].as_str().unwrap();
        let old = server.post(&collection, binding(name, "resourceVersion", "1")).await;
        assert_eq!(old.reason(), (409, "Conflict"), "{collection}");
        let other = server.post(&collection, binding(name, "uid", "other")).await;
        // In a Binding that is created by itself, a UID says nothing: see `rest.WipeObjectMetaSystemFields`.
        match name {
            "p" => {
                let words = format!("Precondition failed: UID in precondition: other, UID in object meta: {uid}");
                assert!(other.message().ends_with(&words), "{}", other.json);
                assert_eq!(other.reason(), (409, "Conflict"));
                assert_eq!(server.post(&collection, binding(name, "uid", uid)).await.code, 201);
            }
            _ => assert_eq!(other.code, 201, "{}", other.json),
        }
    }
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::start().await;
    let mut map = config_map("a", json!({}));
    map["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, map).await;
    let path = format!("{MAPS}/a");
    let uid = server.delete(&path, json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(uid.reason(), (409, "Conflict"));
    let marked = server.delete(&path, json!({})).await;
    assert!(marked.json["metadata"]["deletionTimestamp"].is_string(), "{}", marked.json);
    let more = server.merge(&path, json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})).await;
    assert_eq!(more.reason(), (422, "Invalid"));
    assert!(more.message().contains("no new finalizers can be added"), "{}", more.message());
    let freed = server.merge(&path, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn all_selected_objects_are_deleted_at_once() {
    let server = Server::start().await;
    for index in 0..5 {
        let tier = if index < 3 { "x" } else { "y" };
        server.post(MAPS, config_map(&format!("m{index}"), json!({"tier": tier}))).await;
    }
    let deleted = server.delete(&format!("{MAPS}?labelSelector=tier%3Dx"), json!({})).await;
    assert_eq!(deleted.code, 200, "{}", deleted.json);
    assert_eq!(server.get(MAPS).await.json["items"].as_array().unwrap().len(), 2);
}
