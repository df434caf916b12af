//! Priority and fairness as a whole: requests through a gate, over HTTP, and the objects of a running service.

mod answers;
mod flood;
mod objects;
mod waiting;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::body::Body;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{fair_queuing::FlowRefusal, *};
use crate::{
    api::open_store,
    auth::{
        authorizer::Authorizer,
        client_certificate::CertificateIdentity,
        gate::{ConnectionCertificate, Gate, Handler},
        open_answers::OpenAnswers,
    },
    encode,
    kinds::flowcontrol::bootstrap,
    metrics::Metrics,
    request::held_bytes::HeldBytes,
    store::{Change, Expect, Key, Write},
};

/// Asks the handler to hold the request until it is told to let all go.
const HOLD: &str = "x-hold";
/// Asks the handler for an answer that takes some time to be sent.
const LONG: &str = "x-long";
/// The value of that for an answer that is passed on from another server.
const OF_ANOTHER: &str = "of-another";
/// Asks it for an answer of a mebibyte, which is there at once.
const LARGE: &str = "x-large";

/// Answers everything; what asks for it is held.
struct Holding {
    held: AtomicUsize,
    released: Semaphore,
}

#[async_trait::async_trait]
impl Handler for Holding {
    fn is_long_running(&self, info: &RequestInfo) -> bool {
        let subresource = info.resource().and_then(|path| path.subresource.as_deref());
        info.verb == Verb::Watch || subresource == Some("exec")
    }

    async fn answer(&self, _: RequestInfo, request: Request<Body>) -> Response<Body> {
        if request.headers().contains_key(HOLD) {
            self.held.fetch_add(1, Relaxed);
            self.released.acquire().await.expect("never closed").forget();
        }
        if request.headers().contains_key(LONG) {
            let pieces = std::iter::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b'x'; 64 << 10])));
            let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces.take(10))));
            if request.headers()[LONG] != OF_ANOTHER {
                response.extensions_mut().insert(HeldBytes(1 << 20));
            }
            return response;
        }
        if request.headers().contains_key(LARGE) {
            return Response::new(Body::from(bytes::Bytes::from_static(&[b'x'; 1 << 20])));
        }
        Response::new(Body::from("done"))
    }
}

impl Holding {
    fn new() -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), released: Semaphore::new(0) })
    }
}

/// A gate that lets everybody do everything, once there is a seat for it.
struct Guarded {
    gate: Gate,
    control: FlowControl,
    handler: Arc<Holding>,
    _dir: tempfile::TempDir,
}

impl Guarded {
    /// With the default levels, which divide so many seats.
    async fn start(seats: usize) -> Self {
        let (dir, kinds) = (tempfile::tempdir().unwrap(), Registry::default());
        let store: Arc<dyn Store> = Arc::new(open_store(&dir.path().join("store"), &kinds).unwrap());
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]}]});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "all"},
            "subjects": [{"kind": "Group", "name": "system:authenticated"}]});
        for object in bootstrap::objects().chain([role, binding]) {
            put(&store, &kinds, &object).await;
        }
        let control = FlowControl::new(store.clone(), kinds, seats);
        let handler = Holding::new();
        let metrics = Metrics::default().requests().clone();
        let gate = Gate::new(handler.clone(), Authorizer::new(store), metrics, CancellationToken::new());
        Self { gate: gate.limited_to(control.clone()), control, handler, _dir: dir }
    }

    fn ask(&self, identity: &Identity, request: Request<Body>) -> impl Future<Output = Response<Body>> + use<> {
        self.gate.clone().answer(request, certificate(identity))
    }

    fn counts(&self, schema: &str) -> Counts {
        let policy = self.control.inner.policy.load();
        let stats = &policy.schemas.iter().find(|of| &*of.name == schema).expect("a schema").stats;
        Counts {
            executing: stats.executing.requests.load(Relaxed),
            waiting: stats.waiting.requests.load(Relaxed),
            refused: FlowRefusal::ALL.iter().map(|why| stats.refused(*why)).sum(),
        }
    }
}

/// As a connection's, which runs.
fn open_answers() -> OpenAnswers {
    let answers = OpenAnswers::default();
    let run = answers.clone();
    tokio::spawn(async move { run.cut_late().await });
    answers
}

/// The requests of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    executing: usize,
    waiting: usize,
    refused: u64,
}

async fn put(store: &Arc<dyn Store>, kinds: &Registry, object: &Value) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let kind = kinds.snapshot().by_api_version(&text(&object["apiVersion"]), &text(&object["kind"])).expect("a kind");
    let mut object = object.clone();
    object["metadata"]["uid"] = json!(format!("uid-of-{}", text(&object["metadata"]["name"])));
    let key = Key { resource: kind.resource().into(), name: text(&object["metadata"]["name"]).into() };
    let write = Write { key, expect: Expect::Absent, change: Change::Put(encode::draft(&kind, &object)) };
    store.write_one(write).await.expect("written");
}

fn certificate(identity: &Identity) -> Arc<ConnectionCertificate> {
    Arc::new(Some(Ok(CertificateIdentity { identity: identity.clone(), not_after: i64::MAX })))
}

fn user(name: &str) -> Identity {
    Identity::authenticated(name.to_owned(), Vec::new())
}

fn node(name: &str) -> Identity {
    Identity::authenticated(format!("system:node:{name}"), vec!["system:nodes".into()])
}

/// Waits for something that another task does.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what} in time"));
}
