//! Hostile requests through the whole API: whatever a client sends, the answer is an object or a `Status` that blames
//! the client.
//!
//! One target per way in: JSON, YAML, protobuf, patches, queries with their selectors, and paths. `FUZZ_SECONDS` says
//! how long each runs.

mod bodies;
mod input;
mod patches;
mod urls;

use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use proptest::test_runner::TestCaseError;
use serde_json::Value;

use super::Server;

/// No answer to a request of a few kilobytes may take this long, even on a busy machine.
const SLOW: Duration = Duration::from_secs(20);
/// No answer to such a request may be larger.
const LARGE: usize = 4 << 20;

/// An API and the runtime that it runs on, for targets that are plain functions.
struct Target {
    server: Server,
    runtime: tokio::runtime::Runtime,
}

impl Target {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start());
        let target = Self { server, runtime };
        for (path, object) in input::objects() {
            let (code, answer) = target.answer(&request(Method::POST, &path, "application/json", object.to_string()));
            assert!(code == 201, "{path}: {answer}");
        }
        target
    }

    /// Sends the request, and requires an answer that a client can act upon. Gives its code and body.
    fn check(&self, sent: &Sent) -> Result<(u16, Value), TestCaseError> {
        let started = Instant::now();
        let (code, body) = self.answer(sent);
        let fail = |why: String| Err(TestCaseError::fail(format!("{sent:?}: {why}")));
        if started.elapsed() > SLOW {
            return fail(format!("answered after {:?}", started.elapsed()));
        }
        // As in Kubernetes, a revision that does not exist yet is waited for, for a while.
        let in_the_future = code == 504 && body["reason"] == "Timeout";
        if code >= 500 && !in_the_future {
            return fail(format!("{code}: {body}"));
        }
        // Paths outside of the API are told so in plain text, as by Kubernetes.
        let nowhere = code == 404 && body.is_null();
        if code >= 400 && !nowhere && (body["kind"] != "Status" || body["code"] != code) {
            return fail(format!("{code} without its Status: {body}"));
        }
        Ok((code, body))
    }

    /// A watch has no end: of its answer only the code is read.
    fn answer(&self, sent: &Sent) -> (u16, Value) {
        let request = Request::builder().method(&sent.method).uri(&sent.uri).header("content-type", &sent.content_type);
        let request = request.body(Body::from(sent.body.clone())).expect("targets send valid requests");
        self.runtime.block_on(async {
            let response = self.server.send(request).await;
            let code = response.status().as_u16();
            if code == 200 && sent.uri.contains("watch=") {
                return (code, Value::Null);
            }
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            assert!(body.len() < LARGE, "an answer of {} bytes", body.len());
            (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
        })
    }
}

/// A request as the failure shows it.
#[derive(Clone, Debug)]
struct Sent {
    method: Method,
    uri: String,
    content_type: String,
    body: Vec<u8>,
}

fn request(method: Method, uri: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Sent {
    Sent { method, uri: uri.to_owned(), content_type: content_type.to_owned(), body: body.into() }
}
