//! Paths that end in slashes, as the real kube-apiserver answers them.

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
