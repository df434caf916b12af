//! A request ends when what was begun for it has ended, whether its client is there or not.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::{events, options};
use crate::{
    api::tests::{Server, config_map, webhooks::hook},
    audit::Audit,
    webhook::tests::{Answering, TestServer},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_write_whose_client_is_gone_has_its_event_when_it_has_ended() {
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let may_go_on = go_on.clone();
    let answering: Answering = Arc::new(move |_, review| {
        let (asked, may_go_on) = (asked.clone(), may_go_on.clone());
        Box::pin(async move {
            asked.send(()).unwrap();
            may_go_on.notified().await;
            let (uid, name) = (&review["request"]["uid"], &review["request"]["name"]);
            let response = json!({"uid": uid, "allowed": name != "refused"});
            (200, json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}))
        })
    });
    let (server, webhook) = (Server::start().await, TestServer::start(&["localhost"], answering).await);
    assert_eq!(server.configure("Validating", "c", vec![hook(&webhook, "/slow", json!({}))]).await.code, 201);
    let dir = tempfile::tempdir().unwrap();
    let rules = "- {level: RequestResponse, omitStages: [RequestReceived]}\n";
    let audit = Audit::start(&options(dir.path(), rules)).await.unwrap().unwrap();
    server.api.audit_through(audit.clone());

    for name in ["made", "refused"] {
        let mut request = Box::pin(server.post(MAPS, config_map(name, json!({}))));
        tokio::select! {
            answer = &mut request => panic!("it does not wait for the webhook: {}", answer.text),
            asked = was_asked.recv() => asked.unwrap(),
        }
        // The client hangs up.
        drop(request);
    }
    assert!(events(dir.path()).is_empty(), "both are under way");
    go_on.notify_one();
    go_on.notify_one();
    go_on.notify_waiters();
    server.api.drain().await;
    audit.shut_down().await;
    let written = events(dir.path());
    let of = |name: &str| -> &Value {
        let mut found = written.iter().filter(|event| event["objectRef"]["name"] == name);
        let event = found.next().unwrap();
        assert!(found.next().is_none(), "there is one event");
        event
    };
    assert_eq!(of("made")["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(of("made")["responseObject"]["metadata"]["name"], "made");
    assert_eq!(of("refused")["responseStatus"]["code"], 400);
    assert_eq!(of("refused")["responseObject"]["status"], "Failure");
    for name in ["made", "refused"] {
        assert_eq!(
            (&of(name)["stage"], &of(name)["requestObject"]["kind"]),
            (&json!("ResponseComplete"), &json!("ConfigMap"))
        );
    }
}
