//! What is recorded of patches and configurations: what the API decoded, and the text where it could not.

use http::Method;
use serde_json::{Value, json};

use super::{events, options};
use crate::{api::tests::Server, audit::Audit};

#[tokio::test]
async fn patches_are_recorded_as_they_were_decoded_and_as_texts_where_they_were_not() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let rules = "- {level: Request, omitStages: [RequestReceived]}\n";
    server.api.audit_through(Audit::start(&options(dir.path(), rules)).await.unwrap().unwrap());
    let map = |data: &str| {
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {{\"name\": \"a\"}}, {data}}}")
    };
    let read = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let apply = "application/apply-patch+yaml";
    let twice = map("\"data\": {\"k\": \"1\", \"k\": \"2\"}");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: '3'\n  k: '4'\n";
    let deep = map(&format!("\"x\": {}{}", "[".repeat(200), "]".repeat(200)));
    // More nodes than a YAML text may have.
    let large = map(&format!("\"data\": {{}}, \"x\": [0{}]", ",0".repeat(600_000)));
    let mut read_large = read(json!({}));
    read_large["x"] = vec![0; 600_001].into();
    for (content_type, body, code, expected) in [
        (apply, twice.clone(), 201, read(json!({"k": "2"}))),
        (apply, yaml.to_owned(), 200, read(json!({"k": "4"}))),
        (apply, deep.clone(), 400, deep.into()),
        (apply, "a: [".to_owned(), 400, "a: [".into()),
        (apply, large, 0, read_large),
        ("application/merge-patch+json", "{\"data\": {\"k\": \"5\"}}".to_owned(), 200, json!({"data": {"k": "5"}})),
        ("application/json-patch+json", "[{".to_owned(), 400, "[{".into()),
    ] {
        let force = if content_type == apply { "&force=true" } else { "" };
        let path = format!("/api/v1/namespaces/default/configmaps/a?fieldManager=test{force}");
        let answer = server.call(Method::PATCH, &path, &[("content-type", content_type)], body.clone()).await;
        let start = &body[..body.len().min(100)];
        assert!(code == 0 || answer.code == code, "{start}: {}", answer.text);
        let event = events(dir.path()).pop().unwrap();
        assert!(event["requestObject"] == expected, "{start}");
        assert_eq!(event["responseStatus"]["code"], answer.code);
    }
}
