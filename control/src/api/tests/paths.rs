//! Paths that end in slashes, or have empty parts, as the real kube-apiserver answers them.

use http::Method;
use serde_json::json;

use super::{Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn slashes_at_the_end_of_a_path_are_taken_where_kubernetes_takes_them() {
    let server = Server::start().await;
    for (path, code) in [
        ("/api/", 200),
        ("/api//", 200),
        ("/api/v1//", 200),
        ("/apis/", 200),
        ("/apis//", 404),
        ("/apis/apps//", 200),
        ("/apis/apps/v1/", 200),
        ("/apis/nope/", 404),
        ("/version/", 200),
        ("/openid/v1/jwks/", 200),
        ("/.well-known/openid-configuration/", 200),
        ("/healthz/", 404),
        ("/livez/ping/", 404),
        ("/metrics/", 404),
        ("/openapi/v2/", 404),
        ("/openapi/v3/", 404),
        ("/openapi/v3/api/v1/", 404),
        ("/index.html/", 404),
        ("//", 404),
        ("/api/v1/namespaces/default//", 200),
        ("/api/v1/namespaces/default/finalize/", 405),
        ("/api/v1/namespaces/default/pods/p/log/x", 404),
    ] {
        assert_eq!(server.get(path).await.code, code, "{path}");
    }
    let (maps, one) = (format!("{MAPS}/"), format!("{MAPS}/a//"));
    assert_eq!(server.post(&maps, config_map("a", json!({}))).await.code, 201);
    assert_eq!(server.put(&maps, config_map("a", json!({}))).await.code, 405);
    assert_eq!(server.merge(&maps, json!({})).await.code, 405);
    assert_eq!(
        (server.get(&maps).await.json["kind"].as_str(), server.get(&one).await.code),
        (Some("ConfigMapList"), 200)
    );
    assert_eq!(server.delete(&maps, json!({})).await.code, 200);
    assert_eq!(server.get(&one).await.code, 404);
}

#[tokio::test]
async fn under_a_path_with_an_empty_part_nothing_is_served() {
    let server = Server::start().await;
    for (path, is_page) in [
        ("/api/v1/namespaces/default//configmaps", false),
        ("/api/v1/namespaces///configmaps", false),
        ("/api/v1//configmaps", false),
        ("/api//v1/configmaps", false),
        ("/api/v1/namespaces/default/configmaps//a", false),
        ("/api/v1/namespaces/default/pods/p//status", false),
        ("/api/v1/namespaces//nodes", false),
        ("/apis/apps//v1/deployments", false),
        ("/apis//apps/v1/deployments", true),
        ("/apis/example.com//v1/foos", true),
        ("//api/v1/configmaps", true),
        ("/apis//v1", true),
        ("//healthz", true),
        ("/livez//ping", true),
        ("/openapi//v2", true),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.code, answer.text == "404 page not found\n"), (404, is_page), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn an_empty_namespace_is_all_of_them_to_who_reads() {
    let server = Server::start().await;
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 201);
    let all = "/api/v1/namespaces//configmaps";
    let list = server.get(all).await;
    assert_eq!((list.code, list.json["items"][0]["metadata"]["name"].as_str()), (200, Some("a")), "{}", list.text);
    assert_eq!(server.get(&format!("{all}?watch=1&timeoutSeconds=1")).await.code, 200);
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        let answer = server.call(method, &format!("{all}/a"), &[], "{}").await;
        assert_eq!((answer.code, answer.message()), (400, "Namespace parameter required."));
    }
    let mut map = config_map("b", json!({}));
    map["metadata"]["namespace"] = json!("default");
    assert_eq!(server.post(all, map).await.code, 405);
    assert_eq!(server.delete(all, json!({})).await.code, 405, "kube-apiserver deletes in all namespaces");
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 200);
}
