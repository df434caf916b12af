//! Deletion of many objects that webhooks are asked about: each by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{MAPS, hook, hooks, rule};
use crate::{
    api::tests::{Server, config_map},
    webhook::tests::{Answering, TestServer},
};

const MANY: usize = 60;

async fn with_maps(server: &Server) {
    for n in 0..MANY {
        assert_eq!(server.post(MAPS, config_map(&format!("m{n:02}"), json!({}))).await.code, 201);
    }
}

async fn left(server: &Server) -> Vec<String> {
    let list = server.get(MAPS).await;
    let items = list.json["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn one_refusal_keeps_nothing_that_was_deleted_before_it() {
    let denies = |_: &str, request: &Value| json!({"allowed": request["name"] != "m30", "status": {"message": "no"}});
    let (server, webhook) = hooks(denies).await;
    with_maps(&server).await;
    server.configured("Validating", "deny", vec![hook(&webhook, "/deny", json!({}))]).await;
    let refused = server.delete(MAPS, json!({})).await;
    assert_eq!(refused.code, 400, "{}", refused.text);
    assert_eq!(refused.message(), "admission webhook \"deny.example.com\" denied the request: no");
    let left = left(&server).await;
    assert!(left.contains(&"m30".to_owned()) && left.len() <= MANY / 2, "{left:?}");
}

#[tokio::test]
async fn objects_go_although_the_webhook_hangs_at_a_later_one() {
    let asked = Arc::new(AtomicUsize::new(0));
    let answering: Answering = Arc::new(move |_, review| {
        let hangs = asked.fetch_add(1, Ordering::SeqCst) >= MANY / 2;
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            let response = json!({"allowed": true, "uid": review["request"]["uid"]});
            (200, json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response}))
        })
    });
    let (server, webhook) = (Server::start().await, TestServer::start(&["localhost"], answering).await);
    with_maps(&server).await;
    let deletions = json!({"timeoutSeconds": 1, "rules": [rule(json!(["DELETE"]), "", "v1", json!(["configmaps"]))]});
    server.configured("Validating", "slow", vec![hook(&webhook, "/slow", deletions)]).await;
    assert_eq!(server.delete(MAPS, json!({})).await.code, 500);
    assert_eq!(left(&server).await.len(), MANY / 2);
    assert_eq!(webhook.bodies("/slow").len(), MANY / 2 + 16, "after the failure no further ones are begun");
}

#[tokio::test]
async fn what_nobody_is_asked_about_goes_with_one_sync() {
    let (server, webhook) = hooks(|_, _| json!({"allowed": true})).await;
    with_maps(&server).await;
    let pods = json!({"rules": [rule(json!(["*"]), "", "v1", json!(["pods"])),
        rule(json!(["CREATE", "UPDATE"]), "", "v1", json!(["configmaps"]))]});
    server.configured("Validating", "pods", vec![hook(&webhook, "/pods", pods)]).await;
    let syncs = || server.api.store().stats().sync_seconds.counts.iter().sum::<u64>();
    let before = syncs();
    let list = server.delete(MAPS, json!({})).await;
    assert_eq!((list.code, &list.json["kind"]), (200, &json!("ConfigMapList")));
    assert_eq!(list.json["items"].as_array().unwrap().len(), MANY);
    assert_eq!(syncs() - before, 1);
    assert!(webhook.bodies("/pods").is_empty());
}

#[tokio::test]
async fn a_page_of_a_collection_is_deleted_and_answered_as_a_page() {
    let server = Server::start().await;
    with_maps(&server).await;
    let page = server.delete(&format!("{MAPS}?limit=20"), json!({})).await;
    assert_eq!((page.code, page.json["items"].as_array().unwrap().len()), (200, 20));
    assert_eq!(page.json["metadata"]["remainingItemCount"], 40);
    assert_eq!(left(&server).await.len(), 40);
    let token = page.json["metadata"]["continue"].as_str().unwrap();
    let next = server.delete(&format!("{MAPS}?limit=30&continue={token}"), json!({})).await;
    assert_eq!(next.json["items"][0]["metadata"]["name"], "m20");
    assert_eq!(left(&server).await.len(), 10);
}

#[tokio::test]
async fn a_definition_whose_objects_cannot_be_deleted_holds_up_no_other() {
    let released = Arc::new(tokio::sync::Semaphore::new(0));
    let release = released.clone();
    let answering: Answering = Arc::new(move |_, review| {
        let released = released.clone();
        Box::pin(async move {
            // Until it is closed.
            assert!(released.acquire().await.is_err());
            let response = json!({"allowed": false, "uid": review["request"]["uid"]});
            (200, json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response}))
        })
    });
    let (mut server, webhook) = (Server::start().await, TestServer::start(&["localhost"], answering).await);
    server.run_definitions();
    let definition = |plural: &str, kind: &str| {
        json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com",
            "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": [{"name": "v1",
                "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    };
    server.define(definition("widgets", "Widget")).await;
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
    assert_eq!(server.post(widgets, widget).await.code, 201);
    let rules =
        json!({"timeoutSeconds": 30, "rules": [rule(json!(["DELETE"]), "example.com", "v1", json!(["widgets"]))]});
    server.configured("Validating", "deny", vec![hook(&webhook, "/deny", rules)]).await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(server.delete(&format!("{definitions}/widgets.example.com"), json!({})).await.code, 200);
    let asked = async |times: usize| {
        let asked = async {
            while webhook.bodies("/deny").len() < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    };
    asked(1).await;
    server.define(definition("gadgets", "Gadget")).await;
    release.close();
    // It is tried again.
    asked(3).await;
    assert_eq!(server.get(&format!("{widgets}/w")).await.code, 200, "nobody let it go");

    let configuration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/deny";
    assert_eq!(server.delete(configuration, json!({})).await.code, 200);
    server.wait(&format!("{definitions}/widgets.example.com"), "gone", |answer| answer["code"] == 404).await;
}
