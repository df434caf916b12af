//! A server for tests of the client: gives prepared answers in their order and keeps what was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};

use super::{Cluster, ResourceType, Resources};

/// One answer of the server.
pub enum Answer {
    /// A status code and a body that is complete.
    Body(u16, Vec<u8>),
    /// A body that breaks off behind these bytes.
    Broken(Vec<u8>),
    /// No connection.
    Unreachable,
}

impl Answer {
    /// A complete answer that is this JSON.
    pub fn json(value: &Value) -> Self {
        Self::Body(200, value.to_string().into_bytes())
    }

    /// A refusal, as a Status.
    pub fn refusal(code: u16, reason: &str, message: &str) -> Self {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": message});
        Self::Body(code, status.to_string().into_bytes())
    }

    /// A watch that ends behind these events, as one does at its timeout.
    pub fn events(events: &[Value]) -> Self {
        Self::Body(200, lines(events))
    }

    /// A watch whose connection breaks behind these events.
    pub fn broken(events: &[Value]) -> Self {
        Self::Broken(lines(events))
    }
}

fn lines(events: &[Value]) -> Vec<u8> {
    events.iter().map(|event| format!("{event}\n")).collect::<String>().into_bytes()
}

/// The server; what it is asked beyond its answers never returns.
#[derive(Clone)]
pub struct FakeServer(Arc<State>);

struct State {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<String>>,
}

impl FakeServer {
    /// A server with these answers.
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(State { answers: Mutex::new(answers.into_iter().collect()), requests: Mutex::default() }))
    }

    /// Method, path and query of every request, in order.
    pub fn requests(&self) -> Vec<String> {
        self.0.requests.lock().expect("no test panics here").clone()
    }

    /// A cluster on this server, which serves pods and services.
    pub fn cluster(&self, namespace: &str) -> Cluster {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(format!("{} {}", request.method(), request.uri())).await }
        });
        let client = kube::Client::new(service, namespace);
        Cluster::for_tests(client, namespace, Resources::of(vec![pods(), services(), nodes()]))
    }

    async fn answer(&self, request: String) -> Result<Response<BoxBody<Bytes, std::io::Error>>, std::io::Error> {
        self.0.requests.lock().expect("no test panics here").push(request);
        let answer = self.0.answers.lock().expect("no test panics here").pop_front();
        match answer {
            Some(Answer::Body(code, bytes)) => {
                let body = Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed();
                Ok(Response::builder().status(code).body(body).expect("a valid answer"))
            }
            Some(Answer::Broken(bytes)) => {
                let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                let frames = [Ok(Frame::data(Bytes::from(bytes))), Err(broken)];
                Ok(Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames)))))
            }
            Some(Answer::Unreachable) => Err(std::io::ErrorKind::ConnectionRefused.into()),
            None => std::future::pending().await,
        }
    }
}

/// The resource `pods`.
pub fn pods() -> ResourceType {
    resource("Pod", "pods", "pod", true)
}

fn services() -> ResourceType {
    resource("Service", "services", "service", true)
}

fn nodes() -> ResourceType {
    resource("Node", "nodes", "node", false)
}

fn resource(kind: &str, plural: &str, singular: &str, namespaced: bool) -> ResourceType {
    ResourceType {
        version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
        singular: singular.into(),
        namespaced,
        ..ResourceType::default()
    }
}
