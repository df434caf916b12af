//! The API as its clients meet it: requests through the router, answers as they come.

mod admission;
mod admission_plugins;
mod conversion;
mod creation_by_update;
mod custom_kinds;
pub mod custom_resources;
mod field_management;
mod fuzz;
mod kinds;
mod metrics;
mod negotiation;
mod objects;
mod paths;
mod reads;
mod sent_empties;
mod stored_kinds;
mod subresources;
mod tokens;
mod watches;
pub mod webhooks;
mod writes;

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Api, open_store};
use crate::{
    admission_plugins::AdmissionPlugins,
    allocation::Allocator,
    auth::{Identity, account_token::TokenIssuer, pki::TokenKey},
    encode,
    kinds::Registry,
    store::{Change, Expect, Key, Write},
    webhook::Network,
};

/// An API over a store of its own.
pub struct Server {
    /// The API itself, without TLS or authentication before it.
    pub api: Api,
    /// Where its store is, if it is to be removed with the server.
    _dir: Option<tempfile::TempDir>,
    /// What runs beside it.
    _tasks: Option<tokio_util::sync::DropGuard>,
}

/// An answer read whole.
pub struct Answer {
    /// HTTP code.
    pub code: u16,
    /// As they were sent.
    pub headers: http::HeaderMap,
    /// The body; null where it is not JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
}

impl Server {
    /// With the namespace `default`, the account that its pods run as, and nothing else.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kinds = Registry::default();
        let store = open_store(&dir.path().join("store.redb"), &kinds).unwrap();
        let allocator = Allocator::new("10.96.0.0/12".parse().unwrap(), 30000..=32767);
        let api = Api::new(Arc::new(store), kinds, allocator, "127.0.0.1:6443");
        let (key, _) = TokenKey::create().unwrap();
        let url = "https://kubernetes.default.svc.cluster.local".to_owned();
        api.authorizer().facts().issue_tokens_by(TokenIssuer::new(key, url, "127.0.0.1:6443"));
        let server = Self { api, _dir: Some(dir), _tasks: None };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        assert_eq!(server.post("/api/v1/namespaces", namespace).await.code, 201);
        server.add_account("default").await;
        server
    }

    /// Another server over the same store and kinds, with these admission plugins on and off.
    pub fn with_plugins(&self, enable: &str, disable: &str) -> Self {
        let plugins = AdmissionPlugins::of(&[enable.parse().unwrap()], &[disable.parse().unwrap()]).unwrap();
        let allocator = Allocator::new("10.96.0.0/12".parse().unwrap(), 30000..=32767);
        let (store, kinds) = (self.api.store_handle(), self.api.kinds().clone());
        let api = Api::in_network(store, kinds, allocator, "127.0.0.1:6443", Arc::new(Network), &plugins);
        Self { api, _dir: None, _tasks: None }
    }

    /// Makes the account of the pods of a namespace, as its controller would.
    pub async fn add_account(&self, namespace: &str) {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        assert_eq!(self.post(&path, account).await.code, 201);
    }

    /// A typed client that may do everything.
    pub fn client(&self) -> kube::Client {
        self.api.client(Identity::control("test"))
    }

    /// Sends the request as one who may do everything.
    pub async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        self.api.answer_as(Identity::control("test"), request).await
    }

    /// Sends the request as a user, past the gate, and reads the whole answer.
    pub async fn call_as(&self, user: &str, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.to_string().into()).unwrap();
        let identity = Identity::authenticated(user.into(), Vec::new());
        Answer::read(self.api.answer_as(identity, request).await).await
    }

    /// As [`Server::send`], and reads the whole answer.
    pub async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(self.send(request.body(body.into()).unwrap()).await).await
    }

    /// Puts an object into the store past all checks: one that an earlier program took.
    pub async fn store_as_it_is(&self, resource: &str, key: &str, object: &Value) {
        let key = Key { resource: resource.into(), name: key.into() };
        let change = Change::Put(encode::unserved(object));
        self.api.store().write_one(Write { key, expect: Expect::Absent, change }).await.unwrap();
    }

    /// `GET`, answered as JSON.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    /// `GET` with this `Accept` header.
    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.call(Method::GET, path, &[(header::ACCEPT.as_str(), accept)], Body::empty()).await
    }

    /// `POST` of an object as JSON.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, &[], body.to_string()).await
    }

    /// `PUT` of an object as JSON.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, &[], body.to_string()).await
    }

    /// `PATCH` with a JSON Merge Patch.
    pub async fn merge(&self, path: &str, body: Value) -> Answer {
        let content_type = (header::CONTENT_TYPE.as_str(), "application/merge-patch+json");
        self.call(Method::PATCH, path, &[content_type], body.to_string()).await
    }

    /// `DELETE` with these DeleteOptions.
    pub async fn delete(&self, path: &str, options: Value) -> Answer {
        self.call(Method::DELETE, path, &[], options.to_string()).await
    }
}

impl Answer {
    async fn read(response: http::Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&text).into_owned();
        Self { code: parts.status.as_u16(), headers: parts.headers, json, text }
    }

    /// `metadata.name` of the object.
    pub fn name(&self) -> &str {
        self.json["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Code, and reason of the Status.
    pub fn reason(&self) -> (u16, &str) {
        (self.code, self.json["reason"].as_str().unwrap_or_default())
    }

    /// The Status' message.
    pub fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or_default()
    }
}

/// A ConfigMap with the key `k`.
pub fn config_map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})
}

/// A pod with one container.
pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[test]
fn two_builds_of_one_size_and_one_time_have_different_marks() {
    let dir = tempfile::tempdir().unwrap();
    let mark = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        super::mark_of(&std::fs::metadata(&path).unwrap())
    };
    assert_ne!(mark("one"), mark("two"));
}
