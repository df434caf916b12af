//! What authentication and the issue of tokens note in events.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{begin, events, options};
use crate::{
    api::tests::Server,
    audit::{Audit, current},
};

#[tokio::test]
async fn a_token_that_is_issued_is_known_by_its_id() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let rules = "- {level: Metadata, omitStages: [RequestReceived]}\n";
    server.api.audit_through(Audit::start(&options(dir.path(), rules)).await.unwrap().unwrap());
    let made = server.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({})).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let claims = made.json["status"]["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let event = events(dir.path()).pop().unwrap();
    let issued = &event["annotations"]["authentication.kubernetes.io/issued-credential-id"];
    assert_eq!(*issued, format!("JTI={}", claims["jti"].as_str().unwrap()));
}

#[tokio::test]
async fn what_is_noted_before_a_request_is_audited_is_in_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::start(&options(dir.path(), "- level: Metadata\n")).await.unwrap().unwrap();
    let (read, notes) = current::gather(async {
        current::annotate("authentication.k8s.io/stale-token", || "late".to_owned());
        1
    })
    .await;
    assert_eq!((read, current::gather(async {}).await.1), (1, Vec::new()));
    begin(&audit, 1).noted(notes).received(true).await.unwrap();
    current::annotate("authentication.k8s.io/stale-token", || unreachable!("nobody notes it"));
    audit.shut_down().await;
    let events = events(dir.path());
    assert!(events.iter().all(|event| event["annotations"]["authentication.k8s.io/stale-token"] == "late"));
}
