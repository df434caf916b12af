//! Admission webhooks over TLS: what they are asked, and what becomes of their answers.

mod asked;
mod collections;
mod denials;
mod meanwhile;
mod mutating;
mod policies;
mod unstored;

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Answer, Server};
use crate::webhook::tests::{Answering, TestServer};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server whose webhooks answer with what `respond` makes of path and request.
pub async fn hooks(respond: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> (Server, TestServer) {
    let respond = Arc::new(respond);
    let answering: Answering = Arc::new(move |path, review| {
        let respond = respond.clone();
        Box::pin(async move {
            let path = path.split('?').next().unwrap_or_default();
            let mut response = respond(path, &review["request"]);
            if response["uid"].is_null() {
                response["uid"] = review["request"]["uid"].clone();
            }
            (200, json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response}))
        })
    });
    (Server::start().await, TestServer::start(&["localhost"], answering).await)
}

/// An answer that patches the object.
pub fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string())})
}

fn rule(operations: Value, group: &str, version: &str, resources: Value) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": resources})
}

/// A webhook at a path, about ConfigMaps unless `changes` say otherwise.
pub fn hook(at: &TestServer, path: &str, changes: Value) -> Value {
    let name = format!("{}.example.com", path.trim_start_matches('/'));
    let mut hook = json!({"name": name, "clientConfig": at.client_config(path), "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [rule(json!(["*"]), "", "v1", json!(["configmaps"]))]});
    for (field, value) in changes.as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

impl Server {
    /// Stores a configuration: `Mutating` or `Validating`.
    pub async fn configure(&self, kind: &str, name: &str, webhooks: Vec<Value>) -> Answer {
        let path = format!("{CONFIGURATIONS}/{}webhookconfigurations", kind.to_lowercase());
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": name}, "webhooks": webhooks});
        self.post(&path, configuration).await
    }

    /// The same, which must be taken.
    async fn configured(&self, kind: &str, name: &str, webhooks: Vec<Value>) {
        let answer = self.configure(kind, name, webhooks).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
    }
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}
