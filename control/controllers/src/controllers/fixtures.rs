//! What the tests of several controllers make.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use fairlead_client::Object;
use http::{Request, Response};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};

pub use crate::objects::fixtures::{list, replica_set};

/// The moment of all tests.
pub fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a valid time")
}

/// `object`, changed by a merge patch.
pub fn with<K: Object>(object: Arc<K>, patch: Value) -> Arc<K> {
    let mut value = fairlead_client::to_value(&*object).expect("an object");
    merge(&mut value, &patch);
    Arc::new(fairlead_client::from_value(&value).expect("a valid object"))
}

/// A client of an API that answers its nth request with the code that `answer` gives for n.
pub fn api(answer: impl Fn(usize) -> u16 + Clone + Send + Sync + 'static) -> Client {
    let asked = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |_: Request<Body>| {
        let code = answer(asked.fetch_add(1, SeqCst));
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "no", "reason": "no", "code": code});
        let body = if code < 300 { json!({"metadata": {"name": "made"}}) } else { status };
        std::future::ready(Response::builder().status(code).body(Body::from(body.to_string().into_bytes())))
    });
    Client::new(service, "default")
}

/// Applies a merge patch.
pub fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                match value {
                    Value::Null => {
                        into.shift_remove(key);
                    }
                    value => merge(into.entry(key.clone()).or_insert(Value::Null), value),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
